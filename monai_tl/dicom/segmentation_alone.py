"""A DICOM SEG without the images it was drawn on: its own grid, and each segment as a mask there."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from monai_tl.dicom.drawing import compose
from monai_tl.dicom.segmentation_frames import Segmentation, read_seg
from monai_tl.dicom.segmentation_grid import SegmentationGrid, grid_of
from monai_tl.dicom.segmentation_reading import frame_patches
from monai_tl.dicom.structures import Structure
from monai_tl.errors import DicomError
from monai_tl.geometry import Affine, BoolVolume, Shape, affine_lps_to_ras, check_affine, reorient_to_ras


@dataclass(frozen=True)
class LoneSegmentation:
    """A SEG on the grid of its own frames; slices that no frame shows, within their range, are background.

    Attributes:
        content: What the file says of segments and frames.
        affine: Voxel (I, J, K) → RAS mm, I, J, K towards R, A, S.
        shape: (I, J, K); as far as frames reach, which may be less than the image.
    """

    content: Segmentation
    affine: Affine
    shape: Shape
    _grid: SegmentationGrid

    @property
    def structures(self) -> tuple[Structure, ...]:
        """Its segments."""
        return self.content.segments

    def mask(self, numbers: Collection[int]) -> BoolVolume:
        """Where any of some segments is; overlaps with other segments are kept.

        Args:
            numbers: Segment numbers.

        Returns:
            (I, J, K) bool on the grid of ``affine``.

        Raises:
            DicomError: Codes ``damaged``, ``undecodable_pixels``.
        """
        values = dict.fromkeys(numbers, 1)
        drawn, _ = compose(frame_patches(self.content, values, self._grid.slots), self._grid.shape)
        volume, _ = reorient_to_ras(drawn.transpose(2, 1, 0), affine_lps_to_ras(self._grid.affine_lps))
        return np.ascontiguousarray(volume).view(np.bool_)


def open_alone(path: Path) -> LoneSegmentation:
    """Read a SEG by itself.

    Args:
        path: BINARY, FRACTIONAL (inside from half of the maximum) or LABELMAP; its frames say where they lie.

    Raises:
        DicomError: Codes ``not_seg``, ``slide_coordinates``, ``too_large``, ``damaged``.
        LabelError: Code ``frame_position``: the frames lie on no regular grid, or there is a single slice and no step.
        GeometryError: Voxels of an impossible size.
    """
    content = read_seg(path)
    grid = grid_of(content, None)
    columns_rows_slices = grid.shape[::-1]
    # a view of one byte: only its shape and strides are turned
    turned, affine = reorient_to_ras(
        np.broadcast_to(np.zeros((), dtype=np.uint8), columns_rows_slices), affine_lps_to_ras(grid.affine_lps)
    )
    check_affine(affine, "the SEG")
    return LoneSegmentation(content, affine, (turned.shape[0], turned.shape[1], turned.shape[2]), grid)


def is_segmentation(path: Path) -> bool:
    """Whether a file is a SEG: other DICOM, and other files, are not.

    Raises:
        DicomError: It is DICOM, and damaged.
    """
    try:
        with path.open("rb") as stream:
            if stream.read(132)[128:] != b"DICM":
                return False
    except OSError:
        raise DicomError("a file of the folder cannot be read; check its permissions", "unreadable") from None
    try:
        read_seg(path)
    except DicomError as error:
        if error.code in ("not_seg", "slide_coordinates"):
            return False
        raise
    return True
