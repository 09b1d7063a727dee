"""The learning-rate range test: raise the rate from step to step and see where the loss stops falling."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from monai_tl.files import read_json, write_json
from monai_tl.training.batches import Batch
from monai_tl.training.checkpoint import random_state, restore_random_state, seed_everything
from monai_tl.training.tuning import Tuning

FILE = "learning_rate.json"
N_STEPS = 60
LOWEST, HIGHEST = 1e-5, 1.0
_MEMORY = 0.9
"""Of the running mean of the loss: about ten steps."""
_WORSE = 2.0
"""The test ends where the smoothed loss is so many times its smallest."""
_BELOW = 10.0
"""The rate chosen lies this far below the one with the smallest loss, where the loss still falls."""


@dataclass(frozen=True)
class RangeTest:
    """What the test saw.

    Attributes:
        rate: Chosen; None when the loss did not fall at a rate worth taking.
        rates, losses: The curve, smoothed losses.
    """

    rate: float | None
    rates: tuple[float, ...]
    losses: tuple[float, ...]

    def describe(self) -> dict[str, Any]:
        """As plain values."""
        return {"rate": self.rate, "rates": list(self.rates), "losses": list(self.losses)}


def choose_rate(rates: list[float], losses: list[float]) -> float | None:
    """A tenth of the rate at the smallest smoothed loss.

    Args:
        rates: Ascending.
        losses: Smoothed, one a rate.

    Returns:
        None when that is below all rates that were tried: the loss never fell, or by noise alone.
    """
    finite = [k for k, loss in enumerate(losses) if math.isfinite(loss)]
    if not finite:
        return None
    best = min(finite, key=lambda k: losses[k])
    rate = rates[best] / _BELOW
    return rate if rate >= rates[0] else None


def smooth(losses: list[float], memory: float = _MEMORY) -> list[float]:
    """Running mean, free of its start: weights ``memory**age`` that sum to 1."""
    smoothed, mean, total = [], 0.0, 0.0
    for loss in losses:
        mean, total = memory * mean + loss, memory * total + 1.0
        smoothed.append(mean / total)
    return smoothed


def run_range_test(
    network: nn.Module,
    tuning: Tuning,
    loss_of: Callable[[Batch], Tensor],
    make: Callable[[int], Batch],
    seed: int,
) -> RangeTest:
    """Train with a rate that rises from ``LOWEST`` to ``HIGHEST``, each step by the same factor, and undo it all.

    The last phase's parameters train, since that is the phase whose rate is looked for.

    Args:
        network: Its weights, buffers and the random state are as before afterwards.
        tuning: Of it; stands at the strategy's first phase afterwards, with nothing learned.
        loss_of: Loss of a batch, with gradient.
        make: Gives the batch of a step by its number.
        seed: Random state of the test.

    References:
        Smith 2017, arXiv:1506.01186.
    """
    before = {name: tensor.detach().clone() for name, tensor in network.state_dict().items()}
    random = random_state()
    rates: list[float] = []
    losses: list[float] = []
    try:
        seed_everything(seed)
        tuning.enter(tuning.strategy.phases[-1])
        for step in range(N_STEPS):
            rate = LOWEST * (HIGHEST / LOWEST) ** (step / (N_STEPS - 1))
            network.train()
            loss = loss_of(make(step))
            value = float(loss.detach())
            if not math.isfinite(value):
                break
            rates.append(rate)
            losses.append(value)
            smoothed = smooth(losses)
            if smoothed[-1] > _WORSE * min(smoothed):
                break
            tuning.optimiser.zero_grad(set_to_none=True)
            torch.autograd.backward(loss)
            if not math.isfinite(tuning.clip()):
                break
            tuning.step(step, rate)
    finally:
        network.load_state_dict(before)
        tuning.restart(tuning.strategy)
        restore_random_state(random)
    smoothed = smooth(losses)
    return RangeTest(choose_rate(rates, smoothed), tuple(rates), tuple(smoothed))


def kept_range_test(folder: Path, test: Callable[[], RangeTest]) -> RangeTest:
    """The test of a run: done once and kept beside its checkpoints; a damaged record is made again."""
    path = folder / FILE
    try:
        content = read_json(path)
        return RangeTest(content["rate"], tuple(content["rates"]), tuple(content["losses"]))
    except (OSError, ValueError, KeyError, TypeError):
        result = test()
        write_json(path, asdict(result))
        return result
