"""Overlap of a prediction with the reference."""

from __future__ import annotations

import math

import numpy as np

from monai_tl.errors import GeometryError
from monai_tl.geometry import BoolVolume, Volume


def check_same_shape(reference: Volume, prediction: Volume) -> None:
    """Refuse masks that are not on one grid.

    Raises:
        GeometryError: The shapes differ.
    """
    if reference.shape != prediction.shape:
        raise GeometryError(
            f"the prediction's shape {prediction.shape} is not the reference's {reference.shape}; "
            "bring both to the grid of the case's image first"
        )


def dice(reference: BoolVolume, prediction: BoolVolume) -> float:
    """Dice similarity: twice the shared volume over the sum of both volumes.

    Args:
        reference: (I, J, K) bool.
        prediction: (I, J, K) bool, same grid as ``reference``.

    Returns:
        0 to 1; NaN when both are empty; 0 when one is.

    Raises:
        GeometryError: The shapes differ.

    References:
        Dice 1945, doi:10.2307/1932409.
    """
    check_same_shape(reference, prediction)
    shared = int(np.count_nonzero(reference & prediction))
    return dice_from_counts(int(np.count_nonzero(reference)), int(np.count_nonzero(prediction)), shared)


def dice_from_counts(n_reference: int, n_prediction: int, n_shared: int) -> float:
    """Dice similarity from voxel counts; empty-case rule of ``dice``."""
    total = n_reference + n_prediction
    return 2.0 * n_shared / total if total else math.nan


def iou_from_dice(value: float) -> float:
    """Intersection over union (Jaccard index) of masks with that Dice; 0 to 1, NaN stays.

    References:
        Jaccard 1912, doi:10.1111/j.1469-8137.1912.tb05611.x.
    """
    return value / (2.0 - value)
