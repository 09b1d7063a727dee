"""The export stage on ingested phantoms: SEG on the right slices, no identity, a bundle; and how it can be wrong."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import highdicom
import numpy as np
import pydicom
import pytest
from balls import train_scratch, write_workspace
from ingested import write_cases
from small_cohort import COARSE, tree_digest

from monai_tl.certainty_records import CaseCertainty, Certainty, ModelCertainty, RunCertainty
from monai_tl.commands.phantom import canaries, write_cohort
from monai_tl.config import ExportConfig, Params, parse_params
from monai_tl.dataset.manifest import read_manifest
from monai_tl.dataset.nifti import read_image, read_label, write_image
from monai_tl.dicom.deidentify import Pseudonyms, create_key, seeded_key
from monai_tl.dicom.index import index_folder
from monai_tl.dicom.segmentation import read_segmentation
from monai_tl.dicom.volume import read_volume
from monai_tl.errors import PrivacyError, StageError
from monai_tl.files import read_json, write_json
from monai_tl.metrics.case import METRIC_NAMES
from monai_tl.sources.card import read_source
from monai_tl.stages import export, export_case, ingest

N_B = 4


def make_params(workspace: Path, **settings: object) -> Params:
    classes = [
        {"name": "liver", "structures": ["Liver"], "type": "SCT|10200004|Liver"},
        {"name": "tumour", "structures": ["GTV", "SCT|108369006"], "type": "SCT|108369006|Neoplasm"},
    ]
    return parse_params(
        {
            "ingest": {"source": "data/hospital_b", "key_file": str(workspace / "secret.key"), "classes": classes},
            "plan": {"source": "sources/any"},
            "finetune": {"arms": ["transfer", "scratch"], "folds": [0]},
            "export": settings,
        }
    )


def write_metrics(workspace):
    summary = {"mean": 0.81, "low": 0.7, "high": 0.9, "n": 3, "n_empty": 0, "n_failed": 0}
    scores = dict.fromkeys(METRIC_NAMES, summary) | {"classes": {}}
    metrics = {
        "evaluated_on": "test",
        "n_test_cases": 3,
        "n_test_patients": 3,
        "arms": {"transfer": scores, "scratch": scores},
        "verdict": {"verdict": "gain", "sentence": "Gain: the start helped."},
        "subgroups": {},
        "test_set_look": None,
    }
    write_json(workspace / "reports/metrics.json", metrics)


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> Path:
    return train_scratch(write_workspace(tmp_path_factory.mktemp("model")), max_steps=5, validate_every=5)


@pytest.fixture(scope="module")
def finished(tmp_path_factory, model) -> Path:
    """A workspace as export finds it; the predictions are the images' own pattern, so that a misplaced one is seen."""
    workspace = tmp_path_factory.mktemp("finished")
    write_cohort(workspace / "data", 0, 1, N_B, COARSE)
    create_key(workspace / "secret.key", seed=0)
    params = make_params(workspace)
    ingest.run(workspace, params)
    artifacts = workspace / "artifacts"
    manifest = read_manifest(artifacts / "cases")
    for arm in ("transfer", "scratch"):
        shutil.copytree(model, artifacts / "models" / f"{arm}-0-0")
        for case in manifest.cases:
            image, affine = read_image(manifest.image_path(case.case_id))
            prediction = (image > 60).astype(np.uint8) + (image > (200 if arm == "transfer" else 300))
            write_image(artifacts / "predictions" / arm / "seed-0" / f"{case.case_id}.nii.gz", prediction, affine)
    write_metrics(workspace)
    return workspace


@pytest.fixture
def workspace(finished, tmp_path) -> Path:
    shutil.copytree(finished, tmp_path / "work")
    (tmp_path / "work/secret.key").chmod(0o600)
    return tmp_path / "work"


def rerun(workspace: Path, **settings: object) -> dict:
    params = make_params(workspace, **settings)
    export.run(workspace, params)
    return read_json(workspace / "artifacts/export/index.json")


