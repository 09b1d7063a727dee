"""The ladder: phases cover the budget without gaps, and say what trains when."""

from __future__ import annotations

from typing import Any

import pytest

from monai_tl.config import FinetuneConfig
from monai_tl.errors import ConfigError
from monai_tl.transfer.strategy import Strategy, make_strategy

GROUPS = ("down0", "bottom", "up0", "head")
BODY = GROUPS[:-1]


def _make(name: Any, **options: Any) -> Strategy:
    options = {"max_steps": 100, "head_steps": 30, "learning_rate": 1e-3, "head_learning_rate": 1e-2, **options}
    arms = ["scratch"] if name == "scratch" else ["transfer", "scratch"]
    return make_strategy(name, FinetuneConfig(arms=arms, strategy=name, **options), GROUPS, "head")


@pytest.mark.parametrize("name", ["scratch", "full"])
def test_everything_trains_from_the_first_step(name: str) -> None:
    (phase,) = _make(name).phases
    assert (phase.first_step, phase.n_steps, phase.trainable, phase.learning_rate) == (0, 100, GROUPS, 1e-3)


def test_feature_extraction_trains_the_head_alone() -> None:
    (phase,) = _make("feature_extraction").phases
    assert (phase.first_step, phase.n_steps, phase.trainable, phase.learning_rate) == (0, 100, ("head",), 1e-2)


def test_lp_ft_trains_the_head_first_and_then_everything() -> None:
    strategy = _make("lp_ft", warmup_steps=10)
    head, everything = strategy.phases
    assert (head.first_step, head.n_steps, head.trainable, head.learning_rate) == (0, 30, ("head",), 1e-2)
    assert (everything.first_step, everything.n_steps, everything.trainable) == (30, 70, GROUPS)
    assert everything.learning_rate == 1e-3
    assert everything.warmup_steps == head.warmup_steps == 10
    assert [strategy.phase_at(step).name for step in (0, 29, 30, 99)] == ["head", "head", "all", "all"]


def test_thaw_events_are_named_once() -> None:
    strategy = _make("lp_ft")
    events = {step: strategy.thawed_at(step) for step in range(100) if strategy.thawed_at(step)}
    assert events == {30: BODY}
    assert not any(_make("full").thawed_at(step) for step in range(100))


@pytest.mark.parametrize("name", ["scratch", "full", "feature_extraction", "lp_ft"])
@pytest.mark.parametrize("head_steps", [0, 1, 99])
def test_phases_cover_the_budget(name: str, head_steps: int) -> None:
    strategy = _make(name, head_steps=head_steps)
    assert strategy.n_steps == 100
    assert sum(phase.n_steps for phase in strategy.phases) == 100
    assert all(phase.first_step <= step < phase.end_step for step in range(100) for phase in [strategy.phase_at(step)])
    assert all(0 <= phase.warmup_steps <= phase.n_steps for phase in strategy.phases)


@pytest.mark.parametrize("step", [-1, 100])
def test_a_step_outside_the_budget_is_an_error(step: int) -> None:
    with pytest.raises(ValueError, match="outside the budget of 100"):
        _make("lp_ft").phase_at(step)


def test_a_head_that_is_no_group_is_refused() -> None:
    with pytest.raises(ConfigError, match="'neck' is not among"):
        make_strategy("full", FinetuneConfig(), GROUPS, "neck")


def test_an_unknown_strategy_is_refused() -> None:
    with pytest.raises(ConfigError, match="'lora'"):
        make_strategy("lora", FinetuneConfig(), GROUPS, "head")  # type: ignore[arg-type]
