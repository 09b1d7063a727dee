"""bfloat16 in the products: the same training to within its rounding, float32 weights, and exact when gone on with."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from balls import train_scratch, write_workspace
from ladder_runs import KilledError, make_settings, train
from safetensors.torch import load_file

import monai_tl.training.loop
from monai_tl.files import read_json


def test_it_learns_as_float32_does_and_leaves_float32_weights(tmp_path: Path) -> None:
    models = {
        precision: train_scratch(
            write_workspace(tmp_path / precision), max_steps=40, validate_every=20, precision=precision
        )
        for precision in ("float32", "bfloat16")
    }
    weights = {name: load_file(folder / "weights.safetensors") for name, folder in models.items()}
    floating = [tensor for tensor in weights["bfloat16"].values() if tensor.is_floating_point()]
    assert {tensor.dtype for tensor in floating} == {torch.float32}
    assert any(not torch.equal(weights["float32"][name], weights["bfloat16"][name]) for name in weights["float32"])
    dice = {name: read_json(folder / "training.json")["best_val_dice"] for name, folder in models.items()}
    assert dice["float32"] > 0.5
    assert dice["bfloat16"] == pytest.approx(dice["float32"], abs=0.1)


def test_it_goes_on_to_the_bit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(monai_tl.training.loop, "SECONDS_BETWEEN_CHECKPOINTS", 0.0)
    config = make_settings("lp_ft", ema_decay=0.7, precision="bfloat16")
    whole = train(tmp_path / "whole", config).outcome.state_dict
    with pytest.raises(KilledError):
        train(tmp_path / "cut", config, stop_at=5)
    resumed = train(tmp_path / "cut", config).outcome.state_dict
    assert all(torch.equal(tensor, resumed[name]) for name, tensor in whole.items())
