"""Labels and steps saved: how many scratch needs for the Dice that a pretrained start reaches with fewer."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtr, stdtrit

Reals = NDArray[np.float64]
Bound = Literal["measured", "at least", "at most"]
"""``at least``: the curve ends before it reaches the Dice asked for; ``at most``: it begins there or above."""
Ends = tuple[Reals, Reals]
"""(n,) lower and upper bounds of a budget."""

_CHUNK = 500
"""Bootstrap samples worked on at once."""
_SAME_DICE = 1e-12
"""Dice that differ by less are equal: means taken in another order differ by rounding, and a plateau must not."""


@dataclass(frozen=True)
class Curve:
    """Mean foreground Dice over budgets.

    Attributes:
        budgets: (n_budgets,) labels or steps, rising, at least 1.
        dice: (n_budgets, n_seeds, n_cases), 0 to 1, every number defined: the same test cases at each point.
    """

    budgets: tuple[int, ...]
    dice: Reals

    @property
    def means(self) -> Reals:
        """(n_budgets,) mean over seeds and cases."""
        return np.asarray(self.dice.mean(axis=(1, 2)))


@dataclass(frozen=True)
class Draws:
    """Bootstrap samples of patients and seeds; the same ones for every curve, so that all comparisons are paired.

    Attributes:
        case_weights: (n_samples, n_cases) how often each case's patient was drawn.
        seed_weights: (n_samples, n_seeds) of each seed; each sample's sum is 1.
        tail: Share cut off on either side.
    """

    case_weights: Reals
    seed_weights: Reals
    tail: float


@dataclass(frozen=True)
class Saving:
    """How much of a budget a pretrained start saves at one point.

    Attributes:
        budget: Of the pretrained start: labels it was given, or steps that it needs.
        budget_bound: Whether it is measured; with ``at least`` it is the largest tried, with ``at most`` the smallest.
        dice: The Dice at which both are compared: of the pretrained start's curve (labels) or scratch's own last
            (steps), made never falling.
        needed: Budget at which scratch's own curve has it, not always its full one.
        needed_bound: As ``budget_bound``.
        factor: needed / budget.
        bound: Whether this is measured or only bounds it. With ``at most`` nothing may be claimed.
        low, high: Interval of the factor; None where the data does not bound it on that side.
    """

    budget: float
    budget_bound: Bound
    dice: float
    needed: float
    needed_bound: Bound
    factor: float
    bound: Bound
    low: float | None
    high: float | None

    @property
    def is_open(self) -> bool:
        """Both curves begin at the Dice asked for: the ratio of two upper bounds bounds nothing."""
        return self.budget_bound == self.needed_bound == "at most"


def draw_samples(patients: Sequence[str], n_seeds: int, n_samples: int, confidence: float, seed: int) -> Draws:
    """Draw patients, with all their cases, and beside them weights of the seeds.

    Patients are drawn with replacement, and the tail is that of the expanded percentile interval. The two to five seeds
    of a curve cannot be drawn so: their own range is too narrow (docs/decisions/0010-seeds.md). Their weights are
    1/m + z / √(m · χ²), with z normal and centred, χ² with m − 1 degrees of freedom, so that any mean over seeds
    scatters about the one found as Student's distribution says, by the seeds' own spread; the same weights for every
    point keep all comparisons paired.

    Args:
        patients: Patient of each case; at least two different.
        n_seeds: Trainings of each point, m; with one the interval holds for that training alone.
        n_samples: Bootstrap samples.
        confidence: E.g. 0.95.
        seed: Of the draws.

    References:
        Hesterberg 2015, doi:10.1080/00031305.2015.1089789, 5.3 (expanded percentiles).
    """
    names, index = np.unique(np.asarray(patients), return_inverse=True)
    n_patients = len(names)
    generator = np.random.default_rng(seed)
    drawn = generator.multinomial(n_patients, np.full(n_patients, 1.0 / n_patients), size=n_samples)
    weights = np.full((n_samples, n_seeds), 1.0 / n_seeds)
    if n_seeds > 1:
        normal = generator.standard_normal((n_samples, n_seeds))
        chi_square = generator.chisquare(n_seeds - 1, size=(n_samples, 1))
        weights += (normal - normal.mean(axis=1, keepdims=True)) / np.sqrt(n_seeds * chi_square)
    return Draws(drawn[:, index].astype(np.float64), weights, expanded_tail(n_patients, confidence))


def expanded_tail(n_patients: int, confidence: float) -> float:
    """Share cut off on either side, so that the interval of a normal mean has Student's width.

    References:
        Hesterberg 2015, doi:10.1080/00031305.2015.1089789, 5.3 (expanded percentiles).
    """
    student = stdtrit(n_patients - 1, (1.0 - confidence) / 2.0)
    return float(ndtr(math.sqrt(n_patients / (n_patients - 1)) * student))


def resampled_means(curve: Curve, draws: Draws) -> Reals:
    """(n_samples, n_budgets) the curve's means in each bootstrap sample."""
    found = np.empty((len(draws.case_weights), len(curve.budgets)))
    for start in range(0, len(found), _CHUNK):
        rows = slice(start, start + _CHUNK)
        cases, seeds = draws.case_weights[rows], draws.seed_weights[rows]
        totals = np.einsum("bsc,nc,ns->nb", curve.dice, cases, seeds, optimize=True)
        found[rows] = totals / cases.sum(axis=1)[:, np.newaxis]
    return found


