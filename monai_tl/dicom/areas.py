"""The outlines that one structure has in one plane, as one area."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from monai_tl.dicom.polygons import Polygon, Region, fill_polygon
from monai_tl.geometry import BoolVolume

_SNAP = 4
"""Decimals of a pixel: float noise must not decide on which side of an outline a centre lies."""
_NESTED = 0.9
"""Share of an outline's pixels within larger ones from which it is nested; a hole may touch its rim by a rounding."""
_CHANNEL_PX = 0.05
"""A keyhole's way in and way back that lie closer than this are one line."""

_MAX_CORNERS = 1 << 16
"""An outline with more is not searched for channels."""


@dataclass
class Remarks:
    """What happened to outlines that the user should know."""

    repeated: int = 0
    lost: int = 0


def fill_area(polygons: Sequence[Polygon], rows: int, columns: int, is_xor: bool, remarks: Remarks) -> BoolVolume:
    """Fill the outlines of one structure in one plane.

    CLOSED_PLANAR outlines join; one that lies within others is a hole, and one within that hole an island, whichever
    way round they run. So outlines that merely overlap lose nothing. CLOSEDPLANAR_XOR outlines cancel each other
    wherever they overlap. The same outline given twice counts once.

    Args:
        polygons: See ``monai_tl.dicom.polygons.Polygon``.
        rows: Of the grid; what lies outside is cut off.
        columns: Of the grid.
        is_xor: They are CLOSEDPLANAR_XOR.
        remarks: Is added to.

    Returns:
        (rows, columns) bool.

    References:
        DICOM PS3.3 C.8.8.6.3 (contour geometric type, keyholes, exclusive or).
    """
    # minus zero is zero: repeats are told by their bytes
    unique = _each_once([np.round(polygon, _SNAP) + 0.0 for polygon in polygons])
    remarks.repeated += len(polygons) - len(unique)
    area = np.zeros((rows, columns), dtype=np.bool_)
    covered = np.zeros_like(area) if len(unique) > 1 else area
    for polygon in sorted(unique, key=_size, reverse=True):
        region = _fill_without_slit(polygon, rows, columns)
        n_pixels = int(np.count_nonzero(region.mask))
        remarks.lost += n_pixels == 0 and _touches(polygon, rows, columns)
        view, below = region.within(area), region.within(covered)
        is_nested = n_pixels > 0 and np.count_nonzero(region.mask & below) >= _NESTED * n_pixels
        combine = np.logical_xor if is_xor or is_nested else np.logical_or
        combine(view, region.mask, out=view)
        np.logical_or(below, region.mask, out=below)
    return area


def _each_once(polygons: list[Polygon]) -> list[Polygon]:
    """Without repeats: the same corners, whichever one is first, and whichever way round."""
    if len(polygons) == 1:
        return polygons
    found = {np.unique(polygon, axis=0).tobytes(): polygon for polygon in reversed(polygons)}
    return list(found.values())


def _size(polygon: Polygon) -> tuple[float, bytes]:
    """Enclosed area, pixels; then the bytes, so that the order in the file does not matter."""
    x, y = (polygon - polygon[0]).T
    return abs(float(x @ np.roll(y, -1) - y @ np.roll(x, -1))) / 2, polygon.tobytes()


def _touches(polygon: Polygon, rows: int, columns: int) -> bool:
    """Whether any of it may lie on the grid."""
    low, high = polygon.min(axis=0), polygon.max(axis=0)
    return bool((high >= -0.5).all() and low[0] <= columns - 0.5 and low[1] <= rows - 0.5)


def _fill_without_slit(polygon: Polygon, rows: int, columns: int) -> Region:
    region = fill_polygon(polygon, rows, columns)
    mask = region.mask
    across = ~mask[:, 1:-1] & mask[:, :-2] & mask[:, 2:]
    along = ~mask[1:-1] & mask[:-2] & mask[2:]
    if len(polygon) > _MAX_CORNERS or not (across.any() or along.any()):
        return region
    # only now: it costs more than filling, and most outlines have no line of single pixels missing
    return fill_polygon(_close_channels(polygon), rows, columns)


def _close_channels(polygon: Polygon) -> Polygon:
    """Move the way back of a keyhole onto its way in, where the two are closer than any drawing is exact."""
    from scipy.spatial import cKDTree

    steps = np.linalg.norm(np.diff(polygon, axis=0, append=polygon[:1]), axis=1)
    travelled, length = np.cumsum(steps) - steps, float(steps.sum())
    tree = cKDTree(polygon)
    near: NDArray[np.int64] = tree.query(polygon, k=min(8, len(polygon)), distance_upper_bound=_CHANNEL_PX)[1]
    candidates = np.where(near < len(polygon), near, np.arange(len(polygon))[:, None])
    way = np.abs(travelled[candidates] - travelled[:, None])
    # a neighbour along the outline is near anyway; the other side of a channel is far to walk to
    is_other_side = np.minimum(way, length - way) > 1.0
    target = np.where(is_other_side, candidates, np.arange(len(polygon))[:, None]).min(axis=1)
    return np.asarray(polygon[target])
