from __future__ import annotations

import math

import pytest
import torch

from monai_tl.training.schedule import learning_rate


def test_warm_up_rises_in_equal_steps_to_the_peak() -> None:
    rates = [learning_rate(step, 100, 0.4, 4, "cosine") for step in range(5)]
    assert rates == pytest.approx([0.1, 0.2, 0.3, 0.4, 0.4])


_AT_MULTIPLES_OF_45_DEGREES = [(0, 1.0), (25, 0.5 + math.sqrt(0.125)), (50, 0.5), (75, 0.5 - math.sqrt(0.125))]


@pytest.mark.parametrize(("step", "expected"), _AT_MULTIPLES_OF_45_DEGREES)
def test_cosine_at_known_angles(step: int, expected: float) -> None:
    assert learning_rate(step, 100, 1.0, 0, "cosine") == pytest.approx(expected)


def test_cosine_equals_torch() -> None:
    optimiser = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=0.3)
    reference = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, T_max=20)
    for step in range(20):
        assert learning_rate(step, 20, 0.3, 0, "cosine") == pytest.approx(reference.get_last_lr()[0])
        optimiser.step()
        reference.step()


def test_poly_is_the_formula_of_its_source() -> None:
    for step in range(50):
        assert learning_rate(step, 50, 0.01, 0, "poly") == pytest.approx(0.01 * (1 - step / 50) ** 0.9)


def test_constant_stays_and_no_rate_is_ever_zero() -> None:
    assert {learning_rate(step, 30, 0.2, 0, "constant") for step in range(30)} == {0.2}
    for schedule in ("cosine", "poly"):
        assert min(learning_rate(step, 30, 0.2, 5, schedule) for step in range(30)) > 0.0  # type: ignore[arg-type]


def test_warm_up_longer_than_the_phase_is_cut_to_it() -> None:
    assert [learning_rate(step, 2, 1.0, 10, "cosine") for step in range(2)] == [0.5, 1.0]
