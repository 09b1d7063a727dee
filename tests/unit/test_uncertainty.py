"""Uncertainty in closed form, and the risk-coverage curve against all orders of tied cases."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from scipy.stats import entropy

from monai_tl.errors import DataError, GeometryError
from monai_tl.metrics.uncertainty import FLIPS, case_uncertainty, flipped_predictions, risk_coverage

SHAPE = (6, 7, 8)


def binary(foreground: np.ndarray) -> np.ndarray:
    return np.stack([1 - foreground, foreground])


def half(axis_stop: int, value: float = 0.9) -> np.ndarray:
    foreground = np.full(SHAPE, 0.02)
    foreground[:axis_stop] = value
    return binary(foreground)


def test_predictions_that_agree_differ_in_nothing() -> None:
    found = case_uncertainty([half(3)] * 3)
    assert (found.disagreement, found.volume_variation) == (0.0, 0.0)
    assert found.information == pytest.approx(0.0, abs=1e-12)
    assert found.entropy == pytest.approx(entropy([0.1, 0.9]))


def test_two_certain_predictions_that_contradict_each_other() -> None:
    """2 and 4 of 6 slabs: Dice 2·2/6; the mean is 0.5 in 2 of the 4 slabs, and nothing is unsure by itself."""
    low, high = np.zeros(SHAPE), np.zeros(SHAPE)
    low[:2], high[:4] = 1.0, 1.0
    found = case_uncertainty([binary(low), binary(high)])
    assert found.disagreement == pytest.approx(1 - 4 / 6)
    assert found.entropy == pytest.approx(math.log(2) / 2)
    assert found.information == pytest.approx(math.log(2) / 2)
    assert found.volume_variation == pytest.approx(np.std([2, 4]) / 3)


def test_information_is_the_mean_divergence_from_the_mean_prediction() -> None:
    """Mutual information as Kullback-Leibler divergence: a second formula for the same number."""
    generator = np.random.default_rng(0)
    maps = [generator.dirichlet([1, 1, 1], SHAPE).transpose(3, 0, 1, 2) for _ in range(4)]
    mean = np.mean(maps, axis=0)
    inside = np.any([one.argmax(axis=0) > 0 for one in maps], axis=0)
    divergence = np.mean([entropy(one, mean, axis=0) for one in maps], axis=0)[inside].mean()
    found = case_uncertainty(iter(maps))
    assert found.information == pytest.approx(divergence)
    assert found.entropy == pytest.approx(entropy(mean, axis=0)[inside].mean())


def test_nothing_anywhere_is_sure() -> None:
    found = case_uncertainty([half(0), half(0)])
    assert (found.disagreement, found.entropy, found.information, found.volume_variation) == (0.0, 0.0, 0.0, 0.0)


def test_one_that_sees_something_where_the_other_sees_nothing() -> None:
    assert case_uncertainty([half(0), half(2)]).disagreement == 1.0


def test_one_prediction_or_two_grids_are_refused() -> None:
    with pytest.raises(DataError, match="two predictions or more"):
        case_uncertainty([half(1)])
    with pytest.raises(GeometryError):
        case_uncertainty([half(1), half(1)[:, 1:]])


def test_flips_turn_back_what_they_turned() -> None:
    image = np.random.default_rng(1).random((1, *SHAPE))
    assert len(set(FLIPS)) == 8
    maps = list(flipped_predictions(lambda one: binary(one[0]), image))
    assert all(np.array_equal(one, maps[0]) for one in maps)
    assert case_uncertainty(maps).disagreement == 0.0
    # a network that looks at the place, not at the image
    placed = list(flipped_predictions(lambda one: half(2), image))
    assert case_uncertainty(placed).disagreement == pytest.approx(1 - (2 * 6 * 1 + 16 * 0) / 28, abs=1e-12)


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
