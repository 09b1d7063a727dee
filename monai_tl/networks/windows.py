"""A network over a whole case, window by window."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Literal, cast

import numpy as np
import torch
from monai.inferers.utils import sliding_window_inference
from numpy.typing import NDArray
from torch import Tensor, nn

from monai_tl.geometry import Shape
from monai_tl.records import SizeRule

Blending = Literal["gaussian", "constant"]
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
    """Class probabilities of a case, the mean over networks.

    A case smaller than the window is padded as the size rule says, centred, and cut back.

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
    device = next(networks[0].parameters()).device

    def mean_probabilities(windows: Tensor) -> Tensor:
        total = torch.softmax(networks[0](windows).float(), dim=1)
        for network in networks[1:]:
            total += torch.softmax(network(windows).float(), dim=1)
        return total.div_(len(networks))

    with torch.inference_mode():
        blended = sliding_window_inference(
            torch.from_numpy(np.array(image, dtype=np.float32))[None],
            roi_size=window_size(image.shape[1:], patch_size_vox, size_rule),
            sw_batch_size=batch_size,
            predictor=mean_probabilities,
            overlap=overlap,
            mode=blending,
            padding_mode="replicate" if size_rule.padding == "edge" else "constant",
            sw_device=device,
            # only windows go to the device; the sum stays in main memory, so a case may be larger than the device
            device=torch.device("cpu"),
        )
    return cast("NDArray[np.float32]", cast("Tensor", blended)[0].numpy())
