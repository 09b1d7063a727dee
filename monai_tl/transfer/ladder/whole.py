"""Everything trains from the first step."""

from __future__ import annotations

from monai_tl.transfer.ladder.ground import Ground
from monai_tl.transfer.phases import Strategy, Trained


def full(ground: Ground) -> Strategy:
    """All groups at one rate, from the source's weights."""
    return Strategy("full", (ground.rest("all", 0, [Trained(group) for group in ground.groups]),))


def scratch(ground: Ground) -> Strategy:
    """The same, from fresh weights: it differs only in what the network starts from."""
    return Strategy("scratch", full(ground).phases)
