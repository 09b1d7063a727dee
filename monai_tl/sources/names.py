"""Tensor names of a source and of a network brought together: prefixes taken off or put on, second names resolved."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import NamedTuple

from torch import Tensor

_DEPTH = 4


class NameMatch(NamedTuple):
    """Which tensor of the source belongs to which of the network.

    Attributes:
        found: Name in the network → name in the source.
        unused: Names in the source without a place, in the source's order.
        notes: Prefixes that were taken off or put on.
    """

    found: dict[str, str]
    unused: tuple[str, ...]
    notes: tuple[str, ...]


def _leading_parts(names: Mapping[str, object]) -> set[str]:
    """All dotted beginnings, at most four deep: ``module.``, ``module.model.`` …"""
    parts = {""}
    for name in names:
        pieces = name.split(".")
        parts.update(".".join(pieces[:depth]) + "." for depth in range(1, min(_DEPTH, len(pieces) - 1) + 1))
    return parts


def _apply(source: Mapping[str, Tensor], off: str, on: str, second_names: Mapping[str, str]) -> dict[str, str]:
    """Name in the network → name in the source, for one choice of prefixes."""
    renamed: dict[str, str] = {}
    for name in source:
        if name.startswith(off):
            new = on + name[len(off) :]
            if new in second_names:
                renamed.setdefault(second_names[new], name)
            else:
                renamed[new] = name
    return renamed


def match_names(
    source: Mapping[str, Tensor], target: Mapping[str, tuple[int, ...]], second_names: Mapping[str, str]
) -> NameMatch:
    """Find the prefix change under which most parameters agree in name and shape.

    Training wrappers put ``module.``, ``_orig_mod.`` or ``model.`` before each name; without this, a load by name
    brings nothing.

    Args:
        source: The source's tensors.
        target: Name → shape in the network.
        second_names: Other names of the network's tensors → the one in ``target``.
    """

    def score(renamed: Mapping[str, str]) -> tuple[int, int]:
        agreeing = [name for name, origin in renamed.items() if target.get(name) == tuple(source[origin].shape)]
        return sum(math.prod(target[name]) for name in agreeing), sum(name in target for name in renamed)

    choices = sorted(
        {(off, "") for off in _leading_parts(source)} | {("", on) for on in _leading_parts(target)},
        key=lambda choice: (len(choice[0]) + len(choice[1]), choice),
    )
    # of equal choices the first, so the shortest change wins and no change is preferred
    off, on = max(choices, key=lambda choice: score(_apply(source, choice[0], choice[1], second_names)))
    renamed = _apply(source, off, on, second_names)
    found = {name: renamed[name] for name in target if name in renamed}
    doubles = {name for name in source if name.startswith(off) and on + name[len(off) :] in second_names}
    used = set(found.values()) | doubles
    notes = [f"prefix {off!r} taken off the source's names"] if off else []
    notes += [f"prefix {on!r} put before the source's names"] if on else []
    return NameMatch(found, tuple(name for name in source if name not in used), tuple(notes))
