"""Outlines to pixels: a pixel belongs to an outline when its centre does."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from monai_tl.geometry import BoolVolume


def fill_polygons(polygons: Sequence[NDArray[np.float64]], rows: int, columns: int) -> BoolVolume:
    """Fill closed outlines by the even-odd rule, all together: an outline inside another one is a hole.

    Exact in sub-pixel coordinates and free of bias: two areas that share an edge share no pixel and leave none out. A
    keyhole (an outline that runs to its hole and back along the same line) needs no special care.

    Args:
        polygons: Each (N, 2) float64 of (column, row) in pixels; the centre of the first pixel is (0, 0); closed by
            itself.
        rows: Of the grid; what lies outside is cut off.
        columns: Of the grid.

    Returns:
        (rows, columns) bool.
    """
    toggles = np.zeros((rows, columns + 1), dtype=np.int32)
    for polygon in polygons:
        following = np.roll(polygon, -1, axis=0)
        # always upwards: an edge walked both ways, by neighbours or a keyhole, is the same to the last bit
        upwards = (polygon[:, 1] <= following[:, 1])[:, None]
        start, end = np.where(upwards, polygon, following), np.where(upwards, following, polygon)
        # rows y with start <= y < end: half open, so a corner on a row counts once
        first = np.clip(np.ceil(start[:, 1]), 0, rows).astype(np.int64)
        stop = np.clip(np.ceil(end[:, 1]), 0, rows).astype(np.int64)
        counts = np.maximum(stop - first, 0)
        edge = np.repeat(np.arange(len(polygon)), counts)
        y = np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts) + first[edge]
        slope = (end[edge, 0] - start[edge, 0]) / (end[edge, 1] - start[edge, 1])
        x = start[edge, 0] + (y - start[edge, 1]) * slope
        # from the first centre at or right of the crossing, inside and outside change places
        np.add.at(toggles, (y, np.clip(np.ceil(x), 0, columns).astype(np.int64)), 1)
    return np.asarray(np.cumsum(toggles, axis=1)[:, :columns] % 2 == 1)
