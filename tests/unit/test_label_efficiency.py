"""Labels and steps saved: curves whose inversion is known, scipy's isotonic regression, and coverage by simulation."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
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


def test_a_plateau_that_rises_by_rounding_is_left_at_its_beginning_too():
    up, down = math.nextafter(0.5, 1.0), math.nextafter(0.5, 0.0)
    values = np.array([[0.3, 0.5, up, up, 0.7, 0.8], [down, 0.5, up, up, 0.7, 0.8], [0.1, 0.2, 0.3, 0.4, 0.45, down]])
    low, high = budget_needed(LABELS, values, np.array([up, up, 0.5]))
    assert low.tolist() == [8.0, 0.0, 160.0]
    assert high.tolist() == [8.0, 4.0, 160.0]


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


STEPS = (25, 50, 100, 200)


def test_scratch_is_charged_the_steps_that_it_needs_itself():
    """Half a doubling after 25 steps the start has 0.7 or 0.75; scratch has it where its own last level begins."""
    for scratch, target, needed in (
        # a plateau; a dip, pooled with the point before
        ([0.2, 0.7, 0.7, 0.7], 0.7, 50),
        ([0.2, 0.6, 0.8, 0.7], 0.75, 100),
    ):
        ahead = curve([target - 0.2, target + 0.2, 0.96, 0.97], STEPS)
        saving = steps_saved(ahead, curve(scratch, STEPS), draws())
        assert (saving.dice, saving.needed) == (pytest.approx(target), needed)
        assert (saving.budget, saving.bound) == (pytest.approx(25 * math.sqrt(2)), "measured")
        ratio = pytest.approx(needed / (25 * math.sqrt(2)))
        assert (saving.factor, saving.low, saving.high) == (ratio,) * 3


@pytest.mark.parametrize(
    ("pretrained", "budget", "budget_bound", "high"),
    [
        # at once, half a doubling after 25, never: the factor is open, at most 1/√2, at most 25 / 200
        ([0.8, 0.8, 0.8, 0.9], 25, "at most", None),
        ([0.6, 0.8, 0.8, 0.9], 25 * math.sqrt(2), "measured", 1 / math.sqrt(2)),
        ([0.3, 0.4, 0.5, 0.6], 200, "at least", 1 / 8),
    ],
)
def test_where_scratch_begins_at_its_last_level_nothing_is_claimed(pretrained, budget, budget_bound, high):
    """Before its first budget scratch may need any few steps: it has 0.7 at 25 and gets no better."""
    saving = steps_saved(curve(pretrained, STEPS), curve([0.7] * 4, STEPS), draws())
    assert (saving.needed, saving.needed_bound) == (25, "at most")
    assert (saving.budget, saving.budget_bound) == (pytest.approx(budget), budget_bound)
    assert (saving.bound, saving.low) == ("at most", None)
    assert saving.high == (None if high is None else pytest.approx(high))
    assert saving.is_open == (budget_bound == "at most")


def needed_by_loop(budgets, means, target):
    """Lower and upper bound: scipy's regression, a search, and numpy's interpolation."""
    fit = isotonic_regression(means).x
    if fit[0] >= target:
        return 0.0, float(budgets[0])
    if fit[-1] < target:
        return float(budgets[-1]), math.inf
    k = next(k for k, value in enumerate(fit) if value >= target)
    crossing = float(2 ** np.interp(target, fit[k - 1 : k + 1], np.log2(budgets[k - 1 : k + 1])))
    return crossing, crossing


def interval_by_sorting(factors, tail):
    """The widest order statistics that the tails leave."""
    last = len(factors) - 1
    low = sorted(one for one, _ in factors)[math.floor(tail * last)]
    high = sorted(one for _, one in factors)[math.ceil((1 - tail) * last)]
    return pytest.approx(low or None), pytest.approx(high) if math.isfinite(high) else None


def ratio(needed, budget):
    return needed[0] / budget[1], needed[1] / budget[0] if budget[0] else math.inf


@pytest.mark.parametrize("seed", range(8))
def test_savings_of_curves_with_dips_are_those_of_a_second_implementation(seed):
    generator = np.random.default_rng([11, seed])
    found = draws(n_seeds=2, n_samples=60)
    pretrained = curve(generator.uniform(0.4, 0.8, 4), STEPS, n_seeds=2, spread=0.05, seed=seed)
    scratch = curve(generator.uniform(0.3, 0.7, 4), STEPS, n_seeds=2, spread=0.05, seed=seed + 100)
    samples = list(zip(resampled_means(pretrained, found), resampled_means(scratch, found), strict=True))

    def steps(ahead, behind):
        target = isotonic_regression(behind).x[-1]
        return ratio(needed_by_loop(STEPS, behind, target), needed_by_loop(STEPS, ahead, target))

    def labels(ahead, behind, place):
        target = isotonic_regression(ahead).x[place]
        return ratio(needed_by_loop(STEPS, behind, target), (STEPS[place], STEPS[place]))

    saving = steps_saved(pretrained, scratch, found)
    assert (saving.low, saving.high) == interval_by_sorting([steps(*pair) for pair in samples], found.tail)
    point = [(saving, steps(pretrained.means, scratch.means))]
    for place, one in enumerate(labels_saved(pretrained, scratch, found)):
        assert one.dice == pytest.approx(isotonic_regression(pretrained.means).x[place])
        expected = interval_by_sorting([labels(*pair, place) for pair in samples], found.tail)
        assert (one.low, one.high) == expected
        point.append((one, labels(pretrained.means, scratch.means, place)))
    for one, (low, high) in point:
        if one.bound == "measured":
            assert (one.factor, one.factor) == (pytest.approx(low), pytest.approx(high))
        elif not one.is_open:
            assert one.factor == pytest.approx(low if one.bound == "at least" else high)


@settings(max_examples=150, deadline=None)
@given(
    # no rise of about the 1e-12 that counts as rounding: one copy may have it, and the other not
    means=st.lists(st.sampled_from((0, 300, 750, 840)) | st.integers(0, 1000), min_size=1, max_size=5),
    n_seeds=st.integers(1, 3),
    spread=st.sampled_from((0.0, 1e-9, 0.02)),
    seed=st.integers(0, 9),
)
def test_equal_curves_save_nothing(means, n_seeds, spread, seed):
    """Plateaus, dips and zeros among them; the second copy differs by rounding, as other sums of the same would."""
    budgets, found = LABELS[: len(means)], draws(n_seeds=n_seeds, n_samples=100)
    one = curve(np.array(means) / 1000, budgets, n_seeds=n_seeds, spread=spread, seed=seed)
    rounding = 1 + np.random.default_rng(seed).uniform(-4e-16, 4e-16, one.dice.shape)
    for other in (one, Curve(one.budgets, one.dice * rounding)):
        steps = steps_saved(other, one, found)
        fit = isotonic_regression(means).x
        if fit[-1] - fit[0] > 1e-9:
            assert (steps.bound, steps.factor) == ("measured", pytest.approx(1.0))
        # with seeds that differ widely a sample may be flat, and then bounds nothing
        for saving in (steps, *labels_saved(other, one, found)):
            assert (saving.low or 0.0) <= 1.0 + 1e-9
            assert saving.bound == "at most" or saving.factor <= 1.0 + 1e-9


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


def test_seeds_alone_give_students_interval():
    """Without any spread of the patients the band is that of a mean of few trainings."""
    for n_seeds in (2, 3, 5):
        values = np.random.default_rng(n_seeds).normal(0.7, 0.02, n_seeds)
        found = draw_samples([f"p{k}" for k in range(30)], n_seeds, 40_000, 0.95, 0)
        low, high = band(Curve((4,), np.repeat(values, 30).reshape(1, n_seeds, 30)), found)
        expected = stats.t.interval(1 - 2 * found.tail, n_seeds - 1, values.mean(), stats.sem(values))
        assert (low[0], high[0]) == pytest.approx(expected, abs=0.06 * (expected[1] - expected[0]))


@pytest.mark.parametrize(("n_seeds", "spread"), [(1, 0.0), (2, 0.03), (3, 0.03), (5, 0.03), (5, 0.005)])
def test_intervals_hold_the_true_factor_about_as_often_as_they_say(n_seeds, spread):
    """Patients and trainings drawn anew each time from a model whose factor is 4 by construction."""
    generator = np.random.default_rng([7, n_seeds])
    n_patients, n_repeats = 20, 200
    budgets = (4, 8, 16, 32, 64, 128)
    logs = np.log2(np.array(budgets, dtype=float))

    def noisy(shift, patients):
        trainings = generator.normal(0, spread, (len(logs), n_seeds, 1))
        cases = generator.normal(0, 0.05, (len(logs), n_seeds, n_patients))
        return Curve(budgets, (0.3 + 0.07 * (logs + shift))[:, None, None] + patients + trainings + cases)

    held = 0
    for _ in range(n_repeats):
        patients = generator.normal(0, 0.06, n_patients)
        found = draw_samples([f"p{k}" for k in range(n_patients)], n_seeds, 300, 0.95, 0)
        saving = labels_saved(noisy(2.0, patients), noisy(0.0, patients), found)[1]
        held += (saving.low or 0.0) <= 4.0 <= (saving.high or math.inf)
    # 200 repetitions have a standard error of 1.5 %
    assert held / n_repeats > 0.91
