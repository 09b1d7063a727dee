"""Resampling along voxel axes: one sparse matrix an axis, the same for images, labels and the way back."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
AxisMatrix = Any
"""scipy.sparse CSR (n_out, n_in) float32 whose rows sum to 1; None leaves the axis as it is."""

_TRUNCATE_SIGMA = 4.0
_SAME_POSITION_VOX = 1e-6


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
    from scipy import sparse

    n_out = len(positions)
    if sigma_vox == 0.0 and n_out == n_in and np.abs(positions - np.arange(n_in)).max() <= _SAME_POSITION_VOX:
        return None
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


def apply_axis_matrices(array: NDArray[Any], matrices: Sequence[AxisMatrix | None]) -> NDArray[np.float32]:
    """Resample a volume axis by axis; single-threaded, so the result does not depend on the machine's cores.

    Args:
        array: (I, J, K).
        matrices: One for each axis.

    Returns:
        float32; the input itself where nothing was to do and it is float32.
    """
    result = np.asarray(array, dtype=np.float32)
    # the axis that shrinks most goes first: less is left for the others
    order = sorted(range(3), key=lambda axis: _growth(matrices[axis]))
    for axis in order:
        matrix = matrices[axis]
        if matrix is None:
            continue
        moved = np.ascontiguousarray(np.moveaxis(result, axis, 0))
        sampled = matrix @ moved.reshape(moved.shape[0], -1)
        result = np.moveaxis(sampled.reshape(matrix.shape[0], *moved.shape[1:]), 0, axis)
    return result


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
    downsampling; the largest share is unbiased. Ties go to the lower value. One class at a time is in memory.

    Args:
        label: (I, J, K) uint8.
        matrices: One for each axis, those of the image.
    """
    if all(matrix is None for matrix in matrices):
        return label
    values = np.flatnonzero(np.bincount(label.reshape(-1), minlength=1))
    shares = (apply_axis_matrices(label == value, matrices) for value in values)
    best = next(shares)
    result = np.full(best.shape, values[0], dtype=np.uint8)
    for value, share in zip(values[1:], shares, strict=True):
        larger = share > best
        result[larger] = value
        best = np.maximum(best, share)
    return result
