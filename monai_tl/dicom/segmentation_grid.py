"""A SEG on another grid than its image: the grid its frames lie on, and the nearest neighbour on the image's slices."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from monai_tl.dicom.drawing import Labels
from monai_tl.dicom.geometry import SliceGeometry
from monai_tl.dicom.segmentation_frames import Segmentation, Vector
from monai_tl.errors import DicomError, LabelError
from monai_tl.geometry import Affine

MAX_VOXELS = 1 << 29
"""Of the grid, a byte each."""
_POSITION_TOLERANCE = 0.1
_ANGLE_TOLERANCE = 1e-3
_SPACING_TOLERANCE = 1e-3
_NOISE = 6
"""Decimals of a voxel below which a place is float noise; a centre half-way between two goes to the later one."""


@dataclass(frozen=True)
class SegmentationGrid:
    """A regular grid in the frame of reference of the image.

    Attributes:
        affine_lps: (column, row, slice) → LPS mm.
        shape: (slices, rows, columns).
        slots: Slice of each frame; several may share one, and slices that no frame shows are background.
    """

    affine_lps: Affine
    shape: tuple[int, int, int]
    slots: tuple[int, ...]

    def resample(self, labels: Labels, reference: SliceGeometry) -> Labels:
        """The nearest voxel at each pixel of the image, one slice at a time; 0 beyond half a voxel outside.

        Args:
            labels: (slices, rows, columns) on this grid.
            reference: The image; each slice is taken where it lies, so a tilted stack needs no special care.

        Returns:
            (K, rows, columns).
        """
        to_grid = np.linalg.inv(self.affine_lps)
        row_step = to_grid[:3, :3] @ (reference.column_direction * reference.pixel_spacing_mm[0])
        column_step = to_grid[:3, :3] @ (reference.row_direction * reference.pixel_spacing_mm[1])
        rows, columns = np.arange(reference.rows)[:, None], np.arange(reference.columns)[None, :]
        in_plane = [row_step[axis] * rows + column_step[axis] * columns for axis in range(3)]
        found = np.zeros((reference.n_slices, reference.rows, reference.columns), dtype=np.uint8)
        sizes = self.shape[::-1]
        for index, position in enumerate(reference.positions_lps):
            origin = (to_grid @ [*position, 1.0])[:3]
            places = [np.floor(np.round(origin[axis] + in_plane[axis], _NOISE) + 0.5) for axis in range(3)]
            inside = np.logical_and.reduce(
                [(place >= 0) & (place < size) for place, size in zip(places, sizes, strict=True)]
            )
            column, row, depth = (place[inside].astype(np.intp) for place in places)
            found[index][inside] = labels[depth, row, column]
        return found


def grid_of(content: Segmentation, reference: SliceGeometry | None) -> SegmentationGrid:
    """The grid on which the frames of a SEG lie; missing ones leave gaps.

    Args:
        content: Of the file.
        reference: Its image, whose step is the last resort; None where there is none.

    Raises:
        LabelError: Code ``frame_position`` when there is none: frames without a place, not parallel, of several pixel
            sizes, shifted against each other, or at uneven steps.
        DicomError: Code ``too_large``.
    """
    first = content.frames[0]
    found = [frame.position_lps for frame in content.frames if frame.position_lps is not None]
    if len(found) < len(content.frames) or first.directions is None or first.spacing_mm is None:
        raise LabelError(
            "frames of the SEG lie on no slice of the image and do not say where; export it on this image",
            "frame_position",
        )
    positions, directions, spacing = np.stack(found), first.directions, first.spacing_mm
    normal = np.cross(directions[:3], directions[3:])
    depths = positions @ normal
    step = _step_of(depths, first.step_mm, reference)
    alike = all(
        frame.directions is not None
        and frame.spacing_mm is not None
        and np.abs(frame.directions - directions).max() <= _ANGLE_TOLERANCE
        and (np.abs(frame.spacing_mm - spacing) <= _SPACING_TOLERANCE * spacing).all()
        for frame in content.frames
    )
    if not alike or step is None or min(spacing) <= 0:
        raise LabelError(
            "the SEG lies on slices that are not parallel, alike and evenly spaced; export it on this image",
            "frame_position",
        )
    slots = np.rint((depths - depths.min()) / step).astype(int)
    shape = (int(slots.max()) + 1, content.rows, content.columns)
    if int(np.prod(shape, dtype=object)) > MAX_VOXELS:
        raise DicomError(
            f"the SEG covers a grid of {' x '.join(map(str, shape))} voxels, too many to resample; export it on the "
            "grid of the image",
            "too_large",
        )
    low, high = int(np.argmin(depths)), int(np.argmax(depths))
    affine = np.eye(4)
    affine[:3, 0] = directions[:3] * spacing[1]
    affine[:3, 1] = directions[3:] * spacing[0]
    affine[:3, 2] = normal * step if shape[0] == 1 else (positions[high] - positions[low]) / (shape[0] - 1)
    affine[:3, 3] = positions[low]
    _check_on_line(positions, slots, affine, spacing)
    return SegmentationGrid(affine, shape, tuple(slots.tolist()))


def _step_of(depths: Vector, declared: float | None, reference: SliceGeometry | None) -> float | None:
    """The distance of slices of which all gaps are multiples: as declared, the smallest gap, or that of the image.

    With empty frames left out the smallest gap may be several steps.
    """
    unique = np.unique(np.round(depths, 4))
    gaps = np.diff(unique)
    smallest = [float(gaps.min())] if gaps.size else []
    of_image = None if reference is None else reference.spacing_between_slices_mm
    for step in (declared, *smallest, of_image):
        if step is None or not step > 0:
            continue
        exact = (unique - unique[0]) / step
        if float(np.abs(exact - np.rint(exact)).max()) <= _POSITION_TOLERANCE:
            return step
    return None


def _check_on_line(positions: Vector, slots: NDArray[np.int_], affine: Affine, spacing: Vector) -> None:
    expected = affine[:3, 3] + slots[:, None] * affine[:3, 2]
    if float(np.linalg.norm(positions - expected, axis=1).max()) > max(0.1, float(min(spacing)) / 2):
        raise LabelError(
            "the slices of the SEG are shifted against each other; export it on this image", "frame_position"
        )
