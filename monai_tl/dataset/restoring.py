"""Class probabilities on the network's grid → a label map on the case's own, slab by slab."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from monai_tl.dataset.orientation import axes_and_flips, crop_affine, turn_affine, turn_array
from monai_tl.dataset.resampling import AxisMatrix, apply_axis_matrices, axis_matrix, axis_order, columns_of_rows
from monai_tl.errors import GeometryError
from monai_tl.geometry import Shape, orientation_of
from monai_tl.records import PreparedCase

Label = NDArray[np.uint8]
_SLAB_VOXELS = 1 << 22


class Restoring:
    """A label map that grows as slabs of probabilities come in, in order along one axis of the network's grid.

    Probabilities, not labels, are interpolated (linearly), then the largest wins; ties go to the lower class. Outside
    the crop all is background. Kept between slabs is one plane of each class; what is worked on at a time is one class
    of some four million voxels. The label does not depend on how the case was cut into slabs.

    Args:
        prepared: The record that ``monai_tl.dataset.transforms.prepare_case`` gave.
    """

    def __init__(self, prepared: PreparedCase) -> None:
        native = np.asarray(prepared.native_affine, dtype=np.float64)
        stored = np.asarray(prepared.affine, dtype=np.float64)
        self._prepared = prepared
        # the axis and direction of the native grid's axes in the network's
        self._axes, self._flips = axes_and_flips(orientation_of(stored), orientation_of(native))
        turned_affine = turn_affine(stored, prepared.spatial_shape, self._axes, self._flips)
        crop = [high - low for low, high in zip(prepared.crop_start, prepared.crop_stop, strict=True)]
        to_stored = np.linalg.inv(turned_affine) @ crop_affine(native, prepared.crop_start)
        self._sizes = [prepared.spatial_shape[axis] for axis in self._axes]
        self._matrices = [
            axis_matrix(np.arange(crop[axis]) * to_stored[axis, axis] + to_stored[axis, 3], self._sizes[axis])
            for axis in range(3)
        ]
        self._order = axis_order(self._matrices)
        self._label = np.zeros(prepared.native_shape, dtype=np.uint8)
        box = tuple(slice(low, high) for low, high in zip(prepared.crop_start, prepared.crop_stop, strict=True))
        self._view = self._label[box]
        self._n_seen = 0
        self._kept: NDArray[Any] | None = None

    def add(self, axis: int, start: int, values: NDArray[Any]) -> None:
        """Take the next slab.

        Args:
            axis: Along which slabs follow each other; the same for all of a case.
            start: First plane along it.
            values: (C, I, J, K), background first; any values of which the largest wins. May be overwritten later.

        Raises:
            GeometryError: The shape is not the record's, or a slab is missing.
        """
        shape = list(self._prepared.spatial_shape)
        n_planes = values.shape[1 + axis] if values.ndim == 4 else 0
        shape[axis] = min(n_planes, shape[axis] - start)
        if values.ndim != 4 or list(values.shape[1:]) != shape or start != self._n_seen:
            raise _other_shape(values, self._prepared)
        native_axis = self._axes.index(axis)
        if self._kept is not None and self._matrices[native_axis] is not None:
            between = np.concatenate([self._kept, np.take(values, [0], axis=1 + axis)], axis=1 + axis)
            self._fill(between, native_axis, start - 1, start + 1)
        self._n_seen += n_planes
        self._fill(values, native_axis, start, self._n_seen)
        last = np.take(values, [n_planes - 1], axis=1 + axis)
        self._kept = None if self._n_seen == self._prepared.spatial_shape[axis] else last

    def finish(self) -> Label:
        """The label map, (I, J, K) uint8 of the record's ``native_shape``.

        Raises:
            GeometryError: Slabs are missing.
        """
        if self._kept is not None or self._n_seen == 0:
            raise GeometryError(
                f"case {self._prepared.case_id}: probabilities are there for the first {self._n_seen} planes only"
            )
        return self._label

    def _fill(self, values: NDArray[Any], axis: int, first: int, stop: int) -> None:
        """Label the native planes that depend on the given planes, first to stop of the network's grid, alone."""
        matrix = self._matrices[axis]
        if self._flips[axis]:
            first, stop = self._sizes[axis] - stop, self._sizes[axis] - first
        ready = np.arange(first, stop) if matrix is None else _rows_within(matrix, first, stop)
        if ready.size == 0:
            return
        channels = [turn_array(channel, self._axes, self._flips) for channel in values]
        low, high = int(ready[0]), int(ready[-1]) + 1
        for planes in _slabs(low, high, self._view.shape, axis):
            matrices = list(self._matrices)
            if matrix is None:
                inside = slice(planes.start - first, planes.stop - first)
            else:
                part = matrix[planes][:, first:stop]
                used = np.unique(part.indices)
                inside = slice(int(used[0]), int(used[-1]) + 1)
                matrices[axis] = part[:, inside]
            here = tuple(inside if one == axis else slice(None) for one in range(3))
            target = tuple(planes if one == axis else slice(None) for one in range(3))
            _label_largest(self._view[target], [channel[here] for channel in channels], matrices, self._order)


def restore_probabilities(probabilities: NDArray[np.float32], prepared: PreparedCase) -> Label:
    """All classes of a case at once through ``Restoring``.

    Args:
        probabilities: (C, I, J, K), background first; any values of which the largest wins.
        prepared: The record that ``monai_tl.dataset.transforms.prepare_case`` gave.

    Returns:
        (I, J, K) uint8 of ``prepared.native_shape``.

    Raises:
        GeometryError: The shape is not the record's.
    """
    if tuple(probabilities.shape[1:]) != prepared.spatial_shape:
        raise _other_shape(probabilities, prepared)
    restoring = Restoring(prepared)
    restoring.add(0, 0, probabilities)
    return restoring.finish()


def _other_shape(probabilities: NDArray[Any], prepared: PreparedCase) -> GeometryError:
    return GeometryError(
        f"case {prepared.case_id}: probabilities are {tuple(probabilities.shape)}, but the case was prepared as "
        f"(C, {', '.join(map(str, prepared.spatial_shape))}); run preprocess again"
    )


def _label_largest(
    label: Label, channels: list[NDArray[Any]], matrices: list[AxisMatrix | None], order: list[int]
) -> None:
    """Write the channel that is largest after resampling, channel by channel.

    The order is that of the whole case, so that a slab gives the bits of the whole.
    """
    best = apply_axis_matrices(channels[0], matrices, order)
    for value, channel in enumerate(channels[1:], start=1):
        score = apply_axis_matrices(channel, matrices, order)
        larger = score > best
        label[larger] = value
        best = np.maximum(best, score)


def _rows_within(matrix: AxisMatrix, first: int, stop: int) -> NDArray[np.intp]:
    """Rows whose columns all lie between two; columns rise with the rows, so these are consecutive."""
    low, high = columns_of_rows(matrix)
    return np.flatnonzero((low >= first) & (high < stop))


def _slabs(low: int, high: int, shape: Shape, axis: int) -> Iterator[slice]:
    thickness = max(1, _SLAB_VOXELS * shape[axis] // max(1, shape[0] * shape[1] * shape[2]))
    for first in range(low, high, thickness):
        yield slice(first, min(first + thickness, high))
