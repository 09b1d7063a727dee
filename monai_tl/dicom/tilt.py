"""Gantry tilt: each slice is shifted in its own plane against the next; to an orthogonal grid and back."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from monai_tl.dicom.geometry import SliceGeometry
from monai_tl.dicom.stacking import MAX_VOXELS
from monai_tl.errors import DicomError
from monai_tl.geometry import Affine

MAX_TILT_DEG = 80.0
"""Gantries tilt by 30 degrees at most; more is a lying position."""
MAX_SIDE = 32767
"""Voxels along an axis of a NIfTI file."""


@dataclass(frozen=True)
class Shear:
    """The orthogonal grid that covers a sheared stack.

    Attributes:
        offsets_vox: (K, 2) ≥ 0, where the first pixel of each slice falls on the grid: pixels along columns, rows.
        shape: (columns, rows) of the grid.
        affine_lps: (column, row, slice) of the grid → LPS mm.
        angle_deg: Between the stack's line and the normal.
    """

    offsets_vox: NDArray[np.float64]
    shape: tuple[int, int]
    affine_lps: Affine
    angle_deg: float


_DRIFT_MM = 0.1


def shear_of(geometry: SliceGeometry) -> Shear | None:
    """The shear of a series, or None when no slice is off by more than 0.1 mm from a straight stack."""
    step = geometry.step_lps
    across = np.array([step @ geometry.row_direction, step @ geometry.column_direction])
    pixel = np.array([geometry.pixel_spacing_mm[1], geometry.pixel_spacing_mm[0]])
    last = geometry.n_slices - 1
    drift = across / pixel * last
    if float(np.abs(across).max()) * last <= _DRIFT_MM:
        return None
    origin = np.maximum(0.0, -drift)
    offsets = np.arange(geometry.n_slices)[:, None] * (across / pixel) + origin
    grow = np.ceil(np.abs(drift) - 1e-9).astype(int)
    affine = geometry.affine_lps
    shift = origin * pixel
    affine[:3, 3] -= shift[0] * geometry.row_direction + shift[1] * geometry.column_direction
    affine[:3, 2] = geometry.normal * geometry.spacing_between_slices_mm
    angle = float(np.degrees(np.arctan2(np.linalg.norm(across), geometry.spacing_between_slices_mm)))
    _check_size(grow, angle, geometry)
    return Shear(offsets, (geometry.columns + int(grow[0]), geometry.rows + int(grow[1])), affine, angle)


def _check_size(grow: NDArray[np.int64], angle_deg: float, geometry: SliceGeometry) -> None:
    columns, rows = geometry.columns + int(grow[0]), geometry.rows + int(grow[1])
    n_voxels = columns * rows * geometry.n_slices
    if angle_deg > MAX_TILT_DEG or n_voxels > MAX_VOXELS or max(columns, rows) > MAX_SIDE:
        raise DicomError(
            f"slices drift by {angle_deg:.1f} degrees against their normal, and a straight grid of {columns} x {rows} "
            f"x {geometry.n_slices} would be needed; no gantry tilts like this: send another reconstruction",
            "tilt",
        )


def straighten_image(slices: NDArray[Any], shear: Shear) -> NDArray[Any]:
    """Linear interpolation, in the plane only: the slices' own planes stay where they are.

    Args:
        slices: (K, rows, columns).
        shear: Of the same series.

    Returns:
        (K, rows', columns') of the same dtype (integers rounded); outside the source the image's minimum.
    """
    fill = float(slices.min())
    columns, rows = shear.shape
    result = np.empty((len(slices), rows, columns), dtype=slices.dtype)
    for index, (along_columns, along_rows) in enumerate(shear.offsets_vox):
        plane = slices[index].astype(np.float32) - np.float32(fill)
        plane = _shift(_shift(plane, float(along_rows), rows, 0), float(along_columns), columns, 1) + np.float32(fill)
        result[index] = np.rint(plane) if np.issubdtype(slices.dtype, np.integer) else plane
    return result


def _shift(plane: NDArray[np.float32], offset: float, size: int, axis: int) -> NDArray[np.float32]:
    whole = int(np.floor(offset + 1e-9))
    part = np.float32(max(0.0, offset - whole))
    padded = np.moveaxis(plane, axis, 0)
    result = np.zeros((size, padded.shape[1]), dtype=np.float32)
    result[whole : whole + len(padded)] += (1 - part) * padded
    room = min(len(padded), size - whole - 1)
    if room > 0:
        result[whole + 1 : whole + 1 + room] += part * padded[:room]
    return np.moveaxis(result, 0, axis)


def straighten_labels(slices: NDArray[np.uint8], shear: Shear) -> NDArray[np.uint8]:
    """Nearest pixel: (K, rows, columns) → (K, rows', columns'), 0 outside; ``slant_labels`` undoes it exactly."""
    columns, rows = shear.shape
    result = np.zeros((len(slices), rows, columns), dtype=np.uint8)
    for index, (column, row) in enumerate(_whole_offsets(shear)):
        result[index, row : row + slices.shape[1], column : column + slices.shape[2]] = slices[index]
    return result


def slant_labels(straight: NDArray[np.uint8], shear: Shear, geometry: SliceGeometry) -> NDArray[np.uint8]:
    """Nearest pixel: (K, rows', columns') on the orthogonal grid → (K, rows, columns) of the source instances."""
    result = np.empty((geometry.n_slices, geometry.rows, geometry.columns), dtype=np.uint8)
    for index, (column, row) in enumerate(_whole_offsets(shear)):
        result[index] = straight[index, row : row + geometry.rows, column : column + geometry.columns]
    return result


def _whole_offsets(shear: Shear) -> list[tuple[int, int]]:
    return [(int(column), int(row)) for column, row in np.floor(shear.offsets_vox + 0.5)]
