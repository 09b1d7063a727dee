"""Resampling along voxel axes: one sparse matrix an axis, the same for images, labels and the way back."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Box = tuple[slice, ...]
AxisMatrix = Any
"""scipy.sparse CSR (n_out, n_in) float32 whose rows sum to 1; None leaves the axis as it is."""

_TRUNCATE_SIGMA = 4.0
_SAME_POSITION_VOX = 1e-6
_LINES = 256
"""Lines of the fastest axis that are turned at a time: they fit into a processor's cache."""


def antialias_sigma_vox(factor: float) -> float:
    """Width of the Gaussian that goes before downsampling, in input voxels.

    The point spread function of the coarse grid is matched: its full width at half maximum is taken as the voxel size.

    Args:
        factor: Output spacing over input spacing.

    Returns:
        0 when the factor is at most 1.

    References:
        Cardoso et al. 2015, doi:10.1007/978-3-319-24571-3_81.
    """
    return float(np.sqrt(max(factor**2 - 1.0, 0.0) / (8.0 * np.log(2.0))))


def axis_matrix(positions: Floats, n_in: int, sigma_vox: float = 0.0) -> AxisMatrix | None:
    """Matrix that samples an axis at given positions, linearly, after a Gaussian.

    Beyond the ends the edge value goes on.

    Args:
        positions: (n_out,) in input voxels.
        n_in: Voxels of the input axis.
        sigma_vox: Width of the Gaussian, input voxels; 0 for none.

    Returns:
        CSR (n_out, n_in) float32; None when output and input voxels coincide and nothing is filtered.
    """
    n_out = len(positions)
    if sigma_vox == 0.0 and n_out == n_in and np.abs(positions - np.arange(n_in)).max() <= _SAME_POSITION_VOX:
        return None
    # a tenth of the time of 200 small cases, which need no resampling
    from scipy import sparse

    radius = int(np.ceil(_TRUNCATE_SIGMA * sigma_vox))
    offsets = np.arange(-radius, radius + 1)
    kernel = np.exp(-0.5 * (offsets / sigma_vox) ** 2) if radius else np.ones(1)
    kernel /= kernel.sum()
    inside = np.clip(positions, 0.0, n_in - 1.0)
    low = np.minimum(np.floor(inside).astype(np.int64), max(n_in - 2, 0))
    upper_weight = inside - low
    rows, columns, weights = [], [], []
    for step, share in ((0, 1.0 - upper_weight), (1, upper_weight)):
        for offset, weight in zip(offsets, kernel, strict=True):
            rows.append(np.arange(n_out))
            columns.append(np.clip(low + step + offset, 0, n_in - 1))
            weights.append(share * weight)
    values = (np.concatenate(weights), (np.concatenate(rows), np.concatenate(columns)))
    matrix = sparse.csr_matrix(values, shape=(n_out, n_in))
    matrix.eliminate_zeros()
    return matrix.astype(np.float32)


def apply_axis_matrices(
    array: NDArray[Any], matrices: Sequence[AxisMatrix | None], order: Sequence[int] | None = None
) -> NDArray[np.float32]:
    """Resample a volume axis by axis; single-threaded, so the result does not depend on the machine's cores.

    Args:
        array: (I, J, K), of any order in memory.
        matrices: One for each axis.
        order: Of the axes; None: that of the matrices. A part of a volume takes the whole's, and so has its bits.

    Returns:
        float32; the input itself where nothing was to do and it is float32.
    """
    result = np.asarray(array, dtype=np.float32)
    for axis in axis_order(matrices) if order is None else order:
        result = resample_axis(result, axis, matrices[axis])
    return result


def axis_order(matrices: Sequence[AxisMatrix | None]) -> list[int]:
    """The axis that shrinks most goes first: less is left for the others."""
    return sorted(range(3), key=lambda axis: _growth(matrices[axis]))


def resample_axis(array: NDArray[np.float32], axis: int, matrix: AxisMatrix | None) -> NDArray[np.float32]:
    """Apply a matrix along one axis of a volume.

    The volume stays in its order in memory: to turn one of NIfTI, whose first axis is the fastest, took four fifths of
    the time.

    Args:
        array: (I, J, K) float32.
        axis: 0 to 2.
        matrix: (n_out, n_in); None changes nothing.

    Returns:
        float32; equal bits whatever the order in memory.
    """
    if matrix is None:
        return array
    order = sorted(range(3), key=lambda one: -abs(array.strides[one]))
    volume, place = np.ascontiguousarray(array.transpose(order)), order.index(axis)
    shape = [*volume.shape[:place], matrix.shape[0], *volume.shape[place + 1 :]]
    if place == 0:
        sampled: NDArray[np.float32] = matrix @ volume.reshape(len(volume), -1)
    elif place == 1:
        sampled = np.stack([matrix @ plane for plane in volume])
    else:
        lines = volume.reshape(-1, volume.shape[2])
        sampled = np.empty((len(lines), matrix.shape[0]), dtype=np.float32)
        for first in range(0, len(lines), _LINES):
            some = slice(first, first + _LINES)
            sampled[some] = (matrix @ np.ascontiguousarray(lines[some].T)).T
    return sampled.reshape(shape).transpose(np.argsort(order))


