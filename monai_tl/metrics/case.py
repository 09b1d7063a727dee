"""All metrics of one case, class by class, in one pass over the label maps."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from monai_tl.errors import LabelError
from monai_tl.geometry import BoolVolume, Shape, Spacing
from monai_tl.metrics.overlap import check_same_shape, dice_from_counts, iou_from_dice
from monai_tl.metrics.surface import SurfaceScore, diagonal_mm, score_surfaces, worst_surfaces
from monai_tl.metrics.volume import VolumeError, volume_error, worst_volume_error

LabelMap = NDArray[np.uint8]
"""(I, J, K) uint8, 0 is background."""

PERFECT = {
    "dice": 1.0,
    "surface_dice": 1.0,
    "hd95_mm": 0.0,
    "iou": 1.0,
    "hd100_mm": 0.0,
    "mean_surface_distance_mm": 0.0,
    "volume_error_ml": 0.0,
    "relative_volume_error": 0.0,
}
"""Metric → its value where prediction and reference are the same. docs/metrics.md defines each."""

METRIC_NAMES = tuple(PERFECT)
"""In the order of tables."""


@dataclass(frozen=True)
class ClassScore:
    """Scores of one class in one case; NaN is undefined (reference and prediction both empty) or not measured.

    Attributes:
        surface_dice: At the tolerance the case was scored with.
        volume_error_ml: Absolute difference of the volumes.
        relative_volume_error: That by the reference's volume, at most 1.
    """

    dice: float
    surface_dice: float
    hd95_mm: float
    reference_ml: float
    prediction_ml: float
    iou: float = math.nan
    hd100_mm: float = math.nan
    mean_surface_distance_mm: float = math.nan
    volume_error_ml: float = math.nan
    relative_volume_error: float = math.nan


def score_case(
    reference: LabelMap,
    prediction: LabelMap,
    n_classes: int,
    spacing_mm: Spacing,
    tolerance_mm: float | Sequence[float],
) -> tuple[ClassScore, ...]:
    """Score each foreground class.

    Each class is cut to the box that holds its reference and its prediction; no surface lies outside, so no score
    changes.

    Args:
        reference: (I, J, K) uint8, class k has the value k + 1.
        prediction: (I, J, K) uint8, same grid and values.
        n_classes: Foreground classes.
        spacing_mm: Voxel size along I, J, K, mm.
        tolerance_mm: For surface Dice, mm: one for all classes, or one for each.

    Returns:
        One score a class; empty-case rules of the metrics. Distances are penalised with the whole volume's diagonal.

    Raises:
        GeometryError: The shapes differ.
        LabelError: A value above ``n_classes``.
    """
    check_same_shape(reference, prediction)
    highest = max(int(reference.max(initial=0)), int(prediction.max(initial=0)))
    if highest > n_classes:
        raise LabelError(
            f"a label map has the value {highest}, but there are {n_classes} classes; run ingest and predict again"
        )
    shape = (reference.shape[0], reference.shape[1], reference.shape[2])
    penalty_mm = diagonal_mm(shape, spacing_mm)
    voxel_ml = math.prod(spacing_mm) / 1000.0
    tolerances_mm = [tolerance_mm] * n_classes if isinstance(tolerance_mm, int | float) else tolerance_mm
    scores = []
    for tolerance, (first, second) in zip(tolerances_mm, _cut_classes(reference, prediction, n_classes), strict=True):
        n_first, n_second = int(np.count_nonzero(first)), int(np.count_nonzero(second))
        overlap = dice_from_counts(n_first, n_second, int(np.count_nonzero(first & second)))
        surfaces = score_surfaces(first, second, spacing_mm, tolerance, penalty_mm)
        scores.append(_class_score(overlap, surfaces, volume_error(n_first * voxel_ml, n_second * voxel_ml)))
    return tuple(scores)


@dataclass(frozen=True)
class Extent:
    """How far a prediction could have erred.

    Attributes:
        diagonal_mm: No distance is longer.
        volume_ml: No prediction is larger.
    """

    diagonal_mm: float
    volume_ml: float

    @classmethod
    def of_grid(cls, shape: Shape, spacing_mm: Spacing) -> Extent:
        """Of one grid."""
        return cls(diagonal_mm(shape, spacing_mm), math.prod(shape) * math.prod(spacing_mm) / 1000.0)

    @classmethod
    def widest(cls, extents: Iterable[Extent]) -> Extent:
        """The largest of each number, so that nothing in any of some grids is worse."""
        found = list(extents)
        return cls(max(one.diagonal_mm for one in found), max(one.volume_ml for one in found))


def worst_scores(reference_ml: Sequence[float], extent: Extent) -> tuple[ClassScore, ...]:
    """Scores of a case without a prediction: the worst there is, for each class, even one the reference lacks.

    Args:
        reference_ml: Volume of each class in the reference.
        extent: Of all cases scored together: a case in a small image, or on the few planes that a SEG has, must not be
            better off without a prediction than others are with a bad one.
    """
    surfaces = worst_surfaces(extent.diagonal_mm)
    return tuple(_class_score(0.0, surfaces, worst_volume_error(own, extent.volume_ml)) for own in reference_ml)


def class_volumes_ml(label: LabelMap, n_classes: int, spacing_mm: Spacing) -> tuple[float, ...]:
    """Volume of each class.

    Args:
        label: (I, J, K) uint8, class k has the value k + 1.
        n_classes: Foreground classes.
        spacing_mm: Voxel size along I, J, K, mm.
    """
    counts = np.bincount(label.ravel(), minlength=n_classes + 1)[1 : n_classes + 1]
    return tuple(float(count) * math.prod(spacing_mm) / 1000.0 for count in counts)


def with_penalty(score: ClassScore, penalty_mm: float) -> ClassScore:
    """The same score with another distance where exactly one of reference and prediction is empty."""
    if (score.reference_ml > 0.0) == (score.prediction_ml > 0.0):
        return score
    return replace(score, hd95_mm=penalty_mm, hd100_mm=penalty_mm, mean_surface_distance_mm=penalty_mm)


def _class_score(overlap: float, surfaces: SurfaceScore, volumes: VolumeError) -> ClassScore:
    return ClassScore(
        dice=overlap,
        surface_dice=surfaces.surface_dice,
        hd95_mm=surfaces.hd95_mm,
        reference_ml=volumes.reference_ml,
        prediction_ml=volumes.prediction_ml,
        iou=iou_from_dice(overlap),
        hd100_mm=surfaces.hd100_mm,
        mean_surface_distance_mm=surfaces.mean_surface_distance_mm,
        volume_error_ml=volumes.absolute_ml,
        relative_volume_error=volumes.relative,
    )


def _cut_classes(reference: LabelMap, prediction: LabelMap, n_classes: int) -> Iterator[tuple[BoolVolume, BoolVolume]]:
    """Both masks of each class, cut to the smallest box around both; of no voxel where the class is in neither."""
    foreground = _box((reference | prediction) != 0)
    # label maps read from NIfTI lie with I fastest; what follows is several times faster in one order of memory
    reference, prediction = (np.ascontiguousarray(volume[foreground]) for volume in (reference, prediction))
    for value in range(1, n_classes + 1):
        first, second = reference == value, prediction == value
        box = _box(first | second)
        yield first[box], second[box]


def _box(mask: BoolVolume) -> tuple[slice, slice, slice]:
    """Smallest box around what is true; projections cost a tenth of a search for objects."""
    over_jk: NDArray[np.bool_] = np.logical_or.reduce(mask, axis=0)
    i, j, k = (np.logical_or.reduce(flat, axis=axes) for flat, axes in ((mask, (1, 2)), (over_jk, 1), (over_jk, 0)))
    return _extent(i), _extent(j), _extent(k)


def _extent(line: NDArray[np.bool_]) -> slice:
    there = np.flatnonzero(line)
    return slice(int(there[0]), int(there[-1]) + 1) if len(there) else slice(0, 0)