def test_each_case_becomes_a_seg_on_its_own_slices(workspace):
    index = rerun(workspace)
    assert index["arm"] == "transfer"
    assert index["failed"] == []
    assert len(index["cases"]) == N_B
    hasher = Pseudonyms(seeded_key(0))
    series = {hasher.case_id(one.study_uid, one.uid): one for one in index_folder(workspace / "data", hasher).series}
    scheme = make_params(workspace).ingest.scheme.model_copy()
    n_tilted = 0
    for entry in index["cases"]:
        path = workspace / "artifacts/export" / entry["file"]
        volume = read_volume(series[entry["case_id"]])
        found, notes = read_segmentation(path, volume.geometry, scheme)
        prediction, _ = read_label(workspace / f"artifacts/predictions/transfer/seed-0/{entry['case_id']}.nii.gz")
        assert entry["class_voxels"] == {"liver": int((prediction == 1).sum()), "tumour": int((prediction == 2).sum())}
        n_tilted += volume.shear is not None
        # the label on the slices as they are, from the pixels of the files alone
        image = np.stack([pydicom.dcmread(one).pixel_array for one in volume.geometry.paths]).astype(int) - 1000
        expected = (image > 60).astype(int) + (image > 200)
        if volume.shear is None:
            assert np.array_equal(found, expected)
        else:
            # resampled there and back, so edges and noise differ; one slice off it would be 0.75
            assert (found == expected).mean() > 0.9
        assert notes == ()
        seg = highdicom.seg.segread(path)
        assert seg.StudyInstanceUID == volume.geometry.study_instance_uid
        pixels = seg.get_pixels_by_source_instance(
            list(volume.sop_instance_uids), combine_segments=True, assert_missing_frames_are_empty=True
        )
        assert np.array_equal(pixels, found)
        algorithm = seg.SegmentSequence[0].SegmentationAlgorithmIdentificationSequence[0]
        card = read_source(workspace / "artifacts/models/transfer-0-0").card
        assert card.weights.sha256 in "".join(algorithm.AlgorithmParameters)
    assert n_tilted == 1


def test_nothing_exported_names_a_patient(workspace, capsys):
    rerun(workspace)
    listed = [canary.encode() for canary in canaries(0, 1, N_B)]
    for path in (workspace / "artifacts/export").rglob("*"):
        content = path.read_bytes() if path.is_file() else b""
        assert not [canary for canary in listed if canary in content or canary in str(path.name).encode()]
    assert "Kanari" not in capsys.readouterr().out


def test_source_identity_goes_back_to_the_pacs(workspace):
    index = rerun(workspace, identity="source", series_number=77, series_description="for the PACS")
    names = {str(pydicom.dcmread(path).PatientName) for path in (workspace / "artifacts/export/seg").glob("*.dcm")}
    assert names == {f"Kanari^Änne{number:02d}B" for number in range(N_B)}
    dataset = pydicom.dcmread(workspace / "artifacts/export" / index["cases"][0]["file"])
    assert (dataset.SeriesNumber, dataset.SeriesDescription) == (77, "for the PACS")


def spoil(folder: Path, keyword: str, value: str) -> None:
    """A value that no writer lets through, in each file of a series."""
    for path in folder.glob("*.dcm"):
        dataset = pydicom.dcmread(path)
        with pydicom.config.disable_value_validation():
            dataset[keyword] = pydicom.dataelem.DataElement(keyword, dataset[keyword].VR, value)
            dataset.save_as(path)


def test_an_invalid_attribute_costs_neither_its_case_nor_the_others(workspace, capfd):
    (folder, *_) = sorted((workspace / "data/hospital_b").glob("*/study_*/CT"))
    spoil(folder, "PatientBirthDate", "KanariBirth-12")
    index = rerun(workspace, identity="source")
    assert index["failed"] == []
    assert [entry.get("left_blank") for entry in index["cases"]].count(["PatientBirthDate"]) == 1
    births = [pydicom.dcmread(path).PatientBirthDate for path in (workspace / "artifacts/export/seg").glob("*.dcm")]
    assert [len(birth) for birth in sorted(births)] == [0] + [8] * (N_B - 1)
    captured = capfd.readouterr()
    assert "Kanari" not in captured.out + captured.err


