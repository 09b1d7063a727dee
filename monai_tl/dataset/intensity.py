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
    if rule.low is None or rule.high is None or rule.rule == "minmax":
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
        rule: ``window`` maps low..high to 0..1; ``zscore`` gives zero mean and unit variance; ``minmax`` gives 0..1.

    Raises:
        DataError: The image is constant, so that its rule is undefined.
    """
    check_varies(image, rule)
    if rule.rule == "window":
        low, high = float(rule.low or 0.0), float(rule.high or 0.0)
        return ((image - np.float32(low)) / np.float32(high - low)).astype(np.float32)
    if rule.rule == "zscore":
        # float64 sums: the mean of 10^8 float32 voxels would lose digits
        centre, scale = float(image.mean(dtype=np.float64)), float(image.std(dtype=np.float64))
    else:
        centre, scale = float(image.min()), float(image.max()) - float(image.min())
    return ((image - np.float32(centre)) / np.float32(scale)).astype(np.float32)
