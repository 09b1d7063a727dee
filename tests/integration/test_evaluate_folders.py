"""``monai-tl evaluate`` on folders that this package did not make: numbers by numpy, files by nibabel and highdicom."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import nibabel
import numpy as np
import pytest
from foreign_seg import foreign_seg
from seg_series import SCHEME, make_series, random_labels, write
from typer.testing import CliRunner

from monai_tl.cli import app
from monai_tl.commands.evaluate import run
from monai_tl.dicom.segmentation_alone import open_alone
from monai_tl.errors import ConfigError, DataError
from monai_tl.geometry import affine_lps_to_ras

AFFINE = np.array([[0.8, 0, 0, -3], [0, 0.7, 0, 4], [0, 0, 2.5, -10], [0, 0, 0, 1.0]])
SHAPE = (12, 14, 8)


@pytest.fixture(autouse=True)
def _sequential(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MONAI_TL_EXECUTOR", "sequential")


def save(path: Path, label: np.ndarray, affine: np.ndarray = AFFINE) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    image = nibabel.Nifti1Image(label, affine)
    image.set_sform(affine, 1)
    nibabel.save(image, path)


def labels(seed: int, n_classes: int = 2) -> np.ndarray:
    label = np.random.default_rng(seed).integers(0, n_classes + 1, SHAPE).astype(np.uint8)
    label[0] = label[:, 0] = label[:, :, 0] = 0
    return label


def dice_of(first: np.ndarray, second: np.ndarray) -> float:
    return 2 * np.count_nonzero(first & second) / (np.count_nonzero(first) + np.count_nonzero(second))


def rows(out: Path) -> dict[tuple[str, str], dict[str, str]]:
    with (out / "cases.csv").open(encoding="utf-8") as stream:
        return {(row["case"], row["class"]): row for row in csv.DictReader(stream)}


def record(out: Path) -> dict:
    return json.loads((out / "metrics.json").read_text(encoding="utf-8"))


def nifti_folders(tmp_path: Path, n: int = 3) -> tuple[Path, Path]:
    for index in range(n):
        save(tmp_path / f"references/ward/case-{index}.nii.gz", labels(index))
        save(tmp_path / f"predictions/ward/case-{index}.nii.gz", labels(index + 50))
    return tmp_path / "predictions", tmp_path / "references"


def test_each_score_is_that_of_the_arrays_and_a_missing_prediction_scores_worst(tmp_path: Path) -> None:
    predictions, references = nifti_folders(tmp_path, 4)
    (predictions / "ward/case-2.nii.gz").unlink()
    save(predictions / "ward/another.nii.gz", labels(9))
    run(predictions, references, tmp_path / "out")
    found = rows(tmp_path / "out")
    for index in (0, 1, 3):
        for value in (1, 2):
            row = found[f"ward/case-{index}", f"value {value}"]
            assert float(row["dice"]) == pytest.approx(
                dice_of(labels(index) == value, labels(index + 50) == value), abs=1e-6
            )
            voxel_ml = 0.8 * 0.7 * 2.5 / 1000
            assert float(row["reference_ml"]) == pytest.approx((labels(index) == value).sum() * voxel_ml, abs=1e-6)
    missing = found["ward/case-2", "value 1"]
    diagonal = np.sqrt((12 * 0.8) ** 2 + (14 * 0.7) ** 2 + (8 * 2.5) ** 2)
    assert (missing["failed"], float(missing["dice"])) == ("1", 0.0)
    assert float(missing["hd95_mm"]) == pytest.approx(diagonal, abs=1e-5)
    numbers = record(tmp_path / "out")
    assert (numbers["n_cases"], numbers["n_failed"], numbers["n_predictions_without_reference"]) == (4, 1, 1)
    dice = [float(found[f"ward/case-{index}", "value 1"]["dice"]) for index in range(4)]
    summary = numbers["classes"]["value 1"]["dice"]
    assert summary["mean"] == pytest.approx(np.mean(dice), abs=1e-6)
    assert (summary["n"], summary["n_empty"], summary["n_failed"]) == (4, 0, 1)


def test_a_class_in_neither_is_counted_as_empty_and_a_false_one_scores_0(tmp_path: Path) -> None:
    for index in range(3):
        save(tmp_path / f"r/{index}.nii", np.where(labels(index) == 1, 1, 0).astype(np.uint8))
        save(tmp_path / f"p/{index}.nii", np.where(labels(index) == 1, 1, 0).astype(np.uint8))
    save(tmp_path / "p/2.nii", labels(2))
    run(tmp_path / "p", tmp_path / "r", tmp_path / "out")
    summary = record(tmp_path / "out")["classes"]["value 2"]["dice"]
    assert (summary["mean"], summary["n"], summary["n_empty"]) == (0.0, 1, 2)


def test_axes_stored_the_other_way_round_change_nothing(tmp_path: Path) -> None:
    predictions, references = nifti_folders(tmp_path)
    run(predictions, references, tmp_path / "plain")
    turned = AFFINE.copy()
    turned[:3, 0] *= -1
    turned[:3, 3] += AFFINE[:3, 0] * (SHAPE[0] - 1)
    turned = turned[:, [2, 0, 1, 3]]
    for index in range(3):
        stored = np.transpose(labels(index + 50)[::-1], (2, 0, 1))
        save(predictions / f"ward/case-{index}.nii.gz", np.ascontiguousarray(stored), turned)
    run(predictions, references, tmp_path / "turned")
    assert (tmp_path / "turned/cases.csv").read_bytes() == (tmp_path / "plain/cases.csv").read_bytes()


def test_another_grid_is_refused_by_number_and_nothing_is_written(tmp_path: Path) -> None:
    predictions, references = nifti_folders(tmp_path)
    other = AFFINE.copy()
    other[2, 3] += 1.0
    save(predictions / "ward/case-1.nii.gz", labels(1), other)
    with pytest.raises(DataError, match="case 2: the prediction lies on another grid") as caught:
        run(predictions, references, tmp_path / "out")
    assert "case-1" not in str(caught.value)
    assert list((tmp_path / "out").iterdir()) == []


def test_a_damaged_file_is_told_before_anything_is_scored(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    predictions, references = nifti_folders(tmp_path)
    path = predictions / "ward/case-0.nii.gz"
    path.write_bytes(path.read_bytes()[:60])
    with pytest.raises(DataError, match="case 1: prediction: the label file") as caught:
        run(predictions, references, tmp_path / "out")
    assert "1 of 3 cases" in str(caught.value)
    assert "evaluate:" not in capsys.readouterr().out


def test_names_that_do_not_fit_are_no_row_of_worst_scores(tmp_path: Path) -> None:
    save(tmp_path / "r/a.nii", labels(0))
    save(tmp_path / "p/b.nii", labels(0))
    with pytest.raises(ConfigError, match="no file belongs to a reference"):
        run(tmp_path / "p", tmp_path / "r", tmp_path / "out")


def test_names_that_half_fit_are_refused_and_not_scored_as_missing(tmp_path: Path) -> None:
    """One prediction lies where its reference does; two others in another folder would count as missing."""
    for index in range(3):
        save(tmp_path / f"r/ward/case-{index}.nii", labels(index))
        save(tmp_path / f"p/{'ward' if index == 0 else 'night'}/case-{index}.nii", labels(index))
    with pytest.raises(ConfigError, match="1 of 3 references have one, and 2 more would by the last part"):
        run(tmp_path / "p", tmp_path / "r", tmp_path / "out")
    (tmp_path / "p/night").rename(tmp_path / "p/night-before")
    (tmp_path / "p/ward/case-0.nii").rename(tmp_path / "p/night-before/case-0.nii")
    # none fits by its folder, all by the last part
    run(tmp_path / "p", tmp_path / "r", tmp_path / "out")
    assert record(tmp_path / "out")["n_failed"] == 0


def test_seg_that_half_fit_by_series_and_by_name_are_refused(tmp_path: Path) -> None:
    for folder in ("r", "p"):
        (tmp_path / folder).mkdir()
    for name in ("one", "two"):
        geometry = make_series(tmp_path, name=f"series {name}")
        write(tmp_path / f"r/{name}.dcm", random_labels(), geometry)
        # the second was drawn on a copy of the series with other UIDs
        other = geometry if name == "one" else make_series(tmp_path, name="anonymised")
        write(tmp_path / f"p/{name}.dcm", random_labels(), other)
    with pytest.raises(ConfigError, match="1 of 2 references have one, and 1 more would"):
        run(tmp_path / "p", tmp_path / "r", tmp_path / "out")


def test_left_over_names_that_fit_nothing_are_told(tmp_path: Path) -> None:
    for index in range(2):
        save(tmp_path / f"r/case-{index}.nii", labels(index))
        save(tmp_path / f"p/{'case-0' if index == 0 else 'seg_001'}.nii", labels(index))
    said = run(tmp_path / "p", tmp_path / "r", tmp_path / "out")
    assert "1 prediction has no reference and no score" in said
    assert "1 reference has no prediction and the worst score; where they were meant for those" in said


@pytest.mark.parametrize(("predictions", "references"), [("a", "a"), ("a/b", "a"), ("a", "a/b"), ("link", "a")])
def test_references_are_not_compared_with_themselves(tmp_path: Path, predictions: str, references: str) -> None:
    save(tmp_path / "a/case.nii", labels(0))
    save(tmp_path / "a/b/case.nii", labels(1))
    (tmp_path / "link").symlink_to(tmp_path / "a")
    with pytest.raises(ConfigError, match="--predictions and --references"):
        run(tmp_path / predictions, tmp_path / references, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_folder_of_converted_volumes_gives_its_labels(tmp_path: Path) -> None:
    """Images lie beside ``_label`` files; predictions as ``segment`` writes them, one folder a case."""
    for index in range(2):
        save(tmp_path / f"r/case-{index}.nii.gz", np.full(SHAPE, -1000, dtype=np.int16))
        save(tmp_path / f"r/case-{index}_label.nii.gz", labels(index))
        save(tmp_path / f"p/case-{index}/label.nii.gz", labels(index))
    run(tmp_path / "p", tmp_path / "r", tmp_path / "out")
    assert {name for name, _ in rows(tmp_path / "out")} == {"case-0", "case-1"}
    assert record(tmp_path / "out")["overall"]["dice"]["mean"] == 1.0


def test_the_table_groups_patients_and_cases_and_its_ids_stay_outside(tmp_path: Path) -> None:
    predictions, references = nifti_folders(tmp_path, 8)
    lines = ["case,patient,site,age"]
    lines += [
        f"ward/case-{index},MRN-{index // 2},{'north' if index < 6 else 'south'},{30 + 7 * index}" for index in range(8)
    ]
    (tmp_path / "table.csv").write_text("\n".join(lines), encoding="utf-8")
    summary = run(predictions, references, tmp_path / "out", cases=tmp_path / "table.csv")
    numbers = record(tmp_path / "out")
    assert numbers["n_patients"] == 4
    groups = {(row["attribute"], row["group"]): row for row in numbers["subgroups"]}
    assert groups["site", "north"]["n"] == 6
    assert groups["site", "north"]["n_patients"] == 3
    assert groups["site", "north"]["low"] is None
    assert groups["site", "south"]["warning"] == "1 patient: too few for an interval"
    assert {name for attribute, name in groups if attribute == "age"} == {"18–40", "40–65", "65–80"}
    everything = summary + "".join(path.read_text(encoding="utf-8") for path in (tmp_path / "out").iterdir())
    assert "MRN" not in everything
    (tmp_path / "table.csv").write_text("\n".join(lines[:5]), encoding="utf-8")
    with pytest.raises(ConfigError, match="4 of 8 cases have no row, the first is number 5"):
        run(predictions, references, tmp_path / "out2", cases=tmp_path / "table.csv")


# ---- DICOM SEG ----


@pytest.mark.parametrize("kind", ["head first", "feet first", "tilted", "coronal"])
def test_a_seg_by_itself_lies_where_its_series_lies(tmp_path: Path, kind: str) -> None:
    """Frames 0 and 4 are empty and left out: each voxel that is drawn is found at its place in the world."""
    geometry = make_series(tmp_path, kind)
    drawn = random_labels()
    content = open_alone(write(tmp_path / "seg.dcm", drawn, geometry))
    affine = affine_lps_to_ras(geometry.affine_lps)
    for one in content.structures:
        value = SCHEME.names.index(one.name) + 1
        expected = (affine @ np.array([*np.argwhere(drawn == value).T[::-1], np.ones((drawn == value).sum())]))[:3].T
        mask = content.mask([one.number])
        found = (content.affine @ np.array([*np.argwhere(mask).T, np.ones(mask.sum())]))[:3].T
        order = [np.lexsort(np.round(points, 3).T) for points in (expected, found)]
        np.testing.assert_allclose(found[order[1]], expected[order[0]], atol=1e-4)


@pytest.mark.parametrize("kind", ["head first", "tilted"])
def test_seg_against_seg_by_the_series_they_name(tmp_path: Path, kind: str) -> None:
    """File names mean nothing; the frames of one reach further than those of the other."""
    expected = {}
    for folder in ("r", "p"):
        (tmp_path / folder).mkdir()
    for index in range(3):
        geometry = make_series(tmp_path, kind, f"series{index}")
        first, second = random_labels(seed=index), random_labels(seed=index + 7)
        second[1] = 0
        write(tmp_path / f"r/{index}.dcm", first, geometry)
        write(tmp_path / f"p/x{(index + 1) % 3}.dcm", second, geometry)
        for value, name in enumerate(SCHEME.names, start=1):
            expected[str(index), name] = dice_of(first == value, second == value)
    run(tmp_path / "p", tmp_path / "r", tmp_path / "out")
    found = {key: float(row["dice"]) for key, row in rows(tmp_path / "out").items()}
    assert found == pytest.approx(expected, abs=1e-6)


def test_segments_of_another_program_that_overlap_are_scored_whole(tmp_path: Path) -> None:
    geometry = make_series(tmp_path)
    generator = np.random.default_rng(0)
    masks = [generator.random((6, 7, 9, 3)) < 0.4 for _ in range(2)]
    assert (masks[0].sum(axis=-1) > 1).any()
    for folder, mask in zip("rp", masks, strict=True):
        (tmp_path / folder).mkdir()
        foreign_seg(tmp_path / folder / "seg.dcm", mask.astype(np.uint8), geometry)
    run(tmp_path / "p", tmp_path / "r", tmp_path / "out")
    found = {name: float(row["dice"]) for (_, name), row in rows(tmp_path / "out").items()}
    expected = {
        name: dice_of(masks[0][..., k], masks[1][..., k]) for k, name in enumerate(("liver", "tumour", "vessel"))
    }
    assert found == pytest.approx(expected, abs=1e-6)


def test_nifti_against_seg_needs_classes_and_then_gives_the_same(tmp_path: Path) -> None:
    geometry = make_series(tmp_path)
    first, second = random_labels(seed=1), random_labels(seed=2)
    (tmp_path / "r").mkdir()
    write(tmp_path / "r/one.dcm", first, geometry)
    affine = affine_lps_to_ras(geometry.affine_lps)
    save(tmp_path / "p/one.nii.gz", np.ascontiguousarray(second.transpose(2, 1, 0)) * 10, affine)
    with pytest.raises(ConfigError, match="--classes: is needed where NIfTI meets DICOM SEG"):
        run(tmp_path / "p", tmp_path / "r", tmp_path / "out")
    specs = [{"name": name, "values": [10 * value]} for value, name in enumerate(SCHEME.names, start=1)]
    (tmp_path / "classes.yaml").write_text(json.dumps({"classes": specs}), encoding="utf-8")
    run(tmp_path / "p", tmp_path / "r", tmp_path / "out", classes=tmp_path / "classes.yaml")
    for value, name in enumerate(SCHEME.names, start=1):
        expected = dice_of(first == value, second == value)
        assert float(rows(tmp_path / "out")["one", name]["dice"]) == pytest.approx(expected, abs=1e-6)


def test_a_seg_on_finer_pixels_is_refused(tmp_path: Path) -> None:
    geometry = make_series(tmp_path)
    (tmp_path / "r").mkdir()
    write(tmp_path / "r/one.dcm", random_labels(), geometry)
    affine = affine_lps_to_ras(geometry.affine_lps) @ np.diag([0.5, 0.5, 1, 1])
    save(tmp_path / "p/one.nii.gz", np.ones((18, 14, 6), dtype=np.uint8), affine)
    (tmp_path / "classes.yaml").write_text("liver:\n", encoding="utf-8")
    with pytest.raises(DataError, match="case 1: the prediction lies on another grid"):
        run(tmp_path / "p", tmp_path / "r", tmp_path / "out", classes=tmp_path / "classes.yaml")


def test_no_prediction_scores_worse_than_any_where_a_seg_has_few_planes(tmp_path: Path) -> None:
    """Plane 1 against plane 5, nothing against planes 1 and 2, and a class that is not predicted."""
    planes = {"far": ([1], [5]), "missing": ([1, 2], None), "empty": ([2, 3], [3])}
    for folder in ("r", "p"):
        (tmp_path / folder).mkdir()
    for name, (drawn, predicted) in planes.items():
        geometry = make_series(tmp_path, name=f"series {name}")
        for folder, where in (("r", drawn), ("p", predicted)):
            label = np.zeros((6, 7, 9), dtype=np.uint8)
            label[where or [], 2:5, 2:6] = 1
            if name == "empty":
                label[3, 2:5, 7] = 2
                label[label == 1] = 1 if folder == "r" else 0
            if where is not None:
                write(tmp_path / folder / f"{name}.dcm", label, geometry)
    run(tmp_path / "p", tmp_path / "r", tmp_path / "out")
    found = rows(tmp_path / "out")
    distances = ("hd95_mm", "hd100_mm", "mean_surface_distance_mm")
    # the two masks of the first case span planes 1 to 5, and nothing is larger
    diagonal = np.sqrt((9 * 0.8) ** 2 + (7 * 0.7) ** 2 + (5 * 2.5) ** 2)
    far = found["far", "liver"]
    assert float(far["hd100_mm"]) >= 10.0
    for name in ("missing", "empty"):
        assert [float(found[name, "liver"][one]) for one in distances] == pytest.approx([diagonal] * 3, abs=1e-5)
        assert all(float(found[name, "liver"][one]) > float(far[one]) for one in distances)
    voxel_ml = 0.8 * 0.7 * 2.5 / 1000
    expected = (5 * 7 * 9 - 2 * 3 * 4) * voxel_ml
    assert float(found["missing", "liver"]["volume_error_ml"]) == pytest.approx(expected, abs=1e-6)
    assert float(found["missing", "liver"]["reference_ml"]) == pytest.approx(24 * voxel_ml, abs=1e-6)
    assert float(found["empty", "tumour"]["hd95_mm"]) == 0.0


def test_a_missing_prediction_of_a_small_image_is_penalised_as_in_the_largest(tmp_path: Path) -> None:
    small, large = np.zeros((4, 4, 4), dtype=np.uint8), np.zeros((20, 10, 10), dtype=np.uint8)
    small[1:3, 1:3, 1:3] = large[1:3, 1:3, 1:3] = 1
    for name, label in (("a", small), ("b", large), ("c", small)):
        save(tmp_path / f"r/{name}.nii.gz", label, np.eye(4))
    save(tmp_path / "p/b.nii.gz", np.roll(large, 15, axis=0), np.eye(4))
    save(tmp_path / "p/c.nii.gz", np.zeros_like(small), np.eye(4))
    run(tmp_path / "p", tmp_path / "r", tmp_path / "out")
    found = {name: float(row["hd95_mm"]) for (name, _), row in rows(tmp_path / "out").items()}
    # an empty prediction that is there lies in its own image, and no distance in that is longer
    expected = {"a": np.sqrt(600), "b": 15.0, "c": np.sqrt(48)}
    assert found == pytest.approx(expected, abs=1e-5)


# ---- lesions and the command line ----


def test_a_class_may_have_a_tolerance_of_its_own(tmp_path: Path) -> None:
    """Both classes are shifted by a voxel of 2.5 mm: agreement for the one of 3 mm, and not for the one of 1 mm."""
    label = np.zeros((20, 20, 20), dtype=np.uint8)
    label[3:9, 3:17, 3:17], label[11:17, 3:17, 3:17] = 1, 2
    save(tmp_path / "r/a.nii", label, np.diag([1, 1, 2.5, 1]))
    save(tmp_path / "p/a.nii", np.roll(label, 1, axis=2), np.diag([1, 1, 2.5, 1]))
    folders = [str(tmp_path / name) for name in "pr"]
    given = ["evaluate", "--predictions", folders[0], "--references", folders[1], "--out", str(tmp_path / "out")]
    done = CliRunner().invoke(app, [*given, "--tolerance-mm", "3", "--class-tolerance", "value 2=1"])
    assert done.exit_code == 0, done.output
    found = rows(tmp_path / "out")
    assert [float(found["a", f"value {value}"]["tolerance_mm"]) for value in (1, 2)] == [3.0, 1.0]
    assert float(found["a", "value 1"]["surface_dice"]) == 1.0
    assert float(found["a", "value 2"]["surface_dice"]) < 0.95
    assert float(found["a", "value 1"]["hd100_mm"]) == float(found["a", "value 2"]["hd100_mm"]) == 2.5
    assert record(tmp_path / "out")["rules"]["surface_tolerances_mm"] == {"value 1": 3.0, "value 2": 1.0}
    for wrong, words in (("value 3=1", "none of the classes"), ("value 2", "no NAME=MM"), ("value 2=0", "above 0")):
        refused = CliRunner().invoke(app, [*given, "--class-tolerance", wrong])
        assert isinstance(refused.exception, ConfigError)
        assert words in str(refused.exception)


def test_lesions_are_counted_where_asked(tmp_path: Path) -> None:
    reference, prediction = np.zeros(SHAPE, dtype=np.uint8), np.zeros(SHAPE, dtype=np.uint8)
    reference[1:3, 1:3, 1:3] = reference[6:8, 6:8, 4:6] = 1
    prediction[1:3, 1:3, 1:3] = prediction[10:12, 1:3, 1:3] = 1
    save(tmp_path / "r/a.nii", reference)
    save(tmp_path / "p/a.nii", prediction)
    with pytest.raises(ConfigError, match="--lesions: 'tumour' is none of the classes value 1"):
        run(tmp_path / "p", tmp_path / "r", tmp_path / "out", lesions=["tumour"])
    run(tmp_path / "p", tmp_path / "r", tmp_path / "out", lesions=["value 1"])
    found = record(tmp_path / "out")["lesions"]["value 1"]
    assert found["lesion_sensitivity"]["mean"] == 0.5
    assert found["lesion_false_positives"]["mean"] == 1.0
    assert (found["pooled_sensitivity"], found["n_reference_lesions"]) == (0.5, 2)
    assert rows(tmp_path / "out")["a", "value 1"]["n_found"] == "1"
    save(tmp_path / "r/b.nii", reference)
    run(tmp_path / "p", tmp_path / "r", tmp_path / "out", lesions=["value 1"])
    found = record(tmp_path / "out")["lesions"]["value 1"]
    sensitivity, false = found["lesion_sensitivity"], found["lesion_false_positives"]
    assert (sensitivity["mean"], sensitivity["n"], sensitivity["n_failed"]) == (0.25, 2, 1)
    assert (false["mean"], false["n"], false["n_empty"], false["n_failed"]) == (1.0, 1, 0, 1)
    # cases with much of it apart from those with little, whatever else is outlined
    save(tmp_path / "r/c.nii", np.where(np.indices(SHAPE)[0] < 6, 1, 2).astype(np.uint8))
    run(tmp_path / "p", tmp_path / "r", tmp_path / "out", lesions=["value 1"])
    groups = [row for row in record(tmp_path / "out")["subgroups"] if row["attribute"] == "value 1, ml"]
    assert [row["n"] for row in groups] == [2, 1]


def test_the_command_says_what_it_found_in_parallel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MONAI_TL_EXECUTOR")
    monkeypatch.setenv("MONAI_TL_JOBS", "2")
    predictions, references = nifti_folders(tmp_path)
    arguments = ["evaluate", "--predictions", str(predictions), "--references", str(references), "--out"]
    done = CliRunner().invoke(app, [*arguments, str(tmp_path / "out")])
    assert done.exit_code == 0, done.output
    assert "evaluate: 3/3 case 3" in done.output
    assert "| mean over classes | dice |" in done.output
    assert "ward" not in done.output
    monkeypatch.setenv("MONAI_TL_EXECUTOR", "sequential")
    assert CliRunner().invoke(app, [*arguments, str(tmp_path / "again")]).exit_code == 0
    for name in ("cases.csv", "metrics.json", "summary.md"):
        assert (tmp_path / "again" / name).read_bytes() == (tmp_path / "out" / name).read_bytes()
