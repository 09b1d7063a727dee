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
