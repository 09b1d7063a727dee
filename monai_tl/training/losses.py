"""The loss of segmentation: Dice and cross-entropy."""

from __future__ import annotations

from typing import cast

import torch
from monai.losses import DiceCELoss
from torch import Tensor, nn


class SegmentationLoss(nn.Module):
    """Soft Dice of the foreground classes plus cross-entropy, each sample for itself.

    Samples are not pooled (``batch=False``), so a sample's gradient does not depend on its neighbours in the batch. The
    reference goes in as one-hot: cross-entropy with class indices has no deterministic kernel on CUDA for volumes.

    Args:
        n_outputs: Channels of the logits, background first.

    References:
        Isensee et al. 2021, doi:10.1038/s41592-020-01008-z.
    """

    def __init__(self, n_outputs: int) -> None:
        super().__init__()
        self.n_outputs = n_outputs
        self.loss = DiceCELoss(include_background=False, softmax=True, batch=False)

    def forward(self, logits: Tensor, label: Tensor) -> Tensor:
        """Loss of a batch.

        Args:
            logits: (B, n_outputs, I, J, K).
            label: (B, I, J, K) integer values 0 to n_outputs - 1.

        Returns:
            Scalar; 0 for a certain and correct prediction.
        """
        values = torch.arange(self.n_outputs, device=label.device).view(1, -1, 1, 1, 1)
        reference = (label.unsqueeze(1) == values).to(logits.dtype)
        return cast("Tensor", self.loss(logits, reference))
