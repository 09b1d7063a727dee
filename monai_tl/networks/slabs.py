"""Windows summed into a case slab by slab: what is finished is handed on, so that no class has a whole volume."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product
from typing import Any, Literal

import numpy as np
import torch
from monai.data.utils import compute_importance_map
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from monai_tl.geometry import Shape
from monai_tl.networks.passes import Passing
from monai_tl.networks.tiling import Tiling

Blending = Literal["gaussian", "constant"]


@dataclass(frozen=True)
class Slab:
    """Finished probabilities of some planes of a case.

    Attributes:
        axis: Along which slabs follow each other.
        start: First plane.
        values: (n_outputs, I, J, K), all of the case but along ``axis``. The next slab overwrites it.
    """

    axis: int
    start: int
    values: NDArray[Any]


@dataclass(frozen=True)
class Skip:
    """Windows outside the body: nothing in them, nor between them and a side of the image.

    A dark window within the body, as in a lung, has something on all sides and is passed.

    Attributes:
        level: No voxel of theirs is above it, in any channel.
        n_outputs: Classes with background, of which the first is then certain.
    """

    level: float
    n_outputs: int


@dataclass(frozen=True)
class Blend:
    """How windows become a case.

    Attributes:
        blending: Weight of a window's voxels: ``gaussian`` trusts its middle more.
        batch_size: Windows a pass.
        padding: What a case smaller than the window is filled up with.
        dtype: Of the sums. In float16 each sum is off by 1/2048 of itself at most, and takes half the memory.
        skip: Windows that are background without being passed; None passes all.
    """

    blending: Blending = "gaussian"
    batch_size: int = 1
    padding: Literal["constant", "edge"] = "constant"
    dtype: torch.dtype = torch.float32
    skip: Skip | None = None


def stream_probabilities(predict: Passing, image: NDArray[Any], tiling: Tiling, blend: Blend) -> Iterator[Slab]:
    """Blended class probabilities of a case, in slabs along the tiling's axis.

    Memory beside the image is one window's thickness of sums; the same windows in the same order give the same bits.

    Args:
        predict: What passes the windows.
        image: (C, I, J, K); may be memory-mapped, of any type of number; it is read window by window.
        tiling: Of the image's shape.
        blend: Weights and batches.

    Yields:
        Slabs in order, background first, summing to 1 to the precision of the sums.
    """
    if tiling.n_windows == 1:
        yield _whole(predict, image, tiling, blend)
        return
    sums = _Sums(tiling, blend)
    axis = tiling.axis
    others = [tiling.starts[other] for other in range(3) if other != axis]
    for index, start in enumerate(tiling.starts[axis]):
        places = [_insert(pair, axis, start) for pair in product(*others)]
        batch: list[tuple[Shape, Tensor]] = []
        for place in places:
            if blend.skip is not None and _is_outside(image, tiling, place, blend.skip.level):
                sums.add_background(place)
                continue
            batch.append((place, _cut(image, tiling, place, blend.padding)))
            if len(batch) == blend.batch_size:
                _pass(predict, batch, sums)
        _pass(predict, batch, sums)
        if index + 1 == len(tiling.starts[axis]):
            yield sums.finish(start, tiling.padded[axis])
            return
        following = tiling.starts[axis][index + 1]
        yield sums.finish(start, following)
        sums.move_up(following - start)


def _whole(predict: Passing, image: NDArray[Any], tiling: Tiling, blend: Blend) -> Slab:
    """A case that is one window: there is nothing to blend, and the network's answer is handed on as it is."""
    found = predict(_cut(image, tiling, (0, 0, 0), blend.padding)[None])[0]
    inside = tuple(slice(low, low + size) for low, size in zip(tiling.before, tiling.shape, strict=True))
    return Slab(tiling.axis, 0, found.numpy()[(slice(None), *inside)])


def _pass(predict: Passing, batch: list[tuple[Shape, Tensor]], sums: _Sums) -> None:
    if not batch:
        return
    found = predict(torch.stack([window for _, window in batch]))
    for (place, _), probabilities in zip(batch, found, strict=True):
        sums.add(place, probabilities)
    batch.clear()


