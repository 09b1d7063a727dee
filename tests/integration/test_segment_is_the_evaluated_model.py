"""``segment`` with an exported model gives the labels that the run gave, voxel for voxel."""

from __future__ import annotations

import errno
import json
import shutil
from pathlib import Path

import highdicom
import nibabel
import numpy as np
import pytest
from workspaces import write_made_up_source

from monai_tl.commands import promote, segment
from monai_tl.commands.phantom import write_cohort
from monai_tl.config import Params, parse_params
from monai_tl.dicom.deidentify import create_key
from monai_tl.errors import ConfigError, ContractError, PromotionError, SourceError
from monai_tl.files import named_output
from monai_tl.sources.ensemble import SETTINGS_FILE, read_ensemble
from monai_tl.stages import STAGES, run_stage

FOLDS = (0, 1)


def make_params(workspace: Path) -> Params:
    """Settings of which none is the default; 5 mm voxels and small windows, so that each of them shows."""
    classes = [{"name": "liver", "structures": ["Liver"]}, {"name": "tumour", "structures": ["GTV", "Tumour"]}]
    return parse_params(
        {
            "ingest": {
                "source": "data/hospital_b",
                "key_file": str(workspace / "key"),
                "classes": classes,
                "min_slices": 4,
            },
            "split": {"n_folds": 2, "test_fraction": 0.4},
            "plan": {"source": "sources/made_up", "max_patch_voxels": 4096},
            "preprocess": {"crop_margin_mm": 0.0, "image_dtype": "float16"},
            "finetune": {
                "arms": ["transfer"],
                "folds": list(FOLDS),
                "strategy": "full",
                "max_steps": 4,
                "head_steps": 0,
                "warmup_steps": 1,
                "validate_every": 2,
                "n_threads": 1,
            },
            "predict": {"n_threads": 1, "overlap": 0.0, "blending": "constant", "batch_size": 1},
            "evaluate": {"n_bootstrap": 200},
        }
    )


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    workspace = tmp_path_factory.mktemp("run")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MONAI_TL_EXECUTOR", "sequential")
        write_cohort(workspace / "data", 0, 1, 8, 2)
        create_key(workspace / "key", seed=0)
        write_made_up_source(workspace / "sources/made_up")
        params = make_params(workspace)
        for stage in STAGES:
            for fold in FOLDS if stage.matrix else (None,):
                matrix = {} if fold is None else {"arm": "transfer", "fold": str(fold), "seed": "0"}
                run_stage(stage.name, workspace, params, matrix)
    return workspace


def labels(run: Path, out: Path, *models: Path) -> tuple[dict[str, np.ndarray], str]:
    """Label map of each test case, and the summary."""
    summary = segment.run(run / "data/hospital_b", out, list(models), key_file=run / "key", mode="exact")
    test = json.loads((run / "artifacts/split/split.json").read_text())["test"]
    assert test
    return {one: np.asarray(nibabel.load(out / one / "segmentation.nii.gz").dataobj) for one in test}, summary


@pytest.fixture(scope="module")
def predicted(run: Path) -> dict[str, np.ndarray]:
    paths = (run / "artifacts/predictions/transfer/seed-0").glob("*.nii.gz")
    return {path.name.split(".")[0]: np.asarray(nibabel.load(path).dataobj) for path in paths}


def test_it_is_the_exported_label_voxel_for_voxel(run: Path, predicted: dict[str, np.ndarray], tmp_path: Path) -> None:
    # by itself: the model folder needs nothing else of the workspace
    model = shutil.copytree(run / "artifacts/export/model", tmp_path / "model")
    found, summary = labels(run, tmp_path / "out", model)
    assert set(found) == set(predicted)
    for case_id, label in found.items():
        assert len(np.unique(label)) > 1, "a model that finds nothing proves nothing"
        assert np.array_equal(label, predicted[case_id])
        image = nibabel.load(run / f"artifacts/cases/{case_id}/image.nii.gz")
        affine = nibabel.load(tmp_path / "out" / case_id / "segmentation.nii.gz").affine
        assert np.array_equal(affine, image.affine)
        exported = highdicom.seg.segread(run / f"artifacts/export/seg/{case_id}.dcm")
        segmented = highdicom.seg.segread(tmp_path / "out" / case_id / "segmentation.dcm")
        assert np.array_equal(exported.pixel_array, segmented.pixel_array)
        said = [one.SegmentSequence[0].SegmentationAlgorithmIdentificationSequence for one in (exported, segmented)]
        assert said[0] == said[1]
    assert "default settings" not in summary


def test_it_is_promoted_only_knowingly_because_it_has_no_twin(run: Path, tmp_path: Path) -> None:
    workspace = tmp_path / "run"
    for part in ("artifacts/export", "reports"):
        shutil.copytree(run / part, workspace / part)
    with pytest.raises(PromotionError, match="no verdict: one arm was trained"):
        promote.run(workspace)
    promote.run(workspace, accept_undecided=True)
    (entry,) = json.loads((workspace / "promoted.json").read_text())["promotions"]
    assert set(entry["models"]) == {"transfer-0-0", "transfer-1-0"}
    assert (entry["arm"], entry["seed"], entry["verdict"], entry["accepted_undecided"]) == ("transfer", 0, None, True)
    assert (entry["source"]["name"], entry["source"]["licence"]) == ("made_up", "CC0-1.0")


