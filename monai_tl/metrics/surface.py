"""Agreement of two surfaces, in millimetres: all metrics from one measurement of the distances, weighed by area.

The surface is the marching-cubes surface of google-deepmind/surface-distance, for every metric: its elements lie on the
corners between voxels and count by their area, so neither the spacing nor the side of the boundary biases a percentile.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from monai_tl.geometry import BoolVolume, Shape, Spacing
from monai_tl.metrics.distances import DirectedDistances, measure_distances
from monai_tl.metrics.overlap import check_same_shape

SLACK_MM = 1e-4
"""Added to every tolerance: spacings come from float32 headers, and 2.0000001 mm is within 2 mm."""

_SLACK_SHARE = 1e-12
"""A share of the area that misses a percentile by rounding alone reaches it."""


@dataclass(frozen=True)
class SurfaceScore:
    """What the surfaces of a prediction and the reference say.

    Attributes:
        surface_dice: Share of both surfaces within the tolerance of the other; 0 to 1.
        hd95_mm: 95th percentile of the distances, the larger of both directions.
        hd100_mm: Largest distance of both directions.
        mean_surface_distance_mm: Mean over both surfaces together.
    """

    surface_dice: float
    hd95_mm: float
    hd100_mm: float
    mean_surface_distance_mm: float


UNDEFINED = SurfaceScore(math.nan, math.nan, math.nan, math.nan)


def worst_surfaces(penalty_mm: float) -> SurfaceScore:
    """Nothing agrees, and each distance is the penalty."""
    return SurfaceScore(0.0, penalty_mm, penalty_mm, penalty_mm)


def score_surfaces(
    reference: BoolVolume,
    prediction: BoolVolume,
    spacing_mm: Spacing,
    tolerance_mm: float,
    penalty_mm: float | None = None,
) -> SurfaceScore:
    """All metrics of the surfaces, from one measurement of their distances.

    Args:
        reference: (I, J, K) bool.
        prediction: (I, J, K) bool, same grid as ``reference``.
        spacing_mm: Voxel size along I, J, K, mm.
        tolerance_mm: Largest distance that surface Dice takes as agreement, mm; > 0.
        penalty_mm: Each distance when exactly one mask is empty; None: the diagonal of the whole volume.

    Returns:
        All NaN when both are empty; ``worst_surfaces`` when one is.

    Raises:
        GeometryError: The shapes differ.

    References:
        Nikolov et al. 2021, doi:10.2196/26151 (surface Dice, distances weighed by area).
        Huttenlocher et al. 1993, doi:10.1109/34.232073 (percentiles of directed distances).
        Equal to google-deepmind/surface-distance; its two mean distances are taken together here, each by its area.
    """
    check_same_shape(reference, prediction)
    if not reference.any() or not prediction.any():
        if not reference.any() and not prediction.any():
            return UNDEFINED
        shape: Shape = (reference.shape[0], reference.shape[1], reference.shape[2])
        return worst_surfaces(diagonal_mm(shape, spacing_mm) if penalty_mm is None else penalty_mm)
    ways = measure_distances(reference, prediction, spacing_mm)
    area = sum(float(way.areas_mm2.sum()) for way in ways)
    near = sum(float(way.areas_mm2[way.mm <= tolerance_mm + SLACK_MM].sum()) for way in ways)
    moment = sum(float(way.mm @ way.areas_mm2) for way in ways)
    return SurfaceScore(
        surface_dice=near / area,
        hd95_mm=max(_percentile_mm(way, 0.95) for way in ways),
        hd100_mm=max(float(way.mm[-1]) for way in ways),
        mean_surface_distance_mm=moment / area,
    )


def surface_dice(reference: BoolVolume, prediction: BoolVolume, spacing_mm: Spacing, tolerance_mm: float) -> float:
    """Share of both surfaces that lies within a tolerance of the other, by area (normalised surface Dice).

    Args:
        reference: (I, J, K) bool.
        prediction: (I, J, K) bool, same grid as ``reference``.
        spacing_mm: Voxel size along I, J, K, mm.
        tolerance_mm: Largest distance taken as agreement, mm; > 0.

    Returns:
        0 to 1; NaN when both are empty; 0 when one is.

    Raises:
        GeometryError: The shapes differ.

    References:
        Nikolov et al. 2021, doi:10.2196/26151; equal to google-deepmind/surface-distance.
    """
    return score_surfaces(reference, prediction, spacing_mm, tolerance_mm).surface_dice


def hd95_mm(
    reference: BoolVolume, prediction: BoolVolume, spacing_mm: Spacing, penalty_mm: float | None = None
) -> float:
    """Hausdorff distance at the 95th percentile: the larger of the two directed percentiles, by area, mm.

    It is blind to a far island of less than 5 % of the surface; read it beside Dice and HD100.

    Args:
        reference: (I, J, K) bool.
        prediction: (I, J, K) bool, same grid as ``reference``.
        spacing_mm: Voxel size along I, J, K, mm.
        penalty_mm: Distance given when exactly one mask is empty; None: the diagonal of the whole volume.

    Returns:
        Millimetres, 0 or more; NaN when both are empty; ``penalty_mm`` when one is.

    Raises:
        GeometryError: The shapes differ.

    References:
        Huttenlocher et al. 1993, doi:10.1109/34.232073; equal to google-deepmind/surface-distance.
    """
    return score_surfaces(reference, prediction, spacing_mm, 1.0, penalty_mm).hd95_mm


def diagonal_mm(shape: Shape, spacing_mm: Spacing) -> float:
    """Length of the diagonal of a whole volume, mm: no distance in it is longer."""
    return math.sqrt(sum((size * step) ** 2 for size, step in zip(shape, spacing_mm, strict=True)))


def _percentile_mm(way: DirectedDistances, share: float) -> float:
    """Smallest distance within which that share of the surface lies."""
    reached = np.cumsum(way.areas_mm2)
    index = int(np.searchsorted(reached, (share - _SLACK_SHARE) * reached[-1]))
    return float(way.mm[index])
