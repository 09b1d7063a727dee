"""Several arms in pairs: paired differences, their p-values, and Holm's correction for their number."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from monai_tl.metrics.cohort import BootstrapRule
from monai_tl.metrics.crossed import CrossedMean, crossed_mean

_STEPS = 24
"""Halvings of the range of p; its logarithm is known to better than a millionth afterwards."""


@dataclass(frozen=True)
class PairedDifference:
    """The difference second − first of one metric.

    Attributes:
        found: Mean, interval (not corrected for the number of comparisons), errors; None without a defined difference.
        p_value: See ``two_sided_p``; 1 where nothing can be told.
        n_patients, n_cases: With a defined difference.
        n_undefined: Cases left out: both arms lack a prediction, or neither has anything to score.
    """

    found: CrossedMean | None
    p_value: float
    n_patients: int
    n_cases: int
    n_undefined: int


def difference_of(
    differences: NDArray[np.float64], patients: Sequence[str], bootstrap: BootstrapRule
) -> PairedDifference:
    """Mean, interval and p-value of paired differences.

    Args:
        differences: (n_cases, n_seeds), NaN where undefined.
        patients: Patient of each case.
        bootstrap: How intervals are drawn.
    """
    defined = np.flatnonzero(np.isfinite(differences).any(axis=1))
    values = differences[defined]
    kept = [patients[index] for index in defined.tolist()]
    n_patients, n_undefined = len(set(kept)), len(differences) - len(values)
    if not len(values):
        return PairedDifference(None, 1.0, 0, 0, n_undefined)
    generator = np.random.default_rng(bootstrap.seed)
    found = crossed_mean(values, kept, bootstrap.n_bootstrap, bootstrap.confidence, generator)
    return PairedDifference(found, two_sided_p(values, kept, bootstrap), n_patients, len(values), n_undefined)


def two_sided_p(values: NDArray[np.float64], patients: Sequence[str], bootstrap: BootstrapRule) -> float:
    """The smallest p for which the interval of confidence 1 − p still excludes zero.

    So it agrees with the interval beside it: that of 95 % excludes zero exactly when p is at most 0.05. It is not below
    2^(1 − n) of n patients, the chance that all lie on one side of zero, nor below what the number of bootstrap samples
    can tell.

    Args:
        values: (n_cases, n_seeds), NaN where undefined, at least one value in each row.
        patients: Patient of each case.
        bootstrap: Its confidence is not used.

    Returns:
        In (0, 1]; 1 with fewer than two patients.

    References:
        Efron & Tibshirani 1993, An Introduction to the Bootstrap, 15.4 (levels at which an interval reaches zero).
    """
    n_patients = len(set(patients))
    if n_patients < 2:
        return 1.0
    least = max(2.0 ** (1 - n_patients), 2.0 / bootstrap.n_bootstrap)

    def excludes_zero(p: float) -> bool:
        generator = np.random.default_rng(bootstrap.seed)
        interval = crossed_mean(values, patients, bootstrap.n_bootstrap, 1.0 - p, generator).interval
        return interval.low > 0.0 or interval.high < 0.0

    if excludes_zero(least):
        return least
    low, high = math.log(least), 0.0
    for _ in range(_STEPS):
        middle = (low + high) / 2.0
        low, high = (low, middle) if excludes_zero(math.exp(middle)) else (middle, high)
    return math.exp(high)


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's adjusted p-values: with all of them at most a, the chance of a single false finding is at most a.

    Args:
        p_values: Of all comparisons made, however they depend on each other.

    Returns:
        In the same order, at most 1.

    References:
        Holm 1979, Scandinavian Journal of Statistics 6:65.
    """
    order = sorted(range(len(p_values)), key=lambda index: p_values[index])
    adjusted = [1.0] * len(p_values)
    running = 0.0
    for rank, index in enumerate(order):
        running = max(running, min(1.0, (len(p_values) - rank) * p_values[index]))
        adjusted[index] = running
    return adjusted