def band(curve: Curve, draws: Draws) -> tuple[Reals, Reals]:
    """(n_budgets,) lower and upper end of the interval of each point's mean."""
    low, high = np.quantile(resampled_means(curve, draws), [draws.tail, 1.0 - draws.tail], axis=0)
    return low, high


def isotonic(values: Reals) -> Reals:
    """The never falling sequence nearest to the given one in least squares, along the last axis.

    More labels do not make a better trainer worse, so what falls is noise, and is pooled.

    References:
        Robertson, Wright & Dykstra 1988, Order Restricted Statistical Inference, 1.4 (max-min formula).
    """
    n = values.shape[-1]
    sums = np.concatenate([np.zeros((*values.shape[:-1], 1)), np.cumsum(values, axis=-1)], axis=-1)
    fitted = np.empty_like(values, dtype=np.float64)
    for i in range(n):
        best = np.full(values.shape[:-1], -np.inf)
        for j in range(i + 1):
            ends = np.arange(i + 1, n + 1)
            lowest = ((sums[..., ends] - sums[..., [j]]) / (ends - j)).min(axis=-1)
            best = np.maximum(best, lowest)
        fitted[..., i] = best
    # the formula's averages differ in the last bit where they are equal
    return np.asarray(np.maximum.accumulate(fitted, axis=-1))


def budget_needed(budgets: Sequence[int], fitted: Reals, targets: Reals) -> Ends:
    """The smallest budget at which a never falling curve reaches a target, linear in log2(budget) between points.

    A point that misses the target by rounding alone has reached it.

    Args:
        budgets: (n_budgets,) rising.
        fitted: (n, n_budgets) curves, each never falling.
        targets: (n,).

    Returns:
        (n,) lower and upper bound. Both are equal where the curve crosses the target; (last budget, infinity) where it
        never does; (0, first budget) where it begins at or above it.
    """
    logs = np.log2(np.asarray(budgets, dtype=np.float64))
    rows = np.arange(len(fitted))
    after = np.sum(fitted < targets[:, np.newaxis] - _SAME_DICE, axis=1)
    right, left = np.clip(after, 1, max(1, len(budgets) - 1)), np.clip(after - 1, 0, len(budgets) - 1)
    right = np.minimum(right, len(budgets) - 1)
    rise = fitted[rows, right] - fitted[rows, left]
    share = np.divide(targets - fitted[rows, left], rise, out=np.zeros_like(rise), where=rise > 0)
    crossing = np.exp2(logs[left] + np.clip(share, 0.0, 1.0) * (logs[right] - logs[left]))
    # a tiny rise would make much of rounding, and log and power do not give the budget back exactly
    at_point = fitted[rows, right] <= targets + _SAME_DICE
    crossing = np.where(at_point, np.asarray(budgets, dtype=np.float64)[right], crossing)
    begins_above, ends_below = after == 0, after == len(budgets)
    low = np.where(begins_above, 0.0, np.where(ends_below, float(budgets[-1]), crossing))
    high = np.where(begins_above, float(budgets[0]), np.where(ends_below, np.inf, crossing))
    return low, high


