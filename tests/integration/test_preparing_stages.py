"""split, plan and preprocess on a small workspace: files, cache, refusals, equal bytes."""

from __future__ import annotations

import json

import numpy as np
import pytest
from ingested import write_cases

from monai_tl.config import IntensityConfig, NetworkConfig, Params, PlanConfig
from monai_tl.contract_records import Adaptation, Shift, ShiftFeature
from monai_tl.dataset.manifest import read_manifest
from monai_tl.dataset.nifti import read_image, read_label, write_image
from monai_tl.dataset.transforms import restore_probabilities
from monai_tl.errors import LabelError, LeakageError, StageError
from monai_tl.files import sha256_file
from monai_tl.records import Fingerprint, Plan, PreparedCase, RejectionList, Split
from monai_tl.stages import plan, preprocess, split

UNET = NetworkConfig(name="unet", arguments={"channels": [4, 8], "strides": [2]})


def make_params(**changes):
    values = {
        "ingest": {"source": "data", "classes": [{"name": "liver"}, {"name": "tumour"}]},
        "split": {"n_folds": 2, "test_fraction": 0.3},
        "plan": {"source": None, "network": UNET.model_dump(), "spacing_mm": [4.0, 4.0, 4.0]},
        "finetune": {"arms": ["scratch"]},
        **changes,
    }
    return Params.model_validate(values)


def hashes(folder):
    return {str(path.relative_to(folder)): sha256_file(path) for path in sorted(folder.rglob("*")) if path.is_file()}


@pytest.fixture
def workspace(tmp_path, monkeypatch):
    monkeypatch.setenv("MONAI_TL_EXECUTOR", "sequential")
    write_cases(tmp_path, 8, unlabelled=(6,))
    return tmp_path


def run_three(workspace, params):
    for stage in (split, plan, preprocess):
        stage.run(workspace, params)


def test_three_stages_give_whole_outputs(workspace, capsys):
    run_three(workspace, make_params())
    made = Split.read(workspace / "artifacts/split/split.json")
    assert len(made.unlabelled) == 1
    found = Fingerprint.read(workspace / "artifacts/plan/fingerprint.json")
    assert found.n_cases == 7 - len(made.test)
    planned = Plan.read(workspace / "artifacts/plan/plan.json")
    assert planned.spacing_mm == (4.0, 4.0, 4.0)
    manifest = read_manifest(workspace / "artifacts/cases")
    for case in manifest.cases:
        folder = workspace / "artifacts/prepared" / case.case_id
        meta = PreparedCase.read(folder / "meta.json")
        image = np.load(folder / "image.npy", mmap_mode="r")
        assert image.shape == (1, *meta.spatial_shape)
        assert (folder / "label.npy").exists() == case.has_label == meta.has_label
        if not case.has_label:
            continue
        label = np.load(folder / "label.npy", mmap_mode="r")
        assert label.shape == meta.spatial_shape
        assert meta.class_voxels == tuple(int((label == value).sum()) for value in (1, 2))
        one_hot = np.stack([label == value for value in range(3)]).astype(np.float32)
        native, _ = read_label(manifest.label_path(case.case_id))
        restored = restore_probabilities(one_hot, meta)
        # a step of 4 mm on a body of 100 mm: borders move by a fraction of a voxel
        assert 2 * ((restored > 0) & (native > 0)).sum() / ((restored > 0).sum() + (native > 0).sum()) > 0.93
    assert "8/8" in capsys.readouterr().out


def test_processes_and_reruns_give_the_same_bytes(workspace, monkeypatch):
    params = make_params()
    run_three(workspace, params)
    first = hashes(workspace / "artifacts")
    monkeypatch.setenv("MONAI_TL_EXECUTOR", "loky")
    monkeypatch.setenv("MONAI_TL_JOBS", "2")
    import shutil

    shutil.rmtree(workspace / ".monai_tl")
    run_three(workspace, params)
    assert hashes(workspace / "artifacts") == first


