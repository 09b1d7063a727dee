"""Where a network runs, set up so that the same input gives the same bits."""

from __future__ import annotations

import os
import platform

import torch
from torch import nn


def set_up_torch(n_threads: int) -> torch.device:
    """Choose the device and make its results repeatable.

    On a CPU, sums depend on the number of threads, so it is set and recorded. On CUDA a few layers (max pooling,
    trilinear upsampling) have no repeatable backward pass; they still run, and torch warns.

    Args:
        n_threads: CPU threads within one operation.

    Returns:
        CUDA's device when there is one, else the CPU; of several processes that torchrun started each has its own.
    """
    torch.set_num_threads(n_threads)
    # deterministic mode would also write NaN into all new memory, to show code that reads it unset: a third of a step
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
    if not torch.cuda.is_available():
        torch.use_deterministic_algorithms(True)
        return torch.device("cpu")
    # read when CUDA's matrix library starts, which is later than this
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.backends.cudnn.benchmark = False
    torch.use_deterministic_algorithms(True, warn_only=True)
    device = torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")) % torch.cuda.device_count())
    torch.cuda.set_device(device)
    return device


_NARROW = 128
"""Channels, up to which a network with instance normalisation predicts faster as it is built than channels last:
instance normalisation copies what lies channels last there and back, and convolutions of few channels gain less by that
layout. Up to 128 channels it took 0.87 to 0.96 of the time in float32 and in bfloat16 0.87 to 0.97, with 192 and 256
channels as much or more (MONAI's UNet, BasicUNet and DynUNet, two windows a pass)."""


def place_to_predict(network: nn.Module, device: torch.device) -> nn.Module:
    """As ``place_network``; on a CPU narrow networks with instance normalisation keep the layout they were built in."""
    layers = list(network.modules())
    widths = [int(layer.weight.shape[0]) for layer in layers if isinstance(layer, nn.Conv3d)]
    is_narrow = max(widths, default=0) <= _NARROW and any(isinstance(layer, nn.InstanceNorm3d) for layer in layers)
    return network.to(device) if is_narrow and device.type == "cpu" else place_network(network, device)


def place_network(network: nn.Module, device: torch.device) -> nn.Module:
    """Move a network to its device, weights laid out channels last.

    On a CPU this takes a quarter to a half off a step of MONAI's networks.
    """
    for layer in network.modules():
        if isinstance(layer, nn.GroupNorm) and _ask_for_gradient not in layer._forward_pre_hooks.values():
            layer.register_forward_pre_hook(_ask_for_gradient)
    return network.to(device=device, memory_format=torch.channels_last_3d)  # type: ignore[call-overload,no-any-return]


def _ask_for_gradient(layer: nn.Module, inputs: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, ...] | None:
    """Let the input of a group normalisation want a gradient where only its scale and shift do.

    Its backward pass for the layout channels last ends the process (torch 2.13, CPU) when it need not give one: so in a
    frozen body of which the normalisation trains. The result is the same.
    """
    image, parameters = inputs[0], layer.parameters()
    if image.requires_grad or not torch.is_grad_enabled() or not any(one.requires_grad for one in parameters):
        return None
    return (image.detach().requires_grad_(), *inputs[1:])


def describe_torch(device: torch.device) -> dict[str, str | int]:
    """What results depend on beside the data: versions, device kind, threads; nothing that names the machine."""
    import monai

    return {
        "python": platform.python_version(),
        "torch": str(torch.__version__),
        "monai": str(monai.__version__),
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else f"cpu {platform.machine()}",
        "n_threads": torch.get_num_threads(),
        "deterministic_algorithms": torch.are_deterministic_algorithms_enabled(),
        "cudnn_benchmark": torch.backends.cudnn.benchmark,
    }
