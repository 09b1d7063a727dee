"""Orientation of stored arrays: voxel axes permuted and flipped, never interpolated, and the affine that follows."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from monai_tl.errors import GeometryError
from monai_tl.geometry import Affine, Shape
from monai_tl.records import IntTriple

_OPPOSITE = dict(zip("RLAPSI", "LRPAIS", strict=True))


def axes_and_flips(codes: str, wanted: str) -> tuple[list[int], list[bool]]:
    """For each axis of the wanted orientation: the present axis it is, and whether it is reversed.

    Args:
        codes: Present axis codes, e.g. ``RAS``.
        wanted: Wanted axis codes.

    Raises:
        GeometryError: ``wanted`` does not name each axis once.
    """
    if sorted(min(code, _OPPOSITE.get(code, "?")) for code in wanted) != ["A", "I", "L"]:
        raise GeometryError(f"orientation {wanted!r} does not name each of R/L, A/P, S/I once")
    axes, flips = [], []
    for code in wanted:
        same = code in codes
        axes.append(codes.index(code if same else _OPPOSITE[code]))
        flips.append(not same)
    return axes, flips


def turn_array(array: NDArray[Any], axes: list[int], flips: list[bool]) -> NDArray[Any]:
    """Permute and flip an (I, J, K) array as ``axes_and_flips`` says; a view."""
    turned = np.transpose(array, axes)
    return turned[tuple(slice(None, None, -1) if flip else slice(None) for flip in flips)]


def turn_affine(affine: Affine, shape: Shape, axes: list[int], flips: list[bool]) -> Affine:
    """Affine after ``turn_array``; ``shape`` is the one before."""
    result = np.array(affine, dtype=np.float64)
    for new, (old, flip) in enumerate(zip(axes, flips, strict=True)):
        column = affine[:3, old]
        result[:3, new] = -column if flip else column
        if flip:
            result[:3, 3] += column * (shape[old] - 1)
    return result


def crop_affine(affine: Affine, start: IntTriple) -> Affine:
    """Affine of the part of a grid that begins at a voxel."""
    result = np.array(affine, dtype=np.float64)
    result[:3, 3] += result[:3, :3] @ np.asarray(start, dtype=np.float64)
    return result
