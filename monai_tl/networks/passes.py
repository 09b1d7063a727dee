"""Windows through the networks of an ensemble: number format, mirrored passes, softmax, mean."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from itertools import combinations, product

import torch
from torch import Tensor, nn

from monai_tl.config import PrecisionName
from monai_tl.networks.precision import computing_in

Network = Callable[[Tensor], Tensor]
"""Windows (B, C, i, j, k) → logits (B, n_outputs, i, j, k)."""


class Passing:
    """Class probabilities of windows, the mean over networks and mirrored passes.

    Args:
        networks: In eval mode on one device, or functions that stand for them on the CPU; at least one.
        precision: In which the networks compute; softmax and mean are float32 always.
        mirrored_axes: Spatial axes 0 to 2; each combination of them is passed mirrored too, and mirrored back.
        tells_members: Whether the foreground probability by each member of the mean is given too, behind the classes.
            Members are the networks where there are several, else the mirrored passes.
    """

    def __init__(
        self,
        networks: Sequence[Network],
        precision: PrecisionName = "float32",
        mirrored_axes: Sequence[int] = (),
        tells_members: bool = False,
    ) -> None:
        self.networks = tuple(networks)
        self.precision = precision
        axes = sorted(set(mirrored_axes))
        self.mirrors = [chosen for n in range(len(axes) + 1) for chosen in combinations(axes, n)]
        several = len(self.networks) if len(self.networks) > 1 else len(self.mirrors)
        self.n_members = several if tells_members and several > 1 else 0
        first = self.networks[0]
        parameter = next(first.parameters(), None) if isinstance(first, nn.Module) else None
        self.device = torch.device("cpu") if parameter is None else parameter.device

    def __call__(self, windows: Tensor) -> Tensor:
        """Pass windows.

        Args:
            windows: (B, C, i, j, k) float32.

        Returns:
            (B, n_outputs, i, j, k) float32 on the CPU, summing to 1; behind the classes ``n_members`` channels of
            foreground probabilities.
        """
        parts: list[Tensor] = []
        members: list[Tensor] = []
        with torch.inference_mode(), self._context():
            placed = windows.to(self.device)
            for mirror, network in product(self.mirrors, self.networks):
                dims = [2 + axis for axis in mirror]
                logits = network(torch.flip(placed, dims) if dims else placed)
                found = torch.softmax(logits.float(), dim=1)
                parts.append(torch.flip(found, dims) if dims else found)
                if self.n_members:
                    # before the sum, which is made in place
                    members.append(1.0 - parts[-1][:, :1])
                if len(parts) == 2:
                    parts = [parts[0].add_(parts[1])]
            n_passes = len(self.mirrors) * len(self.networks)
            mean = parts[0].div_(n_passes) if n_passes > 1 else parts[0]
            return torch.cat([mean, *self._by_member(members)], dim=1).cpu() if self.n_members else mean.cpu()

    def _by_member(self, passes: list[Tensor]) -> list[Tensor]:
        """Of each member the mean over its passes; these follow each other mirror by mirror."""
        own = [passes[index :: self.n_members] for index in range(self.n_members)]
        return [torch.stack(of_member).mean(dim=0) for of_member in own]

    def _context(self) -> AbstractContextManager[object]:
        return computing_in(self.device, self.precision) if self.precision != "float32" else nullcontext()
