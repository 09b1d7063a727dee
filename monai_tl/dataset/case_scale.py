"""Where a case's foreground lies once the case is scaled by itself: what a network with such a rule sees of it."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from monai_tl.config import IntensityConfig
from monai_tl.dataset.intensity import clip_limits, scale_intensity

RULES = {"zscore": IntensityConfig(rule="zscore", low=0.5, high=99.5), "minmax": IntensityConfig(rule="minmax")}
"""One fixed form of each rule that takes statistics of the case, so that two data sets can be compared."""
SQUASHED = 0.1
"""Of minimum to maximum; where nearly all voxels lie below, a few bright ones take the range."""


def scale_case(channels: NDArray[Any], inside: NDArray[np.bool_]) -> dict[str, float]:
    """Mean and deviation of the foreground on the scale of each rule.

    Args:
        channels: (C, I, J, K), stored values; each channel is scaled by itself.
        inside: (I, J, K), the foreground of the label.

    Returns:
        ``<rule>_mean`` and ``<rule>_std`` for each of :data:`RULES`, over all channels together, and ``squashed``: 1
        where 99.5 % of a channel's voxels lie in the lowest tenth of its range. Empty where a channel is constant, or
        becomes so when it is clipped; without ``_mean`` and ``_std`` where there is no foreground.
    """
    values: dict[str, list[NDArray[np.float32]]] = {name: [] for name in RULES}
    squashed = 0.0
    for channel in channels:
        if channel.min() == channel.max():
            return {}
        for name, rule in RULES.items():
            limits = clip_limits(channel, rule)
            plain = channel.astype(np.float32)
            clipped = plain if limits is None else np.clip(plain, np.float32(limits[0]), np.float32(limits[1]))
            if clipped.min() == clipped.max():
                return {}
            values[name].append(scale_intensity(clipped, rule)[inside])
        high = clip_limits(channel, RULES["zscore"])
        if high is not None and high[1] - channel.min() < SQUASHED * (float(channel.max()) - float(channel.min())):
            squashed = 1.0
    found = {"squashed": squashed}
    for name, parts in values.items():
        joined = np.concatenate(parts).astype(np.float64)
        if joined.size:
            found |= {f"{name}_mean": float(joined.mean()), f"{name}_std": float(joined.std())}
    return found
