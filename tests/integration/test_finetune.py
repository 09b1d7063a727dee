"""The training loop on a tiny prepared workspace: what it learns, and that it is exact."""

from __future__ import annotations

import csv
import itertools
import json
import math
import os
import platform
import signal
import subprocess
import sys
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path

import numpy as np
import pytest
import torch
from balls import (
    CASE_IDS,
    make_config,
    make_params,
    make_plan,
    make_runnable,
    make_unprepared,
    train_scratch,
    write_workspace,
)
from ladder_runs import PLAIN_INSTANCE, KilledError, make_settings, make_trainer, make_unet
from safetensors.torch import load_file
from torch import Tensor

from monai_tl.dataset.patches import PatchSampler, load_case
from monai_tl.errors import ConfigError, ContractError, DivergenceError, TrainingError, WeightsError
from monai_tl.inference import load_models
from monai_tl.records import Audit, Plan, Split
from monai_tl.sources.card import read_source
from monai_tl.stages.finetune import finetune, run
from monai_tl.training.batches import make_batch, stream_batches
from monai_tl.training.checkpoint import locked, read_newest
from monai_tl.training.loop import Trainer

ROOT = Path(__file__).parents[2]
FILES = {"card.yaml", "weights.safetensors", "plan.json", "audit.json", "history.csv", "training.json"}
N_STEPS = 60


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A workspace with a scratch arm trained without interruption."""
    workspace = write_workspace(tmp_path_factory.mktemp("finished"))
    train_scratch(workspace, max_steps=N_STEPS)
    return workspace


def _contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def _rows(folder: Path) -> list[dict[str, str]]:
    with (folder / "history.csv").open() as stream:
        return list(csv.DictReader(stream))


def _start(workspace: Path) -> subprocess.Popen[str]:
    command = [sys.executable, str(ROOT / "tests/support/train_balls.py"), str(workspace), str(N_STEPS)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment)


def _wait_for_step(process: subprocess.Popen[str], step: int) -> None:
    assert process.stdout is not None
    for line in process.stdout:
        if f" {step}/{N_STEPS} " in line:
            return
    raise AssertionError("the process ended before the step was reached")


def _checkpoints(workspace: Path) -> Path:
    (folder,) = (workspace / ".monai_tl/train").iterdir()
    return folder


def test_it_learns_and_leaves_a_whole_model(finished: Path) -> None:
    folder = finished / "artifacts/models/scratch-0-0"
    assert {path.name for path in folder.iterdir()} == FILES
    facts = json.loads((folder / "training.json").read_text())
    assert facts["best_val_dice"] > 0.9
    assert facts["stop_reason"] == "budget"
    assert facts["n_steps"] == N_STEPS
    assert facts["versions"] == {
        "python": platform.python_version(),
        "torch": version("torch"),
        "monai": version("monai"),
        "device": torch.cuda.get_device_name() if torch.cuda.is_available() else f"cpu {platform.machine()}",
        "n_threads": 1,
        "deterministic_algorithms": True,
        "cudnn_benchmark": False,
    }
    scored = {int(row["step"]): float(row["val_dice"]) for row in _rows(folder) if row["val_dice"]}
    assert sorted(scored) == list(range(4, N_STEPS + 1, 4))
    best = max(scored.values())
    assert facts["best_step"] == min(step for step, dice in scored.items() if dice == best)
    audit = Audit.read(folder / "audit.json")
    assert audit.share_all == 0.0
    assert {item.status for item in audit.tensors} == {"fresh"}
    # no checkpoint outlives its output
    assert not list((finished / ".monai_tl/train").iterdir())


def test_the_best_weights_are_the_ones_kept(finished: Path) -> None:
    folder = finished / "artifacts/models/scratch-0-0"
    predictor = load_models([folder], n_threads=1)
    case = finished / "artifacts/prepared" / CASE_IDS[0]
    probabilities = predictor.predict_probabilities(np.load(case / "image.npy"))
    label, prediction = np.load(case / "label.npy"), probabilities.argmax(0)
    dice = 2 * (label * prediction).sum() / (label.sum() + prediction.sum())
    facts = json.loads((folder / "training.json").read_text())
    assert dice == pytest.approx(facts["best_val_dice"], abs=0.02)
    with pytest.raises(ContractError, match="1 channels"):
        predictor.predict_probabilities(np.zeros((2, 8, 8, 8), dtype=np.float32))


def test_twice_gives_the_same_bytes(finished: Path, tmp_path: Path) -> None:
    again = train_scratch(write_workspace(tmp_path), max_steps=N_STEPS)
    assert _contents(again) == _contents(finished / "artifacts/models/scratch-0-0")


@pytest.mark.slow
def test_killed_and_resumed_equals_never_killed(finished: Path, tmp_path: Path) -> None:
    workspace = write_workspace(tmp_path)
    process = _start(workspace)
    _wait_for_step(process, 23)
    process.kill()
    process.wait(timeout=60)
    assert process.returncode == -signal.SIGKILL
    assert not (workspace / "artifacts/models").exists()
    state = read_newest(_checkpoints(workspace))
    assert state is not None
    assert 20 <= state["step"] < N_STEPS
    resumed = train_scratch(workspace, max_steps=N_STEPS)
    assert _contents(resumed) == _contents(finished / "artifacts/models/scratch-0-0")


@pytest.mark.slow
def test_a_second_run_is_refused_and_sigterm_gives_a_checkpoint_and_143(finished: Path, tmp_path: Path) -> None:
    workspace = write_workspace(tmp_path)
    process = _start(workspace)
    _wait_for_step(process, 10)
    with pytest.raises(TrainingError, match=f"in use by process {process.pid}"), locked(_checkpoints(workspace)):
        pass
    process.terminate()
    process.communicate(timeout=60)
    assert process.returncode == 143
    assert not (workspace / "artifacts/models").exists()
    state = read_newest(_checkpoints(workspace))
    assert state is not None
    assert 10 <= state["step"] < N_STEPS
    resumed = train_scratch(workspace, max_steps=N_STEPS)
    assert _contents(resumed) == _contents(finished / "artifacts/models/scratch-0-0")


def test_divergence_names_the_cases_and_mended_arrays_start_anew(tmp_path: Path) -> None:
    workspace = write_workspace(tmp_path)
    path = workspace / "artifacts/prepared" / CASE_IDS[1] / "image.npy"
    image = np.load(path)
    broken = image.copy()
    broken[0, 10] = np.nan
    np.save(path, broken)
    with pytest.raises(DivergenceError, match=f"loss is not finite.*{CASE_IDS[1]}"):
        train_scratch(workspace)
    assert not (workspace / "artifacts/models").exists()
    np.save(path, image)
    train_scratch(workspace)
    # the broken arrays' folder is left; the mended ones had a key, and so a folder, of their own
    assert len(list((workspace / ".monai_tl/train").iterdir())) == 1


def _spoil(trainer: Trainer, what: str, step: int) -> None:
    """Make the loss, or one gradient of a loss that is finite, infinite from a step on."""
    steps = itertools.count(1)

    def spoil(tensor: Tensor) -> Tensor:
        return tensor * math.inf if next(steps) >= step else tensor

    if what == "loss":
        trainer.loss.register_forward_hook(lambda layer, inputs, loss: spoil(loss))
    else:
        next(trainer.network.parameters()).register_hook(spoil)


def _tensors(trainer: Trainer) -> list[Tensor]:
    """All that a step changes: weights, optimiser, average."""
    states = trainer.tuning.optimiser.state_dict()["state"].values()
    learned = [value for state in states for value in state.values()]
    assert trainer.average is not None
    return [*trainer.network.state_dict().values(), *learned, *trainer.average.values.values()]


@pytest.mark.parametrize("what", ["loss", "gradient"])
def test_divergence_takes_no_step_and_writes_no_checkpoint(what: str, tmp_path: Path) -> None:
    config, network = make_settings("full", ema_decay=0.7), make_unet(PLAIN_INSTANCE)
    torch.set_num_threads(1)
    before = make_trainer(tmp_path / "before", config, network, stop_at=5)
    with pytest.raises(KilledError):
        before.run()
    trainer = make_trainer(tmp_path / "cut", config, network)
    _spoil(trainer, what, 6)
    with pytest.raises(DivergenceError, match=f"{what} is not finite at step 6 "):
        trainer.run()
    pairs = list(zip(_tensors(trainer), _tensors(before), strict=True))
    assert len(pairs) > 40
    assert all(torch.equal(one, other) for one, other in pairs)
    state = read_newest(tmp_path / "cut")
    assert state is not None
    assert state["step"] == 4


@pytest.mark.slow
def test_a_process_whose_loss_is_not_finite_ends_with_status_5(tmp_path: Path) -> None:
    workspace = write_workspace(tmp_path)
    for case_id in CASE_IDS[1:]:
        np.save(workspace / "artifacts/prepared" / case_id / "image.npy", np.full((1, 20, 22, 18), np.nan, np.float32))
    command = [sys.executable, *make_runnable(workspace)]
    done = subprocess.run(
        command, env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True, text=True, check=False
    )
    assert done.returncode == 5, done.stderr
    assert "loss is not finite at step 1 (cases case-" in done.stderr
    assert read_newest(_checkpoints(workspace)) is None
    assert not (workspace / "artifacts/models").exists()


def test_patience_ends_training_early(tmp_path: Path) -> None:
    # no rate to speak of: the weights stay, and so does the score
    folder = train_scratch(write_workspace(tmp_path), learning_rate=1e-12, max_steps=40, patience=2, validate_every=2)
    facts = json.loads((folder / "training.json").read_text())
    assert facts["stop_reason"] == "patience"
    assert facts["best_step"] == 2
    assert facts["n_steps"] == 6


def _transfer(workspace: Path, source: Path, **changes: object) -> Path:
    plan = Plan.read(workspace / "artifacts/plan/plan.json")
    fold = Split.read(workspace / "artifacts/split/split.json").folds[0]
    finetune(workspace, plan, fold, make_config(**changes), read_source(source), "transfer", 0)
    return workspace / "artifacts/models/transfer-0-0"


def test_a_model_is_a_source_and_the_head_start_shows(finished: Path, tmp_path: Path) -> None:
    workspace = write_workspace(tmp_path)
    source = finished / "artifacts/models/scratch-0-0"
    folder = _transfer(workspace, source, strategy="feature_extraction", max_steps=4)
    audit = Audit.read(folder / "audit.json")
    assert audit.share_all == 1.0
    before, after = (load_file(path / "weights.safetensors") for path in (source, folder))
    changed = {name.split(".")[1] for name in before if not torch.equal(before[name], after[name])}
    # frozen means frozen: only the head moved
    assert changed == {"2"}
    assert float(_rows(folder)[-1]["val_dice"]) > 0.9


def test_lp_ft_thaws_the_body_after_the_head(finished: Path, tmp_path: Path) -> None:
    workspace = write_workspace(tmp_path)
    folder = _transfer(
        workspace, finished / "artifacts/models/scratch-0-0", strategy="lp_ft", max_steps=6, head_steps=3
    )
    facts = json.loads((folder / "training.json").read_text())
    assert facts["strategy"] == "lp_ft"
    assert facts["thaw_events"] == [{"step": 3, "groups": ["down0", "bottom"]}]
    assert [row["phase"] for row in _rows(folder)] == ["head"] * 3 + ["all"] * 3


def test_weights_that_bring_nothing_fail(finished: Path, tmp_path: Path) -> None:
    plan = make_plan()
    network = plan.network.model_copy(update={"arguments": {**plan.network.arguments, "channels": [5, 9]}})
    workspace = write_workspace(tmp_path, plan.model_copy(update={"network": network}))
    with pytest.raises(WeightsError, match="came across"):
        _transfer(workspace, finished / "artifacts/models/scratch-0-0")
    assert not (workspace / "artifacts/models").exists()


def _sampler(workspace: Path) -> PatchSampler:
    plan = make_plan()
    cases = tuple(load_case(workspace / "artifacts/prepared" / case_id) for case_id in CASE_IDS[1:])
    return PatchSampler(cases, plan.patch_size_vox, plan.size_rule, plan.spacing_mm, 0.67, "light", 0)


def test_twins_see_the_same_patches_and_prefetching_changes_none(finished: Path) -> None:
    sampler = _sampler(finished)
    streamed = list(stream_batches(sampler, 2, 3, 9))
    assert len(streamed) == 6
    for step, batch in enumerate(streamed, start=3):
        alone = make_batch(sampler, 2, step)
        assert batch.case_ids == alone.case_ids
        assert torch.equal(batch.image, alone.image)
        assert torch.equal(batch.label, alone.label)


def test_a_fault_while_a_batch_is_made_reaches_the_loop(finished: Path) -> None:
    with pytest.raises(ZeroDivisionError):
        next(stream_batches(replace(_sampler(finished), cases=()), 2, 0, 4))


def test_cases_that_were_not_prepared_are_left_out_and_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    workspace = write_workspace(tmp_path)
    make_unprepared(workspace, CASE_IDS[0], CASE_IDS[2])
    params = make_params()
    run(workspace, params, "scratch", "0", "0")
    facts = json.loads((workspace / "artifacts/models/scratch-0-0/training.json").read_text())
    assert (facts["n_train_cases"], facts["n_val_cases"]) == (2, 0)
    assert f"left out, because they could not be prepared: {CASE_IDS[0]}, {CASE_IDS[2]}" in capsys.readouterr().out
    none = write_workspace(tmp_path / "none")
    make_unprepared(none, *CASE_IDS[1:])
    with pytest.raises(TrainingError, match=r"no training case.*prepared/failed\.json"):
        run(none, params, "scratch", "0", "0")


def test_each_seed_is_a_training_of_its_own_and_no_other_seed_changes_it(tmp_path: Path) -> None:
    """Trained as one of several seeds, seed 0 gives the bytes that it gives alone; another seed gives others."""
    workspace = write_workspace(tmp_path / "several")
    params = make_params(seeds=(4, 0))
    one = write_workspace(tmp_path / "alone")
    run(one, make_params(), "scratch", "0", "0")
    alone = one / "artifacts/models/scratch-0-0"
    for seed in ("4", "0"):
        run(workspace, params, "scratch", "0", seed)
    models = workspace / "artifacts/models"
    assert sorted(path.name for path in models.iterdir()) == ["scratch-0-0", "scratch-0-4"]
    assert _contents(models / "scratch-0-0") == _contents(alone)
    assert _contents(models / "scratch-0-4") != _contents(models / "scratch-0-0")
    assert json.loads((models / "scratch-0-4/training.json").read_text())["seed"] == 4
    with pytest.raises(ConfigError, match="--seed"):
        run(workspace, params, "scratch", "0", "x")


@pytest.mark.parametrize(
    ("norm", "outcome"),
    [
        (["instance", {"affine": True}], "approximate: group normalisation of 1 groups to instance normalisation"),
        ("batch", "batch normalisation needs running statistics"),
    ],
)
def test_a_network_named_beside_its_source_takes_over_what_fits(tmp_path: Path, norm: object, outcome: str) -> None:
    """Group and instance normalisation look alike on disk: that they differ, the card and the plan say."""
    plan = make_plan()
    grouped = {**plan.network.arguments, "norm": ["group", {"num_groups": 1}]}
    theirs = plan.network.model_copy(update={"arguments": grouped})
    elsewhere = write_workspace(tmp_path / "theirs", plan.model_copy(update={"network": theirs}))
    source = train_scratch(elsewhere, max_steps=5)
    ours = plan.network.model_copy(update={"arguments": {**plan.network.arguments, "norm": norm}})
    workspace = write_workspace(tmp_path / "work", plan.model_copy(update={"network": ours}))
    if norm == "batch":
        with pytest.raises(WeightsError, match=outcome):
            _transfer(workspace, source)
        return
    folder = _transfer(workspace, source, max_steps=2, head_steps=1)
    assert any(note.startswith(outcome) for note in Audit.read(folder / "audit.json").notes)
    assert read_source(folder).card.network.config == ours
