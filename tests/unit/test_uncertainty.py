"""Uncertainty in closed form, and the risk-coverage curve against all orders of tied cases."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from scipy.stats import entropy

from monai_tl.errors import DataError
from monai_tl.metrics.uncertainty import (
    CaseUncertainty,
    UncertaintyCounting,
    bootstrap_curve,
    risk_coverage,
    weighted_area,
)

SHAPE = (6, 7, 8)


def half(axis_stop: int, value: float = 0.9) -> np.ndarray:
    foreground = np.full(SHAPE, 0.02)
    foreground[:axis_stop] = value
    return foreground.reshape(-1)


def counted(members: list[np.ndarray], parts: int = 1) -> CaseUncertainty:
    """Of members that give a foreground probability each, and their mean."""
    stacked = np.stack(members)
    mean = stacked.mean(axis=0)
    counting = UncertaintyCounting(len(members) if len(members) > 1 else 0)
    for part in np.array_split(np.arange(mean.size), parts):
        counting.add(np.stack([1 - mean[part], mean[part]]), stacked[:, part] if len(members) > 1 else stacked[:0])
    return counting.finish()


def test_members_that_agree_differ_in_nothing() -> None:
    found = counted([half(3)] * 3)
    assert (found.disagreement, found.volume_variation) == (0.0, 0.0)
    # the voxels of 0.02 are in no doubt
    assert found.entropy == pytest.approx(entropy([0.1, 0.9]))


def test_two_certain_members_that_contradict_each_other() -> None:
    """2 and 4 of 6 slabs: Dice 2·2/6; the mean is 0.5 in 2 of the 4 slabs."""
    low, high = (half(stop, 1.0).round() for stop in (2, 4))
    found = counted([low, high])
    assert found.disagreement == pytest.approx(1 - 4 / 6)
    assert found.entropy == pytest.approx(math.log(2) / 2)
    assert found.volume_variation == pytest.approx(np.std([2, 4]) / 3)


def test_parts_give_what_the_whole_gives() -> None:
    generator = np.random.default_rng(0)
    members = [generator.random(336) for _ in range(4)]
    whole = counted(members)
    assert counted(members, parts=5).entropy == pytest.approx(whole.entropy)
    assert counted(members, parts=5).disagreement == whole.disagreement
    masks = [member > 0.5 for member in members]
    pairs = [2 * (a & b).sum() / (a.sum() + b.sum()) for a, b in itertools.combinations(masks, 2)]
    assert whole.disagreement == pytest.approx(1 - np.mean(pairs))
    mean = np.mean(members, axis=0)
    assert whole.entropy == pytest.approx(entropy([1 - mean, mean], axis=0)[mean > 0.1].mean())


def test_one_prediction_has_an_entropy_and_disagrees_with_nobody() -> None:
    found = counted([half(2)])
    assert found.entropy == pytest.approx(entropy([0.1, 0.9]))
    assert math.isnan(found.disagreement)
    assert math.isnan(found.volume_variation)


def test_nothing_anywhere_is_sure_and_something_against_nothing_is_not() -> None:
    found = counted([half(0), half(0)])
    assert (found.disagreement, found.entropy, found.volume_variation) == (0.0, 0.0, 0.0)
    assert counted([half(0), half(2)]).disagreement == 1.0


@pytest.mark.parametrize("n", [1, 4, 9])
def test_uncertainty_that_is_the_error_is_perfect(n: int) -> None:
    error = np.random.default_rng(n).random(n)
    found = risk_coverage(list(error), list(error))
    np.testing.assert_allclose(found.risk, [np.sort(error)[: k + 1].mean() for k in range(n)])
    assert found.area == pytest.approx(found.best_area)
    assert math.isnan(found.excess) if n == 1 else found.excess == pytest.approx(0.0)
    assert found.risk[-1] == pytest.approx(error.mean())
    assert found.coverage[-1] == 1.0


def test_uncertainty_turned_round_misleads_and_a_constant_one_says_nothing() -> None:
    error = np.linspace(0, 1, 20)
    assert risk_coverage(list(-error), list(error)).excess > 1.5
    assert risk_coverage([0.3] * 20, list(error)).excess == pytest.approx(1.0)


def test_chance_says_nothing_on_the_mean() -> None:
    generator = np.random.default_rng(0)
    error = list(generator.random(15))
    excess = [risk_coverage(list(generator.random(15)), error).excess for _ in range(3000)]
    assert np.mean(excess) == pytest.approx(1.0, abs=0.03)


def test_ties_are_the_mean_over_all_their_orders() -> None:
    unsure, wrong = [0.1, 0.1, 0.5, 0.1, 0.5], [0.4, 0.0, 0.3, 0.2, 0.9]
    curves = []
    for first in itertools.permutations([0, 1, 3]):
        for second in itertools.permutations([2, 4]):
            ordered = np.array([wrong[index] for index in (*first, *second)])
            curves.append(np.cumsum(ordered) / np.arange(1, 6))
    np.testing.assert_allclose(risk_coverage(unsure, wrong).risk, np.mean(curves, axis=0))


def test_undefined_cases_are_counted() -> None:
    found = risk_coverage([0.1, math.nan, 0.2, 0.3], [0.1, 0.2, math.nan, 0.5])
    assert (len(found.risk), found.n_undefined) == (2, 2)
    with pytest.raises(DataError, match="no case has both"):
        risk_coverage([math.nan], [0.5])


def test_cases_that_are_there_several_times_are_a_list_that_has_them_so_often() -> None:
    """The closed form with harmonic numbers against the curve of the list itself, ties among it."""
    generator = np.random.default_rng(5)
    unsure, wrong = generator.integers(0, 6, 30) / 5.0, generator.random(30)
    times = generator.integers(0, 4, (20, 30))
    times[0] = 1
    found = weighted_area(unsure, wrong, times)
    expected = [risk_coverage(list(np.repeat(unsure, row)), list(np.repeat(wrong, row))).area for row in times]
    np.testing.assert_allclose(found, expected, rtol=1e-12)


def test_the_interval_of_the_area_holds_what_other_patients_give() -> None:
    """200 cohorts of 40 patients with two cases each: the mean area of such cohorts lies in nine intervals of ten."""
    generator = np.random.default_rng(1)
    once = np.ones((1, 80), dtype=np.int64)
    cohorts = []
    for _ in range(200):
        patient = np.repeat(generator.normal(0.3, 0.08, 40), 2)
        wrong = np.clip(patient + generator.normal(0.0, 0.03, 80), 0.0, 1.0)
        cohorts.append((wrong + generator.normal(0.0, 0.08, 80), wrong))
    truth = np.mean([weighted_area(unsure, wrong, once) for unsure, wrong in cohorts])
    owners = [str(index // 2) for index in range(80)]
    inside = 0
    for unsure, wrong in cohorts:
        found = bootstrap_curve(list(unsure), list(wrong), owners, 200, 0.95, np.random.default_rng(0)).area
        inside += found.low <= truth <= found.high
    # resampling cases alone, as if 80 patients were there, would hold it in four of five
    assert 0.87 <= inside / 200 <= 0.97


def test_below_twenty_patients_there_is_no_interval_however_many_cases() -> None:
    generator = np.random.default_rng(2)
    unsure, wrong = list(generator.random(57)), list(generator.random(57))
    found = bootstrap_curve(unsure, wrong, [str(n // 3) for n in range(57)], 200, 0.95, generator)
    assert all(math.isnan(one) for one in (found.area.low, found.area.high, found.excess.low, found.excess.high))
    # all errors alike: an area, and no room for an excess
    found = bootstrap_curve(unsure[:25], [0.5] * 25, [str(n) for n in range(25)], 200, 0.95, generator)
    assert (found.area.low, found.area.high) == pytest.approx((0.5, 0.5))
    assert math.isnan(found.excess.low)
