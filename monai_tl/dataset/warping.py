"""Smooth random displacements: cubic splines through random control points."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from scipy.interpolate import BSpline

from monai_tl.geometry import Shape, Spacing

CONTROL_VOX = 12.0
"""Distance of control points, in voxels of the finest axis."""
_ENERGY = 151.0 / 315.0
"""Integral of the squared cubic B-spline: the variance that one axis leaves of independent control points."""


def draw_points(
    size: Shape, spacing_mm: Spacing, deviation_vox: float, generator: np.random.Generator
) -> NDArray[np.float32]:
    """Random control points of a displacement that is smooth in the world.

    Args:
        size: (I, J, K) of the patch.
        spacing_mm: Of its voxels, so that thick slices move as far in mm as thin ones.
        deviation_vox: Standard deviation of the displacement along each axis, in voxels of the finest axis.
        generator: Its state decides the result.

    Returns:
        (3, n_i, n_j, n_k) mm along the patch's axes, for ``bases``.
    """
    n_points = [basis.shape[1] for basis in bases(size, spacing_mm)]
    points = generator.standard_normal((3, *n_points), dtype=np.float32)
    return points * np.float32(deviation_vox * min(spacing_mm) / _ENERGY**1.5)


def bases(size: Shape, spacing_mm: Spacing) -> list[NDArray[np.float32]]:
    """For each axis the weights (length, n) of its control points."""
    finest = min(spacing_mm)
    return [_basis(length, step / (CONTROL_VOX * finest)) for length, step in zip(size, spacing_mm, strict=True)]


def warped_grid(
    size: Shape,
    spacing_mm: Spacing,
    matrix: NDArray[np.float64],
    offset: NDArray[np.float64],
    points: NDArray[np.float32],
) -> NDArray[np.float32]:
    """Where each voxel of a patch is read: an affine map and a displacement.

    Args:
        size: (I, J, K) of the patch.
        spacing_mm: Of its voxels.
        matrix: Of the map voxel of the patch → voxel of the input, (3, 3).
        offset: Of the same map, (3,).
        points: Of ``draw_points``.

    Returns:
        (3, I, J, K) indices into the input.

    References:
        Rueckert et al. 1999, doi:10.1109/42.796284: free-form deformations by cubic B-splines.
    """
    moved = points
    for axis, basis in enumerate(bases(size, spacing_mm), start=1):
        moved = np.moveaxis(np.tensordot(moved, basis, axes=(axis, 1)), -1, axis)
    lines = [np.arange(length, dtype=np.float32) for length in size]
    places = np.empty((3, *size), dtype=np.float32)
    for axis in range(3):
        i, j, k = (np.float32(factor) * line for factor, line in zip(matrix[axis], lines, strict=True))
        places[axis] = i[:, None, None] + j[None, :, None] + (k + np.float32(offset[axis]))[None, None, :]
        places[axis] += moved[axis] / np.float32(spacing_mm[axis])
    return places


@lru_cache(maxsize=64)
def _basis(length: int, step: float) -> NDArray[np.float32]:
    """(length, n) weights of the n control points of one axis that are a distance of 1 apart."""
    at = np.arange(length) * step
    knots = np.arange(-3, int(np.ceil(at[-1])) + 5, dtype=np.float64)
    result: NDArray[np.float32] = BSpline.design_matrix(at, knots, 3).toarray().astype(np.float32)
    return result
