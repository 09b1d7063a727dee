"""The interval of a mean over patients and seeds: every patient is seen under every seed."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import stdtrit

from monai_tl.metrics.summary import Interval, bootstrap_mean


@dataclass(frozen=True)
class CrossedMean:
    """A mean over cases and seeds, and what it varies with.

    Attributes:
        mean: Over the cases, of each case's mean over the seeds.
        interval: For other patients and other seeds; with one seed for other patients only. NaN with fewer than two
            patients.
        patient_error: Standard error for the choice of patients, of the mean over cases: with equally many cases each
            the sd (n − 1) of the patients' means over √n; NaN likewise.
        n_patients: Patients.
        seed_error: The same for the choice of seeds; NaN with one seed, of which no spread is known.
        n_seeds: Seeds.
    """

    mean: float
    interval: Interval
    patient_error: float
    seed_error: float
    n_seeds: int
    n_patients: int


def crossed_mean(
    values: NDArray[np.float64],
    patients: Sequence[str],
    n_bootstrap: int,
    confidence: float,
    generator: np.random.Generator,
) -> CrossedMean:
    """Mean over cases and seeds with an interval that covers the choice of both.

    Patients are resampled whole (``bootstrap_mean``) on the means over the seeds. The
    standard error that resampling all seeds would give has a closed form and is widened to Student's width with
    m − 1 degrees of freedom; its percentiles are no use, because m seeds reach no further than their own range. The two
    distances from the mean are joined as the root of their squares. Each direction's spread holds the noise of single
    trainings once, so the sum holds it twice: the interval is a little too wide and not too narrow.

    Args:
        values: (n_cases, n_seeds) with NaN where undefined; at least one value in each row.
        patients: Patient of each case.
        n_bootstrap: Bootstrap samples.
        confidence: E.g. 0.95.
        generator: Source of the draws.

    References:
        Owen 2007, doi:10.1214/07-AOAS122 (both directions of a crossed table are resampled).
        Banerjee 1960, Sankhyā 22:355 (root of summed squares of Student's widths: at least the confidence promised).
        Zou & Donner 2008, doi:10.1002/sim.3095 (the same for limits that lie unevenly about the mean).
    """
    rows = np.nanmean(values, axis=1)
    mean = float(rows.mean())
    interval = bootstrap_mean(rows, patients, n_bootstrap, confidence, generator)
    n_seeds = values.shape[1]
    patient_error, seed_error = _patient_error(rows, patients), math.nan
    if n_seeds > 1:
        # around each case's own mean, so that a value missing for one seed does not move that seed's mean
        around = np.nanmean(values - rows[:, np.newaxis], axis=0)
        seed_error = float(around.std(ddof=1) / math.sqrt(n_seeds))
        half = -float(stdtrit(n_seeds - 1, (1.0 - confidence) / 2.0)) * seed_error
        interval = Interval(mean - math.hypot(mean - interval.low, half), mean + math.hypot(interval.high - mean, half))
    return CrossedMean(mean, interval, patient_error, seed_error, n_seeds, len(set(patients)))


def _patient_error(rows: NDArray[np.float64], patients: Sequence[str]) -> float:
    names, index = np.unique(np.asarray(patients), return_inverse=True)
    n = len(names)
    if n < 2:
        return math.nan
    # the mean over cases is a ratio of sums over patients; its error linearised (Cochran 1977, section 6.3)
    counts = np.bincount(index)
    residuals = np.bincount(index, weights=rows) - rows.mean() * counts
    return float(math.sqrt(n / (n - 1) * (residuals**2).sum()) / counts.sum())
