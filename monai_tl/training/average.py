"""An average of the weights over the steps, exponential or polynomial, free of its start."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from monai_tl.config import FinetuneConfig


class WeightAverage:
    """Average of the weights seen since the start, recent ones counting more.

    Exponential, with decay d: the weights of t steps ago count d**t; the sum of these is divided out, so the average of
    the first step is that step's weights and no start value drags behind (the correction of Adam, Kingma and Ba 2015).
    Polynomial, with power p: the weights of step n, from 1, count n (n + 1) ... (n + p - 1), about n**p, so whenever
    one looks it is mostly the last part of the steps so far: for p = 2 three quarters of the way on average. No length
    of the run need be known.

    Tensors that never change stay to the bit; counts of batches are taken as they are.

    Args:
        network: Floating tensors of its ``state_dict()`` are averaged, running statistics included.
        decay: 0 to 1.
        power: Above 0 the average is polynomial, and ``decay`` has no meaning.

    References:
        Polynomial: Shamir and Zhang 2013, arXiv:1212.1824, section 4.
    """

    def __init__(self, network: nn.Module, decay: float, power: int = 0) -> None:
        self.decay = decay
        self.power = power
        self.n_seen = 0
        self.network = network
        self.values = {name: tensor.detach().clone() for name, tensor in self._tensors().items()}

    def _tensors(self) -> dict[str, Tensor]:
        # each object once: MONAI's DynUNet registers its blocks twice
        unique = {id(tensor): name for name, tensor in reversed(self.network.state_dict(keep_vars=True).items())}
        state = self.network.state_dict(keep_vars=True)
        return {name: state[name] for name in state if unique[id(state[name])] == name}

    def restart(self) -> None:
        """Forget what was seen."""
        self.n_seen = 0

    def update(self) -> None:
        """See the network's present weights."""
        self.n_seen += 1
        if self.power:
            weight = (self.power + 1.0) / (self.n_seen + self.power)
        else:
            weight = (1.0 - self.decay) / (1.0 - self.decay**self.n_seen)
        averages, present = [], []
        with torch.no_grad():
            for name, tensor in self._tensors().items():
                if tensor.is_floating_point():
                    averages.append(self.values[name])
                    present.append(tensor.detach())
                else:
                    self.values[name].copy_(tensor)
            torch._foreach_lerp_(averages, present, weight)

    @contextmanager
    def in_place(self) -> Iterator[None]:
        """Within this block the network has the average for weights; after it, its own, however the block ends."""
        own = {name: tensor.detach().clone() for name, tensor in self._tensors().items()}
        self._write(self.values)
        try:
            yield
        finally:
            self._write(own)

    def _write(self, values: Mapping[str, Tensor]) -> None:
        with torch.no_grad():
            for name, tensor in self._tensors().items():
                tensor.copy_(values[name])

    def state_dict(self) -> dict[str, Any]:
        """For a checkpoint."""
        return {"n_seen": self.n_seen, "values": self.values}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from a checkpoint."""
        self.n_seen = int(state["n_seen"])
        for name, tensor in self.values.items():
            tensor.copy_(state["values"][name])


def average_of(network: nn.Module, config: FinetuneConfig) -> WeightAverage | None:
    """The average that the settings ask for, if they do."""
    if not config.ema_decay and not config.average_power:
        return None
    return WeightAverage(network, config.ema_decay, config.average_power)