def _growth(matrix: AxisMatrix | None) -> float:
    return 1.0 if matrix is None else float(matrix.shape[0] / matrix.shape[1])


def resampled_axis(n_in: int, spacing_in_mm: float, spacing_out_mm: float) -> tuple[int, Floats]:
    """Size of an axis on another spacing, and where its voxels lie on the old one.

    Both axes share the centre of their field of view.

    Returns:
        ``n_out`` and (n_out,) positions in input voxels.
    """
    n_out = max(1, round(n_in * spacing_in_mm / spacing_out_mm))
    factor = spacing_out_mm / spacing_in_mm
    positions: Floats = (np.arange(n_out, dtype=np.float64) - (n_out - 1) / 2.0) * factor + (n_in - 1) / 2.0
    return n_out, positions


def resample_label(label: NDArray[np.uint8], matrices: Sequence[AxisMatrix | None]) -> NDArray[np.uint8]:
    """Resample a label map by the share of each class around each output voxel; the largest share wins.

    Nearest neighbour would shift borders by up to half a voxel and drop or double thin structures by chance when
    downsampling; the largest share is unbiased. Ties go to the lower value. One class at a time is in memory, and of it
    the box that it reaches.

    Args:
        label: (I, J, K) uint8.
        matrices: One for each axis, those of the image.
    """
    if all(matrix is None for matrix in matrices):
        return label
    from scipy import ndimage

    shape = [size if matrix is None else matrix.shape[0] for size, matrix in zip(label.shape, matrices, strict=True)]
    result = np.zeros(shape, dtype=np.uint8)
    boxes = {value: box for value, box in enumerate(ndimage.find_objects(label), start=1) if box is not None}
    reached = {value: _reached(box, matrices) for value, box in boxes.items()}
    # a class at an edge may lie beyond the last voxel of the new grid
    reached = {value: box for value, box in reached.items() if all(part.start < part.stop for part in box)}
    if not reached:
        return result
    # elsewhere is background alone
    ends = [
        (min(part.start for part in parts), max(part.stop for part in parts))
        for parts in zip(*reached.values(), strict=True)
    ]
    contested = tuple(slice(low, high) for low, high in ends)
    best = _share(label, 0, _needed(contested, matrices), contested, matrices)
    for value, box in reached.items():
        share = _share(label, value, boxes[value], box, matrices)
        here = best[tuple(slice(one.start - low, one.stop - low) for one, (low, _) in zip(box, ends, strict=True))]
        result[box][share > here] = value
        np.maximum(here, share, out=here)
    return result


def _share(
    label: NDArray[np.uint8], value: int, box: Box, reached: Box, matrices: Sequence[AxisMatrix | None]
) -> NDArray[np.float32]:
    """Share of a value in some output voxels, where it lies within a box of the input: more would add zeros."""
    parts = [
        None if matrix is None else matrix[rows, columns]
        for matrix, rows, columns in zip(matrices, reached, box, strict=True)
    ]
    return apply_axis_matrices(label[box] == value, parts, axis_order(matrices))


def _reached(box: Box, matrices: Sequence[AxisMatrix | None]) -> Box:
    """The output voxels to which a box of the input contributes."""
    found = []
    for part, matrix in zip(box, matrices, strict=True):
        if matrix is None:
            found.append(part)
            continue
        low, high = columns_of_rows(matrix)
        rows = np.flatnonzero((high >= part.start) & (low < part.stop))
        found.append(slice(int(rows[0]), int(rows[-1]) + 1) if len(rows) else slice(0, 0))
    return tuple(found)


def _needed(rows: Box, matrices: Sequence[AxisMatrix | None]) -> Box:
    """The input voxels that contribute to a box of the output."""
    found = []
    for part, matrix in zip(rows, matrices, strict=True):
        if matrix is None:
            found.append(part)
        else:
            low, high = columns_of_rows(matrix)
            found.append(slice(int(low[part].min()), int(high[part].max()) + 1))
    return tuple(found)


def columns_of_rows(matrix: AxisMatrix) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """First and last column of each row; both rise with the rows."""
    starts = matrix.indptr[:-1]
    return np.minimum.reduceat(matrix.indices, starts), np.maximum.reduceat(matrix.indices, starts)
