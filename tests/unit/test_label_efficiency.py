"""Labels and steps saved: curves whose inversion is known, scipy's isotonic regression, and coverage by simulation."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.optimize import isotonic_regression

from monai_tl.transfer.label_efficiency import (
    Curve,
    band,
    budget_needed,
    draw_samples,
    isotonic,
    labels_saved,
    resampled_means,
    steps_saved,
)

LABELS = (4, 8, 16, 32, 64, 160)


def curve(means, budgets=LABELS, n_cases=12, n_seeds=1, spread=0.0, seed=0):
    """Cases and seeds scattered around the means, which they have exactly."""
    noise = np.random.default_rng(seed).standard_normal((len(means), n_seeds, n_cases)) * spread
    noise -= noise.mean(axis=(1, 2), keepdims=True)
    return Curve(tuple(budgets), np.asarray(means, dtype=float)[:, None, None] + noise)


def draws(n_cases=12, n_seeds=1, n_samples=400):
    return draw_samples([f"p{k}" for k in range(n_cases)], n_seeds, n_samples, 0.95, 0)


def test_isotonic_is_scipys_regression():
    generator = np.random.default_rng(0)
    for n in (1, 2, 3, 6, 9):
        values = generator.standard_normal((40, n)) + np.linspace(0, 1, n)
        expected = np.array([isotonic_regression(row).x for row in values])
        np.testing.assert_allclose(isotonic(values), expected, atol=1e-12)
        assert (np.diff(isotonic(values), axis=-1) >= 0).all()


@pytest.mark.parametrize("target", [0.41, 0.5, 0.63, 0.79])
def test_a_curve_linear_in_log2_is_inverted_exactly(target):
    # dice = a + b log2 n, so n = 2^((dice - a) / b)
    a, b = 0.2, 0.1
    values = np.array([[a + b * math.log2(n) for n in LABELS]])
    low, high = budget_needed(LABELS, values, np.array([target]))
    assert low == high
    assert low[0] == pytest.approx(2 ** ((target - a) / b), rel=1e-12)


@pytest.mark.parametrize(
    ("forward", "inverse"),
    [
        # logistic in log2 n, and the power law of learning curves
        (lambda n: 0.9 / (1 + np.exp(-(np.log2(n) - 4))), lambda y: 2 ** (4 - np.log(0.9 / y - 1))),
        (lambda n: 0.95 - 1.1 * n**-0.5, lambda y: (1.1 / (0.95 - y)) ** 2),
    ],
)
def test_a_smooth_curve_is_inverted_up_to_the_grid(forward, inverse):
    budgets = tuple(sorted({round(2 ** (k / 8)) for k in range(16, 72)}))
    fitted = forward(np.array(budgets, dtype=float))[None]
    for target in (0.5, 0.6, 0.7, 0.8):
        low, high = budget_needed(budgets, fitted, np.array([target]))
        assert low == high
        assert low[0] == pytest.approx(inverse(target), rel=5e-3)


def test_beyond_the_ends_there_are_bounds_and_a_plateau_is_left_at_its_beginning():
    values = np.array([[0.3, 0.5, 0.5, 0.5, 0.7, 0.8]] * 4)
    low, high = budget_needed(LABELS, values, np.array([0.2, 0.81, 0.5, 0.3]))
    assert low.tolist()[:3] == [0.0, 160.0, 8.0]
    assert high.tolist()[:3] == [4.0, math.inf, 8.0]
    # equal to the first point: it may have been reached before
    assert (low[3], high[3]) == (0.0, 4.0)


def test_one_point_gives_bounds_only():
    low, high = budget_needed((8,), np.array([[0.5], [0.5]]), np.array([0.4, 0.6]))
    assert low.tolist() == [0.0, 8.0]
    assert high.tolist() == [8.0, math.inf]


def test_labels_saved_of_a_shifted_curve_is_the_shift():
    """A pretrained start that is 3 doublings ahead saves a factor of 8 wherever scratch's curve reaches."""
    scratch = [0.3 + 0.08 * math.log2(n) for n in LABELS]
    pretrained = [0.3 + 0.08 * (math.log2(n) + 3) for n in LABELS]
    found = labels_saved(curve(pretrained, seed=1), curve(scratch), draws())
    for saving in found[:3]:
        assert saving.bound == "measured"
        assert saving.factor == pytest.approx(8.0)
        assert saving.needed == pytest.approx(8 * saving.budget)
        assert (saving.low, saving.high) == (pytest.approx(8.0), pytest.approx(8.0))
    for saving in found[3:]:
        assert saving.bound == "at least"
        assert saving.needed == 160
        assert saving.factor == pytest.approx(160 / saving.budget)
        assert saving.low == pytest.approx(160 / saving.budget)
        assert saving.high is None


