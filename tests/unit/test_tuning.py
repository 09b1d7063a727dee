"""Rates, pulls and moments of the optimiser, against their definitions."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from ladder_runs import make_settings, make_trained_network, make_trainer, make_unet, train

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


def _moments(tuning: Tuning) -> dict[str, dict[str, torch.Tensor]]:
    state = tuning.optimiser.state
    return {
        name: {key: value.clone() for key, value in state[parameter].items()}
        for name, parameter in tuning.network.named_parameters()
        if parameter in state
    }


def test_within_a_schedule_what_goes_on_training_keeps_its_moments_and_what_thaws_has_none() -> None:
    tuning = _tune("gradual", max_steps=12, head_steps=2, group_steps=3)
    _, first, second, *_ = tuning.strategy.phases
    assert not second.begins_schedule
    tuning.enter(first)
    for step in range(2, 5):
        _step(tuning, step, gradient=0.5)
    kept = _moments(tuning)
    assert {float(state["step"]) for state in kept.values()} == {3.0}
    tuning.enter(second)
    now = _moments(tuning)
    assert now.keys() == kept.keys()
    assert len(tuning.trained) > len(kept)
    assert all(torch.equal(now[name][key], value) for name, state in kept.items() for key, value in state.items())


def test_a_schedule_that_begins_anew_begins_without_moments() -> None:
    tuning = _tune("lp_ft")
    for step in range(3):
        _step(tuning, step, gradient=0.5)
    assert _moments(tuning)
    tuning.enter(tuning.strategy.phases[1])
    assert not _moments(tuning)


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


def _set_gradients(tuning: Tuning, norm: float) -> list[torch.Tensor]:
    """Normal numbers, of this norm over all that trains; gives copies."""
    generator = torch.Generator().manual_seed(1)
    drawn = [torch.randn(parameter.shape, generator=generator, dtype=torch.float64) for parameter in tuning.trained]
    length = float(sum(tensor.square().sum() for tensor in drawn)) ** 0.5
    for parameter, tensor in zip(tuning.trained, drawn, strict=True):
        parameter.grad = (tensor * (norm / length)).to(parameter.dtype)
    return [parameter.grad.clone() for parameter in tuning.trained]


@pytest.mark.parametrize("strategy", ["full", "lp_ft"])
def test_a_long_gradient_is_shortened_to_the_limit_and_keeps_its_direction(strategy: str) -> None:
    """In ``lp_ft`` the head trains alone: what is frozen has no gradient, and counts for nothing."""
    tuning = _tune(strategy, gradient_clip=2.5)
    before = _set_gradients(tuning, 100.0)
    assert tuning.clip() == pytest.approx(100.0, rel=1e-5)
    after = [parameter.grad for parameter in tuning.trained]
    norm = float(sum(tensor.double().square().sum() for tensor in after)) ** 0.5
    assert norm == pytest.approx(2.5, rel=1e-5)
    assert all(torch.allclose(now, old * (2.5 / 100), rtol=1e-5) for now, old in zip(after, before, strict=True))
    assert sum(parameter.grad is not None for parameter in tuning.network.parameters()) == len(tuning.trained)


@pytest.mark.parametrize(
    ("norm", "settings"), [(2.4, {"gradient_clip": 2.5}), (11.9, {}), (100.0, {"gradient_clip": 1e9})]
)
def test_a_gradient_below_the_limit_stays_to_the_bit(norm: float, settings: dict[str, float]) -> None:
    """The limit is 12 where nothing is said; one that no gradient reaches turns clipping off."""
    tuning = _tune("full", **settings)
    before = _set_gradients(tuning, norm)
    assert tuning.clip() == pytest.approx(norm, rel=1e-5)
    assert all(torch.equal(parameter.grad, old) for parameter, old in zip(tuning.trained, before, strict=True))


def test_training_shortens_its_gradients(tmp_path: Path) -> None:
    """Adam divides a gradient by its own length, so only one near its epsilon, 1e-8, makes short steps."""
    moved = {}
    for limit in (12.0, 1e-12):
        settings = make_settings("full", gradient_clip=limit, weight_decay=0.0, max_steps=4)
        run = train(tmp_path / str(limit), settings)
        names = [name for name, _ in run.network.named_parameters()]
        moved[limit] = max(float((run.outcome.state_dict[name] - run.before[name]).abs().max()) for name in names)
    assert moved[12.0] > 1e-2
    assert moved[1e-12] < 1e-5


@pytest.mark.parametrize("value", [0, -1.0, None])
def test_a_limit_that_would_stop_all_training_is_refused(value: Any) -> None:
    with pytest.raises(ValueError, match="gradient_clip"):
        make_settings("full", gradient_clip=value)


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
