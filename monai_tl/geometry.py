"""Grids in the world: affines, spacing, orientation, resampling. RAS+ millimetres everywhere but in dicom/."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from monai_tl.errors import GeometryError

Affine = NDArray[np.float64]
"""(4, 4) float64, voxel index (i, j, k) → world millimetres."""
Spacing = tuple[float, float, float]
"""Voxel size along I, J, K in millimetres."""
Shape = tuple[int, int, int]
"""(I, J, K) voxels."""
Volume = NDArray[Any]
"""(I, J, K)."""
BoolVolume = NDArray[np.bool_]
"""(I, J, K) bool."""

LPS_TO_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])


def affine_lps_to_ras(affine: Affine) -> Affine:
    """World frame LPS (DICOM) → RAS (NIfTI); its own inverse."""
    return LPS_TO_RAS @ np.asarray(affine, dtype=np.float64)


def spacing_of(affine: Affine) -> Spacing:
    """Voxel size along I, J, K, mm: the lengths of the affine's columns."""
    lengths = np.sqrt((np.asarray(affine, dtype=np.float64)[:3, :3] ** 2).sum(axis=0))
    return float(lengths[0]), float(lengths[1]), float(lengths[2])


def affine_to_rows(affine: Affine) -> tuple[tuple[float, float, float, float], ...]:
    """An affine for a JSON file, rounded far below any geometry that matters: the last bits differ between machines."""
    return tuple((float(a), float(b), float(c), float(d)) for a, b, c, d in np.round(affine, 9) + 0.0)


def check_affine(affine: Affine, where: str) -> None:
    """Refuse an affine that is not finite, invertible and of sane spacing.

    Raises:
        GeometryError: It is not (4, 4), has NaN, is singular, or a voxel is outside 0.01 to 100 mm.
    """
    if affine.shape != (4, 4) or not np.isfinite(affine).all():
        raise GeometryError(f"{where}: the affine is not a finite 4 x 4 matrix; export the image again")
    spacing = spacing_of(affine)
    if min(spacing) < 0.01 or max(spacing) > 100.0:
        raise GeometryError(f"{where}: voxel size {spacing} mm is outside 0.01 to 100; export the image again")
    cosines = affine[:3, :3] / np.asarray(spacing)
    if abs(np.linalg.det(cosines)) < 1e-3:
        raise GeometryError(f"{where}: the affine is singular; export the image again")


def orientation_of(affine: Affine) -> str:
    """Axis codes towards which I, J, K grow, e.g. ``RAS``."""
    permutation, signs = _closest_axes(affine)
    letters = ("LR", "PA", "IS")
    return "".join(letters[axis][1 if sign > 0 else 0] for axis, sign in zip(permutation, signs, strict=True))


def _closest_axes(affine: Affine) -> tuple[list[int], list[int]]:
    """World axis and sign for each voxel axis, one to one, greedy from the clearest."""
    cosines = affine[:3, :3] / np.asarray(spacing_of(affine))
    permutation, signs = [-1, -1, -1], [1, 1, 1]
    strength = np.abs(cosines)
    for _ in range(3):
        world, voxel = np.unravel_index(int(np.argmax(strength)), (3, 3))
        permutation[int(voxel)] = int(world)
        signs[int(voxel)] = 1 if cosines[world, voxel] >= 0 else -1
        strength[world, :] = -1.0
        strength[:, voxel] = -1.0
    return permutation, signs


def reorient_to_ras(array: Volume, affine: Affine) -> tuple[Volume, Affine]:
    """Permute and flip voxel axes so that I, J, K grow towards R, A, S; no value is interpolated.

    Args:
        array: (I, J, K) or (C, I, J, K) with the channel first.
        affine: Voxel → RAS of the spatial axes.

    Returns:
        The array (a view where possible) and its affine; each voxel keeps its world position.
    """
    permutation, signs = _closest_axes(affine)
    order = [permutation.index(world) for world in range(3)]
    lead = array.ndim - 3
    moved = np.transpose(array, [*range(lead), *(lead + axis for axis in order)])
    matrix = np.array(affine, dtype=np.float64)
    result = matrix.copy()
    for new, old in enumerate(order):
        column = matrix[:3, old]
        if signs[old] < 0:
            size = array.shape[lead + old]
            result[:3, 3] += column * (size - 1)
            column = -column
            moved = np.flip(moved, axis=lead + new)
        result[:3, new] = column
    return moved, result


def undo_reorient(array: Volume, affine: Affine) -> Volume:
    """Bring an array on the RAS+ grid of ``reorient_to_ras`` back to the voxel axes of ``affine``.

    Args:
        array: (I, J, K) on the reoriented grid.
        affine: The affine *before* reorientation.
    """
    permutation, signs = _closest_axes(affine)
    moved = np.transpose(array, permutation)
    for old in range(3):
        if signs[old] < 0:
            moved = np.flip(moved, axis=old)
    return moved


def same_grid(
    first: Affine, first_shape: Shape, second: Affine, second_shape: Shape, tolerance_mm: float = 0.01
) -> bool:
    """Whether two grids have the same shape and all corners within a tolerance, mm."""
    if tuple(first_shape) != tuple(second_shape):
        return False
    corners = grid_corners(first_shape)
    distance = np.abs((corners @ (np.asarray(first) - np.asarray(second)).T)[:, :3])
    return bool(distance.max() <= tolerance_mm)


def grid_corners(shape: Shape) -> NDArray[np.float64]:
    """(8, 4) homogeneous voxel indices of the grid's corner voxels."""
    i, j, k = (np.array([0, size - 1], dtype=np.float64) for size in shape)
    mesh = np.stack(np.meshgrid(i, j, k, indexing="ij"), axis=-1).reshape(-1, 3)
    return np.concatenate([mesh, np.ones((8, 1))], axis=1)


def resample_to_grid(
    array: Volume, affine: Affine, target_affine: Affine, target_shape: Shape, order: int, fill: float = 0.0
) -> Volume:
    """Sample a volume on another grid of the same world.

    Args:
        array: (I, J, K).
        affine: Its voxel → world.
        target_affine: Voxel → world of the result.
        target_shape: (I, J, K) of the result.
        order: 0 nearest (labels), 1 linear, 3 cubic.
        fill: Value outside the input.

    Returns:
        Same dtype as ``array`` for order 0, else float32.
    """
    from scipy import ndimage

    mapping = np.linalg.inv(affine) @ np.asarray(target_affine)
    source = array if order == 0 else np.asarray(array, dtype=np.float32)
    result: Volume = ndimage.affine_transform(
        source,
        mapping[:3, :3],
        offset=mapping[:3, 3],
        output_shape=tuple(target_shape),
        order=order,
        mode="constant",
        cval=fill,
        prefilter=order > 1,
    )
    return result
