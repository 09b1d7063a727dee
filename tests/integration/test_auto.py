"""``strategy: auto`` in the stage: it trains what it decides, and writes down why."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from balls import make_config, make_plan, train_scratch, write_workspace
from safetensors.torch import load_file

from monai_tl.errors import ConfigError
from monai_tl.records import Adaptation, Plan, Split
from monai_tl.sources.card import read_source
from monai_tl.stages.finetune import finetune
from monai_tl.transfer.ladder import LADDER
from monai_tl.transfer.recommend import HEAD_SHARE

N_STEPS = 30


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return train_scratch(write_workspace(tmp_path_factory.mktemp("source")), max_steps=8)


def _train(workspace: Path, source: Path, plan: Plan | None = None, **changes: Any) -> Path:
    write_workspace(workspace, plan)
    fold = Split.read(workspace / "artifacts/split/split.json").folds[0]
    config = make_config(**{"arms": ("transfer",), "max_steps": N_STEPS, "validate_every": 10, **changes})
    return finetune(workspace, plan or make_plan(), fold, config, read_source(source), "transfer", 0)


def test_it_is_the_strategy_it_decides(source: Path, tmp_path: Path) -> None:
    auto = _train(tmp_path / "auto", source, strategy="auto", head_steps=29)
    facts = json.loads((auto / "training.json").read_text())
    assert facts["strategy"] == facts["decision"]["strategy"] == "lp_ft"
    assert facts["decision"]["inputs"]["n_labels"] == 3
    assert facts["decision"]["inputs"]["n_parameters"] == facts["n_parameters"]
    assert "3 labelled cases" in facts["decision"]["reason"]
    head_steps = round(HEAD_SHARE * N_STEPS)
    assert facts["thaw_events"][0]["step"] == head_steps
    named = _train(tmp_path / "named", source, strategy="lp_ft", head_steps=head_steps)
    assert "decision" not in json.loads((named / "training.json").read_text())
    weights = [load_file(folder / "weights.safetensors") for folder in (auto, named)]
    assert all(torch.equal(tensor, weights[1][name]) for name, tensor in weights[0].items())


def test_a_broken_line_of_the_contract_decides(source: Path, tmp_path: Path) -> None:
    line = Adaptation(item="field of view", source="a", target="b", status="broken", reason="c", accepted=True)
    plan = make_plan().model_copy(update={"adaptations": (line,)})
    facts = json.loads((_train(tmp_path, source, plan, strategy="auto") / "training.json").read_text())
    assert facts["strategy"] == "full"
    assert "field of view" in facts["decision"]["reason"]
    assert facts["decision"]["inputs"]["contract_broken"] == ["field of view"]


def test_a_source_of_the_encoder_alone_is_not_frozen_with_a_random_decoder(source: Path, tmp_path: Path) -> None:
    workspace, made = write_workspace(tmp_path), read_source(source)
    encoder = replace(made, card=made.card.model_copy(update={"covers": ("down0",)}))
    fold = Split.read(workspace / "artifacts/split/split.json").folds[0]
    config = make_config(arms=("transfer",), max_steps=4, strategy="auto")
    facts = json.loads(
        (finetune(workspace, make_plan(), fold, config, encoder, "transfer", 0) / "training.json").read_text()
    )
    assert facts["decision"]["inputs"]["fresh_groups"] == ["bottom"]
    assert (facts["strategy"], facts["phases"][0]["trainable"]) == ("lp_ft", ["bottom", "head"])
    named = config.model_copy(update={"strategy": "feature_extraction"})
    with pytest.raises(ConfigError, match="bottom"):
        finetune(workspace, make_plan(), fold, named, encoder, "transfer", 0)


def test_the_twin_is_the_same_whatever_the_strategy(tmp_path: Path) -> None:
    """Everything from the first step to the last of the budget, at the one rate: to the bit."""
    found = []
    for name in (*LADDER, "auto"):
        workspace = write_workspace(tmp_path / name)
        arms = ("scratch",) if name == "scratch" else ("transfer", "scratch")
        folder = train_scratch(workspace, arms=arms, strategy=name, max_steps=5, head_steps=3, validate_every=5)
        facts = json.loads((folder / "training.json").read_text())
        assert (facts["strategy"], facts["n_steps"], facts["share_trained"]) == ("scratch", 5, 1.0)
        assert [phase["first_step"] for phase in facts["phases"]] == [0]
        found.append(load_file(folder / "weights.safetensors"))
    assert all(torch.equal(tensor, weights[key]) for weights in found[1:] for key, tensor in found[0].items())


def test_the_twin_has_nothing_to_decide(tmp_path: Path) -> None:
    workspace = write_workspace(tmp_path)
    folder = train_scratch(workspace, strategy="auto", max_steps=4)
    facts = json.loads((folder / "training.json").read_text())
    assert facts["strategy"] == "scratch"
    assert "decision" not in facts
    assert facts["share_trained"] == 1.0
