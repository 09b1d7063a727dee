"""Where a case's foreground lies once the case is scaled by itself: what a network with such a rule sees of it."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from monai_tl.config import IntensityConfig
from monai_tl.dataset.intensity import clip_limits

_CLIPPED = IntensityConfig(rule="zscore", low=0.5, high=99.5)
"""One fixed form of the rule, whatever percentiles a source takes, so that two data sets can be compared."""
_CHUNK = 1 << 20
SQUASHED = 0.1
"""Of minimum to maximum; where nearly all voxels lie below, a few bright ones take the range."""


def scale_case(channels: NDArray[Any], inside: NDArray[np.bool_]) -> dict[str, float]:
    """Mean and deviation of the foreground on the scale of each rule.

    Args:
        channels: (C, I, J, K), stored values; each channel is scaled by itself.
        inside: (I, J, K), the foreground of the label.

    Returns:
        ``<rule>_mean`` and ``<rule>_std`` for ``zscore`` (after clipping) and ``minmax``, over all channels together,
        and ``squashed``: 1 where 99.5 % of a channel's voxels lie in the lowest tenth of its range. Empty where a
        channel is constant, or becomes so when it is clipped; without ``_mean`` and ``_std`` where there is no
        foreground.
    """
    scaled: dict[str, list[NDArray[np.float64]]] = {"zscore": [], "minmax": []}
    squashed = 0.0
    for channel in channels:
        low, high = float(channel.min()), float(channel.max())
        limits = clip_limits(channel, _CLIPPED)
        if limits is None or low == high or limits[0] == limits[1]:
            return {}
        centre, deviation = _clipped_moments(channel, *limits)
        if deviation == 0.0:
            return {}
        foreground = channel[inside].astype(np.float64)
        scaled["zscore"].append((np.clip(foreground, *limits) - centre) / deviation)
        scaled["minmax"].append((foreground - low) / (high - low))
        if limits[1] - low < SQUASHED * (high - low):
            squashed = 1.0
    found = {"squashed": squashed}
    for name, parts in scaled.items():
        joined = np.concatenate(parts)
        if joined.size:
            found |= {f"{name}_mean": float(joined.mean()), f"{name}_std": float(joined.std())}
    return found


def _clipped_moments(channel: NDArray[Any], low: float, high: float) -> tuple[float, float]:
    """Mean and deviation of all voxels after clipping, a piece at a time: a whole body need not be copied."""
    flat = channel.reshape(-1)
    sums = []
    for start in range(0, flat.size, _CHUNK):
        # about the lower limit, so that a large offset costs no digits
        piece = np.clip(flat[start : start + _CHUNK].astype(np.float64), low, high) - low
        sums.append((float(piece.sum()), float((piece * piece).sum())))
    mean = math.fsum(total for total, _ in sums) / flat.size
    variance = math.fsum(squares for _, squares in sums) / flat.size - mean * mean
    return low + mean, math.sqrt(max(variance, 0.0))
