"""Rates, pulls and moments of the optimiser, against their definitions."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from ladder_runs import make_settings, make_trained_network, make_trainer, make_unet

from monai_tl.config import NetworkConfig
from monai_tl.errors import ConfigError
from monai_tl.networks.builders import groups_of
from monai_tl.networks.groups import assign_groups
from monai_tl.records import Audit
from monai_tl.training.tuning import Tuning
from monai_tl.transfer.strategy import make_strategy

PLAIN_NORM: Any = "instance"


def _tune(strategy: Any, network: NetworkConfig | None = None, audit: Audit | None = None, **changes: Any) -> Tuning:
    network = network or make_unet()
    module, config = make_trained_network(network), make_settings(strategy, **changes)
    groups = groups_of(network, module)
    names = [group.name for group in groups]
    return Tuning(module, groups, make_strategy(strategy, config, names, names[-1], audit), config)


def _step(tuning: Tuning, step: int, gradient: float = 0.0) -> None:
    for parameter in tuning.trained:
        parameter.grad = torch.full_like(parameter, gradient)
    tuning.step(step)


def test_rates_decay_group_by_group_towards_the_input() -> None:
    tuning = _tune("discriminative", head_steps=0, layer_decay=0.5, schedule="constant", warmup_steps=0)
    assigned = assign_groups(tuning.network, list(tuning.groups.values()))
    _step(tuning, 0)
    rates = {
        assigned[name]: group["lr"]
        for group in tuning.optimiser.param_groups
        for name, parameter in tuning.network.named_parameters()
        if any(parameter is one for one in group["params"])
    }
    powers = {"head": 0, "up1": 1, "bottom": 2, "down1": 3, "down0": 4}
    assert rates == pytest.approx({group: 1e-2 * 0.5**power for group, power in powers.items()})


def test_a_group_that_thaws_later_is_warmed_up_by_itself() -> None:
    tuning = _tune("gradual", max_steps=40, head_steps=4, group_steps=10, warmup_steps=4, schedule="constant")
    second = tuning.strategy.phases[2]
    assert second.first_step == 14
    tuning.enter(second)
    by_group = {item.group: [tuning.rate(step, item) for step in (14, 15, 17, 18)] for item in second.trained}
    assert by_group["bottom"] == pytest.approx([2.5e-3, 5e-3, 1e-2, 1e-2])
    assert by_group["up1"] == pytest.approx([1e-2] * 4)
    assert by_group["head"] == pytest.approx([1e-2] * 4)


def test_what_goes_on_training_keeps_its_moments_and_what_thaws_has_none() -> None:
    tuning = _tune("lp_ft")
    for step in range(3):
        _step(tuning, step, gradient=0.5)
    kept = {
        name: {key: value.clone() for key, value in tuning.optimiser.state[parameter].items()}
        for name, parameter in tuning.network.named_parameters()
        if parameter.requires_grad
    }
    tuning.enter(tuning.strategy.phases[1])
    for name, parameter in tuning.network.named_parameters():
        state = tuning.optimiser.state.get(parameter, {})
        assert set(state) == set(kept.get(name, {}))
        assert all(torch.equal(state[key], value) for key, value in kept.get(name, {}).items())
    assert all(float(state["step"]) == 3 for state in kept.values())


def _body_audit(came: set[str]) -> Audit:
    module = make_trained_network(make_unet())
    assigned = assign_groups(module, groups_of(make_unet(), module))
    tensors = [
        {"name": n, "group": g, "n_parameters": 1, "status": "matched" if n in came else "fresh"}
        for n, g in assigned.items()
    ]
    content = {"source": "s", "source_sha256": "0", "share_body": 1.0, "share_all": 1.0}
    return Audit.model_validate({**content, "groups": dict.fromkeys(assigned.values(), 1.0), "tensors": tensors})


def test_the_pull_takes_back_its_share_of_the_way_and_replaces_weight_decay() -> None:
    came = {"model.0.conv.unit0.conv.weight", "model.2.0.conv.weight"}
    options = {"l2_sp_weight": 20.0, "weight_decay": 0.5, "schedule": "constant", "warmup_steps": 0}
    tuning = _tune("l2_sp", audit=_body_audit(came), **options)
    # the head came across whole, so nothing goes first; and the head is not pulled
    assert [phase.name for phase in tuning.strategy.phases] == ["all"]
    assert set(tuning.starts) == {"model.0.conv.unit0.conv.weight"}
    parameters = dict(tuning.network.named_parameters())
    pulled, other = parameters["model.0.conv.unit0.conv.weight"], parameters["model.0.conv.unit0.conv.bias"]
    start, before = pulled.detach().clone(), other.detach().clone()
    with torch.no_grad():
        pulled.add_(1.0)
    for step in range(3):
        _step(tuning, step)
    # no gradient: only the pull acts, at rate 0.01 and weight 20 a fifth of the way each step
    assert torch.allclose(pulled - start, torch.full_like(start, 0.8**3), atol=1e-6)
    assert torch.allclose(other, before * (1 - 0.01 * 0.5) ** 3)


def test_adam_is_untouched_by_the_order_of_groups() -> None:
    """Rates alike in all groups give the same step as one group: a reference with torch's own optimiser."""
    tuning, other = _tune("full", schedule="constant", warmup_steps=0), make_trained_network(make_unet())
    reference = torch.optim.AdamW(other.parameters(), lr=1e-2, weight_decay=1e-5, fused=True)
    for step in range(3):
        for parameter in other.parameters():
            parameter.grad = torch.full_like(parameter, 0.3 * (step + 1))
        reference.step()
        _step(tuning, step, gradient=0.3 * (step + 1))
    pairs = zip(tuning.network.parameters(), other.parameters(), strict=True)
    assert all(torch.equal(one, two) for one, two in pairs)


def test_strategies_that_would_train_nothing_of_the_body_are_refused() -> None:
    with pytest.raises(ConfigError, match="norm_only, but the body has no normalisation with scale"):
        _tune("norm_only", make_unet(PLAIN_NORM))
    with pytest.raises(ConfigError, match="no layer of the body is large enough"):
        _tune("lora", lora_rank=500)


def test_the_share_of_trained_parameters_counts_each_once(tmp_path: Path) -> None:
    whole = sum(parameter.numel() for parameter in make_trained_network(make_unet()).parameters())
    full = make_trainer(tmp_path, make_settings("lp_ft")).tuning.count()
    assert full == {"n_parameters": whole, "n_trained_parameters": whole, "share_trained": 1.0}
    head = make_trainer(tmp_path, make_settings("feature_extraction")).tuning.count()
    module = make_trained_network(make_unet())
    assert head["n_trained_parameters"] == sum(p.numel() for p in module.get_submodule("model.2").parameters())
    lora = make_trainer(tmp_path, make_settings("lora")).tuning
    updates = sum(p.numel() for name, p in lora.network.named_parameters() if name.endswith((".up", ".down")))
    assert lora.count()["n_trained_parameters"] == head["n_trained_parameters"] + updates
    assert lora.count()["n_parameters"] == whole
