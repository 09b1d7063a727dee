"""How far each element of one surface lies from another surface: found ring by ring around it, from the nearest on."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from monai_tl.geometry import BoolVolume, Spacing
from monai_tl.metrics.surfels import N_CODES, neighbour_codes, surfel_areas

_N_RINGS = 1000
"""Neighbours looked at around each element, about; what lies farther is left to the tree."""

_RING_COST, _TREE_COST, _QUERY_COST = 2000, 30, 100
"""What a ring costs beside its elements, and what the tree costs for each of its elements and for each that asks: in
elements looked at in one ring, as measured. The rings end when they have cost what the tree would."""

_LEAF = 64
"""Elements in a leaf of the tree; larger than usual, for a grid's elements lie close."""


@dataclass(frozen=True)
class DirectedDistances:
    """Distances from the elements of one surface to the nearest element of the other.

    Attributes:
        mm: (N,) ascending, millimetres; one entry may stand for many elements.
        areas_mm2: (N,) surface at each distance, square millimetres.
    """

    mm: NDArray[np.float64]
    areas_mm2: NDArray[np.float64]


@dataclass(frozen=True)
class _Surface:
    """The elements of a surface, in a frame with room for the rings around it."""

    is_there: NDArray[np.bool_]
    points: NDArray[np.intp]
    areas_mm2: NDArray[np.float64]


def measure_distances(
    reference: BoolVolume, prediction: BoolVolume, spacing_mm: Spacing
) -> tuple[DirectedDistances, DirectedDistances]:
    """Distances between two surfaces, both ways.

    An element lies on a voxel corner with both kinds of voxels around it. Most elements of a good prediction lie on the
    reference's or a step away: each ring of equal steps is tried at once for all elements without an answer, so the
    work is that of the elements and not of the volume. The few that are far are left to a tree of the other surface.
    Against a distance transform of the box around both organs this took a tenth of the time.

    Args:
        reference: (I, J, K) bool, not empty; outside it is background.
        prediction: (I, J, K) bool, not empty, same grid.
        spacing_mm: Voxel size along I, J, K, mm.

    Returns:
        From the reference's surface to the prediction's, and back. Equal steps give equal bits wherever they lie.

    References:
        Nikolov et al. 2021, doi:10.2196/26151; the distances of google-deepmind/surface-distance.
    """
    steps, _ = _rings(spacing_mm)
    margins = np.abs(steps).max(axis=0)
    first, second = (_surface(mask, spacing_mm, margins) for mask in (reference, prediction))
    return _distances(first, second, spacing_mm), _distances(second, first, spacing_mm)


def _surface(mask: BoolVolume, spacing_mm: Spacing, margins: NDArray[np.int64]) -> _Surface:
    codes = neighbour_codes(mask, (int(margins[0]), int(margins[1]), int(margins[2])))
    # one comparison for both ends: 0 wraps to 255
    is_there = (codes - np.uint8(1)) < N_CODES - 2
    points = np.flatnonzero(is_there)
    return _Surface(is_there, points, surfel_areas(spacing_mm)[codes.ravel()[points]])


@lru_cache(maxsize=32)
def _rings(spacing_mm: Spacing) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Steps to all neighbours within a ball, from the nearest on, and their lengths, mm."""
    radius = (_N_RINGS * math.prod(spacing_mm) * 3 / (4 * math.pi)) ** (1 / 3)
    reach = [int(radius / step) for step in spacing_mm]
    steps = np.stack(np.meshgrid(*(np.arange(-far, far + 1) for far in reach), indexing="ij"), axis=-1).reshape(-1, 3)
    lengths = _lengths(steps, spacing_mm)
    order = np.argsort(lengths, kind="stable")[: np.count_nonzero(lengths <= radius)]
    return steps[order], lengths[order]


def _lengths(steps: NDArray[np.int64], spacing_mm: Spacing) -> NDArray[np.float64]:
    squares: NDArray[np.float64] = ((steps * np.asarray(spacing_mm, dtype=np.float64)) ** 2).sum(axis=1)
    return np.sqrt(squares)


def _distances(surface: _Surface, other: _Surface, spacing_mm: Spacing) -> DirectedDistances:
    steps, rings_mm = _rings(spacing_mm)
    shape = other.is_there.shape
    jumps = (steps @ np.array([shape[1] * shape[2], shape[2], 1])).tolist()
    is_there, points, areas = other.is_there.ravel(), surface.points, surface.areas_mm2
    settled = np.zeros(len(jumps))
    spent, tree_cost = 0, _TREE_COST * len(other.points)
    for ring, jump in enumerate(jumps):
        spent += _RING_COST + len(points)
        if spent > tree_cost + _QUERY_COST * len(points):
            break
        hit = is_there.take(points + jump)
        if hit.any():
            settled[ring] = areas.compress(hit).sum()
            miss = ~hit
            points, areas = points.compress(miss), areas.compress(miss)
            if not len(points):
                break
    found = np.flatnonzero(settled)
    far_mm, far_areas = _far_distances(points, areas, other, spacing_mm)
    return DirectedDistances(np.concatenate([rings_mm[found], far_mm]), np.concatenate([settled[found], far_areas]))


def _far_distances(
    points: NDArray[np.intp], areas: NDArray[np.float64], other: _Surface, spacing_mm: Spacing
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    if not len(points):
        return np.empty(0), np.empty(0)
    shape, step = other.is_there.shape, np.asarray(spacing_mm, dtype=np.float64)
    here = np.stack(np.unravel_index(points, shape), axis=1)
    there = np.stack(np.unravel_index(other.points, shape), axis=1)
    tree = cKDTree(there * step, balanced_tree=False, compact_nodes=False, leafsize=_LEAF)
    _, nearest = tree.query(here * step)
    lengths = _lengths(here - there[nearest], spacing_mm)
    order = np.argsort(lengths, kind="stable")
    return lengths[order], areas[order]
