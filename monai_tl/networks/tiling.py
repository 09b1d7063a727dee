"""Where windows lie on a case, and along which axis their sums are carried."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass

from monai_tl.geometry import Shape
from monai_tl.records import SizeRule

FAST_OVERLAP = 0.25
"""Of the patch, in fast mode: half an overlap passes each voxel up to eight times, a quarter 2.4 times."""
_MAX_COUNT = 64


@dataclass(frozen=True)
class Tiling:
    """Windows over one case.

    Attributes:
        shape: (I, J, K) of the case.
        window: Size of all windows.
        starts: Along each axis, in the case after padding; each window is one of their product.
        axis: The windows are passed in its order, so that only one window's thickness of sums is kept.
    """

    shape: Shape
    window: Shape
    starts: tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...]]
    axis: int

    @property
    def before(self) -> Shape:
        """Padding before the case along each axis; only where the window is larger than it."""
        i, j, k = (max(window - size, 0) // 2 for window, size in zip(self.window, self.shape, strict=True))
        return i, j, k

    @property
    def padded(self) -> Shape:
        """Shape of the case after padding."""
        i, j, k = (max(pair) for pair in zip(self.window, self.shape, strict=True))
        return i, j, k

    @property
    def n_windows(self) -> int:
        """How many there are."""
        return math.prod(len(axis) for axis in self.starts)


def exact_tiling(shape: Shape, window: Shape, overlap: float) -> Tiling:
    """The windows that MONAI's ``SlidingWindowInferer`` takes.

    Args:
        shape: Of the case.
        window: Its ``roi_size``.
        overlap: Share of a window that the next one covers again, 0 to below 1.
    """
    starts = []
    for size, length in zip(shape, window, strict=True):
        step = max(1, int(length * (1.0 - overlap)))
        last = max(0, size - length)
        starts.append((*range(0, last, step), last))
    i, j, k = starts
    return Tiling(shape, window, (i, j, k), _thinnest(shape, window))


def fast_tiling(
    shape: Shape,
    patch: Shape,
    rule: SizeRule,
    grows: bool,
    n_outputs: int,
    voxel_bytes: float,
    budget: float,
) -> Tiling:
    """The windows that cost least within a budget of memory: the whole case where it fits. They are spread evenly.

    Args:
        shape: Of the case.
        patch: Window the network was trained on, as ``network_size`` gives it.
        rule: Sizes the network accepts.
        grows: Whether windows may be larger than the patch.
        n_outputs: Classes with background.
        voxel_bytes: Memory that a pass takes for each voxel of its window.
        budget: Bytes for a pass and the sums that are carried.
    """
    if rule.fixed:
        return exact_tiling(shape, patch, FAST_OVERLAP)
    choices = [
        _sizes(size, length, rule.divisors[axis], grows)
        for axis, (size, length) in enumerate(zip(shape, patch, strict=True))
    ]

    def make(counts: Sequence[tuple[int, int]]) -> tuple[tuple[bool, float, int], Tiling]:
        i, j, k = (length for _, length in counts)
        window = (i, j, k)
        axis = _thinnest(shape, window)
        # sums of two bytes, and one float32 of weights
        carried = (
            (2.0 * n_outputs + 4.0) * _padded_volume(shape, window) * window[axis] / max(window[axis], shape[axis])
        )
        needed = voxel_bytes * math.prod(window) + carried
        work = math.prod(count * length for count, length in counts)
        # past the budget what needs least; within it what costs least, and of equals the fewest windows
        over = needed > budget
        key = (over, needed if over else float(work), math.prod(count for count, _ in counts))
        a, b, c = (_spread(size, length, count) for size, (count, length) in zip(shape, counts, strict=True))
        return key, Tiling(shape, window, (a, b, c), axis)

    return min(map(make, itertools.product(*choices)), key=lambda choice: choice[0])[1]


def _sizes(size: int, patch: int, divisor: int, grows: bool) -> list[tuple[int, int]]:
    """Numbers of windows along an axis, and the window each number needs; none smaller than the patch."""
    overlap = math.ceil(FAST_OVERLAP * patch)
    most = max(1, -(-(size - overlap) // max(1, patch - overlap)))
    found = {patch: most}
    for count in range(1, min(most, _MAX_COUNT + 1) if grows else 1):
        length = -(-(size + (count - 1) * overlap) // count)
        found.setdefault(max(patch, -(-length // divisor) * divisor), count)
    return [(count, length) for length, count in found.items()]


def _spread(size: int, length: int, count: int) -> tuple[int, ...]:
    last = max(0, size - length)
    return tuple(sorted({round(last * index / max(count - 1, 1)) for index in range(count)})) if last else (0,)


def _thinnest(shape: Sequence[int], window: Sequence[int]) -> int:
    """Axis along which a window is the smallest part of the case, so that least is carried."""
    return min(range(3), key=lambda axis: min(1.0, window[axis] / shape[axis]))


def _padded_volume(shape: Sequence[int], window: Sequence[int]) -> float:
    return float(math.prod(max(pair) for pair in zip(shape, window, strict=True)))
