"""Only the scale and shift of normalisation layers train, and the head."""

from __future__ import annotations

from monai_tl.transfer.ladder.ground import Ground
from monai_tl.transfer.phases import Strategy


def norm_only(ground: Ground) -> Strategy:
    """Train the affine parameters of the body's normalisation layers and the head; a fresh head first.

    Running statistics stay the source's: batches of two patches would estimate them badly, and scale and shift can
    correct them.

    References:
        Frankle et al. 2021, arXiv:2003.00152; for segmentation with frozen features, Ben Zaken et al. 2022
        (arXiv:2106.10199) train biases in the same spirit.
    """
    return Strategy("norm_only", ground.head_first("norm", ground.in_part("norm")))
