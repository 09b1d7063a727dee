"""Low-rank updates of convolutions and linear layers, and the plain weights they add up to."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from monai_tl.networks.groups import is_below

_LAYERS = (nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.ConvTranspose2d, nn.ConvTranspose3d, nn.Linear)
_ORIGINAL = ".parametrizations.weight.original"
_UPDATE = (".parametrizations.weight.0.down", ".parametrizations.weight.0.up")


class LowRankUpdate(nn.Module):
    """Adds ``alpha / rank * up @ down`` to a weight, seen as a matrix.

    A weight of shape (m, n, *kernel) is a matrix of m·k rows and n·(rest of the kernel) columns, k being the kernel's
    first axis: nearly square, so that a rank costs least. A linear layer's is itself. The layer computes with the sum,
    as the merged network does, so merging changes no result.

    Args:
        weight: What is updated; not changed.
        rank: Of the update.
        alpha: Factor times the rank.
        generator: For the values of ``down``; ``up`` begins at zero, so training begins at the unchanged network.
    """

    def __init__(self, weight: Tensor, rank: int, alpha: float, generator: torch.Generator) -> None:
        super().__init__()
        n_rows, n_columns = matrix_shape(weight)
        self.factor = alpha / rank
        # Kaiming's uniform law for a linear layer, as in Hu et al.
        bound = math.sqrt(1.0 / n_columns)
        down = (torch.rand(rank, n_columns, generator=generator) * 2.0 - 1.0) * bound
        self.down = nn.Parameter(down.to(weight))
        self.up = nn.Parameter(torch.zeros(n_rows, rank).to(weight))

    def forward(self, weight: Tensor) -> Tensor:
        """The weight with its update; any shape, the same out."""
        # a weight is float32 also where the network's products are not
        with torch.autocast(weight.device.type, enabled=False):
            update = self.factor * (self.up @ self.down)
        if weight.ndim > 2:
            m, n, first, *rest = weight.shape
            update = update.view(m, first, n, *rest).transpose(1, 2)
        return weight + update


def matrix_shape(weight: Tensor) -> tuple[int, int]:
    """Rows and columns of a weight seen as a matrix."""
    if weight.ndim <= 2:
        return int(weight.shape[0]), int(weight.shape[1])
    m, n, first, *rest = weight.shape
    return m * first, n * math.prod(rest)


def add_low_rank(module: nn.Module, prefixes: Iterable[str], rank: int, alpha: float, seed: int) -> tuple[str, ...]:
    """Give layers below the prefixes a low-rank update, which trains in place of their weight.

    Layers whose update would have as many numbers as their weight stay as they are: small ones gain nothing. So do
    those whose weight another layer has too (two updates of it could not be merged) or is made by a rule of its own.

    Args:
        module: The network, on its device; changed in place. Its function stays the same until an update trains.
        prefixes: Module names.
        rank: Of each update.
        alpha: Factor times the rank.
        seed: For the fresh values; torch's random state is left as it was.

    Returns:
        Names of the new parameters, as in ``named_parameters()``.
    """
    wanted = tuple(prefixes)
    generator = torch.Generator().manual_seed(seed)
    owners = Counter(id(tensor) for part in module.modules() for tensor in part.parameters(recurse=False))
    # each layer once, also where a network registers it twice
    for name, layer in list(module.named_modules()):
        if isinstance(layer, _LAYERS) and is_below(name, wanted):
            weight = layer._parameters.get("weight")
            if weight is None or owners[id(weight)] > 1:
                continue
            n_rows, n_columns = matrix_shape(weight)
            if rank * (n_rows + n_columns) < n_rows * n_columns:
                update = LowRankUpdate(weight.detach(), rank, alpha, generator)
                update.train(layer.training)
                # the weight is kept as it is: its layout in memory and its being frozen
                parametrize.register_parametrization(layer, "weight", update, unsafe=True)
    return tuple(name for name, _ in module.named_parameters() if is_update(name))


def is_update(name: str) -> bool:
    """Whether a parameter's name is that of a low-rank update."""
    return name.endswith(_UPDATE)


def plain_state(module: nn.Module) -> dict[str, Tensor]:
    """Weights of the network without its updates, which are added in: names and shapes of the plain network.

    Returns:
        Copies on the CPU.
    """
    state: dict[str, Tensor] = {}
    with torch.no_grad():
        present = module.state_dict()
        for name, tensor in present.items():
            layer = name.removesuffix(_ORIGINAL)
            # a network's own parametrisations have the original too, but no update
            if layer != name and f"{layer}{_UPDATE[0]}" in present:
                merged = cast("Tensor", module.get_submodule(layer).weight)
                state[f"{layer}.weight"] = merged.detach().to("cpu", copy=True)
            elif not is_update(name):
                state[name] = tensor.detach().to("cpu", copy=True)
    return state


def n_plain_parameters(module: nn.Module) -> int:
    """Parameters of the network without its updates."""
    return sum(tensor.numel() for name, tensor in module.named_parameters() if not is_update(name))
