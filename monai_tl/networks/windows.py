"""A network over a whole case, window by window."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import nn

from monai_tl.geometry import Shape
from monai_tl.networks.passes import Passing
from monai_tl.networks.slabs import Blend, Slab, stream_probabilities
from monai_tl.networks.slabs import Blending as Blending
from monai_tl.networks.tiling import exact_tiling
from monai_tl.records import SizeRule

WHOLE_CASE_FACTOR = 1.5
"""A case of at most this many patches' voxels is passed whole: less work than overlapping windows, and no seams."""


def network_size(shape: Sequence[int], rule: SizeRule) -> Shape:
    """Smallest size a network takes that holds ``shape``: at least the rule's minimum, multiples of its divisors.

    A network of one fixed size takes that, even where ``shape`` is larger: a window, never a whole case.
    """
    if rule.fixed:
        return rule.min_vox
    i, j, k = (
        -(-max(size, least) // divisor) * divisor
        for size, least, divisor in zip(shape, rule.min_vox, rule.divisors, strict=True)
    )
    return i, j, k


def window_size(spatial_shape: Sequence[int], patch_size_vox: Shape, rule: SizeRule) -> Shape:
    """Window for a case: the patch it was trained on, or the whole case where that is hardly larger.

    Args:
        spatial_shape: (I, J, K) of the case on the plan's grid.
        patch_size_vox: Of the plan.
        rule: Sizes the network accepts; both are enlarged to it.
    """
    patch = network_size(patch_size_vox, rule)
    whole = network_size([max(size, least) for size, least in zip(spatial_shape, patch, strict=True)], rule)
    return whole if math.prod(whole) <= WHOLE_CASE_FACTOR * math.prod(patch) else patch


def predict_probabilities(
    networks: Sequence[nn.Module],
    image: NDArray[Any],
    patch_size_vox: Shape,
    size_rule: SizeRule,
    overlap: float = 0.5,
    blending: Blending = "gaussian",
    batch_size: int = 1,
) -> NDArray[np.float32]:
    """Class probabilities of a case in float32, the mean over networks.

    A case hardly larger than the patch is one pass; see ``window_size``. One smaller than the
    window is padded as the size rule says, centred, and cut back.

    Args:
        networks: In eval mode, on one device.
        image: (C, I, J, K) on the plan's grid and intensity scale; may be memory-mapped.
        patch_size_vox: Window, enlarged to the size rule; see ``window_size``.
        size_rule: Sizes the networks accept.
        overlap: Share of a window that the next one covers again, 0 to below 1.
        blending: Weight of a window's voxels: ``gaussian`` trusts its middle more.
        batch_size: Windows a pass.

    Returns:
        (n_outputs, I, J, K), background first, summing to 1.
    """
    shape = _shape3(image.shape[1:])
    tiling = exact_tiling(shape, window_size(shape, patch_size_vox, size_rule), overlap)
    return collect_probabilities(
        stream_probabilities(Passing(networks), image, tiling, Blend(blending, batch_size, size_rule.padding)), shape
    )


def collect_probabilities(slabs: Iterable[Slab], shape: Shape) -> NDArray[np.float32]:
    """All slabs of a case in one array (n_outputs, I, J, K) float32."""
    result = np.empty((0,), dtype=np.float32)
    for slab in slabs:
        if slab.start == 0:
            result = np.empty((slab.values.shape[0], *shape), dtype=np.float32)
        planes = slice(slab.start, slab.start + slab.values.shape[1 + slab.axis])
        result[(slice(None), *[slice(None)] * slab.axis, planes)] = slab.values
    return result


def _shape3(values: Sequence[int]) -> Shape:
    i, j, k = (int(value) for value in values)
    return i, j, k
