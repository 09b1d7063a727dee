"""DICOM SEG to a label map on the slices of its image series."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from monai_tl.dicom.drawing import Labels, Patch, compose, count_voxels, draw_scheme, overlap_notes, shape_of
from monai_tl.dicom.geometry import SliceGeometry
from monai_tl.dicom.segmentation_frames import Frame, Segmentation, read_seg
from monai_tl.dicom.segmentation_grid import SegmentationGrid, grid_of
from monai_tl.dicom.structures import Structure
from monai_tl.errors import LabelError
from monai_tl.labels import LabelScheme

_POSITION_TOLERANCE = 0.1
"""Of a slice's or pixel's size: a frame this close to a slice lies on it."""
_ANGLE_TOLERANCE = 1e-3
_SPACING_TOLERANCE = 1e-3
"""Of the spacing; over 512 pixels this is half a pixel, and positions are checked on their own."""


class SegDrawing:
    """The segments of a SEG on the slices of a series; see ``monai_tl.dicom.drawing.Drawing``.

    A frame finds its slice by position, or by the image it names when it gives no position. Frames left out are
    background; several of one segment on one slice join. FRACTIONAL is inside from half of the maximum, probability
    and occupancy alike. On another grid of the same frame of reference the label is resampled to the nearest
    neighbour.

    Args:
        path: BINARY, FRACTIONAL or LABELMAP.
        geometry: Native slices of the series.

    Raises:
        LabelError: Codes ``frame_of_reference``, ``missing_series``.
        DicomError: Codes ``not_seg``, ``slide_coordinates``, ``too_large``, ``damaged``.
    """

    kind = "SEG"

    def __init__(self, path: Path, geometry: SliceGeometry) -> None:
        self._content = read_seg(path)
        self._geometry = geometry
        self._normal = geometry.normal
        _check_belongs(self._content, geometry)

    @property
    def structures(self) -> tuple[Structure, ...]:
        """See ``monai_tl.dicom.drawing.Drawing``."""
        return self._content.segments

    @property
    def words(self) -> frozenset[str]:
        """See ``monai_tl.dicom.drawing.Drawing``."""
        return self._content.words

    def draw(self, values: Mapping[int, int]) -> tuple[Labels, tuple[str, ...]]:
        """See ``monai_tl.dicom.drawing.Drawing.draw``.

        Raises:
            LabelError: Codes ``frame_position``, ``outside``.
            DicomError: Codes ``damaged``, ``undecodable_pixels``, ``too_large``.
        """
        skipped = sum(one.n_parts > 0 and one.number not in values for one in self.structures)
        notes = [f"{skipped} segments are not asked for and were skipped"] if skipped else []
        grid = self._grid
        if grid is None:
            labels, n_overlapping = compose(self._patches(values, self._slots), shape_of(self._geometry))
        else:
            drawn, n_overlapping = compose(self._patches(values, grid.slots), grid.shape)
            labels = grid.resample(drawn, self._geometry)
            if drawn.any() and not labels.any():
                raise LabelError(
                    "what the SEG shows lies outside the image; its images are missing or it belongs to another series",
                    "outside",
                )
            notes.append("the SEG lies on another grid; resampled to the nearest neighbour")
        return labels, (*notes, *overlap_notes(n_overlapping, self.kind))

    def sizes(self, values: Mapping[int, int]) -> NDArray[np.float64]:
        """See ``monai_tl.dicom.drawing.Drawing.sizes``; on another grid in units of the series' voxels."""
        grid = self._grid
        if grid is None:
            return count_voxels(self._patches(values, self._slots))
        ratio = abs(np.linalg.det(grid.affine_lps[:3, :3]) / np.linalg.det(self._geometry.affine_lps[:3, :3]))
        return np.asarray(count_voxels(self._patches(values, grid.slots)) * ratio)

    def _patches(self, values: Mapping[int, int], slots: Sequence[int]) -> Iterator[Patch]:
        """Frames in plain pixels; frame f goes to slice ``slots[f]``."""
        return frame_patches(self._content, values, slots)

    @cached_property
    def _slots(self) -> list[int]:
        """Slice of each frame; empty when some lie on none."""
        found = [self._slice_of(frame) for frame in self._content.frames]
        return [slot for slot in found if slot is not None] if None not in found else []

    @cached_property
    def _grid(self) -> SegmentationGrid | None:
        """The grid of the SEG where it is not that of the series."""
        return None if self._slots else grid_of(self._content, self._geometry)

    @cached_property
    def _slices_by_source(self) -> dict[tuple[str, int | None], int]:
        reference = self._geometry
        numbers: Sequence[int | None] = reference.frame_numbers or [None] * reference.n_slices
        return {one: index for index, one in enumerate(zip(reference.sop_instance_uids, numbers, strict=True))}

    def _slice_of(self, frame: Frame) -> int | None:
        """The slice a frame lies on; None when it lies on none."""
        reference = self._geometry
        if (self._content.rows, self._content.columns) != (reference.rows, reference.columns):
            return None
        if frame.position_lps is None:
            known = self._slices_by_source
            # a single-frame image has one frame, whether or not its number is said
            named = (known.get(source, known.get((source[0], None))) for source in frame.sources)
            return next((index for index in named if index is not None), None)
        spacing = np.asarray(reference.pixel_spacing_mm)
        directions = np.concatenate([reference.row_direction, reference.column_direction])
        if frame.directions is not None and np.abs(frame.directions - directions).max() > _ANGLE_TOLERANCE:
            return None
        if frame.spacing_mm is not None and (np.abs(frame.spacing_mm - spacing) > _SPACING_TOLERANCE * spacing).any():
            return None
        offsets = reference.positions_lps - frame.position_lps
        depths = np.abs(offsets @ self._normal)
        k = int(np.argmin(depths))
        in_plane = max(
            abs(float(offsets[k] @ reference.row_direction)) / spacing[1],
            abs(float(offsets[k] @ reference.column_direction)) / spacing[0],
        )
        across = float(depths[k]) / reference.spacing_between_slices_mm
        return k if max(in_plane, across) <= _POSITION_TOLERANCE else None


