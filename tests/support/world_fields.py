"""Stacks of slices whose values are known functions of the world, so that a voxel in the wrong place shows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

_GRADIENT_LPS = np.array([11.0, -7.0, 17.0])
_BASE, _PART_OFFSET, _PART_GROWTH = 8000.0, 900.0, 0.11
STEEPEST = 45.0
"""No field changes by more than this in one mm; with it a tolerance in mm becomes one in values."""


@dataclass(frozen=True)
class Grid:
    """Parallel slices in LPS mm.

    Attributes:
        origin: Centre of the first pixel of slice 0.
        row: Unit vector along which the column index grows (first half of ImageOrientationPatient).
        column: Unit vector along which the row index grows.
        pixel: (between rows, between columns) as in PixelSpacing.
        step: From slice to slice; off the normal when the gantry was tilted.
        shape: (slices, rows, columns).
    """

    origin: tuple[float, ...] = (-10.0, -20.0, 30.0)
    row: tuple[float, ...] = (1.0, 0.0, 0.0)
    column: tuple[float, ...] = (0.0, 1.0, 0.0)
    pixel: tuple[float, float] = (0.7, 0.8)
    step: tuple[float, ...] = (0.0, 0.0, 2.5)
    shape: tuple[int, int, int] = (8, 5, 7)

    @property
    def normal(self) -> np.ndarray:
        return np.cross(self.row, self.column)

    @property
    def spacing_mm(self) -> float:
        """Distance of neighbouring slices along the normal."""
        return abs(float(np.dot(self.step, self.normal)))

    @property
    def tilt_deg(self) -> float:
        """Between the line of the slices and their normal, 0 to 90."""
        return float(np.degrees(np.arccos(min(1.0, self.spacing_mm / np.linalg.norm(self.step)))))

    def position(self, k: int) -> np.ndarray:
        return np.asarray(self.origin) + k * np.asarray(self.step)

    @property
    def affine_lps(self) -> np.ndarray:
        """(column, row, slice) index, slices in the order of writing → LPS mm."""
        affine = np.eye(4)
        affine[:3, 0] = np.asarray(self.row) * self.pixel[1]
        affine[:3, 1] = np.asarray(self.column) * self.pixel[0]
        affine[:3, 2] = self.step
        affine[:3, 3] = self.origin
        return affine

    def in_slice_order(self) -> Grid:
        """The same slices, the first being the lowest along the normal."""
        if np.dot(self.step, self.normal) > 0:
            return self
        last = self.position(self.shape[0] - 1)
        return replace(self, origin=tuple(last.tolist()), step=tuple((-np.asarray(self.step)).tolist()))

    @property
    def native_affine_ras(self) -> np.ndarray:
        """(column, row, slice) index in slice order → RAS mm."""
        return np.diag([-1.0, -1.0, 1.0, 1.0]) @ self.in_slice_order().affine_lps

    def points_lps(self) -> np.ndarray:
        """(slices, rows, columns, 3) centres of all pixels."""
        k, r, c = np.meshgrid(*map(np.arange, self.shape), indexing="ij")
        return np.stack([c, r, k], axis=-1) @ self.affine_lps[:3, :3].T + np.asarray(self.origin)

    def corners_ras(self) -> np.ndarray:
        """(8, 3) centres of the corner pixels of the first and the last slice."""
        ends = self.points_lps()[:: max(1, self.shape[0] - 1), :: self.shape[1] - 1, :: self.shape[2] - 1]
        return ends.reshape(-1, 3) * [-1, -1, 1]

    def with_slices(self, n_slices: int) -> Grid:
        return replace(self, shape=(n_slices, *self.shape[1:]))

    def moved(self, *shift: float) -> Grid:
        return replace(self, origin=tuple((np.asarray(self.origin) + shift).tolist()))


def field(points_lps: np.ndarray, part: int = 0) -> np.ndarray:
    """Value of one part (an echo, a phase, an acquisition …) at (…, 3) LPS points; 1000 to 30000 near the body."""
    slope = _GRADIENT_LPS * (1 + _PART_GROWTH * part)
    return _BASE + _PART_OFFSET * part + points_lps @ slope


def field_ras(points_ras: np.ndarray, part: int = 0) -> np.ndarray:
    return field(np.asarray(points_ras) * [-1, -1, 1], part)


def voxel_centres(affine: np.ndarray, shape: Sequence[int]) -> np.ndarray:
    """(I, J, K, 3) world points of all voxels."""
    index = np.stack(np.meshgrid(*map(np.arange, shape), indexing="ij"), axis=-1)
    return index @ np.asarray(affine)[:3, :3].T + np.asarray(affine)[:3, 3]


def plane(first: Sequence[float], second: Sequence[float]) -> dict[str, tuple[float, ...]]:
    """Row, column and a step of 2.5 mm along the normal, for ``Grid``; the vectors are made orthonormal."""
    row = np.asarray(first, float) / np.linalg.norm(first)
    column = np.asarray(second, float) - np.dot(second, row) * row
    column /= np.linalg.norm(column)
    step = 2.5 * np.cross(row, column)
    return {"row": tuple(row.tolist()), "column": tuple(column.tolist()), "step": tuple(step.tolist())}


AXIAL = Grid()
CORONAL = Grid(**plane((1, 0, 0), (0, 0, -1)))
SAGITTAL = Grid(**plane((0, 1, 0), (0, 0, -1)))
FEET_FIRST = Grid(**plane((-1, 0, 0), (0, 1, 0)))
PRONE = Grid(**plane((-1, 0, 0), (0, -1, 0)))
OBLIQUE = Grid(**plane((0.9, 0.3, -0.2), (-0.2, 0.8, 0.4)))
