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
