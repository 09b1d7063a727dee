"""Where the slices of a series lie, so that labels find them and results go back to them. LPS millimetres."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from monai_tl.geometry import Affine


@dataclass(frozen=True)
class SliceGeometry:
    """The native slices of one image series, in order of position along the normal.

    Attributes:
        sop_instance_uids: One a slice.
        series_instance_uid, study_instance_uid, sop_class_uid: Of the series.
        frame_of_reference_uid: None when the files name none.
        rows, columns: Pixels of each slice.
        positions_lps: (K, 3) float64, centre of the first pixel of each slice, mm.
        row_direction: (3,) unit vector along which the *column index* grows (ImageOrientationPatient, first half).
        column_direction: (3,) unit vector along which the *row index* grows (second half).
        pixel_spacing_mm: (between rows, between columns), as in PixelSpacing.
        paths: The files, in slice order.
        slice_thickness_mm: Only used as the step when there is a single slice.
        frame_numbers: From 1, the frame of its file that each slice is; empty for single-frame files.
    """

    sop_instance_uids: tuple[str, ...]
    series_instance_uid: str
    study_instance_uid: str
    frame_of_reference_uid: str | None
    sop_class_uid: str
    rows: int
    columns: int
    positions_lps: NDArray[np.float64]
    row_direction: NDArray[np.float64]
    column_direction: NDArray[np.float64]
    pixel_spacing_mm: tuple[float, float]
    paths: tuple[Path, ...]
    slice_thickness_mm: float = 1.0
    frame_numbers: tuple[int, ...] = ()

    @property
    def n_slices(self) -> int:
        """K."""
        return len(self.sop_instance_uids)

    @property
    def normal(self) -> NDArray[np.float64]:
        """(3,) unit vector, row_direction × column_direction; slices are ordered along it."""
        cross = np.cross(self.row_direction, self.column_direction)
        return np.asarray(cross / np.linalg.norm(cross), dtype=np.float64)

    @property
    def step_lps(self) -> NDArray[np.float64]:
        """(3,) mean vector from one slice to the next, mm; not along the normal when the gantry was tilted."""
        if self.n_slices == 1:
            return self.normal * self.slice_thickness_mm
        return np.asarray((self.positions_lps[-1] - self.positions_lps[0]) / (self.n_slices - 1), dtype=np.float64)

    @property
    def distances_mm(self) -> NDArray[np.float64]:
        """(K,) position of each slice along the normal, mm; increasing."""
        return np.asarray(self.positions_lps @ self.normal, dtype=np.float64)

    @property
    def spacing_between_slices_mm(self) -> float:
        """Distance of neighbouring slices along the normal, mm."""
        return float(self.step_lps @ self.normal)

    @property
    def tilt_deg(self) -> float:
        """Angle between the line of the slices and their normal; 0 but for a tilted gantry."""
        across = np.linalg.norm(np.cross(self.step_lps, self.normal))
        return float(np.degrees(np.arctan2(across, self.spacing_between_slices_mm)))

    @property
    def affine_lps(self) -> Affine:
        """(column, row, slice) index → LPS mm; sheared when the gantry was tilted."""
        affine = np.eye(4)
        affine[:3, 0] = self.row_direction * self.pixel_spacing_mm[1]
        affine[:3, 1] = self.column_direction * self.pixel_spacing_mm[0]
        affine[:3, 2] = self.step_lps
        affine[:3, 3] = self.positions_lps[0]
        return affine
