"""The numbers that are kept of a case's probabilities, counted while these pass by slab after slab."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from monai_tl.certainty_records import CaseCertainty, Reliability
from monai_tl.metrics.calibration import (
    Reals,
    ReliabilityCounts,
    count_reliability,
    reference_box,
    region_of,
    scale_temperature,
    temperature_losses,
)
from monai_tl.metrics.uncertainty import UncertaintyCounting

MOST_FITTED = 50_000
"""Voxels of a validation case, evenly taken, that a temperature is fitted on: it is one number, and a large case must
not outweigh the others."""
_PART_VOXELS = 1 << 18
"""About so many are worked on at a time: a slab may be a whole case of a hundred classes."""


class EvenSample:
    """Every so-manieth of the voxels that pass by, MOST_FITTED at most, whatever number comes.

    How many will come is not known beforehand. Where the room is full every second one kept is let go, and from then on
    half as many are taken.
    """

    def __init__(self) -> None:
        self._step, self._passed = 1, 0
        self._kept: list[tuple[NDArray[Any], NDArray[np.integer]]] = []
        self._n = 0

    def add(self, probabilities: NDArray[Any], truth: NDArray[np.integer]) -> None:
        """Take some of (C, N) probabilities and their (N,) classes."""
        first = -self._passed % self._step
        self._passed += len(truth)
        # copies: the slab they are cut from is to be gone
        self._kept.append((probabilities[:, first :: self._step].copy(), truth[first :: self._step].copy()))
        self._n += len(self._kept[-1][1])
        while self._n > MOST_FITTED:
            kept_probabilities, kept_truth = self.taken()
            self._kept = [(kept_probabilities[:, ::2].copy(), kept_truth[::2].copy())]
            self._n, self._step = len(self._kept[0][1]), 2 * self._step

    def taken(self) -> tuple[NDArray[Any], NDArray[np.integer]]:
        """(C, n) and (n,); n may be 0."""
        if not self._kept:
            return np.zeros((1, 0), dtype=np.float32), np.zeros(0, dtype=np.uint8)
        return np.concatenate([one for one, _ in self._kept], axis=1), np.concatenate([one for _, one in self._kept])


class CaseCounting:
    """Running sums of one case, which never has a whole volume of probabilities.

    Args:
        reference: (I, J, K) classes on the network's grid; None counts no reliability.
        n_members: Channels behind the classes; see ``UncertaintyCounting``.
        temperature: At which reliability is counted a second time; None once.
        fits: Whether voxels are kept for the losses that a temperature is fitted on; nothing else is counted then.
    """

    def __init__(
        self, reference: NDArray[np.uint8] | None, n_members: int = 0, temperature: float | None = None,
        fits: bool = False,
    ) -> None:  # fmt: skip
        self.reference, self.n_members, self.temperature, self.fits = reference, n_members, temperature, fits
        self.box = None if reference is None else reference_box(reference)
        self.reliability, self.scaled = ReliabilityCounts.nothing(), ReliabilityCounts.nothing()
        self.sample = EvenSample()
        self.uncertainty = UncertaintyCounting(n_members)

    def add(self, axis: int, start: int, values: NDArray[Any]) -> None:
        """Count a slab.

        Args:
            axis: Along which slabs follow each other.
            start: First plane.
            values: (C + n_members, I, J, K): the classes, background first, then the members' foreground.
        """
        n_planes = values.shape[1 + axis]
        step = max(1, _PART_VOXELS * n_planes // values[0].size)
        for first in range(0, n_planes, step):
            part = tuple(slice(first, first + step) if one == axis else slice(None) for one in range(3))
            self._add_part(axis, start + first, values[(slice(None), *part)])

    def _add_part(self, axis: int, start: int, values: NDArray[Any]) -> None:
        n_outputs, n_planes = len(values) - self.n_members, values.shape[1 + axis]
        box = [slice(0, 0)] * 3
        if self.box is not None:
            box = list(self.box)
            low, high = (min(max(end - start, 0), n_planes) for end in (self.box[axis].start, self.box[axis].stop))
            box[axis] = slice(low, high)
        region = region_of(values[0], box)
        chosen = values[:, region]
        classes = chosen[:n_outputs].astype(np.float32, copy=False)
        self.uncertainty.add(classes, chosen[n_outputs:])
        if self.reference is None:
            return
        planes = tuple(slice(start, start + n_planes) if one == axis else slice(None) for one in range(3))
        truth = self.reference[planes][region]
        if self.fits:
            self.sample.add(classes, truth)
            return
        self.reliability += count_reliability(classes, truth)
        if self.temperature is not None:
            self.scaled += count_reliability(scale_temperature(classes, self.temperature), truth)

    def losses(self) -> tuple[Reals, int]:
        """See ``temperature_losses``; of the voxels kept."""
        return temperature_losses(*self.sample.taken())

    def record(self) -> CaseCertainty:
        """What is kept."""
        found = self.uncertainty.finish()
        has_reference = self.reference is not None
        return CaseCertainty(
            reliability=reliability_record(self.reliability) if has_reference else None,
            scaled=reliability_record(self.scaled) if has_reference and self.temperature is not None else None,
            entropy=round(found.entropy, 6),
            disagreement=None if math.isnan(found.disagreement) else round(found.disagreement, 6),
            volume_variation=None if math.isnan(found.volume_variation) else round(found.volume_variation, 6),
        )


def reliability_record(counts: ReliabilityCounts) -> Reliability:
    """For the file."""
    return Reliability(
        n=tuple(counts.n.tolist()),
        confidence=tuple(round(value, 6) for value in counts.confidence.tolist()),
        n_right=tuple(counts.n_right.tolist()),
    )


def reliability_counts(record: Reliability) -> ReliabilityCounts:
    """From the file."""
    return ReliabilityCounts(
        np.array(record.n, dtype=np.int64), np.array(record.confidence), np.array(record.n_right, dtype=np.int64)
    )
