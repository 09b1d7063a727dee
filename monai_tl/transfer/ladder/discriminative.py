"""Rates that decay towards the input."""

from __future__ import annotations

from monai_tl.transfer.ladder.ground import Ground
from monai_tl.transfer.phases import Strategy, Trained


def discriminative(ground: Ground) -> Strategy:
    """All groups, each at ``learning_rate * layer_decay**(groups to the head)``; a fresh head first.

    Layers near the input see edges and textures that most images share, so they need to move least.
    Groups that are fresh know nothing to keep: their rate does not decay.

    References:
        Howard and Ruder 2018, arXiv:1801.06146; layer-wise decay as in Clark et al. 2020, arXiv:2003.10555.
    """
    decay, last = ground.config.layer_decay, len(ground.groups) - 1
    trained = [
        Trained(group, factor=1.0 if group in ground.fresh else decay ** (last - k))
        for k, group in enumerate(ground.groups)
    ]
    return Strategy("discriminative", ground.head_first("all", trained), settings={"layer_decay": decay})
