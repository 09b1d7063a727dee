"""What is said of forgetting, and from how many patients on."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from monai_tl.commands import forgetting
from monai_tl.errors import ConfigError
from monai_tl.metrics.case import ClassScore
from monai_tl.metrics.cohort import BootstrapRule, CaseResult
from monai_tl.transfer.forgetting import TaskChange, compare_task, describe_forgetting

RULE = BootstrapRule(400, 0.95, 0)


def change(before: list[float], after: list[float]) -> TaskChange:
    def results(dices: list[float]) -> list[CaseResult]:
        return [CaseResult(f"c{k}", f"p{k}", (ClassScore(one, one, 1.0, 1.0, 1.0),)) for k, one in enumerate(dices)]

    (found,) = compare_task("source", results(before), results(after), ["spleen"], ["spleen"], RULE)
    return found


@pytest.mark.parametrize("n", [1, 2, 5])
def test_fewer_patients_than_a_sign_test_needs_show_no_forgetting(n: int) -> None:
    """All n on one side of zero has a chance of 2^(1 - n) where nothing was forgotten: half, for two."""
    found = change([0.9 - 0.01 * k for k in range(n)], [0.5 - 0.02 * k for k in range(n)])
    assert (found.low, found.high, found.n_patients) == (None, None, n)
    assert found.difference == pytest.approx(np.mean([-0.4 - 0.01 * k for k in range(n)]))
    text = describe_forgetting(found, 0.95)
    assert text.startswith("Forgetting is undecided: ")
    assert f"{n} patient" in text


def test_six_patients_can_show_it() -> None:
    found = change([0.9, 0.88, 0.91, 0.87, 0.9, 0.92], [0.5, 0.55, 0.45, 0.52, 0.48, 0.5])
    assert found.high is not None
    assert found.high < 0
    assert describe_forgetting(found, 0.95).startswith("Forgotten: ")


def test_a_held_set_that_is_not_there_is_told_by_the_option_s_name(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="--data: there is no folder"):
        forgetting.run(tmp_path, tmp_path, tmp_path / "nowhere")
