"""Cut off at any step and gone on with, every strategy ends on the same bits as if never cut off."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from balls import make_config, train_scratch, write_workspace
from ladder_runs import N_STEPS, STRATEGIES, KilledError, assert_same, make_settings, make_trainer, train

import monai_tl.training.loop
from monai_tl.errors import CheckpointError
from monai_tl.records import Plan, Split
from monai_tl.sources.card import read_source
from monai_tl.stages.finetune import finetune
from monai_tl.training.checkpoint import read_newest
from monai_tl.training.compiled import CODE_FOLDER
from monai_tl.training.loop import Trainer

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize(("strategy", "ema_decay"), [*((name, 0.7) for name in STRATEGIES), ("gradual", 0.0)])
def test_cut_off_again_and_again(
    strategy: str, ema_decay: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # a checkpoint after each step, so that a resume begins at each kind of place
    monkeypatch.setattr(monai_tl.training.loop, "SECONDS_BETWEEN_CHECKPOINTS", 0.0)
    config = make_settings(strategy, ema_decay=ema_decay, find_learning_rate=strategy == "lp_ft")
    if not ema_decay:
        config = config.model_copy(update={"average_power": 2})
    expected = train(tmp_path / "whole", config)
    folder, reached = tmp_path / "cut", []
    for step in (2, 3, 4, 7):
        with pytest.raises(KilledError):
            train(folder, config, stop_at=step)
        state = read_newest(folder)
        assert state is not None
        reached.append(state["step"])
    # within the first phase, before its end, before the validation of the next, and after it
    assert reached == [1, 2, 4, 6]
    assert_same(train(folder, config), expected)
    assert expected.outcome.position.step == N_STEPS


@pytest.mark.parametrize("n_loaders", ["0", "2"])
def test_the_number_of_loaders_may_change_with_each_cut(
    n_loaders: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Epochs are of 1.5 batches, so most of these cuts lie within one; the network has dropout."""
    monkeypatch.setattr(monai_tl.training.loop, "SECONDS_BETWEEN_CHECKPOINTS", 0.0)
    config = make_settings("gradual", ema_decay=0.7, precision="bfloat16", augmentation="strong")
    expected = train(tmp_path / "whole", config)
    monkeypatch.setenv("MONAI_TL_LOADERS", n_loaders)
    assert_same(train(tmp_path / "other", config), expected)
    folder = tmp_path / "cut"
    for step in (2, 5, 6, 8):
        with pytest.raises(KilledError):
            train(folder, config, stop_at=step)
        monkeypatch.setenv("MONAI_TL_LOADERS", {"0": "2", "2": "0"}[os.environ["MONAI_TL_LOADERS"]])
    assert_same(train(folder, config), expected)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_an_order_in_the_last_moment_ends_the_run(
    number: signal.Signals, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It comes with the last score: nothing is left to train, but much may be left of the command."""
    config = make_settings("full")
    expected = train(tmp_path / "whole", config)
    real = Trainer._judge

    def judge(self: Trainer, dice: float | None) -> None:
        real(self, dice)
        if self.position.step == N_STEPS:
            os.kill(os.getpid(), number)

    monkeypatch.setattr(Trainer, "_judge", judge)
    with pytest.raises(SystemExit) as end:
        train(tmp_path / "cut", config)
    assert end.value.code == 128 + number
    assert_same(train(tmp_path / "cut", config), expected)


@pytest.mark.parametrize("change", ["threads", "torch"])
def test_other_threads_or_another_torch_do_not_go_on(
    change: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = make_settings("full")
    with pytest.raises(KilledError):
        train(tmp_path, config, stop_at=6)
    trainer = make_trainer(tmp_path, config)
    if change == "torch":
        monkeypatch.setattr(torch, "__version__", "2.0.0")
    try:
        torch.set_num_threads(2 if change == "threads" else 1)
        with pytest.raises(CheckpointError, match=r"was begun with 1 threads, torch 2\.[1-9].* going on with others"):
            trainer.run()
    finally:
        torch.set_num_threads(1)


def _transfer(workspace: Path, source: Path, **changes: Any) -> Path:
    plan = Plan.read(workspace / "artifacts/plan/plan.json")
    fold = Split.read(workspace / "artifacts/split/split.json").folds[0]
    finetune(workspace, plan, fold, make_config(arms=("transfer",), **changes), read_source(source), "transfer", 0)
    return workspace / "artifacts/models/transfer-0-0"


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    workspace = write_workspace(tmp_path_factory.mktemp("source"))
    return train_scratch(workspace, max_steps=8)


def _kill(workspace: Path, source: Path, step: int, changes: dict[str, Any], n_loaders: str) -> None:
    """Train in a process of its own and kill it when it tells of a step."""
    script = str(ROOT / "tests/support/train_balls.py")
    command = [sys.executable, script, str(workspace), str(changes["max_steps"]), str(source), json.dumps(changes)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "MONAI_TL_LOADERS": n_loaders}
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as process:
        assert process.stdout is not None
        assert any(f" {step}/{changes['max_steps']} " in line for line in process.stdout)
        process.kill()
    assert process.returncode == -signal.SIGKILL


@pytest.mark.slow
@pytest.mark.parametrize(
    ("changes", "n_loaders"),
    [
        ({"strategy": "feature_extraction", "feature_variants": 2, "ema_decay": 0.9}, "1"),
        ({"strategy": "lora", "lora_rank": 2, "ema_decay": 0.9, "find_learning_rate": True}, "0"),
        ({"strategy": "gradual", "head_steps": 6, "group_steps": 4, "ema_decay": 0.9, "precision": "bfloat16"}, "2"),
        ({"strategy": "lp_ft", "head_steps": 6, "ema_decay": 0.9, "compile": True}, "1"),
    ],
    ids=["features", "lora without loaders", "gradual with two loaders", "compiled"],
)
def test_a_killed_process_leaves_what_the_next_goes_on_from(
    source: Path, changes: dict[str, Any], n_loaders: str, tmp_path: Path
) -> None:
    """The network has dropout, and epochs are of 1.5 batches; the runs before and after have one loader."""
    changes = {"max_steps": 24, **changes}
    whole = _transfer(write_workspace(tmp_path / "whole"), source, **changes)
    workspace = write_workspace(tmp_path / "cut")
    _kill(workspace, source, 10, changes, n_loaders)
    (folder,) = (path for path in (workspace / ".monai_tl/train").iterdir() if path.name != CODE_FOLDER)
    state = read_newest(folder)
    assert state is not None
    assert 8 <= state["step"] < 24
    resumed = _transfer(workspace, source, **changes)
    contents = [{path.name: path.read_bytes() for path in model.iterdir()} for model in (resumed, whole)]
    assert contents[0] == contents[1]


def test_settings_that_decide_the_result_are_part_of_the_key(source: Path, tmp_path: Path) -> None:
    """A run that goes on with another run's checkpoint would give neither's result."""
    from monai_tl.stages.finetune import _training_key

    workspace = write_workspace(tmp_path)
    plan = Plan.read(workspace / "artifacts/plan/plan.json")
    fold = Split.read(workspace / "artifacts/split/split.json").folds[0]
    changes: list[dict[str, Any]] = [
        {},
        *({name: 3} for name in ("n_groups", "group_steps", "lora_rank", "lora_alpha", "feature_variants")),
        {"layer_decay": 0.5},
        {"l2_sp_weight": 3.0},
        {"ema_decay": 0.5},
        {"find_learning_rate": True},
        {"feature_cache_mib": 1},
        {"compile": True},
        {"strategy": "lora"},
    ]
    prepared = workspace / "artifacts/prepared"
    keys = {_training_key(prepared, plan, fold, make_config(**change), "transfer-0", {}) for change in changes}
    keys.add(
        _training_key(
            prepared, plan, fold.model_copy(update={"train": fold.train[::-1]}), make_config(), "transfer-0", {}
        )
    )
    assert len(keys) == len(changes) + 1