def test_only_changed_cases_are_prepared_again(workspace, capsys):
    params = make_params()
    run_three(workspace, params)
    capsys.readouterr()
    preprocess.run(workspace, params)
    assert capsys.readouterr().out.count("(cached)") == 8
    (workspace / "artifacts/cases/case-000000000006/image.nii.gz").write_bytes(
        (workspace / "artifacts/cases/case-000000000000/image.nii.gz").read_bytes()
    )
    preprocess.run(workspace, params)
    assert capsys.readouterr().out.count("(cached)") == 7
    label = workspace / "artifacts/cases/case-000000000001/label.nii.gz"
    values, affine = read_label(label)
    write_image(label, np.where(values == 2, 1, values).astype(np.uint8), affine)
    preprocess.run(workspace, params)
    assert capsys.readouterr().out.count("(cached)") == 7
    assert PreparedCase.read(workspace / "artifacts/prepared/case-000000000001/meta.json").class_voxels[1] == 0
    preprocess.run(workspace, make_params(preprocess={"image_dtype": "float16"}))
    assert "(cached)" not in capsys.readouterr().out
    assert np.load(workspace / "artifacts/prepared/case-000000000000/image.npy").dtype == np.float16


def test_the_plan_does_not_look_at_test_cases(workspace):
    params = make_params()
    split.run(workspace, params)
    made = Split.read(workspace / "artifacts/split/split.json")
    for case_id in (*made.test, *made.unlabelled):
        (workspace / "artifacts/cases" / case_id / "image.nii.gz").write_bytes(b"not to be opened")
    plan.run(workspace, params)


def test_test_ids_come_from_the_workspace(workspace):
    (workspace / "test.json").write_text(json.dumps(["case-000000000004", "case-000000000005"]))
    params = make_params(split={"n_folds": 2, "test_ids_file": "test.json"})
    split.run(workspace, params)
    assert Split.read(workspace / "artifacts/split/split.json").test == ("case-000000000004", "case-000000000005")
    (workspace / "test.json").write_text(json.dumps(["case-000000000000"]))
    with pytest.raises(LeakageError, match="case-000000000001"):
        split.run(workspace, params)
    # the earlier output stays whole
    assert Split.read(workspace / "artifacts/split/split.json").test == ("case-000000000004", "case-000000000005")


ZSCORE = {
    "source": None, "network": UNET.model_dump(), "spacing_mm": [4.0, 4.0, 4.0], "intensity": {"rule": "zscore"},
}  # fmt: skip


def make_constant(workspace, *numbers):
    for number in numbers:
        path = workspace / f"artifacts/cases/case-{number:012x}/image.nii.gz"
        image, affine = read_image(path)
        write_image(path, np.full_like(image, 40), affine)


def test_a_case_that_cannot_be_prepared_is_listed_and_the_others_go_on(workspace, capsys):
    make_constant(workspace, 4)
    run_three(workspace, make_params(plan=ZSCORE))
    folder = workspace / "artifacts/prepared"
    assert sorted(path.name for path in folder.iterdir()) == sorted(
        [f"case-{number:012x}" for number in range(8) if number != 4] + ["failed.json"]
    )
    (failed,) = RejectionList.read(folder / "failed.json").rejected
    assert (failed.item, failed.kind, failed.code) == ("case-000000000004", "case", "constant")
    assert "zscore" in failed.reason
    assert "1 of 8 cases failed" in capsys.readouterr().out
    # a window is defined for a constant image too
    run_three(workspace, make_params())
    assert RejectionList.read(folder / "failed.json").rejected == ()
    assert (folder / "case-000000000004").is_dir()


