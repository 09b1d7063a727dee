"""Holm's correction against R's documented values and by simulation; p-values against Student's and the interval."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from monai_tl.metrics.cohort import BootstrapRule
from monai_tl.metrics.comparison import difference_of, holm, two_sided_p
from monai_tl.metrics.crossed import crossed_mean

RULE = BootstrapRule(2000, 0.95, 0)


def names(n: int) -> list[str]:
    return [f"p{index}" for index in range(n)]


@pytest.mark.parametrize(
    ("given", "adjusted"),
    [
        # R: p.adjust(c(0.01, 0.02, 0.03, 0.04, 0.05), "holm")
        ([0.01, 0.02, 0.03, 0.04, 0.05], [0.05, 0.08, 0.09, 0.09, 0.09]),
        # by hand: 4·0.005, 3·0.01, 2·0.03, and no step below the one before
        ([0.01, 0.04, 0.03, 0.005], [0.03, 0.06, 0.06, 0.02]),
        ([0.6, 0.7], [1.0, 1.0]),
        ([0.2], [0.2]),
        ([], []),
    ],
)
def test_holm_is_that_of_r(given: list[float], adjusted: list[float]) -> None:
    assert holm(given) == pytest.approx(adjusted)


def test_holm_keeps_its_promise_where_single_tests_break_it() -> None:
    """Six comparisons without a true difference: one false finding or more in 26 % uncorrected, 5 % corrected."""
    p = np.random.default_rng(0).random((4000, 6))
    raw = (p <= 0.05).any(axis=1).mean()
    corrected = np.mean([min(holm(row)) <= 0.05 for row in p.tolist()])
    assert raw == pytest.approx(1 - 0.95**6, abs=0.02)
    assert corrected == pytest.approx(1 - (1 - 0.05 / 6) ** 6, abs=0.011)


@pytest.mark.parametrize("shift", [0.0, 0.01, 0.02, 0.03])
def test_p_comes_near_students_for_normal_differences(shift: float) -> None:
    values = np.random.default_rng(3).normal(shift, 0.06, 60)
    found = two_sided_p(values[:, np.newaxis], names(60), RULE)
    expected = stats.ttest_1samp(values, 0.0).pvalue
    assert found == pytest.approx(expected, rel=0.25, abs=0.003)


@pytest.mark.parametrize("n_seeds", [1, 3])
def test_p_reaches_a_level_where_the_interval_of_that_level_reaches_zero(n_seeds: int) -> None:
    generator = np.random.default_rng(5)
    values = generator.normal(0.02, 0.05, (30, 1)) + generator.normal(0.0, 0.01, (30, n_seeds))
    p = two_sided_p(values, names(30), RULE)
    assert 0.001 < p < 0.9
    for factor, excluded in ((0.99, False), (1.01, True)):
        interval = crossed_mean(values, names(30), 2000, 1 - p * factor, np.random.default_rng(0)).interval
        assert (interval.low > 0 or interval.high < 0) is excluded


@pytest.mark.parametrize("n", [3, 5, 8])
def test_few_patients_on_one_side_of_zero_are_no_miracle(n: int) -> None:
    values = np.full((n, 1), 0.2) + np.linspace(0, 0.1, n)[:, np.newaxis]
    assert two_sided_p(values, names(n), RULE) == pytest.approx(2.0 ** (1 - n))


def test_scans_of_one_patient_are_one_patient() -> None:
    values = np.full((6, 1), 0.2)
    assert two_sided_p(values, ["a"] * 6, RULE) == 1.0
    assert difference_of(values, ["a"] * 6, RULE).n_patients == 1


def test_cases_without_a_difference_are_counted() -> None:
    table = np.array([[0.1], [np.nan], [0.2], [0.3]])
    found = difference_of(table, names(4), RULE)
    assert (found.n_cases, found.n_undefined) == (3, 1)
    assert found.found is not None
    assert found.found.mean == pytest.approx(0.2)
    nothing = difference_of(np.full((2, 1), np.nan), names(2), RULE)
    assert (nothing.found, nothing.p_value, nothing.n_undefined) == (None, 1.0, 2)
