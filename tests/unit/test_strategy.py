"""The ladder: phases cover the budget without gaps, and say what trains when."""

from __future__ import annotations

from typing import Any, get_args

import pytest

from monai_tl.config import FinetuneConfig, StrategyName
from monai_tl.errors import ConfigError
from monai_tl.records import Audit
from monai_tl.transfer.ladder import LADDER
from monai_tl.transfer.phases import Pull, Schedule, Strategy
from monai_tl.transfer.strategy import make_strategy

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


NAMES = tuple(name for name in get_args(StrategyName) if name != "auto")


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("head_steps", [0, 1, 99])
def test_phases_cover_the_budget(name: str, head_steps: int) -> None:
    strategy = _make(name, head_steps=head_steps)
    assert len({phase.name for phase in strategy.phases}) == len(strategy.phases)
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
    with pytest.raises(ConfigError, match="'prayer'"):
        make_strategy("prayer", FinetuneConfig(), GROUPS, "head")  # type: ignore[arg-type]


def test_the_ladder_has_each_strategy_that_can_be_named() -> None:
    assert set(LADDER) == set(NAMES)


def test_layer_retraining_trains_the_last_groups() -> None:
    head, last = _make("layer_retraining", n_groups=3).phases
    assert head.trainable == ("head",)
    assert (last.first_step, last.trainable) == (30, ("bottom", "up0", "head"))
    (alone,) = _make("layer_retraining", n_groups=1).phases
    assert (alone.n_steps, alone.trainable, alone.learning_rate) == (100, ("head",), 1e-2)
    with pytest.raises(ConfigError, match=r"n_groups: is 5, but the network has 4 layer groups"):
        _make("layer_retraining", n_groups=5)


def test_gradual_thaws_from_the_output_to_the_input() -> None:
    strategy = _make("gradual", group_steps=20)
    events = {step: strategy.thawed_at(step) for step in range(100) if strategy.thawed_at(step)}
    assert events == {30: ("up0",), 50: ("bottom",), 70: ("down0",)}
    assert strategy.phases[-1].trainable == GROUPS
    # one schedule from the first thaw to the end
    assert {phase.schedule for phase in strategy.phases[1:]} == {Schedule(30, 70, 1e-3, 10)}
    assert [phase.begins_schedule for phase in strategy.phases] == [True, True, False, False]
    # what the budget does not reach stays frozen
    assert _make("gradual", group_steps=60).phases[-1].trainable == ("bottom", "up0", "head")


def test_discriminative_rates_fall_by_the_decay_from_group_to_group() -> None:
    phase = _make("discriminative", layer_decay=0.5).phases[-1]
    assert {item.group: item.factor for item in phase.trained} == {
        "down0": 0.125,
        "bottom": 0.25,
        "up0": 0.5,
        "head": 1,
    }


@pytest.mark.parametrize(("name", "part"), [("lora", "low_rank"), ("norm_only", "norm")])
def test_a_part_of_the_body_and_all_of_the_head(name: str, part: str) -> None:
    phase = _make(name).phases[-1]
    assert {item.group: item.part for item in phase.trained} == {**dict.fromkeys(BODY, part), "head": "all"}


def _audit(head_share: float) -> Audit:
    tensor = {"n_parameters": 4, "detail": ""}
    tensors = [
        {"name": "down0.weight", "group": "down0", "status": "matched", **tensor},
        {"name": "down0.bias", "group": "down0", "status": "fresh", **tensor},
        {"name": "up0.weight", "group": "up0", "status": "adapted", **tensor},
        {"name": "head.weight", "group": "head", "status": "matched", **tensor},
        {"name": "other", "group": "", "status": "unused", **tensor},
    ]
    content = {"source": "s", "source_sha256": "0", "share_body": 0.7, "share_all": 0.7, "tensors": tensors}
    return Audit.model_validate({**content, "groups": {"down0": 0.5, "up0": 1.0, "head": head_share}})


@pytest.mark.parametrize("name", ["layer_retraining", "discriminative", "lora", "norm_only", "l2_sp"])
def test_a_head_goes_first_where_part_of_it_is_fresh(name: str) -> None:
    config = FinetuneConfig(strategy=name, max_steps=100, head_steps=30)  # type: ignore[arg-type]
    fresh = make_strategy(config.strategy, config, GROUPS, "head", _audit(0.5))
    assert [phase.first_step for phase in fresh.phases] == [0, 30]
    assert fresh.phases[0].trainable == ("head",)
    whole = make_strategy(config.strategy, config, GROUPS, "head", _audit(1.0))
    assert [phase.first_step for phase in whole.phases] == [0]


def test_l2_sp_pulls_what_came_across_of_the_body() -> None:
    config = FinetuneConfig(strategy="l2_sp", l2_sp_weight=3.0)
    strategy = make_strategy("l2_sp", config, GROUPS, "head", _audit(1.0))
    assert strategy.pull == Pull(3.0, ("down0.weight", "up0.weight"))
    assert _make("full").pull is None


def test_another_rate_leaves_a_head_first_phase_its_own() -> None:
    found = _make("gradual").with_rate(0.5)
    assert [phase.learning_rate for phase in found.phases] == [1e-2, 0.5, 0.5, 0.5]
    assert [phase.learning_rate for phase in _make("feature_extraction").with_rate(0.5).phases] == [0.5]