def test_too_many_failures_stop_the_stage_and_the_reasons_are_kept(workspace):
    make_constant(workspace, 0, 2, 4)
    reasons = workspace / ".monai_tl/preprocess_failed.json"
    with pytest.raises(StageError, match=r"3 of 8 cases failed \(constant 3\).*max_failed_fraction 0\.3") as caught:
        run_three(workspace, make_params(plan=ZSCORE, preprocess={"max_failed_fraction": 0.3}))
    assert str(reasons) in str(caught.value)
    assert not (workspace / "artifacts/prepared").exists()
    listed = RejectionList.read(reasons).rejected
    assert [one.item for one in listed] == [f"case-{number:012x}" for number in (0, 2, 4)]
    preprocess.run(workspace, make_params(plan=ZSCORE))
    assert not reasons.exists()
    make_constant(workspace, *range(8))
    with pytest.raises(StageError, match="8 of 8"):
        preprocess.run(workspace, make_params(plan=ZSCORE, preprocess={"max_failed_fraction": 1.0}))


def test_what_the_plan_says_of_its_source_does_not_cost_the_cache(workspace, capsys):
    run_three(workspace, make_params())
    path = workspace / "artifacts/plan/plan.json"
    told = Adaptation(item="spacing", source="1", target="9", status="broken", reason="far", accepted=True)
    far = ShiftFeature(name="x", source=1.0, target=2.0, unit="", measure="log2 ratio", distance=1.0)
    shift = Shift(score=1.0, largest="x", basis="contract", features=(far,))
    made = Plan.read(path).model_copy(update={"adaptations": (told,), "shift": shift, "notes": ("note",)})
    made.write(path)
    capsys.readouterr()
    preprocess.run(workspace, make_params())
    assert capsys.readouterr().out.count("(cached)") == 8
    # what changes a voxel does
    made.model_copy(update={"spacing_mm": (5.0, 5.0, 5.0)}).write(path)
    preprocess.run(workspace, make_params())
    assert "(cached)" not in capsys.readouterr().out


def test_the_limit_of_failures_does_not_cost_the_cache(workspace, capsys):
    run_three(workspace, make_params())
    capsys.readouterr()
    preprocess.run(workspace, make_params(preprocess={"max_failed_fraction": 0.1}))
    assert capsys.readouterr().out.count("(cached)") == 8


def test_a_class_that_only_test_cases_have_stops_the_plan(workspace):
    params = make_params()
    split.run(workspace, params)
    made = Split.read(workspace / "artifacts/split/split.json")
    manifest = read_manifest(workspace / "artifacts/cases")
    pool = {case_id for fold in made.folds for case_id in fold.val}
    for case_id in pool:
        values, affine = read_label(manifest.label_path(case_id))
        write_image(manifest.label_path(case_id), np.where(values == 2, 1, values).astype(np.uint8), affine)
    with pytest.raises(LabelError, match=f"tumour is in none of the {len(pool)} training cases"):
        plan.run(workspace, params)
    assert not (workspace / "artifacts/plan").exists()


def test_copies_under_two_names_are_noted_in_file_and_log(workspace, capsys):
    path = workspace / "artifacts/cases/case-000000000005/case.json"
    record = json.loads(path.read_text())
    record["provenance"]["image_sha256"] = f"{7:064x}"
    path.write_text(json.dumps(record))
    split.run(workspace, make_params())
    (note,) = Split.read(workspace / "artifacts/split/split.json").notes
    assert "case-000000000005, case-000000000007" in note
    assert note in capsys.readouterr().out


def test_a_plan_of_another_intensity_changes_the_arrays(workspace):
    run_three(workspace, make_params())
    before = hashes(workspace / "artifacts/prepared")
    config = PlanConfig(
        source=None, network=UNET, spacing_mm=(4.0, 4.0, 4.0), intensity=IntensityConfig(rule="window", low=0, high=99)
    )
    run_three(workspace, make_params(plan=config.model_dump()))
    after = hashes(workspace / "artifacts/prepared")
    assert before.keys() == after.keys()
    assert all((before[name] != after[name]) == name.endswith("image.npy") for name in before)