def test_an_unexpected_fault_of_one_case_costs_that_case_alone(workspace, monkeypatch):
    monkeypatch.setenv("MONAI_TL_EXECUTOR", "sequential")
    chosen = read_manifest(workspace / "artifacts/cases").cases[1].case_id
    write = export_case.write_segmentation

    def choke(path, *arguments, **options):
        if path.name == f"{chosen}.dcm":
            raise KeyError("Kanari")
        return write(path, *arguments, **options)

    monkeypatch.setattr(export_case, "write_segmentation", choke)
    index = rerun(workspace)
    (failure,) = index["failed"]
    assert (failure["case_id"], failure["code"]) == (chosen, "failed")
    assert "KeyError at monai_tl/stages/export_case.py:" in failure["reason"]
    assert "Kanari" not in json.dumps(index)
    assert len(index["cases"]) == N_B - 1


def test_twice_the_same_bytes(workspace):
    rerun(workspace)
    first = tree_digest(workspace / "artifacts/export")
    rerun(workspace)
    assert tree_digest(workspace / "artifacts/export") == first


def test_bundle_is_of_the_chosen_arm(workspace):
    index = rerun(workspace, arm="scratch")
    assert (index["arm"], index["model"], index["arm_reason"]) == ("scratch", "scratch-0-0", "named by export.arm")
    metadata = json.loads((workspace / "artifacts/export/bundle/configs/metadata.json").read_text())
    assert metadata["network_data_format"]
    card = (workspace / "artifacts/export/bundle/docs/README.md").read_text()
    assert "Gain: the start helped." in card
    assert "Arm scratch, 3 test cases of 3 patients" in card
    assert "| all | 0.810 (0.700 to 0.900) |" in card
    written = json.loads((workspace / "artifacts/export/bundle/docs/metrics.json").read_text())
    assert written == json.loads((workspace / "reports/metrics.json").read_text())


def test_a_model_without_scores_does_not_go_out(workspace):
    metrics = json.loads((workspace / "reports/metrics.json").read_text())
    del metrics["arms"]["scratch"]
    write_json(workspace / "reports/metrics.json", metrics)
    with pytest.raises(StageError, match="no scores of arm scratch; run the evaluate stage again"):
        rerun(workspace, arm="scratch")


def test_a_changed_or_lost_series_costs_its_case_alone(workspace):
    cases = read_manifest(workspace / "artifacts/cases").cases
    series = sorted((workspace / "data/hospital_b").glob("*/study_*/CT"))
    (series[0] / "IM0001.dcm").unlink()
    shutil.rmtree(series[1])
    index = rerun(workspace)
    assert sorted(item["code"] for item in index["failed"]) == ["changed", "missing_series"]
    assert len(index["cases"]) == len(cases) - 2
    assert {item["case_id"] for item in index["failed"] + index["cases"]} == {case.case_id for case in cases}


def test_all_cases_failing_is_an_error_and_leaves_nothing(workspace):
    shutil.rmtree(workspace / "data/hospital_b")
    (workspace / "data/hospital_b").mkdir()
    with pytest.raises(StageError, match="every case failed"):
        rerun(workspace)
    assert not (workspace / "artifacts/export").exists()


def test_another_key_is_refused(workspace):
    (workspace / "secret.key").unlink()
    create_key(workspace / "secret.key", seed=1)
    with pytest.raises(PrivacyError, match="not the one"):
        rerun(workspace)


def test_prediction_on_another_grid_is_refused(workspace):
    (path, *_) = sorted((workspace / "artifacts/predictions/transfer/seed-0").glob("*.nii.gz"))
    label, affine = read_label(path)
    write_image(path, label[1:], affine)
    (failure,) = rerun(workspace)["failed"]
    assert failure["case_id"] == path.name.removesuffix(".nii.gz")
    assert "not on its image's grid" in failure["reason"]


