"""``strategy: auto``: which rule holds, and what is written down."""

from __future__ import annotations

from typing import Any

import pytest

from monai_tl.records import Adaptation
from monai_tl.transfer.recommend import (
    FAR_SHIFT,
    FEW_LABELS,
    FEW_STEPS,
    HEAD_STEPS,
    LARGE_NETWORK,
    MANY_LABELS,
    recommend,
)


def _line(item: str, status: Any) -> Adaptation:
    return Adaptation(item=item, source="a", target="b", status=status, reason="c")


SMALL = 500_000
GOOD = (_line("spacing", "equal"), _line("classes", "adapted"))


@pytest.mark.parametrize(
    ("arguments", "strategy"),
    [
        ((4, GOOD, SMALL, 200), "lp_ft"),
        ((4, GOOD, SMALL, 200, FAR_SHIFT), "lp_ft"),
        ((MANY_LABELS - 1, GOOD, SMALL, 200), "lp_ft"),
        ((MANY_LABELS, GOOD, SMALL, 200), "lp_ft"),
        ((MANY_LABELS, GOOD, SMALL, 200, None, (), False), "full"),
        ((MANY_LABELS - 1, GOOD, SMALL, 200, None, (), False), "lp_ft"),
        ((FEW_LABELS, GOOD, LARGE_NETWORK, 200), "lora"),
        ((FEW_LABELS + 1, GOOD, LARGE_NETWORK, 200), "lp_ft"),
        ((4, GOOD, SMALL, 200, FAR_SHIFT + 0.1), "lp_ft"),
        ((4, GOOD, SMALL, 200, FAR_SHIFT + 0.1, (), False), "full"),
        ((4, (*GOOD, _line("field of view", "broken")), LARGE_NETWORK, 200), "lp_ft"),
        ((4, (*GOOD, _line("field of view", "broken")), LARGE_NETWORK, 200, None, (), False), "full"),
        ((4, GOOD, SMALL, FEW_STEPS - 1), "feature_extraction"),
        ((4, GOOD, SMALL, FEW_STEPS), "lp_ft"),
    ],
)
def test_the_first_rule_that_holds_decides(arguments: tuple[Any, ...], strategy: str) -> None:
    assert recommend(*arguments).strategy == strategy


def test_the_decision_holds_its_inputs_and_a_reason_that_names_them() -> None:
    decision = recommend(1, (*GOOD, _line("intensity", "broken")), SMALL, 200, 0.4)
    assert decision.inputs == {
        "n_labels": 1,
        "contract_broken": ("intensity",),
        "contract_adapted": ("classes",),
        "n_parameters": SMALL,
        "max_steps": 200,
        "shift_score": 0.4,
        "fresh_groups": (),
        "head_is_fresh": True,
    }
    assert "intensity" in decision.reason
    assert "1 labelled case " in recommend(1, GOOD, SMALL, 200).reason
    assert "40 labelled cases" in recommend(40, GOOD, SMALL, 200).reason


@pytest.mark.parametrize("max_steps", [FEW_STEPS, 200, 5000])
def test_the_head_leaves_most_steps_for_the_body(max_steps: int) -> None:
    head_steps = recommend(8, (), SMALL, max_steps).settings["head_steps"]
    assert 0 < head_steps < max_steps / 2


@pytest.mark.parametrize("max_steps", [1_000, 100_000])
def test_a_long_budget_goes_to_the_body(max_steps: int) -> None:
    # in a share of so many steps a head would long have settled
    decision = recommend(16, (), 500_000, max_steps)
    assert decision.strategy == "lp_ft"
    assert decision.settings["head_steps"] == HEAD_STEPS < 0.1 * max_steps
