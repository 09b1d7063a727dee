"""Where the source gave only part of the body, the rest trains like a fresh head, never frozen at random values."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from ladder_runs import make_settings, make_trained_network, make_unet

from monai_tl.config import FinetuneConfig
from monai_tl.errors import ConfigError
from monai_tl.networks.builders import groups_of
from monai_tl.networks.groups import assign_groups
from monai_tl.networks.lora import plain_state
from monai_tl.records import Audit, TensorAudit
from monai_tl.sources.accounting import fresh_groups
from monai_tl.training.tuning import Tuning
from monai_tl.transfer.ladder import LADDER
from monai_tl.transfer.ladder.ground import Ground
from monai_tl.transfer.phases import Strategy
from monai_tl.transfer.recommend import FEW_STEPS, LARGE_NETWORK, recommend

GROUPS = ("down0", "down1", "bottom", "up1", "head")
DECODER = ("up1",)


def _make(name: Any, fresh: tuple[str, ...] = DECODER, **changes: Any) -> Strategy:
    return LADDER[name](Ground(make_settings(name, **changes), GROUPS, True, None, fresh))


def _parts(strategy: Strategy, phase: int) -> dict[str, str]:
    return {item.group: item.part for item in strategy.phases[phase].trained}


@pytest.mark.parametrize("name", ["lp_ft", "discriminative", "lora", "norm_only", "l2_sp", "gradual"])
def test_what_is_fresh_trains_with_the_head_first(name: str) -> None:
    assert _parts(_make(name), 0) == {"up1": "all", "head": "all"}


@pytest.mark.parametrize(("name", "part"), [("lora", "low_rank"), ("norm_only", "norm")])
def test_a_fresh_group_trains_whole_where_the_others_train_in_part(name: str, part: str) -> None:
    expected = {"down0": part, "down1": part, "bottom": part, "up1": "all", "head": "all"}
    assert _parts(_make(name), -1) == expected


def test_gradual_thaws_what_came_across_alone() -> None:
    phases = _make("gradual").phases
    assert [phase.name for phase in phases] == ["head", "thaw bottom", "thaw down1", "thaw down0"]
    assert all({"up1", "head"} <= set(phase.trainable) for phase in phases)


def test_a_rate_decays_only_where_there_is_something_to_keep() -> None:
    factors = {item.group: item.factor for item in _make("discriminative", fresh=("down0",)).phases[-1].trained}
    assert factors == pytest.approx({"down0": 1.0, "down1": 0.8**3, "bottom": 0.8**2, "up1": 0.8, "head": 1.0})


def test_a_strategy_that_would_freeze_random_values_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"finetune\.strategy: feature_extraction.*up1"):
        _make("feature_extraction")
    with pytest.raises(ConfigError, match=r"finetune\.n_groups: is 2.*bottom"):
        _make("layer_retraining", fresh=("bottom", "up1"))
    assert set(_make("layer_retraining").phases[-1].trainable) == {"up1", "head"}


@pytest.mark.parametrize("name", ["lora", "norm_only"])
def test_the_rest_of_the_body_moves_in_its_part_alone(name: Any) -> None:
    module = make_trained_network(make_unet())
    groups = groups_of(make_unet(), module)
    assigned = assign_groups(module, groups)
    before = {key: tensor.clone() for key, tensor in module.state_dict().items()}
    tuning = Tuning(module, groups, _make(name, head_steps=0), make_settings(name, head_steps=0))
    assert not any(".parametrizations." in key for key, _ in module.named_parameters() if key.startswith("model.1.2"))
    torch.manual_seed(0)
    for step in range(3):
        module.train()
        tuning.optimiser.zero_grad()
        module(torch.randn(2, 1, 16, 16, 16)).square().mean().backward()
        tuning.step(step)
    after = plain_state(module)
    assert set(after) == set(before)
    moved = {key for key in after if not torch.equal(after[key], before[key])}
    parameters = {key for key in before if not key.endswith(("running_mean", "running_var", "num_batches_tracked"))}
    assert {key for key in parameters if assigned[key] == "up1"} <= moved
    of_part = {key for key in moved if assigned[key] in ("down0", "down1", "bottom")}
    assert of_part
    assert all(before[key].ndim == (5 if name == "lora" else 1) for key in of_part)


def _audit(*fresh: str) -> Audit:
    module = make_trained_network(make_unet())
    assigned = assign_groups(module, groups_of(make_unet(), module))
    parameters = dict(module.named_parameters())
    tensors = tuple(
        TensorAudit(
            name=key,
            group=assigned[key],
            n_parameters=tensor.numel() if key in parameters else 0,
            status="fresh" if key in fresh or assigned[key] in fresh else "matched",
        )
        for key, tensor in module.state_dict().items()
    )
    return Audit(source="s", source_sha256="0", share_body=0.5, share_all=0.5, groups=dict.fromkeys(GROUPS, 0.5),
                 tensors=tensors)  # fmt: skip


def test_a_group_is_fresh_by_a_kernel_not_by_a_shift() -> None:
    module = make_trained_network(make_unet())
    kernel, shift = (
        next(k for k, t in module.named_parameters() if k.startswith("model.0.") and t.ndim == n) for n in (5, 1)
    )
    assert fresh_groups(module, _audit("up1", "bottom", "head")) == ("bottom", "up1")
    assert fresh_groups(module, _audit(kernel)) == ("down0",)
    assert fresh_groups(module, _audit(shift)) == ()


def test_auto_does_not_freeze_what_is_fresh() -> None:
    few = recommend(4, (), 1000, FEW_STEPS - 1, fresh_groups=DECODER)
    assert few.strategy == "lp_ft"
    assert "up1" in few.reason
    assert few.inputs["fresh_groups"] == DECODER
    assert recommend(4, (), LARGE_NETWORK, 200, fresh_groups=DECODER).strategy == "lora"
    shortest = recommend(4, (), 1000, 1, fresh_groups=DECODER)
    config = FinetuneConfig(strategy="lp_ft", max_steps=1, head_steps=0).model_copy(update=shortest.settings)
    assert LADDER["lp_ft"](Ground(config, GROUPS, True, None, DECODER)).n_steps == 1
