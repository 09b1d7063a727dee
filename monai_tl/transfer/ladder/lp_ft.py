"""The head first, then everything."""

from __future__ import annotations

from monai_tl.transfer.ladder.ground import Ground
from monai_tl.transfer.phases import Strategy, Trained


def lp_ft(ground: Ground) -> Strategy:
    """Train the head for ``head_steps``, so that its gradients no longer distort the body, then all groups.

    The head goes first even where it came across whole: it fits the target's images before the body moves.

    References:
        Kumar et al. 2022, arXiv:2202.10054.
    """
    n_head = min(ground.config.head_steps, ground.config.max_steps - 1)
    everything = ground.rest("all", n_head, [Trained(group) for group in ground.groups])
    return Strategy("lp_ft", (*ground.head_alone(n_head), everything), settings={"head_steps": n_head})
