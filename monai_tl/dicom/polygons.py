"""Outlines to pixels: a pixel belongs to an outline when its centre does."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from monai_tl.geometry import BoolVolume

Polygon = NDArray[np.float64]
"""(N, 2) of (column, row) in pixels; the centre of the first pixel is (0, 0); closed by itself."""
_CHUNK = 1 << 20


@dataclass(frozen=True)
class Region:
    """A part of a grid.

    Attributes:
        row, column: Of its first pixel in the grid.
        mask: (rows, columns) bool.
    """

    row: int
    column: int
    mask: BoolVolume

    def within(self, grid: BoolVolume) -> BoolVolume:
        """The view of a whole grid that this region covers."""
        height, width = self.mask.shape
        return grid[self.row : self.row + height, self.column : self.column + width]


def fill_polygons(polygons: Sequence[Polygon], rows: int, columns: int) -> BoolVolume:
    """Fill closed outlines by the even-odd rule, all together: an outline inside another one is a hole.

    Exact in sub-pixel coordinates and free of bias: two areas that share an edge share no pixel and leave none out. A
    centre on an edge belongs to the area right of or below it (larger column, larger row). A keyhole (an outline that
    runs to its hole and back along the same line) needs no special care.

    Args:
        polygons: See ``Polygon``.
        rows: Of the grid; what lies outside is cut off.
        columns: Of the grid.

    Returns:
        (rows, columns) bool.
    """
    grid = np.zeros((rows, columns), dtype=np.bool_)
    for polygon in polygons:
        region = fill_polygon(polygon, rows, columns)
        view = region.within(grid)
        np.logical_xor(view, region.mask, out=view)
    return grid


def fill_polygon(polygon: Polygon, rows: int, columns: int) -> Region:
    """Fill one closed outline as ``fill_polygons`` does; only the part of the grid around it is touched."""
    # half open, so that the last centre before the end is the last one in
    left, top = np.clip(np.ceil(polygon.min(axis=0)), 0, (columns, rows)).astype(int)
    right, bottom = np.clip(np.ceil(polygon.max(axis=0)), 0, (columns, rows)).astype(int)
    height, width = int(bottom - top), int(right - left)
    if height < 1 or width < 1:
        return Region(0, 0, np.zeros((0, 0), dtype=np.bool_))
    toggles = np.zeros(height * (width + 1), dtype=np.uint8)
    for y, x in _crossings(polygon, int(top), int(bottom)):
        # from the first centre at or right of the crossing, inside and outside change places
        places = (y - top) * (width + 1) + np.clip(np.ceil(x), left, right).astype(np.int64) - left
        toggles += np.bincount(places, minlength=len(toggles)).astype(np.uint8)
    # sums of bytes wrap at 256 and stay even or odd
    sums = np.cumsum(toggles.reshape(height, width + 1), axis=1, dtype=np.uint8)[:, :width]
    return Region(int(top), int(left), (sums & 1).astype(np.bool_))


def count_crossings(polygon: Polygon, rows: int) -> int:
    """How often the edges cross the rows of a grid, about: what filling costs."""
    row = np.clip(polygon[:, 1], 0, rows)
    return int(np.abs(row - np.roll(row, -1)).sum())


def _crossings(polygon: Polygon, top: int, bottom: int) -> Iterator[tuple[NDArray[np.int64], NDArray[np.float64]]]:
    """Row and column at which edges cross the rows of the grid, in pieces of bounded size."""
    following = np.roll(polygon, -1, axis=0)
    # always upwards: an edge walked both ways, by neighbours or a keyhole, is the same to the last bit
    upwards = (polygon[:, 1] <= following[:, 1])[:, None]
    start, end = np.where(upwards, polygon, following), np.where(upwards, following, polygon)
    # rows y with start <= y < end: half open, so a corner on a row counts once
    first = np.clip(np.ceil(start[:, 1]), top, bottom).astype(np.int64)
    counts = np.clip(np.ceil(end[:, 1]), top, bottom).astype(np.int64) - first
    total = np.cumsum(counts)
    cuts = np.searchsorted(total, np.arange(_CHUNK, int(total[-1]) + 1, _CHUNK))
    for piece in np.split(np.arange(len(polygon)), np.unique(cuts)):
        number = counts[piece]
        edge = np.repeat(piece, number)
        y = np.arange(len(edge)) - np.repeat(np.cumsum(number) - number, number) + first[edge]
        slope = (end[edge, 0] - start[edge, 0]) / (end[edge, 1] - start[edge, 1])
        yield y, start[edge, 0] + (y - start[edge, 1]) * slope
