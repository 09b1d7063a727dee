"""Low-rank updates of a frozen body."""

from __future__ import annotations

from monai_tl.transfer.ladder.ground import Ground
from monai_tl.transfer.phases import LowRank, Strategy


def lora(ground: Ground) -> Strategy:
    """Train the head and a low-rank update of each of the body's weights; a fresh head first.

    The body's own weights, biases, normalisation and its statistics stay. What is kept has the updates merged in, so
    the model is a plain network.

    References:
        Hu et al. 2022, arXiv:2106.09685.
    """
    config = ground.config
    settings = {"lora_rank": config.lora_rank, "lora_alpha": config.lora_alpha}
    low_rank = LowRank(config.lora_rank, config.lora_alpha)
    return Strategy(
        "lora", ground.head_first("low rank", ground.in_part("low_rank")), low_rank=low_rank, settings=settings
    )
