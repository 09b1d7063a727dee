"""Number formats of a network's products: float32, or bfloat16 where the weights stay float32."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

import torch

from monai_tl.config import PrecisionName


def computing_in(device: torch.device, precision: PrecisionName) -> AbstractContextManager[object]:
    """Let convolutions and matrix products within take their inputs in a format; weights and sums of products stay
    float32.

    bfloat16 has the range of float32 and 8 bits of precision, so neither loss nor gradient needs scaling. It is faster
    where the processor multiplies in it (AVX-512 BF16, AMX, CUDA from compute capability 8) and slower where it does
    not.

    Args:
        device: On which the network runs.
        precision: ``float32`` changes nothing.

    Returns:
        A context for the forward pass; the backward pass follows it.
    """
    if precision == "float32":
        return nullcontext()
    return torch.autocast(device.type, dtype=torch.bfloat16)


def fastest_precision(device: torch.device) -> tuple[PrecisionName, str]:
    """The number format that a device multiplies fastest in, by what it says of itself, and the reason.

    The same device always gets the same answer: a measured one would change from run to run, and the bits with it.
    """
    if device.type == "cuda":
        capability = torch.cuda.get_device_capability(device)
        has_it = capability >= (8, 0)
        words = f"CUDA capability {capability[0]}.{capability[1]} {'multiplies' if has_it else 'does not multiply'}"
    else:
        # the one question there is; the version of torch is pinned
        has_it = bool(torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported())
        words = "the processor multiplies" if has_it else "the processor does not multiply"
    return ("bfloat16" if has_it else "float32"), f"{words} in bfloat16"
