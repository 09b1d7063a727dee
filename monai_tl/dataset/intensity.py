"""Intensity rules: from stored values to network input."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from monai_tl.config import IntensityConfig
from monai_tl.errors import DataError

_MAX_SAMPLES = 1 << 24


def clip_limits(image: NDArray[Any], rule: IntensityConfig) -> tuple[float, float] | None:
    """Stored values between which one channel is clipped, before any interpolation, so that outliers do not bleed.

    Args:
        image: (I, J, K), one channel.
        rule: The plan's rule.

    Returns:
        Lower and upper value; None for a rule that does not clip. Percentiles of a volume above 16 million voxels come
        from every n-th voxel.
    """
    if rule.low is None or rule.high is None:
        return None
    if rule.rule == "window":
        return rule.low, rule.high
    values = np.asarray(image).reshape(-1)[:: max(1, image.size // _MAX_SAMPLES)]
    low, high = np.percentile(values, (rule.low, rule.high))
    return float(low), float(high)


def check_varies(image: NDArray[Any], rule: IntensityConfig) -> None:
    """Refuse a constant channel where the rule divides by its range.

    Ask before resampling too: interpolation turns a constant into rounding noise, which the rule would blow up.

    Raises:
        DataError: The image is constant, so that its rule is undefined.
    """
    if rule.rule != "window" and image.min() == image.max():
        raise DataError(
            f"the image is constant, so the intensity rule {rule.rule!r} is undefined; look at this case's images",
            "constant",
        )


def scale_intensity(image: NDArray[np.float32], rule: IntensityConfig) -> NDArray[np.float32]:
    """Scale one channel on the network's grid, after clipping and resampling.

    Args:
        image: (I, J, K) float32.
        rule: ``window`` maps low..high to the output range; ``zscore`` gives zero mean and unit variance, with
            ``nonzero`` of the voxels that are not 0 alone (all-zero gives zeros); ``minmax`` gives the output range.

    Raises:
        DataError: The image is constant, so that its rule is undefined.
    """
    check_varies(image, rule)
    if rule.rule == "zscore":
        return _standardise(image, rule.nonzero)
    if rule.rule == "window":
        low, high = float(rule.low or 0.0), float(rule.high or 0.0)
    else:
        low, high = float(image.min()), float(image.max())
    scaled = (image - np.float32(low)) / np.float32(high - low)
    first, last = rule.output
    if (first, last) != (0.0, 1.0):
        scaled = scaled * np.float32(last - first) + np.float32(first)
    return scaled.astype(np.float32)


def _standardise(image: NDArray[np.float32], nonzero: bool) -> NDArray[np.float32]:
    """Zero mean, unit variance; voxels of equal value become 0 where they are the only ones that count."""
    counted = image != 0 if nonzero else None
    values = image if counted is None else image[counted]
    if values.size == 0:
        return image.astype(np.float32)
    # float64 sums: the mean of 10^8 float32 voxels would lose digits
    centre, spread = float(values.mean(dtype=np.float64)), float(values.std(dtype=np.float64))
    scaled = (image - np.float32(centre)) / np.float32(spread or 1.0)
    return (scaled if counted is None else np.where(counted, scaled, np.float32(0.0))).astype(np.float32)
