"""Everything trains, pulled back to where it started."""

from __future__ import annotations

from monai_tl.transfer.ladder.ground import Ground
from monai_tl.transfer.phases import Pull, Strategy, Trained


def l2_sp(ground: Ground) -> Strategy:
    """All groups at one rate; tensors of the body that came across are pulled to their pretrained values.

    The pull takes the place of weight decay for these tensors, and like it acts on the weights, not on the gradient:
    an adaptive optimiser would rescale a penalty in the gradient away (Loshchilov and Hutter 2019).

    References:
        Li et al. 2018, arXiv:1802.01483 (L2-SP); arXiv:1711.05101 (decoupled decay).
    """
    weight = ground.config.l2_sp_weight
    phases = ground.head_first("all", [Trained(group) for group in ground.groups])
    return Strategy("l2_sp", phases, pull=Pull(weight, ground.came_across), settings={"l2_sp_weight": weight})
