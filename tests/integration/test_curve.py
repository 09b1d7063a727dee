"""Points of a curve trained and tested on balls, and the stage that sums them up."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from curve_balls import POOL, TEST, make_params, pretrain, write_curve_workspace

from monai_tl.dataset.label_subsets import nested_subset
from monai_tl.dataset.manifest import read_manifest
from monai_tl.dataset.nifti import read_label
from monai_tl.errors import ConfigError, ContractError, DataError
from monai_tl.inference import load_models
from monai_tl.records import Rejection, RejectionList, Split
from monai_tl.stages import curve, curve_label, curve_step
from monai_tl.stages.curve_point import point_settings
from monai_tl.transfer.curve_point import CurvePoint

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    workspace = write_curve_workspace(tmp_path_factory.mktemp("curve"))
    pretrain(workspace)
    return workspace


@pytest.fixture(scope="module")
def finished(workspace: Path) -> Path:
    params = make_params()
    for strategy in ("full", "scratch"):
        for labels in ("4", "all"):
            curve_label.run(workspace, params, labels, strategy, "0")
        curve_step.run(workspace, params, "6", strategy, "0")
    curve.run(workspace, params)
    return workspace


def read(workspace: Path, name: str) -> CurvePoint:
    return CurvePoint.read(workspace / "artifacts/curve" / name / "point.json")


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_a_point_has_its_labels_and_no_more_and_never_a_test_case(finished):
    for name, n in (("labels/4-full-0", 4), ("labels/all-scratch-0", len(POOL)), ("steps/6-full-0", len(POOL))):
        point = read(finished, name)
        assert point.n_labels == len(point.case_ids) == n
        assert set(point.case_ids) <= set(POOL)
        assert set(point.dice) == set(point.patients) == set(TEST)
    assert read(finished, "labels/4-full-0").n_val == 1


def test_a_class_that_no_training_label_holds_is_named_and_told_on_the_page(tmp_path):
    workspace = write_curve_workspace(tmp_path)
    manifest = read_manifest(workspace / "artifacts/cases")
    fold = nested_subset({case_id: manifest.case(case_id).patient_key for case_id in POOL}, 4, 0.25, 0)
    for case_id in fold.train:
        manifest.case(case_id).model_copy(update={"class_voxels": {"ball": 0}}).write(
            workspace / "artifacts/cases" / case_id / "case.json"
        )
    params = make_params({"strategies": ["scratch"], "training": {"max_steps": 2}, "steps": [1]}, head_steps=0)
    for labels in ("4", "all"):
        curve_label.run(workspace, params, labels, "scratch", "0")
    curve_step.run(workspace, params, "1", "scratch", "0")
    curve.run(workspace, params)
    assert read(workspace, "labels/4-scratch-0").untaught == ("ball",)
    assert read(workspace, "labels/all-scratch-0").untaught == ()
    page = (workspace / "reports/curve/html/curve.html").read_text(encoding="utf-8")
    assert "In 1 of 3 trainings a class is in none of the labels" in page
    assert json.loads((workspace / "reports/curve/curve.json").read_text())["n_untaught"] == 1


def test_all_strategies_of_a_seed_have_the_same_subset_and_it_is_the_nested_one(finished):
    full, scratch = read(finished, "labels/4-full-0"), read(finished, "labels/4-scratch-0")
    assert full.case_ids == scratch.case_ids
    manifest = read_manifest(finished / "artifacts/cases")
    fold = nested_subset({case_id: manifest.case(case_id).patient_key for case_id in POOL}, 4, 0.25, 0)
    assert full.case_ids == tuple(sorted((*fold.train, *fold.val)))


def test_the_pretrained_start_is_used(finished):
    """A source that knows balls beats twelve steps from scratch by far."""
    full, scratch = (read(finished, f"labels/4-{name}-0").dice for name in ("full", "scratch"))
    assert np.mean(list(full.values())) > np.mean(list(scratch.values())) + 0.1
    assert np.mean(list(full.values())) > 0.8


def test_dice_is_that_of_the_kept_model_on_the_native_grid(workspace, tmp_path):
    """A second way to the same number: the kept weights, thresholded on the whole image in numpy."""
    params = make_params({"training": {"keep_weights": True}, "seeds": [3]})
    curve_label.run(workspace, params, "4", "full", "3")
    point = read(workspace, "labels/4-full-3")
    predictor = load_models([workspace / "artifacts/curve/labels/4-full-3/model"], 1)
    for case_id in TEST[:3]:
        image = np.load(workspace / "artifacts/prepared" / case_id / "image.npy")
        found = predictor.predict_probabilities(image, 0.0, "gaussian", 2).argmax(axis=0) == 1
        reference, _ = read_label(workspace / "artifacts/cases" / case_id / "label.nii.gz")
        expected = 2 * (found & (reference == 1)).sum() / (found.sum() + (reference == 1).sum())
        assert point.dice[case_id][0] == pytest.approx(expected, abs=1e-6)


def test_without_that_wish_no_weights_are_kept_and_nothing_is_left_behind(finished):
    folder = finished / "artifacts/curve/labels/4-scratch-0"
    assert set(contents(folder)) == {"point.json", "history.csv", "training.json"}
    assert sum(len(content) for content in contents(folder).values()) < 20_000
    assert not (finished / "artifacts/models").exists()
    assert list((finished / ".monai_tl/curve").iterdir()) == []


def test_a_point_is_the_same_bytes_again(finished, tmp_path):
    folder = finished / "artifacts/curve/steps/6-full-0"
    before = contents(folder)
    curve_step.run(finished, make_params(), "6", "full", "0")
    assert contents(folder) == before


def test_a_smaller_budget_is_the_same_training_in_fewer_steps(finished):
    config = make_params(max_steps=200, head_steps=60, warmup_steps=10, validate_every=20).finetune
    training = make_params().curve.training
    half = point_settings(config, training, 50, "lp_ft", 7)
    assert (half.max_steps, half.head_steps, half.warmup_steps, half.validate_every, half.seed) == (50, 15, 2, 5, 7)
    whole = point_settings(config, training.model_copy(update={"max_steps": 400}), None, "scratch", 0)
    assert (whole.max_steps, whole.head_steps, whole.validate_every, whole.arms) == (400, 120, 40, ("scratch",))
    averaged = point_settings(config.model_copy(update={"ema_decay": 0.99}), training, 50, "gradual", 0)
    # an average over 100 of 200 steps becomes one over 25 of 50
    assert averaged.ema_decay == pytest.approx(1 - 1 / 25)
    assert averaged.group_steps == 2
    with pytest.raises(ConfigError, match="l2_sp"):
        point_settings(config.model_copy(update={"learning_rate": 0.5}), training, None, "l2_sp", 0)
    shortest = point_settings(config, training, 1, "lp_ft", 0)
    assert (shortest.max_steps, shortest.head_steps, shortest.validate_every) == (1, 0, 1)
    given = point_settings(config, training.model_copy(update={"validate_every": 40}), 50, "full", 0)
    assert given.validate_every == 10
    point = read(finished, "steps/6-scratch-0")
    assert (point.steps, point.n_steps) == (6, 6)
    assert read(finished, "labels/all-scratch-0").n_steps == 12


def test_the_summary_reads_these_points_and_no_others(finished):
    record = json.loads((finished / "reports/curve/curve.json").read_text())
    for name in ("full", "scratch"):
        for labels, budget in (("4", 4), ("all", len(POOL))):
            values = read(finished, f"labels/{labels}-{name}-0").dice.values()
            mean = record["labels"]["dice"][name][str(budget)]["mean"]
            assert mean == pytest.approx(np.mean([one[0] for one in values]), abs=1e-6)
        assert set(record["steps"]["dice"][name]) == {"6", "12"}
    # the full budget is the point of the other axis
    assert record["steps"]["dice"]["full"]["12"] == record["labels"]["dice"]["full"][str(len(POOL))]
    pictures = {path.name for path in (finished / "reports/curve/html").iterdir()}
    assert pictures == {"curve.html", "labels.svg", "labels.png", "steps.svg", "steps.png"}
    before = (finished / "reports/curve/curve.json").read_bytes()
    stray = finished / "artifacts/curve/labels/8-full-0"
    stray.mkdir()
    (stray / "point.json").write_text("{}")
    curve.run(finished, make_params())
    assert (finished / "reports/curve/curve.json").read_bytes() == before


def test_a_test_case_without_a_prediction_scores_zero(workspace):
    listed = workspace / "artifacts/prepared/failed.json"
    before = listed.read_bytes()
    gone = (TEST[0], POOL[0])
    RejectionList(
        rejected=tuple(Rejection(item=one, kind="case", code="constant", reason="constant") for one in gone)
    ).write(listed)
    try:
        curve_label.run(workspace, make_params({"labels": [4, "all"]}, max_steps=7), "all", "full", "9")
    finally:
        listed.write_bytes(before)
    point = read(workspace, "labels/all-full-9")
    assert point.failed == {TEST[0]: "constant"}
    assert point.dice[TEST[0]] == (0.0,)
    # and one of the pool is not drawn
    assert point.n_labels == len(POOL) - 1
    assert POOL[0] not in point.case_ids


def test_faults_are_told_before_anything_is_trained(workspace, tmp_path):
    params = make_params({"labels": [4, 99, "all"]})
    with pytest.raises(DataError, match="99 labels were asked for, but 12"):
        curve_label.run(workspace, params, "4", "full", "0")
    for wrong in ({"labels": "0"}, {"labels": "x"}, {"strategy": "wish"}, {"seed": "-1"}):
        with pytest.raises(ConfigError):
            curve_label.run(workspace, make_params(), **{"labels": "4", "strategy": "full", "seed": "0", **wrong})
    with pytest.raises(ConfigError, match="--steps"):
        curve_step.run(workspace, make_params(), "0", "full", "0")
    other = write_curve_workspace(tmp_path)
    with pytest.raises(ContractError, match="no source"):
        curve_label.run(other, make_params(), "4", "full", "0")
    split = Split.read(other / "artifacts/split/split.json")
    split.model_copy(update={"test": ()}).write(other / "artifacts/split/split.json")
    with pytest.raises(DataError, match="test set"):
        curve_label.run(other, make_params(), "4", "scratch", "0")
    assert not (other / "artifacts/curve").exists()


RUNNER = """
import sys
from pathlib import Path
sys.path.insert(0, sys.argv[2])
from curve_balls import make_params
from train_balls import PacedOutput
from monai_tl.stages import curve_label
sys.stdout = PacedOutput(sys.stdout)
curve_label.run(Path(sys.argv[1]), make_params(max_steps=20), "4", "scratch", "5")
"""


@pytest.mark.long
def test_a_killed_point_goes_on_and_ends_on_the_same_bytes(workspace):
    support = str(ROOT / "tests/support")
    command = [sys.executable, "-c", RUNNER, str(workspace), support]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment)
    assert process.stdout is not None
    for line in process.stdout:
        # past several validations, each of which leaves a checkpoint
        if "13/20" in line:
            process.send_signal(signal.SIGKILL)
            break
    process.stdout.close()
    assert process.wait() == -signal.SIGKILL
    folder = workspace / "artifacts/curve/labels/4-scratch-5"
    assert not folder.exists()
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=True)
    assert "resumed from a checkpoint" in done.stdout
    assert "curve" in done.stdout
    resumed = contents(folder)
    curve_label.run(workspace, make_params(max_steps=20), "4", "scratch", "5")
    assert contents(folder) == resumed
    assert list((workspace / ".monai_tl/curve").iterdir()) == []