def test_harm_is_a_factor_below_one_and_bounded_from_above_where_scratch_begins_higher():
    scratch = [0.5, 0.6, 0.7, 0.75, 0.8, 0.85]
    found = labels_saved(curve([0.4, 0.55, 0.65, 0.7, 0.75, 0.8], seed=3), curve(scratch), draws())
    assert (found[0].bound, found[0].needed, found[0].factor, found[0].low) == ("at most", 4, 1.0, None)
    assert found[0].high == pytest.approx(1.0)
    assert all(saving.factor < 1 for saving in found[1:])


def test_steps_saved_both_ways():
    budgets = (25, 50, 100, 200)
    scratch = curve([0.2, 0.4, 0.6, 0.7], budgets)
    ahead = steps_saved(curve([0.5, 0.7, 0.8, 0.85], budgets), scratch, draws())
    assert (ahead.budget, ahead.factor, ahead.bound) == (pytest.approx(50), pytest.approx(4.0), "measured")
    at_once = steps_saved(curve([0.75, 0.8, 0.8, 0.85], budgets), scratch, draws())
    assert (at_once.budget, at_once.factor, at_once.bound) == (25, 8.0, "at least")
    assert (at_once.low, at_once.high) == (8.0, None)
    behind = steps_saved(curve([0.1, 0.2, 0.3, 0.4], budgets), scratch, draws())
    assert (behind.budget, behind.factor, behind.bound) == (200, 1.0, "at most")
    assert (behind.low, behind.high) == (None, 1.0)


def test_a_higher_pretrained_curve_never_saves_less():
    scratch = curve([0.3, 0.5, 0.45, 0.6, 0.7, 0.8], spread=0.05)
    last = -math.inf
    for lift in np.linspace(-0.3, 0.5, 33):
        factor = labels_saved(curve(np.full(6, 0.4 + lift)), scratch, draws())[2].factor
        assert factor >= last
        last = factor
    assert last == pytest.approx(160 / 16)


def test_all_curves_see_the_same_patients_and_seeds():
    """Patients differ widely, and both curves alike: a paired interval does not know of it."""
    generator = np.random.default_rng(5)
    hardness = generator.normal(0, 0.1, (1, 3, 12)) + generator.normal(0, 0.05, (1, 3, 1))
    scratch = Curve(LABELS, np.array([0.2 + 0.1 * math.log2(n) for n in LABELS])[:, None, None] + hardness)
    ahead = Curve(LABELS, np.array([0.3 + 0.1 * math.log2(n) for n in LABELS])[:, None, None] + hardness)
    found = draws(12, 3)
    low, high = band(scratch, found)
    assert (high - low > 0.05).all()
    for saving in labels_saved(ahead, scratch, found)[:4]:
        assert (saving.low, saving.high) == (pytest.approx(2.0), pytest.approx(2.0))


def test_cases_of_a_patient_are_drawn_together_and_means_are_over_cases():
    patients = ["a", "a", "a", "b"]
    found = draw_samples(patients, 2, 500, 0.95, 1)
    assert (found.case_weights[:, 0] == found.case_weights[:, 1]).all()
    assert (found.case_weights[:, 1] == found.case_weights[:, 2]).all()
    assert set(found.case_weights[:, 0] + found.case_weights[:, 3]) == {2.0}
    dice = np.random.default_rng(0).uniform(size=(2, 2, 4))
    means = resampled_means(Curve((4, 8), dice), found)
    for row in range(0, 500, 71):
        cases, seeds = found.case_weights[row], found.seed_weights[row]
        for budget in range(2):
            values = [dice[budget, s, c] for s in range(2) for c in range(4)]
            weights = [seeds[s] * cases[c] for s in range(2) for c in range(4)]
            assert means[row, budget] == pytest.approx(np.average(values, weights=weights))


def test_intervals_hold_the_true_factor_about_as_often_as_they_say():
    """Patients and trainings drawn anew each time from a model whose factor is 4 by construction."""
    generator = np.random.default_rng(7)
    n_patients, n_seeds, n_repeats = 20, 4, 150
    budgets = (4, 8, 16, 32, 64, 128)
    logs = np.log2(np.array(budgets, dtype=float))
    held = {"low": 0, "high": 0}
    for _ in range(n_repeats):
        patients = generator.normal(0, 0.06, n_patients)

        def noisy(shift, patients=patients):
            means = 0.3 + 0.07 * (logs + shift)
            trainings = generator.normal(0, 0.015, (len(logs), n_seeds, 1))
            cases = generator.normal(0, 0.05, (len(logs), n_seeds, n_patients))
            return Curve(budgets, means[:, None, None] + patients + trainings + cases)

        found = draw_samples([f"p{k}" for k in range(n_patients)], n_seeds, 300, 0.95, 0)
        saving = labels_saved(noisy(2.0), noisy(0.0), found)[1]
        held["low"] += saving.low is None or saving.low <= 4.0
        held["high"] += saving.high is None or saving.high >= 4.0
    both = (held["low"] + held["high"] - n_repeats) / n_repeats
    # four seeds are few to resample, and 150 repetitions have a standard error of 2 %
    assert 0.88 <= both <= 1.0
    assert held["low"] / n_repeats > 0.92
    assert held["high"] / n_repeats > 0.92
