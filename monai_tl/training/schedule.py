"""Learning rate as a function of the step: warm-up, then decay. No object that must be saved."""

from __future__ import annotations

import math
from typing import Literal

ScheduleName = Literal["cosine", "poly", "constant"]
POLY_POWER = 0.9


def warm_up(step: int, n_steps: int) -> float:
    """Share of the rate at a step of a linear rise: ``1 / n_steps`` first, 1 from its end on."""
    return (step + 1) / n_steps if step < n_steps else 1.0


def learning_rate(step: int, n_steps: int, peak: float, warmup_steps: int, schedule: ScheduleName) -> float:
    """Rate of one optimiser step of a phase.

    Args:
        step: From 0, within the phase.
        n_steps: Length of the phase; > 0.
        peak: Rate reached at the end of warm-up.
        warmup_steps: Steps of linear rise, ``peak / warmup_steps`` first; no more than the phase has.
        schedule: Decay after it towards 0, which would be reached at ``n_steps``.

    Returns:
        The rate, > 0 for each step of the phase.

    References:
        Cosine: Loshchilov and Hutter 2017, arXiv:1608.03983. Poly 0.9: Isensee et al. 2021.
    """
    warmup = min(warmup_steps, n_steps)
    if step < warmup:
        return peak * (step + 1) / warmup
    if schedule == "constant":
        return peak
    done = (step - warmup) / (n_steps - warmup)
    return peak * 0.5 * (1.0 + math.cos(math.pi * done)) if schedule == "cosine" else peak * (1.0 - done) ** POLY_POWER
