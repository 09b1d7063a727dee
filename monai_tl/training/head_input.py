"""Where the body ends: what goes into the head, and whether the head alone gives the network's output."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from typing import Any

import torch
from torch import Tensor, nn

from monai_tl.networks.groups import LayerGroup

TOLERANCE = 1e-6
"""Largest difference, in logits, taken for the same output."""


class _Reached(Exception):
    """The forward pass came to the head."""


def body_output(network: nn.Module, head: nn.Module, image: Tensor) -> Tensor | None:
    """What the body makes of an image; the head itself is not computed.

    Args:
        network: Its body is frozen, so the mode does not matter to it.
        head: A part of it.
        image: (B, C, I, J, K) on the network's device.

    Returns:
        (B, F, ...); None when the head takes anything but one tensor.
    """
    caught: list[Tensor] = []

    def catch(_: nn.Module, arguments: tuple[Any, ...], named: dict[str, Any]) -> None:
        if len(arguments) == 1 and not named and isinstance(arguments[0], Tensor):
            caught.append(arguments[0])
        raise _Reached

    handle = head.register_forward_pre_hook(catch, with_kwargs=True)
    try:
        with torch.no_grad(), suppress(_Reached):
            network(image)
    finally:
        handle.remove()
    return caught[0].detach() if caught else None


def find_head(network: nn.Module, groups: Sequence[LayerGroup], image: Tensor) -> nn.Module | None:
    """The module that gives the network's output from the body's; None when there is no such module.

    A head of several modules, one that is called twice or takes skip connections, or a network that goes on after its
    head has none. Tried on an image, not concluded from names.

    Args:
        network: Its mode is left as it was.
        groups: Its layer groups; the last one is the head.
        image: (B, C, I, J, K), any sample.
    """
    prefixes = groups[-1].prefixes
    modules = dict(network.named_modules())
    if len(prefixes) != 1 or prefixes[0] not in modules:
        return None
    head, was_training = modules[prefixes[0]], network.training
    network.eval()
    try:
        with torch.no_grad():
            features = body_output(network, head, image)
            if features is None:
                return None
            alone, whole = head(features), network(image)
    finally:
        network.train(was_training)
    agrees = isinstance(alone, Tensor) and isinstance(whole, Tensor) and alone.shape == whole.shape
    # a difference that is not a number is none that can be accepted
    return head if agrees and float((alone - whole).abs().max()) <= TOLERANCE else None
