"""Kinds of normalisation, and what becomes of trained values when the kind changes."""

from __future__ import annotations

from typing import Literal, NamedTuple

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.instancenorm import _InstanceNorm

NormKind = Literal["batch", "instance", "group", "layer"]
STATISTICS = ("running_mean", "running_var")


class Normalisation(NamedTuple):
    """A layer that normalises.

    Attributes:
        kind: What its mean and variance are taken over.
        affine: Whether it has a trained scale and shift.
        tracks: Whether it keeps running statistics.
        n_groups: Of group normalisation.
    """

    kind: NormKind
    affine: bool
    tracks: bool
    n_groups: int = 0

    def __str__(self) -> str:
        """In words, as the audit says it."""
        groups = f" of {self.n_groups} groups" if self.kind == "group" else ""
        return f"{self.kind} normalisation{groups}" + ("" if self.affine else " without scale and shift")


def normalisations_of(module: nn.Module) -> dict[str, Normalisation]:
    """Name of each normalising layer of a network → what it is."""
    found: dict[str, Normalisation] = {}
    for name, part in module.named_modules():
        if isinstance(part, _InstanceNorm):
            found[name] = Normalisation("instance", part.affine, part.track_running_stats)
        elif isinstance(part, _BatchNorm):
            found[name] = Normalisation("batch", part.affine, part.track_running_stats)
        elif isinstance(part, nn.GroupNorm):
            found[name] = Normalisation("group", part.affine, False, part.num_groups)
        elif isinstance(part, nn.LayerNorm):
            found[name] = Normalisation("layer", part.elementwise_affine, False)
    return found


def is_neutral(name: str, tensor: torch.Tensor) -> bool:
    """Whether a scale is all ones, or a shift or running mean all zeros: without it the layer does the same."""
    neutral = 1.0 if name in ("weight", "running_var") else 0.0
    return bool((tensor == neutral).all())
