"""How far the predicted volume is from the reference's."""

from __future__ import annotations

import math
from dataclasses import dataclass


@dataclass(frozen=True)
class VolumeError:
    """Two volumes and their difference.

    Attributes:
        reference_ml: Volume of the reference.
        prediction_ml: Volume of the prediction.
        absolute_ml: |prediction − reference|, millilitres; the sign is that of the two volumes.
        relative: That by the reference, at most 1.
    """

    reference_ml: float
    prediction_ml: float
    absolute_ml: float
    relative: float


def volume_error(reference_ml: float, prediction_ml: float) -> VolumeError:
    """Absolute and relative volume error.

    The relative error ends at 1, for two reasons: a false alarm beside a reference of a few voxels would drown the mean
    over a cohort, and a missing prediction has to score worst.

    Args:
        reference_ml: Volume of the reference, 0 or more.
        prediction_ml: Volume of the prediction, 0 or more.

    Returns:
        Both errors NaN when both are empty; the relative one is 1 when one is empty.

    References:
        Maier-Hein et al. 2024, doi:10.1038/s41592-023-02151-z (absolute volume error and its ratio), up to the cap.
    """
    if not reference_ml and not prediction_ml:
        return VolumeError(0.0, 0.0, math.nan, math.nan)
    error = abs(prediction_ml - reference_ml)
    return VolumeError(reference_ml, prediction_ml, error, min(error / reference_ml, 1.0) if reference_ml else 1.0)


def worst_volume_error(reference_ml: float, volume_ml: float) -> VolumeError:
    """That of a missing prediction: no prediction inside an image of ``volume_ml`` errs by more."""
    return VolumeError(reference_ml, 0.0, max(reference_ml, volume_ml - reference_ml), 1.0)
