"""From hospital A to a source, and from a model and hospital B's studies to DICOM SEG and NIfTI."""

from __future__ import annotations

import shutil
from pathlib import Path

import highdicom
import nibabel
import numpy as np
import pydicom
import pytest
import yaml
from small_cohort import write_cohort_and_key

from monai_tl.commands import pretrain, segment
from monai_tl.commands.phantom import canaries
from monai_tl.errors import ConfigError, DataError, PrivacyError
from monai_tl.fast_records import FAST_FILE, FastRecord
from monai_tl.files import read_json, sha256_file
from monai_tl.inference import LOSSY
from monai_tl.integrity import seal
from monai_tl.records import Fingerprint, Plan, RejectionList
from monai_tl.sources.card import read_source

NETWORK = {"name": "unet", "arguments": {"channels": [6, 12], "strides": [2], "norm": "instance"}}


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Cohort, key, parameters, and a source made from hospital A in ``work``."""
    folder = tmp_path_factory.mktemp("home")
    write_cohort_and_key(folder)
    (folder / "pretrain.yaml").write_text(yaml.safe_dump(parameters(folder)))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MONAI_TL_EXECUTOR", "sequential")
        pretrain.run(folder / "pretrain.yaml", folder / "data/hospital_a", folder / "source", folder / "work")
    return folder


@pytest.fixture(autouse=True)
def one_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MONAI_TL_EXECUTOR", "sequential")
    monkeypatch.setenv("MONAI_TL_JOBS", "1")


def parameters(folder: Path) -> dict[str, object]:
    return {
        "card": {"licence": "CC0-1.0", "notes": "a test"},
        "ingest": {
            "source": "elsewhere",
            "key_file": str(folder / "key"),
            "classes": [{"name": "liver", "structures": ["Liver"]}, {"name": "spine", "structures": ["Spine"]}],
        },
        "split": {"n_folds": 2, "test_fraction": 0.0},
        "plan": {"source": None, "network": NETWORK, "spacing_mm": [10.0, 10.0, 10.0]},
        "finetune": {
            "arms": ["scratch"],
            "strategy": "scratch",
            "max_steps": 60,
            "warmup_steps": 5,
            "learning_rate": 0.02,
            "validate_every": 30,
            "n_threads": 1,
        },
    }


@pytest.fixture(scope="module")
def segmented(home: Path) -> Path:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MONAI_TL_JOBS", "1")
        segment.run(home / "data/hospital_b", home / "out", [model_of(home)], key_file=home / "key")
    return home / "out"


def model_of(home: Path) -> Path:
    return home / "work/artifacts/models/scratch-0-0"


def image_series(home: Path) -> dict[str, list[pydicom.Dataset]]:
    found: dict[str, list[pydicom.Dataset]] = {}
    for path in sorted((home / "data/hospital_b").rglob("*")):
        if path.is_file() and pydicom.misc.is_dicom(path):
            dataset = pydicom.dcmread(path)
            if dataset.Modality == "CT":
                found.setdefault(dataset.SeriesInstanceUID, []).append(dataset)
    return found


def test_the_source_says_what_it_is(home: Path) -> None:
    card = read_source(home / "source").card
    assert (card.name, card.licence, card.notes) == ("source", "CC0-1.0", "a test")
    assert card.classes == ("liver", "spine")
    assert card.input.spacing_mm == (10.0, 10.0, 10.0)
    # what it was trained on goes along, so that the shift to a target can be measured
    assert card.fingerprint == Fingerprint.read(home / "work/artifacts/plan/fingerprint.json")
    # absolute paths of this machine are left out
    assert card.rebuild == "monai-tl pretrain pretrain.yaml hospital_a source"
    assert str(home) not in (home / "source/card.yaml").read_text()


def test_the_same_command_gives_the_same_bytes(home: Path) -> None:
    pretrain.run(home / "pretrain.yaml", home / "data/hospital_a", home / "again")
    for name in ("weights.safetensors", "card.yaml"):
        first, second = (home / "source" / name).read_text("latin-1"), (home / "again" / name).read_text("latin-1")
        assert first == second.replace("name: again", "name: source").replace("hospital_a again", "hospital_a source")


@pytest.mark.parametrize(
    ("section", "key", "value", "path"),
    [
        ("plan", "source", "sources/x", "plan.source"),
        ("finetune", "arms", ["scratch", "transfer"], "finetune"),
        ("finetune", "folds", [0, 1], "finetune.folds"),
        ("finetune", "seeds", [0, 1], "finetune.seeds"),
        ("card", "licens", "x", "card.licens"),
        ("split", "n_fold", 3, "split.n_fold"),
    ],
)
def test_a_file_that_is_not_for_pretraining_is_refused(
    home: Path, tmp_path: Path, section: str, key: str, value: object, path: str
) -> None:
    content = parameters(home)
    content[section] = {**content[section], key: value}  # type: ignore[dict-item]
    (tmp_path / "p.yaml").write_text(yaml.safe_dump(content))
    with pytest.raises(ConfigError) as caught:
        pretrain.run(tmp_path / "p.yaml", home / "data/hospital_a", tmp_path / "out")
    assert any(fault.startswith((path, "(file)")) for fault in caught.value.faults)
    assert not (tmp_path / "out").exists()


def test_each_whole_series_is_segmented_and_the_rest_is_listed(home: Path, segmented: Path) -> None:
    folders = sorted(path for path in segmented.iterdir() if path.is_dir())
    # four studies of hospital B are whole; the localizer, the gap and the foreign file are not
    assert len(folders) == 4
    codes = {item.code for item in RejectionList.read(segmented / "rejected.json").rejected}
    assert {"missing_slice", "localizer"} <= codes
    for folder in folders:
        assert sorted(path.name for path in folder.iterdir()) == ["segmentation.dcm", "segmentation.nii.gz"]


def test_seg_and_nifti_say_the_same_of_the_same_places(home: Path, segmented: Path) -> None:
    """Read both with other software; compare where in the patient each class lies."""
    series = image_series(home)
    n_found = 0
    for folder in sorted(path for path in segmented.iterdir() if path.is_dir()):
        nifti = nibabel.load(folder / "segmentation.nii.gz")
        values = np.asarray(nifti.dataobj)
        seg = highdicom.seg.segread(folder / "segmentation.dcm")
        source = series[seg.ReferencedSeriesSequence[0].SeriesInstanceUID]
        n_slices = len({item.SOPInstanceUID for item in source})
        assert values.size == n_slices * source[0].Rows * source[0].Columns or tilted(source)
        for number, name in enumerate(("liver", "spine"), start=1):
            assert seg.get_segment_description(number).segment_label == name
            inside = np.argwhere(values == number)
            if not len(inside):
                continue
            n_found += 1
            centre = nibabel.affines.apply_affine(nifti.affine, inside).mean(axis=0) * (-1, -1, 1)
            # pixels of 10 mm: the nearest one on a tilted slice is off by a part of that
            np.testing.assert_allclose(seg_centre(seg, number), centre, atol=1.5 if tilted(source) else 1e-3)
    assert n_found >= 4


def tilted(source: list[pydicom.Dataset]) -> bool:
    positions = sorted(tuple(map(float, item.ImagePositionPatient)) for item in source)
    steps = np.array(positions[-1]) - np.array(positions[0])
    orientation = np.array(source[0].ImageOrientationPatient, dtype=float)
    normal = np.cross(orientation[:3], orientation[3:])
    return bool(np.linalg.norm(np.cross(steps, normal)) > 1e-3 * np.linalg.norm(steps))


def seg_centre(seg: pydicom.Dataset, number: int) -> np.ndarray:
    """Mean LPS position of a segment's voxels, from the frames' own positions."""
    points = []
    shared = seg.SharedFunctionalGroupsSequence[0]
    orientation = np.array(shared.PlaneOrientationSequence[0].ImageOrientationPatient, dtype=float)
    row_step, column_step = (float(value) for value in shared.PixelMeasuresSequence[0].PixelSpacing)
    for frame, groups in zip(np.atleast_3d(seg.pixel_array), seg.PerFrameFunctionalGroupsSequence, strict=True):
        if groups.SegmentIdentificationSequence[0].ReferencedSegmentNumber != number:
            continue
        rows, columns = np.nonzero(frame)
        origin = np.array(groups.PlanePositionSequence[0].ImagePositionPatient, dtype=float)
        points.append(
            origin + columns[:, None] * column_step * orientation[:3] + rows[:, None] * row_step * orientation[3:]
        )
    return np.concatenate(points).mean(axis=0)


def test_the_model_finds_the_organs(home: Path, segmented: Path) -> None:
    """A little: enough to see that image, plan and network meet as in training."""
    scores = []
    for path in sorted(segmented.glob("*/segmentation.nii.gz")):
        scores.append((np.asarray(nibabel.load(path).dataobj) == 1).mean())
    # the liver fills a few per cent of the image
    assert 0.005 < np.median(scores) < 0.2


def test_identity_goes_into_the_seg_alone_and_only_if_asked(
    home: Path, segmented: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    texts = [text.encode() for text in canaries(0, 3, 4)]
    summary = segment.run(
        home / "data/hospital_b", home / "hidden", [model_of(home)], identity="pseudonymous", key_file=home / "key"
    )
    shown = (capsys.readouterr().out + summary).encode()
    hidden = [path.read_bytes() for path in (home / "hidden").rglob("*") if path.is_file()]
    open_files = [path.read_bytes() for path in segmented.rglob("*") if path.suffix != ".dcm" and path.is_file()]
    assert not any(text in content for text in texts for content in (shown, *hidden, *open_files))
    seg = pydicom.dcmread(next(segmented.glob("*/segmentation.dcm")))
    assert "Kanari" in str(seg.PatientName)
    assert "ml" in summary
    assert "4 of" in summary


def test_twice_gives_the_same_files(home: Path, segmented: Path) -> None:
    before = {path.relative_to(segmented): sha256_file(path) for path in segmented.rglob("*") if path.is_file()}
    segment.run(home / "data/hospital_b", segmented, [model_of(home)], key_file=home / "key")
    after = {path.relative_to(segmented): sha256_file(path) for path in segmented.rglob("*") if path.is_file()}
    assert before == after


def test_models_of_one_plan_are_averaged(home: Path, segmented: Path, tmp_path: Path) -> None:
    twin = shutil.copytree(model_of(home), tmp_path / "twin")
    segment.run(home / "data/hospital_b", tmp_path / "out", [model_of(home), twin], key_file=home / "key")
    for path in segmented.glob("*/segmentation.nii.gz"):
        again = tmp_path / "out" / path.relative_to(segmented)
        assert np.array_equal(nibabel.load(path).dataobj, nibabel.load(again).dataobj)
    seg = pydicom.dcmread(next((tmp_path / "out").glob("*/segmentation.dcm")))
    assert "and 1 more" in seg.SegmentSequence[0].SegmentationAlgorithmIdentificationSequence[0].AlgorithmName


def test_onnx_segments_as_torch_does_and_the_record_says_so(home: Path, tmp_path: Path) -> None:
    (tmp_path / "study").mkdir()
    for dataset in next(iter(image_series(home).values())):
        shutil.copy(dataset.filename, tmp_path / "study")
    labels = {}
    for engine in ("torch", "onnx"):
        out = tmp_path / engine
        segment.run(tmp_path / "study", out, [model_of(home)], key_file=home / "key", mode="exact", engine=engine)
        (path,) = out.rglob("segmentation.nii.gz")
        labels[engine] = np.asarray(nibabel.load(path).dataobj)
        assert read_json(out / "method.json")["engine"] == engine
    assert set(np.unique(labels["torch"])) == {0, 1, 2}
    # sums in another order may turn a voxel whose two best classes are equal within rounding
    assert np.mean(labels["torch"] != labels["onnx"]) < 1e-5


def test_a_model_that_no_way_of_fast_mode_serves_is_applied_in_exact_mode_and_it_is_said(
    home: Path, tmp_path: Path
) -> None:
    (tmp_path / "study").mkdir()
    for dataset in next(iter(image_series(home).values())):
        shutil.copy(dataset.filename, tmp_path / "study")
    lossy = shutil.copytree(model_of(home), tmp_path / "lossy")
    FastRecord(windows="exact", precision="float32", n_cases=5, is_within=False).write(lossy / FAST_FILE)
    seal(lossy)
    said, labels = {}, {}
    for model, mode in ((lossy, "fast"), (model_of(home), "exact")):
        out = tmp_path / mode
        said[mode] = segment.run(tmp_path / "study", out, [model], key_file=home / "key", mode=mode)
        (path,) = out.rglob("segmentation.nii.gz")
        labels[mode] = np.asarray(nibabel.load(path).dataobj)
    assert f"Segmented in exact mode: {LOSSY}." in said["fast"]
    assert LOSSY not in said["exact"]
    assert np.array_equal(labels["fast"], labels["exact"])


def test_nothing_segmented_is_an_error_with_reasons(home: Path, tmp_path: Path) -> None:
    other = shutil.copytree(model_of(home), tmp_path / "mr")
    plan = Plan.read(other / "plan.json")
    plan.model_copy(update={"modality": "MR"}).write(other / "plan.json")
    seal(other)
    (home / "empty").mkdir()
    with pytest.raises(DataError, match=r"no DICOM image was found in the folder given.* lists 0 refused"):
        segment.run(home / "empty", home / "nothing", [model_of(home)], key_file=home / "key")
    with pytest.raises(DataError, match=r"none of \d+ image series could be segmented"):
        segment.run(home / "data/hospital_b", tmp_path / "out", [other], key_file=home / "key")
    codes = [item.code for item in RejectionList.read(tmp_path / "out/rejected.json").rejected]
    assert codes.count("other_modality") == 4


def test_bad_arguments_are_refused(home: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="neither"):
        segment.run(home / "data/hospital_b", tmp_path, [model_of(home)], identity="both", key_file=home / "key")
    with pytest.raises(PrivacyError, match="monai-tl key"):
        segment.run(home / "data/hospital_b", tmp_path, [model_of(home)], key_file=tmp_path / "none")
