"""Which outlines a slice takes: those of the plane nearest to it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from monai_tl.dicom.geometry import SliceGeometry

Distances = NDArray[np.float64]
"""(N,) along the slices' normal, mm."""
_ON_SLICE = 0.1
"""Of a step: a plane this near to a slice was drawn on it."""
_SAME_PLANE = 0.02
"""Of a step, within 0.01 to 0.1 mm: exporters round coordinates, and a hole must stay in the plane of its outline."""
_MOSTLY = 0.75
"""Share of planes on slices from which a set of outlines was drawn on this series."""


@dataclass(frozen=True)
class Reach:
    """How far from a plane its outlines are taken.

    Attributes:
        half_mm: A plane at z stands for what lies within z - half (open) to z + half (closed).
        planes_apart_mm: Usual distance of the planes where they lie between the slices; None where they lie on them.
    """

    half_mm: float
    planes_apart_mm: float | None = None


def reach_of(structures: Sequence[Distances], geometry: SliceGeometry) -> Reach:
    """Tell from all planes of an RTSTRUCT whether they were drawn on these slices, and how far each one reaches.

    On the slices: half a step, so a slice that was passed over stays empty, which is what its author left there.
    Between the slices, drawn on another series of the same frame of reference: half the distance of the planes, or half
    a step where that is more. So a solid drawn on coarse planes has no empty slices in between, and one drawn on fine
    planes is lost on none.

    Args:
        structures: Planes of each structure; of those that nobody asked for too, so that the answer does not depend on
            it.
        geometry: Slices of the series.
    """
    step = geometry.spacing_between_slices_mm
    low, high = geometry.distances_mm[0] - step, geometry.distances_mm[-1] + step
    # an outline far away says nothing of those here
    merged = [_distinct(one[(one > low) & (one < high)], geometry) for one in structures]
    planes = np.concatenate([np.empty(0), *merged])
    gaps = np.sort(np.concatenate([np.empty(0), *(np.diff(one) for one in merged)]))
    on_slice = _offsets(planes, geometry) <= _ON_SLICE * step
    if not len(gaps) or float(on_slice.mean()) >= _MOSTLY:
        return Reach(step / 2)
    # islands far apart make wide gaps, but never most of them
    apart = float(gaps[len(gaps) // 4])
    return Reach(max(apart, step) / 2, apart)


def group_planes(distances: Distances, geometry: SliceGeometry) -> tuple[Distances, list[NDArray[np.int64]]]:
    """Outlines of one structure by plane.

    Args:
        distances: (N,) of each outline.
        geometry: Slices of the series.

    Returns:
        (P,) distance of each plane, increasing, and for each the indices of its outlines.
    """
    if not len(distances):
        return np.empty(0), []
    snapped = _snap(distances, geometry)
    order = np.argsort(snapped, kind="stable")
    starts = np.flatnonzero(np.diff(snapped[order]) > _tolerance(geometry)) + 1
    groups = np.split(order, starts)
    return np.array([float(snapped[group].mean()) for group in groups]), groups


def planes_of_slices(planes: Distances, geometry: SliceGeometry, reach: Reach) -> list[tuple[int, int]]:
    """Which plane each slice takes: the nearest one, where the slice lies within its reach.

    Half-way between two planes the one before counts, so that structures that meet there neither overlap nor leave a
    gap.

    Args:
        planes: (P,) of one structure, increasing.
        geometry: Slices of the series.
        reach: Of all planes of the RTSTRUCT.

    Returns:
        (slice, plane) for each slice that takes one.
    """
    if not len(planes):
        return []
    slices = geometry.distances_mm
    grain = 1e-6 * geometry.spacing_between_slices_mm
    nearest = _nearest(planes, slices - grain)
    ahead = slices - planes[nearest]
    inside = (ahead > -reach.half_mm + grain) & (ahead <= reach.half_mm + grain)
    return [(int(index), int(nearest[index])) for index in np.flatnonzero(inside)]


def _distinct(distances: Distances, geometry: SliceGeometry) -> Distances:
    return group_planes(distances, geometry)[0]


def _snap(distances: Distances, geometry: SliceGeometry) -> Distances:
    """A plane that is a rounding away from a slice lies on it."""
    slices = geometry.distances_mm
    nearest = slices[_nearest(slices, distances)]
    return np.where(np.abs(distances - nearest) <= _tolerance(geometry), nearest, distances)


def _nearest(places: Distances, values: Distances) -> NDArray[np.int64]:
    """Index of the nearest of some increasing places, the one before when two are as near."""
    after = np.clip(np.searchsorted(places, values), 0, len(places) - 1)
    before = np.maximum(after - 1, 0)
    return np.where(np.abs(places[after] - values) < np.abs(places[before] - values), after, before).astype(np.int64)


def _offsets(distances: Distances, geometry: SliceGeometry) -> Distances:
    """To the nearest slice of the stack as if it went on for ever, mm."""
    step = geometry.spacing_between_slices_mm
    exact = (distances - geometry.distances_mm[0]) / step
    return np.asarray(np.abs(exact - np.rint(exact)) * step)


def _tolerance(geometry: SliceGeometry) -> float:
    return float(np.clip(_SAME_PLANE * geometry.spacing_between_slices_mm, 0.01, 0.1))
