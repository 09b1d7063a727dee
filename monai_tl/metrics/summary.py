"""Means over cases with intervals over patients, and the counts that a lone mean hides."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtr, stdtrit

_CHUNK = 1_000_000
"""Draws of patients held in memory at once."""


@dataclass(frozen=True)
class Interval:
    """An interval of a mean; NaN where it is undefined."""

    low: float
    high: float


@dataclass(frozen=True)
class MetricSummary:
    """A mean and what stands behind it.

    Attributes:
        mean: Over the cases with a defined value; NaN when there is none.
        low, high: Patient-level bootstrap interval; NaN with fewer than two patients.
        n: Cases in the mean, failed ones among them with their worst score.
        n_empty: Cases left out because reference and prediction are both empty.
        n_failed: Cases without a prediction.
    """

    mean: float
    low: float
    high: float
    n: int
    n_empty: int
    n_failed: int


def summarise(
    values: Sequence[float],
    patients: Sequence[str],
    failed: Sequence[bool],
    n_bootstrap: int,
    confidence: float,
    seed: int,
) -> MetricSummary:
    """Mean of one metric over cases, with its interval and counts.

    Args:
        values: One a case; NaN is undefined and counted as ``n_empty``.
        patients: Patient of each case.
        failed: Whether the case has no prediction.
        n_bootstrap: Bootstrap samples.
        confidence: E.g. 0.95.
        seed: The same seed draws the same patients for each metric.
    """
    array = np.asarray(values, dtype=np.float64)
    defined = ~np.isnan(array)
    if not defined.any():
        return MetricSummary(math.nan, math.nan, math.nan, 0, len(array), int(np.sum(failed)))
    kept = [patient for patient, keep in zip(patients, defined, strict=True) if keep]
    interval = bootstrap_mean(array[defined], kept, n_bootstrap, confidence, np.random.default_rng(seed))
    return MetricSummary(
        mean=float(array[defined].mean()),
        low=interval.low,
        high=interval.high,
        n=int(defined.sum()),
        n_empty=int((~defined).sum()),
        n_failed=int(np.sum(failed)),
    )


def bootstrap_mean(
    values: NDArray[np.float64],
    patients: Sequence[str],
    n_bootstrap: int,
    confidence: float,
    generator: np.random.Generator,
) -> Interval:
    """Expanded percentile bootstrap interval of the mean over cases, resampling patients.

    All cases of a patient are drawn together: scans of one patient are alike, and drawing them one by one makes the
    interval too narrow. The plain percentile interval of n patients is too narrow as well, by √((n − 1)/n) and by
    taking normal quantiles for Student's; the percentiles are moved outward by as much. The interval stays within the
    range of the patients' means.

    Args:
        values: (n_cases,) finite.
        patients: Patient of each case.
        n_bootstrap: Bootstrap samples.
        confidence: E.g. 0.95.
        generator: Source of the draws.

    Returns:
        The interval; NaN with fewer than two patients.

    References:
        Davison & Hinkley 1997, Bootstrap Methods and their Application, 3.8 (clusters).
        Hesterberg 2015, doi:10.1080/00031305.2015.1089789, 5.3 (expanded percentiles).
    """
    names, index = np.unique(np.asarray(patients), return_inverse=True)
    n_patients = len(names)
    if n_patients < 2:
        return Interval(math.nan, math.nan)
    sums = np.bincount(index, weights=values, minlength=n_patients)
    counts = np.bincount(index, minlength=n_patients).astype(np.float64)
    means = np.empty(n_bootstrap)
    step = max(1, _CHUNK // n_patients)
    for start in range(0, n_bootstrap, step):
        stop = min(start + step, n_bootstrap)
        drawn = generator.integers(0, n_patients, size=(stop - start, n_patients))
        means[start:stop] = sums[drawn].sum(axis=1) / counts[drawn].sum(axis=1)
    tail = expanded_tail(n_patients, confidence)
    low, high = np.quantile(means, [tail, 1.0 - tail])
    return Interval(float(low), float(high))


def expanded_tail(n_patients: int, confidence: float) -> float:
    """Share of the bootstrap samples beyond each end of an interval; see ``bootstrap_mean``.

    Args:
        n_patients: At least 2.
        confidence: E.g. 0.95.
    """
    student = stdtrit(n_patients - 1, (1.0 - confidence) / 2.0)
    return float(ndtr(math.sqrt(n_patients / (n_patients - 1)) * student))