def labels_saved(pretrained: Curve, scratch: Curve, draws: Draws) -> tuple[Saving, ...]:
    """At each number of labels of the pretrained start: how many times as many scratch needs for the same Dice.

    In each bootstrap sample both curves are made never falling; the targets are the pretrained one's, and scratch's is
    inverted. Were only one of them so fitted, a point before a dip would be above the other curve even where both hold
    the same numbers.
    A sample in which scratch does not reach the target counts with its largest number at the low end of the interval
    and as unbounded at the high end; one in which scratch begins above it likewise at the other ends.

    Args:
        pretrained: Against labels.
        scratch: The same test cases and seeds.
        draws: Of patients and seeds.
    """
    samples = isotonic(resampled_means(scratch, draws))
    targets = isotonic(resampled_means(pretrained, draws))
    whole, dice = isotonic(scratch.means)[np.newaxis], isotonic(pretrained.means)
    found = []
    for place, budget in enumerate(pretrained.budgets):
        given = (np.array([float(budget)]),) * 2
        needed = budget_needed(scratch.budgets, whole, dice[[place]])
        ends = budget_needed(scratch.budgets, samples, targets[:, place])
        found.append(_saving(float(dice[place]), given, needed, _factors(given, ends), draws.tail))
    return tuple(found)


def steps_saved(pretrained: Curve, scratch: Curve, draws: Draws) -> Saving:
    """How many times as many steps scratch needs as the pretrained start for the Dice that scratch ends with.

    In each bootstrap sample both curves are made never falling; the target is scratch's last value, and both are
    inverted for it. Scratch is charged the steps at which its own curve gets there, not all it was given: where it
    ends on a plateau or with a dip, the rest of its budget buys nothing, and equal curves would seem to save it.

    Args:
        pretrained: Against steps.
        scratch: The same test cases and seeds.
        draws: Of patients and seeds.
    """
    own, other = isotonic(scratch.means)[np.newaxis], isotonic(pretrained.means)[np.newaxis]
    needed = budget_needed(scratch.budgets, own, own[:, -1])
    budget = budget_needed(pretrained.budgets, other, own[:, -1])
    samples = isotonic(resampled_means(scratch, draws))
    needed_ends = budget_needed(scratch.budgets, samples, samples[:, -1])
    ends = budget_needed(pretrained.budgets, isotonic(resampled_means(pretrained, draws)), samples[:, -1])
    return _saving(float(own[0, -1]), budget, needed, _factors(ends, needed_ends), draws.tail)


def _factors(budget: Ends, needed: Ends) -> Ends:
    """Bounds of needed / budget; few steps of the pretrained start are many saved, so its ends change places."""
    with np.errstate(divide="ignore"):
        return needed[0] / budget[1], needed[1] / budget[0]


def _saving(dice: float, budget: Ends, needed: Ends, factors: Ends, tail: float) -> Saving:
    (given, given_bound), (value, value_bound) = _number(budget), _number(needed)
    bound: Bound = "measured"
    # two upper bounds count as "at most" too, with which nothing is claimed
    if value_bound == "at most" or given_bound == "at least":
        bound = "at most"
    elif value_bound == "at least" or given_bound == "at most":
        bound = "at least"
    low, high = _interval(*factors, tail)
    return Saving(given, given_bound, dice, value, value_bound, value / given, bound, low, high)


def _number(ends: Ends) -> tuple[float, Bound]:
    """The budget between the first pair of ends, or the end that is known, and which it is."""
    low, high = float(ends[0][0]), float(ends[1][0])
    if low == high:
        return low, "measured"
    return (low, "at least") if math.isinf(high) else (high, "at most")


def _interval(lower: Reals, upper: Reals, tail: float) -> tuple[float | None, float | None]:
    low = float(np.quantile(lower, tail, method="lower"))
    high = float(np.quantile(upper, 1.0 - tail, method="higher"))
    return low if low > 0.0 else None, high if math.isfinite(high) else None
