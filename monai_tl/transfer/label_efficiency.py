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
"""``at least``: the curve ends before it reaches the Dice asked for; ``at most``: it begins above."""

_CHUNK = 500
"""Bootstrap samples worked on at once."""


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
        dice: The Dice at which both are compared.
        needed: Budget of scratch that equals it; with ``at least`` the largest, with ``at most`` the smallest measured.
        factor: needed / budget.
        bound: Whether this is measured or only bounds it.
        low, high: Interval of the factor; None where the data does not bound it on that side.
    """

    budget: float
    dice: float
    needed: float
    factor: float
    bound: Bound
    low: float | None
    high: float | None


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


def budget_needed(budgets: Sequence[int], fitted: Reals, targets: Reals) -> tuple[Reals, Reals]:
    """The smallest budget at which a never falling curve reaches a target, linear in log2(budget) between points.

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
    after = np.sum(fitted < targets[:, np.newaxis], axis=1)
    right, left = np.clip(after, 1, max(1, len(budgets) - 1)), np.clip(after - 1, 0, len(budgets) - 1)
    right = np.minimum(right, len(budgets) - 1)
    rise = fitted[rows, right] - fitted[rows, left]
    share = np.divide(targets - fitted[rows, left], rise, out=np.zeros_like(rise), where=rise > 0)
    crossing = np.exp2(logs[left] + np.clip(share, 0.0, 1.0) * (logs[right] - logs[left]))
    begins_above, ends_below = after == 0, after == len(budgets)
    low = np.where(begins_above, 0.0, np.where(ends_below, float(budgets[-1]), crossing))
    high = np.where(begins_above, float(budgets[0]), np.where(ends_below, np.inf, crossing))
    return low, high


def labels_saved(pretrained: Curve, scratch: Curve, draws: Draws) -> tuple[Saving, ...]:
    """At each number of labels of the pretrained start: how many times as many scratch needs for the same Dice.

    In each bootstrap sample the target is the pretrained mean, and scratch's curve is made never falling and inverted.
    A sample in which scratch does not reach the target counts with its largest number at the low end of the interval
    and as unbounded at the high end; one in which scratch begins above it likewise at the other ends.

    Args:
        pretrained: Against labels.
        scratch: The same test cases and seeds.
        draws: Of patients and seeds.
    """
    samples = isotonic(resampled_means(scratch, draws))
    targets = resampled_means(pretrained, draws)
    whole = isotonic(scratch.means)[np.newaxis]
    found = []
    for place, budget in enumerate(pretrained.budgets):
        dice = float(pretrained.means[place])
        low, high = budget_needed(scratch.budgets, whole, np.array([dice]))
        ends = budget_needed(scratch.budgets, samples, targets[:, place])
        found.append(_saving(budget, dice, (low[0], high[0]), (ends[0] / budget, ends[1] / budget), draws.tail))
    return tuple(found)


def steps_saved(pretrained: Curve, scratch: Curve, draws: Draws) -> Saving:
    """How many times fewer steps the pretrained start needs for the Dice of scratch at its largest budget.

    Args:
        pretrained: Against steps.
        scratch: The same test cases and seeds.
        draws: Of patients and seeds.
    """
    full = scratch.budgets[-1]
    dice = float(scratch.means[-1])
    low, high = budget_needed(pretrained.budgets, isotonic(pretrained.means)[np.newaxis], np.array([dice]))
    targets = resampled_means(scratch, draws)[:, -1]
    ends = budget_needed(pretrained.budgets, isotonic(resampled_means(pretrained, draws)), targets)
    with np.errstate(divide="ignore"):
        # few steps needed are many saved, so the ends change places
        factors = full / ends[1], full / ends[0]
    low_end, high_end = _interval(*factors, draws.tail)
    bound: Bound = "measured" if low[0] == high[0] else "at least" if low[0] == 0.0 else "at most"
    needed = float(low[0] if bound == "at most" else high[0])
    return Saving(needed, dice, float(full), full / needed, bound, low_end, high_end)


def _saving(budget: int, dice: float, needed: tuple[float, float], factors: tuple[Reals, Reals], tail: float) -> Saving:
    low, high = needed
    bound: Bound = "measured" if low == high else "at least" if math.isinf(high) else "at most"
    value = float(high if bound == "at most" else low)
    return Saving(float(budget), dice, value, value / budget, bound, *_interval(*factors, tail))


def _interval(lower: Reals, upper: Reals, tail: float) -> tuple[float | None, float | None]:
    low = float(np.quantile(lower, tail, method="lower"))
    high = float(np.quantile(upper, 1.0 - tail, method="higher"))
    return low if low > 0.0 else None, high if math.isfinite(high) else None
