"""Whether a probability of 0.8 is right in 80 of 100 voxels: counts by confidence, the error made of them, its cure.

Nothing here needs the probabilities of a whole cohort at once, nor of a whole case: they come part by part, and of each
part a table of some dozen numbers is kept (``ReliabilityCounts``); tables add up. What temperature scaling needs is the
loss at a row of temperatures (``temperature_losses``), a dozen numbers a case too.

Which voxels count (``region_of``): the box around the reference, widened by MARGIN voxels, and beyond it every voxel
whose foreground probability is above DOUBT. The air around is right with confidence 1 and would make any network look
calibrated; voxels beyond the box are chosen by the prediction alone, never by whether it is right.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.interpolate import CubicSpline
from scipy.optimize import minimize_scalar

from monai_tl.errors import DataError, GeometryError

N_BINS = 20
"""Of equal width over 0 to 1."""
TEMPERATURES = np.exp(np.linspace(math.log(0.25), math.log(8.0), 41))
"""At which ``temperature_losses`` is tabulated; 1 among them, to the last bits."""
MARGIN = 5
"""Voxels of the network's grid around the reference's box."""
DOUBT = 0.01
"""Foreground probability from which a voxel beyond the box counts."""
_CHUNK = 1 << 18
_TINY = 1e-12
Reals = NDArray[np.float64]


@dataclass(frozen=True)
class ReliabilityCounts:
    """Voxels by the confidence of the class they were given.

    Attributes:
        n: (N_BINS,) voxels; bin b holds confidences above b / N_BINS up to (b + 1) / N_BINS.
        confidence: (N_BINS,) sum of their confidences.
        n_right: (N_BINS,) voxels whose class is the reference's.
    """

    n: NDArray[np.int64]
    confidence: Reals
    n_right: NDArray[np.int64]

    @classmethod
    def nothing(cls) -> ReliabilityCounts:
        """Of no voxel."""
        return cls(np.zeros(N_BINS, dtype=np.int64), np.zeros(N_BINS), np.zeros(N_BINS, dtype=np.int64))

    def __add__(self, other: ReliabilityCounts) -> ReliabilityCounts:
        """Of both together."""
        return ReliabilityCounts(self.n + other.n, self.confidence + other.confidence, self.n_right + other.n_right)

    @property
    def expected_error(self) -> float:
        """ECE: mean distance of confidence and accuracy over the bins, weighted by their voxels; NaN without a voxel.

        References:
            Guo et al. 2017, arXiv:1706.04599.
        """
        total = int(self.n.sum())
        return float(np.abs(self.confidence - self.n_right).sum() / total) if total else math.nan

    def curve(self) -> tuple[Reals, Reals]:
        """Mean confidence and accuracy of each bin; NaN where it is empty."""
        with np.errstate(invalid="ignore"):
            return self.confidence / self.n, self.n_right / self.n


def count_reliability(probabilities: NDArray[np.floating], truth: NDArray[np.integer]) -> ReliabilityCounts:
    """Count voxels.

    Args:
        probabilities: (C, N), channel 0 background, sums of 1.
        truth: (N,) class of each voxel in the reference, 0 to C − 1.

    Raises:
        GeometryError: The shapes differ.
        DataError: The reference has a value without a channel.
    """
    _check(probabilities, truth)
    found = ReliabilityCounts.nothing()
    for start in range(0, len(truth), _CHUNK):
        part = slice(start, start + _CHUNK)
        winner, confidence = probabilities[:, part].argmax(axis=0), probabilities[:, part].max(axis=0)
        confidence = confidence.astype(np.float64)
        bins = np.clip(np.ceil(confidence * N_BINS).astype(np.int64) - 1, 0, N_BINS - 1)
        found += ReliabilityCounts(
            np.bincount(bins, minlength=N_BINS),
            np.asarray(np.bincount(bins, weights=confidence, minlength=N_BINS), dtype=np.float64),
            np.bincount(bins[np.asarray(winner == truth[part])], minlength=N_BINS),
        )
    return found


def reference_box(reference: NDArray[np.integer], margin: int = MARGIN) -> tuple[slice, slice, slice]:
    """The box around the reference's foreground, widened and kept within the volume; of no voxel where there is none.

    Args:
        reference: (I, J, K).
        margin: Voxels on each side.
    """
    foreground = np.asarray(reference > 0)
    lines = [foreground.any(axis=tuple({0, 1, 2} - {axis})) for axis in range(3)]
    i, j, k = (_widened(np.flatnonzero(line), line.size, margin) for line in map(np.asarray, lines))
    return i, j, k


def _widened(found: NDArray[np.intp], size: int, margin: int) -> slice:
    return slice(max(0, int(found[0]) - margin), min(size, int(found[-1]) + margin + 1)) if len(found) else slice(0, 0)


def region_of(background: NDArray[np.floating], box: Sequence[slice]) -> NDArray[np.bool_]:
    """Voxels that count, as the head of this module says.

    Args:
        background: (I, J, K) probability of the background.
        box: Of the reference, in the same voxels.

    Returns:
        (I, J, K) bool.
    """
    region = np.asarray(background < 1.0 - DOUBT)
    region[tuple(box)] = True
    return region


def temperature_losses(
    probabilities: NDArray[np.floating], truth: NDArray[np.integer], temperatures: Reals = TEMPERATURES
) -> tuple[Reals, int]:
    """Summed cross-entropy of voxels if their logits were divided by each of some temperatures.

    Args:
        probabilities: (C, N); their logarithms are logits up to a constant, which softmax forgets. Below 1e-12
            they count as 1e-12.
        truth: (N,).
        temperatures: (T,) above 0.

    Returns:
        (T,) nats, and how many voxels they are of; both add up over parts and cases.

    Raises:
        GeometryError: The shapes differ.
        DataError: The reference has a value without a channel.
    """
    _check(probabilities, truth)
    losses = np.zeros(len(temperatures))
    for start in range(0, len(truth), _CHUNK):
        part = slice(start, start + _CHUNK)
        logits = np.log(np.maximum(probabilities[:, part].astype(np.float64), _TINY))
        logits -= logits.max(axis=0)
        of_truth = np.take_along_axis(logits, truth[part][np.newaxis].astype(np.intp), axis=0)[0]
        for index, temperature in enumerate(temperatures):
            norm = np.log(np.exp(logits / temperature).sum(axis=0))
            losses[index] += float((norm - of_truth / temperature).sum())
    return losses, len(truth)


def fit_temperature(losses: Sequence[tuple[Reals, int]], temperatures: Reals = TEMPERATURES) -> float:
    """The temperature of least loss over validation cases; never to be fitted on the test set.

    The table is read between its points by a cubic spline in the logarithm of the temperature: the loss is smooth there
    and has one minimum.

    Args:
        losses: Of each validation case, from ``temperature_losses``.
        temperatures: At which they are.

    Returns:
        Above 1 for a network that is too sure of itself; the end of the range where the minimum lies beyond it.

    Raises:
        DataError: There is no voxel to fit it on.
    """
    if not sum(n for _, n in losses):
        raise DataError("no validation voxel to fit a temperature on; predict the validation cases first")
    total = np.sum([loss for loss, _ in losses], axis=0)
    best = int(total.argmin())
    if best in (0, len(temperatures) - 1):
        return float(temperatures[best])
    places = np.log(temperatures)
    found = minimize_scalar(
        CubicSpline(places, total / total[best]),
        bounds=(places[best - 1], places[best + 1]),
        method="bounded",
        options={"xatol": 1e-9},
    )
    return float(np.exp(found.x))


def scale_temperature(probabilities: NDArray[np.floating], temperature: float) -> NDArray[np.floating]:
    """Probabilities of the logits divided by a temperature; the winning class stays.

    Args:
        probabilities: (C, …).
        temperature: Above 0.

    Returns:
        The same shape and dtype.

    References:
        Guo et al. 2017, arXiv:1706.04599.
    """
    logits = np.log(np.maximum(probabilities.astype(np.float64), _TINY)) / temperature
    logits -= logits.max(axis=0)
    raised = np.exp(logits)
    return np.asarray(raised / raised.sum(axis=0), dtype=probabilities.dtype)


def _check(probabilities: NDArray[np.floating], truth: NDArray[np.integer]) -> None:
    if probabilities.ndim != 2 or probabilities.shape[1:] != truth.shape:
        raise GeometryError(
            f"probabilities of shape {probabilities.shape} are not of the reference's {truth.shape} voxels; bring "
            "both to one grid first"
        )
    if truth.size and int(truth.max()) >= len(probabilities):
        raise DataError(f"the reference has a value above the {len(probabilities) - 1} classes; run predict again")
