"""``norm_statistics: source``: what came across is what a network trains by and predicts by."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from balls import make_config, make_plan, train_scratch, write_workspace
from safetensors.torch import load_file

from monai_tl.config import NetworkConfig
from monai_tl.records import Split
from monai_tl.sources.card import read_source
from monai_tl.stages.finetune import finetune

NETWORK = NetworkConfig(name="unet", arguments={"channels": [6, 12], "strides": [2], "norm": "batch"})
STATISTICS = ("running_mean", "running_var", "num_batches_tracked")


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    plan = make_plan().model_copy(update={"network": NETWORK})
    return train_scratch(write_workspace(tmp_path_factory.mktemp("source"), plan), max_steps=6)


def _train(workspace: Path, source: Path | None, **changes: Any) -> Path:
    plan = make_plan().model_copy(update={"network": NETWORK})
    write_workspace(workspace, plan)
    fold = Split.read(workspace / "artifacts/split/split.json").folds[0]
    arm = "scratch" if source is None else "transfer"
    config = make_config(arms=(arm,), max_steps=6, head_steps=2, norm_statistics="source", batch_size=1, **changes)
    return finetune(workspace, plan, fold, config, None if source is None else read_source(source), arm, 0)


@pytest.mark.parametrize("strategy", ["lp_ft", "gradual", "discriminative", "full", "l2_sp"])
def test_statistics_stay_and_all_else_trains(source: Path, tmp_path: Path, strategy: str) -> None:
    model = _train(tmp_path, source, strategy=strategy, group_steps=1)
    before, after = load_file(source / "weights.safetensors"), load_file(model / "weights.safetensors")
    statistics = {name for name in before if name.endswith(STATISTICS)}
    assert len(statistics) >= 6
    moved = {name for name in before if not torch.equal(before[name], after[name])}
    assert moved == set(before) - statistics
    facts = json.loads((model / "training.json").read_text())
    assert facts["n_held_statistics"] == len([name for name in statistics if name.endswith("running_mean")])


def test_the_twin_has_none_to_keep(source: Path, tmp_path: Path) -> None:
    model = _train(tmp_path, None, strategy="lp_ft")
    after = load_file(model / "weights.safetensors")
    assert all(bool((after[name] != 0).any()) for name in after if name.endswith("running_mean"))
    assert json.loads((model / "training.json").read_text())["n_held_statistics"] == 0