def test_cases_from_nifti_become_nifti(tmp_path, model):
    case_ids = write_cases(tmp_path, 2)
    for case_id in case_ids:
        label, affine = read_label(tmp_path / f"artifacts/cases/{case_id}/label.nii.gz")
        write_image(tmp_path / f"artifacts/predictions/transfer/seed-0/{case_id}.nii.gz", label, affine)
    shutil.copytree(model, tmp_path / "artifacts/models/transfer-0-0")
    write_metrics(tmp_path)
    index = rerun(tmp_path, arm="transfer")
    assert [entry["file"] for entry in index["cases"]] == [f"nifti/{case_id}.nii.gz" for case_id in case_ids]
    found, _ = read_label(tmp_path / "artifacts/export" / index["cases"][0]["file"])
    expected, _ = read_label(tmp_path / f"artifacts/cases/{case_ids[0]}/label.nii.gz")
    assert np.array_equal(found, expected)
    assert not (tmp_path / "artifacts/export/seg").exists()


@pytest.mark.parametrize(
    ("arm", "arms", "metrics", "expected"),
    [
        ("best", ("transfer", "scratch"), {"verdict": {"verdict": "gain"}}, "transfer"),
        ("best", ("transfer", "scratch"), {"verdict": {"verdict": "null"}}, "transfer"),
        ("best", ("transfer", "scratch"), {"verdict": {"verdict": "harm"}}, "scratch"),
        ("scratch", ("transfer", "scratch"), {"verdict": {"verdict": "gain"}}, "scratch"),
        ("best", ("scratch",), {"verdict": None}, "scratch"),
        ("best", ("transfer", "scratch"), {"verdict": None}, StageError),
        ("best", ("transfer", "scratch"), None, StageError),
        ("transfer", ("scratch",), {"verdict": None}, StageError),
    ],
)
def test_choice_of_the_arm(tmp_path, arm, arms, metrics, expected):
    if metrics is not None:
        write_json(tmp_path / "metrics.json", metrics)
    config = ExportConfig(arm=arm)
    if expected is StageError:
        with pytest.raises(StageError):
            export.choose_arm(config, arms, tmp_path / "metrics.json")
    else:
        assert export.choose_arm(config, arms, tmp_path / "metrics.json")[0] == expected


def test_best_fold_is_exported(tmp_path):
    for fold, dice in enumerate((0.4, 0.7, None, 0.7)):
        write_json(tmp_path / f"transfer-{fold}-0/training.json", {"best_val_dice": dice})
    assert export.best_model([tmp_path / f"transfer-{fold}-0" for fold in range(4)]).name == "transfer-1-0"
    assert export.best_model([tmp_path / "transfer-2-0"]).name == "transfer-2-0"
    with pytest.raises(StageError, match="readable training"):
        export.best_model([tmp_path / "transfer-9-0"])


def test_the_model_says_how_sure_it_was_of_its_own_test_cases(tmp_path):
    runs = [
        RunCertainty(
            arm=arm, seed=seed, temperature=None, n_validation_cases=0, members=None, n_members=1,
            cases={f"case-{n}": CaseCertainty(entropy=value) for n, value in enumerate(values)},
        )
        for arm, seed, values in (
            ("transfer", 0, (0.1, 0.2, 0.6)), ("transfer", 1, (5.0, 6.0)), ("scratch", 0, (7.0, 9.0)),
        )
    ]  # fmt: skip
    Certainty(runs=tuple(runs)).write(tmp_path / "certainty.json")
    (tmp_path / "model").mkdir()
    export._write_certainty(tmp_path / "certainty.json", "transfer", 0, tmp_path / "model")
    found = ModelCertainty.read(tmp_path / "model/certainty.json")
    assert (found.n_cases, found.entropy_mean) == (3, pytest.approx(0.3))
    # ((0.2² + 0.1² + 0.3²) / 2)^½
    assert found.entropy_std == pytest.approx(0.07**0.5)