class _Sums:
    """Weighted sums over one window's thickness of the padded case, from the plane where the present windows start."""

    def __init__(self, tiling: Tiling, blend: Blend) -> None:
        self.tiling = tiling
        shape = list(tiling.padded)
        shape[tiling.axis] = tiling.window[tiling.axis]
        self.weights = compute_importance_map(tiling.window, mode=blend.blending, sigma_scale=0.125)
        # how many classes there are the first window tells, where windows that are not passed do not need to know
        n_outputs = 0 if blend.skip is None else blend.skip.n_outputs
        self.values = torch.zeros((n_outputs, *shape), dtype=blend.dtype)
        self.total = torch.zeros(shape)

    def add(self, place: Shape, probabilities: Tensor) -> None:
        if len(self.values) == 0:
            self.values = torch.zeros((len(probabilities), *self.total.shape), dtype=self.values.dtype)
        inside = self._inside(place)
        self.total[inside] += self.weights
        for total, of_class in zip(self.values, probabilities, strict=True):
            if total.dtype == torch.float32:
                total[inside].addcmul_(of_class, self.weights)
            else:
                total[inside] += (of_class * self.weights).to(total.dtype)

    def add_background(self, place: Shape) -> None:
        inside = self._inside(place)
        self.total[inside] += self.weights
        self.values[0][inside] += self.weights.to(self.values.dtype)

    def _inside(self, place: Shape) -> tuple[slice, ...]:
        first = [0 if axis == self.tiling.axis else start for axis, start in enumerate(place)]
        return tuple(slice(low, low + length) for low, length in zip(first, self.tiling.window, strict=True))

    def finish(self, start: int, following: int) -> Slab:
        """The planes that no further window touches, divided by their weights; they are dropped at ``move_up``."""
        axis, n_planes = self.tiling.axis, following - start
        values = self.values.narrow(1 + axis, 0, n_planes)
        total = self.total.narrow(axis, 0, n_planes)
        for of_class in values:
            of_class.div_(total)
        # only an axis shorter than the window is padded, and has one window
        before, shape = list(self.tiling.before), list(self.tiling.shape)
        if len(self.tiling.starts[axis]) > 1:
            shape[axis] = n_planes
        inside = tuple(slice(low, low + size) for low, size in zip(before, shape, strict=True))
        return Slab(axis, start, values.numpy()[(slice(None), *inside)])

    def move_up(self, n_planes: int) -> None:
        """Let the next windows start ``n_planes`` further."""
        axis = self.tiling.axis
        arrays: list[Tensor] = [*self.values.unbind(), self.total]
        for array in arrays:
            planes = array.transpose(0, axis)
            kept = len(planes) - n_planes
            # in steps that do not overlap
            for low in range(0, kept, n_planes):
                length = min(n_planes, kept - low)
                planes[low : low + length] = planes[low + n_planes : low + n_planes + length]
            planes[kept:] = 0.0


def _insert(pair: tuple[int, ...], axis: int, start: int) -> Shape:
    place = list(pair)
    place.insert(axis, start)
    i, j, k = place
    return i, j, k


def _is_outside(image: NDArray[Any], tiling: Tiling, place: Shape, level: float) -> bool:
    inside = [slice(low, low + length) for low, length in zip(place, tiling.window, strict=True)]
    if image[(slice(None), *inside)].max() > level:
        return False
    for axis, part in enumerate(inside):
        for beyond in (slice(0, part.start), slice(part.stop, None)):
            strip = image[(slice(None), *inside[:axis], beyond, *inside[axis + 1 :])]
            if strip.size == 0 or strip.max() <= level:
                return True
    return False


def _cut(image: NDArray[Any], tiling: Tiling, place: Shape, padding: Literal["constant", "edge"]) -> Tensor:
    """One window (C, i, j, k) float32, padded along axes that are shorter than it."""
    inside = tuple(slice(low, low + length) for low, length in zip(place, tiling.window, strict=True))
    window = torch.from_numpy(np.array(image[(slice(None), *inside)], dtype=np.float32))
    pads = [(0, 0) if size >= length else (before, length - size - before)
            for size, length, before in zip(tiling.shape, tiling.window, tiling.before, strict=True)]  # fmt: skip
    if not any(map(any, pads)):
        return window
    flat = [number for pair in reversed(pads) for number in pair]
    return functional.pad(window[None], flat, mode="replicate" if padding == "edge" else "constant")[0]
