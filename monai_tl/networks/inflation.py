"""Convolution kernels of 2-D networks brought to 3-D."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

InflationMode = Literal["centre", "average"]
Convolution = nn.Conv3d | nn.ConvTranspose3d


def tap_weights(module: Convolution, mode: InflationMode = "centre") -> Tensor:
    """How a 2-D kernel is dealt out along the new axis K of a 3-D one.

    An ordinary convolution adds up its taps along K, so they share a weight of 1. A transposed one with stride s gives
    each output slice the taps of one residue modulo s, so each residue shares a weight of 1. Either way a volume that
    is constant along K gets the 2-D response.

    ``centre`` uses only taps that never read beyond the volume, so this holds at the first and last slice too, and for
    a whole network: an ordinary convolution takes those from ``padding`` to ``k − 1 − padding`` (the middle tap of an
    odd kernel that keeps the size; all taps of one without padding), a transposed one those from ``padding`` to
    ``padding + s − 1`` (each output slice copies the slice below it). Where there is none, and in mode ``average``, all
    taps share alike, and slices near the border see zeros.

    Returns:
        (k,) float64.

    References:
        Carreira and Zisserman 2017, doi:10.1109/CVPR.2017.502 (average).
    """
    size, spread = module.kernel_size[-1], module.dilation[-1]
    offsets = torch.arange(size) * spread
    if isinstance(module, nn.ConvTranspose3d):
        stride, padding = module.stride[-1], int(module.padding[-1])
        inside = (offsets >= padding) & (offsets < padding + stride)
        residues = offsets % stride
    else:
        reach = spread * (size - 1)
        named = {"same": reach // 2, "valid": 0}
        before = named[module.padding] if isinstance(module.padding, str) else int(module.padding[-1])
        inside = (offsets >= before) & (offsets <= reach - before)
        residues = torch.zeros_like(offsets)
    weights = torch.zeros(size, dtype=torch.float64)
    for residue in set(residues.tolist()):
        members = residues == residue
        chosen = members & inside if mode == "centre" and bool((members & inside).any()) else members
        weights[chosen] = 1.0 / int(chosen.sum())
    return weights


def inflate_kernel(kernel: Tensor, module: Convolution, mode: InflationMode = "centre") -> Tensor:
    """Bring a 2-D kernel to 3-D along the last axis, K; see ``tap_weights``.

    Args:
        kernel: (a, b, kI, kJ), of a 2-D convolution of the same sort as ``module``.
        module: The 3-D convolution that it is for; the first two kernel extents must agree.
        mode: Which taps carry the kernel.

    Returns:
        (a, b, kI, kJ, kK).
    """
    return kernel.unsqueeze(-1) * tap_weights(module, mode).to(kernel.dtype)