def frame_patches(content: Segmentation, values: Mapping[int, int], slots: Sequence[int]) -> Iterator[Patch]:
    """What the frames of a SEG show, for the segments wanted.

    Args:
        content: Of the file.
        values: Number of each segment wanted → its value.
        slots: Slice of each frame.

    Raises:
        DicomError: Codes ``damaged``, ``undecodable_pixels``.
    """
    if content.kind != "LABELMAP":
        segments = [frame.segment or 0 for frame in content.frames]
        wanted = [index for index, segment in enumerate(segments) if segment in values]
        for index, pixels in content.read_frames(wanted):
            inside = pixels if content.bits == 1 else pixels >= content.threshold
            yield Patch(slots[index], np.flatnonzero(inside), values[segments[index]])
        return
    table = np.zeros(1 << max(8, content.bits), dtype=np.uint8)
    table[list(values)] = list(values.values())
    for index, pixels in content.read_frames(range(len(content.frames))):
        shown = table[pixels]
        inside = np.flatnonzero(shown)
        yield Patch(slots[index], inside, shown[inside])


def read_segmentation(path: Path, reference: SliceGeometry, scheme: LabelScheme) -> tuple[Labels, tuple[str, ...]]:
    """Read a DICOM SEG onto the slices of an image series; see ``SegDrawing``.

    Args:
        path: BINARY, FRACTIONAL or LABELMAP.
        reference: The image series.
        scheme: Which segments to take, by label or by code of type; where they overlap the later class wins.

    Returns:
        (K, rows, columns) uint8 in slice order of ``reference``, and notes on what was done.

    Raises:
        LabelError: Code ``no_class``, and those of ``SegDrawing`` and its ``draw``.
        DicomError: See there.
    """
    return draw_scheme(SegDrawing(path, reference), scheme)


def seg_structures(path: Path) -> tuple[Structure, ...]:
    """What a SEG names.

    Raises:
        DicomError: Codes ``not_seg``, ``slide_coordinates``, ``too_large``, ``damaged``.
    """
    return read_seg(path).segments


def _check_belongs(content: Segmentation, reference: SliceGeometry) -> None:
    frame = content.frame_of_reference_uid
    if frame and reference.frame_of_reference_uid and frame != reference.frame_of_reference_uid:
        raise LabelError(
            "the SEG lies in another frame of reference than the image; export it on this image", "frame_of_reference"
        )
    # images whose UID was blanked are known by their instances
    named = content.series_uids
    if named and reference.series_instance_uid and reference.series_instance_uid not in named:
        raise LabelError("the SEG was drawn on another series; export it on this image", "missing_series")