def test_forgetting_is_in_the_report_where_a_set_of_the_source_is_given(run: Path, tmp_path: Path) -> None:
    workspace = tmp_path / "run"
    shutil.copytree(run, workspace, ignore=shutil.ignore_patterns("export", ".monai_tl"))
    (workspace / "key").chmod(0o600)
    content = make_params(workspace).model_dump(mode="json")
    classes = [{"name": "liver", "structures": ["Liver"]}, {"name": "spleen", "structures": ["Spleen"]}]
    content["evaluate"] |= {"source_set": "data/hospital_a", "source_classes": classes}
    params = parse_params(content)
    run_stage("evaluate", workspace, params, {})
    found = json.loads((workspace / "reports/metrics.json").read_text())["forgetting"]
    assert found["models"] == ["transfer-0-0", "transfer-1-0"]
    rows = [(one["head"], one["class_name"], one["n_cases"]) for one in found["changes"]]
    # of the source's two classes the tuned head has the liver alone
    assert rows == [("source", "", 1), ("source", "liver", 1), ("source", "spleen", 1), ("own", "", 1)]
    assert found["changes"][3]["classes"] == ["liver"]
    assert {one["low"] for one in found["changes"]} == {None}
    for name in ("report.html", "summary.md"):
        text = (workspace / "reports/html" / name).read_text()
        assert found["sentence"].replace("'", "&#39;") in text or found["sentence"] in text
        assert "the tuned head" in text
    assert not list((workspace / ".monai_tl").glob("*forgetting*"))


def test_folders_of_training_are_applied_with_defaults_and_say_so(
    run: Path, predicted: dict[str, np.ndarray], tmp_path: Path
) -> None:
    """Also shows that the test above would see settings that were lost."""
    models = [run / f"artifacts/models/transfer-{fold}-0" for fold in FOLDS]
    found, summary = labels(run, tmp_path / "out", *models)
    assert any(not np.array_equal(label, predicted[case_id]) for case_id, label in found.items())
    assert "default settings" in summary
    assert "artifacts/export/model" in summary


def test_one_fold_is_not_the_mean_of_all(run: Path, predicted: dict[str, np.ndarray], tmp_path: Path) -> None:
    model = shutil.copytree(run / "artifacts/export/model", tmp_path / "model")
    record = json.loads((model / SETTINGS_FILE).read_text())
    assert record["models"] == ["transfer-0-0", "transfer-1-0"]
    (model / SETTINGS_FILE).write_text(json.dumps({**record, "models": ["transfer-0-0"]}))
    found, _ = labels(run, tmp_path / "out", model)
    assert any(not np.array_equal(label, predicted[case_id]) for case_id, label in found.items())


def test_a_file_in_the_place_of_the_results_is_told_at_once(run: Path, tmp_path: Path) -> None:
    (tmp_path / "out").write_text("x")
    with pytest.raises(ConfigError, match=r"out: cannot be written: File exists"), named_output(tmp_path / "out"):
        segment.run(run / "data", tmp_path / "out", [run / "artifacts/export/model"], key_file=run / "key")


def test_a_series_that_cannot_be_read_is_refused_and_the_others_go_on(run: Path, tmp_path: Path, monkeypatch) -> None:
    real, seen = segment.read_volume, []

    def read(series, min_slices):
        seen.append(min_slices)
        if len(seen) == 1:
            raise OSError(errno.EIO, "Input/output error", "/studies/DOE^JANE/IM1.dcm")
        return real(series, min_slices)

    monkeypatch.setattr(segment, "read_volume", read)
    summary = segment.run(
        run / "data/hospital_b", tmp_path / "out", [run / "artifacts/export/model"], key_file=run / "key"
    )
    rejected = (tmp_path / "out/rejected.json").read_text()
    assert "a file of the series cannot be read: Input/output error" in rejected
    assert "DOE" not in rejected + summary
    assert set(seen) == {4}
    assert len(list((tmp_path / "out").glob("case-*"))) > 2


def test_a_source_and_other_folders_are_refused_in_words(run: Path, tmp_path: Path) -> None:
    with pytest.raises(SourceError, match=r"has not been fine-tuned: it has no plan.json"):
        read_ensemble([run / "sources/made_up"])
    with pytest.raises(SourceError, match=r"neither inference.json nor card.yaml"):
        read_ensemble([tmp_path])


@pytest.mark.parametrize(
    "text", ["", "[]", "\xff", '{"models": ["../x"], "settings": {}}', '{"models": [], "settings": {"x": 1}}']
)
def test_a_damaged_record_is_refused(run: Path, tmp_path: Path, text: str) -> None:
    model = shutil.copytree(run / "artifacts/export/model", tmp_path / "model")
    (model / SETTINGS_FILE).write_bytes(text.encode("latin-1"))
    with pytest.raises(SourceError, match=r"inference.json is damaged"):
        read_ensemble([model])


def test_models_judged_differently_are_not_averaged(run: Path, tmp_path: Path) -> None:
    model = run / "artifacts/export/model"
    other = shutil.copytree(model, tmp_path / "model")
    record = json.loads((other / SETTINGS_FILE).read_text())
    record["settings"]["predict"]["overlap"] = 0.25
    (other / SETTINGS_FILE).write_text(json.dumps(record))
    with pytest.raises(ContractError, match="different settings"):
        read_ensemble([model, other])
    with pytest.raises(ContractError, match="different settings"):
        read_ensemble([model, run / "artifacts/models/transfer-0-0"])
