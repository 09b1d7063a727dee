"""What a pass costs in memory, and whether a network looks at its window as a whole."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from monai_tl.geometry import Shape

_LIVE_OUTPUTS = 6
"""Outputs of the largest layer that are in memory at once: skip, its concatenation, input and output, work space."""
_LOCAL = (
    nn.Conv3d, nn.ConvTranspose3d, nn.BatchNorm3d, nn.MaxPool3d, nn.AvgPool3d, nn.Upsample, nn.ReLU, nn.LeakyReLU,
    nn.PReLU, nn.ELU, nn.SELU, nn.GELU, nn.SiLU, nn.Mish, nn.Sigmoid, nn.Tanh, nn.Softplus, nn.Hardswish, nn.Identity,
    nn.Dropout,
    nn.Dropout3d, nn.AlphaDropout, nn.ConstantPad3d, nn.ReplicationPad3d, nn.PixelShuffle, nn.Softmax,
)  # fmt: skip
"""Layers whose output at a voxel depends on its neighbourhood alone, in eval mode."""


def is_local(network: nn.Module) -> bool:
    """Whether each output depends on a neighbourhood alone, so that a larger window changes nothing but edges.

    Instance and group normalisation take their statistics over the window, attention and global pooling look at all of
    it. A layer that is not known counts as one of these.
    """
    leaves = [part for part in network.modules() if not any(True for _ in part.children())]
    return all(isinstance(part, _LOCAL) for part in leaves)


class PassCost(NamedTuple):
    """What a small pass told of a network.

    Attributes:
        n_outputs: Classes with background.
        voxel_bytes: Memory of a pass for each voxel of its window, in float32, estimated from the layers' outputs.
    """

    n_outputs: int
    voxel_bytes: float


def measure_pass(network: nn.Module, n_channels: int, size: Shape) -> PassCost:
    """Pass an empty window and look at the layers' outputs.

    Args:
        network: In eval mode.
        n_channels: Of the input.
        size: A small size that the network accepts.
    """
    largest = n_outputs = 0

    def note(_: nn.Module, __: Any, output: Any) -> None:
        nonlocal largest
        for one in output if isinstance(output, Sequence) else [output]:
            if isinstance(one, Tensor):
                largest = max(largest, one.numel())

    hooks = [part.register_forward_hook(note) for part in network.modules()]
    try:
        device = next(network.parameters()).device
        with torch.inference_mode():
            n_outputs = int(network(torch.zeros((1, n_channels, *size), device=device)).shape[1])
    finally:
        for hook in hooks:
            hook.remove()
    n_voxels = size[0] * size[1] * size[2]
    # logits, their softmax, and the mean over networks or mirrored passes
    return PassCost(n_outputs, 4.0 * (_LIVE_OUTPUTS * largest / n_voxels + 3 * n_outputs))
