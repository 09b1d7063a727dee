"""Networks with values that are no defaults, their weights as a source, and loading them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from monai.networks.nets.swin_unetr import SwinUNETR
from monai.networks.nets.unetr import UNETR
from torch import Tensor, nn

from monai_tl.config import NetworkConfig
from monai_tl.networks.builders import build_network
from monai_tl.networks.groups import LayerGroup, named_tensors
from monai_tl.networks.spec import NetworkSpec
from monai_tl.records import Audit, SizeRule
from monai_tl.sources.audit import load_audited
from monai_tl.sources.surgery import Heads
from monai_tl.sources.weights import State

SAME = Heads(("background", "liver"), ("background", "liver"))
OTHER = Heads(("background", "liver"), ("background", "prostate", "bladder"))


def unet(**changes: Any) -> NetworkConfig:
    """A small U-Net with batch normalisation, or with what is given."""
    plain = {"channels": [4, 8, 16], "strides": [2, 2], "num_res_units": 1, "norm": "batch"}
    return NetworkConfig(name="unet", arguments={**plain, **changes})


def trained(config: NetworkConfig, n_channels: int = 1, n_outputs: int = 2, seed: int = 7) -> nn.Module:
    """A network whose running statistics and biases are no defaults, in eval mode."""
    return shaken(build_network(config, n_channels, n_outputs, seed), seed)


def shaken(module: nn.Module, seed: int = 7) -> nn.Module:
    """Add a little to every value, and set eval mode."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for tensor in named_tensors(module).values():
            if tensor.is_floating_point():
                tensor.add_(torch.rand(tensor.shape, generator=generator) * 0.1)
    return module.eval()


def as_state(tensors: Mapping[str, Tensor]) -> State:
    """A copy of tensors as if they came from a file."""
    return State({name: tensor.detach().clone() for name, tensor in tensors.items()}, "0" * 64)


def load(
    state: State,
    config: NetworkConfig,
    n_channels: int = 1,
    heads: Heads = SAME,
    floor: float = 0.5,
    **options: Any,
) -> tuple[nn.Module, Audit]:
    """Build a fresh network, in eval mode, and load a state into it."""
    module = build_network(config, n_channels, len(heads.target), seed=0)
    return module.eval(), load_audited(module, config, n_channels, heads, state, floor, **options)


def image(n_channels: int = 1, size: tuple[int, ...] = (16, 16, 16)) -> Tensor:
    """Noise of a fixed seed, (1, n_channels, *size)."""
    return torch.randn(1, n_channels, *size, generator=torch.Generator().manual_seed(3))


def _two_groups(head: str) -> Any:
    def groups(module: nn.Module) -> list[LayerGroup]:
        body = tuple(name for name, _ in module.named_children() if name != head)
        return [LayerGroup("body", body), LayerGroup("head", (head,))]

    return groups


_PORTS: dict[str, Any] = {"channel_argument": "in_channels", "output_argument": "out_channels"}
TRANSFORMERS: dict[str, NetworkSpec] = {
    "test_unetr": NetworkSpec(UNETR, _two_groups("out"), lambda _: SizeRule(), **_PORTS),
    "test_swin_unetr": NetworkSpec(SwinUNETR, _two_groups("out"), lambda _: SizeRule(), **_PORTS),
}
"""Networks with patch embeddings, position embeddings and window tables, as plug-ins would give them."""
