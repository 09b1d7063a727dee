"""Tensor names of a source and of a network brought together: wrappers' parts taken off or put on, twins resolved."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

import torch
from torch import Tensor

from monai_tl.errors import WeightsError

_DEPTH = 4
_ROUNDS = 4
_INSIDE = ("_orig_mod", "module", "_fsdp_wrapped_module", "_checkpoint_wrapped_module")
"""Parts that wrapping a layer (not the whole network) puts inside its tensors' names."""
_SUBTREE = 0.9
"""Of a subtree of the network, how much must agree before a prefix is exchanged for another."""
_AVERAGED = re.compile(r"(?:^|[._])ema(?:\d*)(?=[._]|$)")
"""A prefix that says averaged weights; ``ema`` within a word (``semantic``) says nothing."""


class NameMatch(NamedTuple):
    """Which tensor of the source belongs to which of the network.

    Attributes:
        found: Name in the network → name in the source.
        unused: Names in the source without a place, in the source's order.
        notes: What was taken off or put on.
        renamed: Name as the network would have it → name in the source, also of tensors without a place.
    """

    found: dict[str, str]
    unused: tuple[str, ...]
    notes: tuple[str, ...]
    renamed: dict[str, str]


class _Change(NamedTuple):
    """A prefix taken off and one put on."""

    off: str
    on: str

    def note(self, names: Mapping[str, str]) -> str:
        """What it does to these names, in words."""
        n_changed = sum(name.startswith(self.off) for name in names)
        whose = "the source's names" if n_changed == len(names) else f"{n_changed} of the source's names"
        if self.off and self.on:
            return f"prefix {self.off!r} of {whose} exchanged for {self.on!r}"
        return f"prefix {self.off!r} taken off {whose}" if self.off else f"prefix {self.on!r} put before {whose}"


@dataclass
class _Names:
    """Both sides, and how well a change brings them together."""

    source: Mapping[str, Tensor]
    target: Mapping[str, tuple[int, ...]]
    second_names: Mapping[str, str]
    clean: dict[str, str] = field(default_factory=dict)
    """Name without parts of inner wrappers → name in the source."""

    def apply(self, change: _Change) -> dict[str, str]:
        """Name in the network → name in the source."""
        renamed: dict[str, str] = {}
        for name, origin in self.clean.items():
            if name.startswith(change.off):
                new = change.on + name[len(change.off) :]
                if new in self.second_names:
                    renamed.setdefault(self.second_names[new], origin)
                else:
                    renamed[new] = origin
        return renamed

    def score(self, change: _Change) -> tuple[int, int]:
        """Parameters that agree in name and shape, then names that agree."""
        renamed = self.apply(change)
        sizes = [math.prod(shape) for name, shape in self.target.items() if self._agrees(name, renamed.get(name))]
        return sum(sizes), sum(name in self.target for name in renamed)

    def _agrees(self, name: str, origin: str | None) -> bool:
        return origin is not None and tuple(self.source[origin].shape) == self.target[name]

    def exchanges(self) -> list[_Change]:
        """Changes of one prefix for another under which nearly all of a sizeable subtree of the network agrees."""
        ends: dict[str, list[str]] = {}
        for name in self.clean:
            ends.setdefault(name.rpartition(".")[2], []).append(name)
        votes: dict[_Change, int] = {}
        for name, shape in self.target.items():
            for other in ends.get(name.rpartition(".")[2], ()):
                if tuple(self.source[self.clean[other]].shape) == shape:
                    change = _difference(other, name)
                    if change.off and change.on:
                        votes[change] = votes.get(change, 0) + math.prod(shape)
        total = sum(map(math.prod, self.target.values()))
        best = sorted(votes, key=lambda change: (-votes[change], change))[:20]
        return [change for change in best if 20 * votes[change] >= total and self._covers_subtree(change)]

    def _covers_subtree(self, change: _Change) -> bool:
        renamed = self.apply(change)
        below = [name for name in self.target if name.startswith(change.on)]
        return sum(self._agrees(name, renamed.get(name)) for name in below) >= _SUBTREE * len(below)

    def same_values(self, one: Mapping[str, str], other: Mapping[str, str]) -> bool:
        """Whether two choices bring the same numbers into the network."""
        places = [name for name in self.target if name in one or name in other]
        return all(
            name in one and name in other and _equal(self.source[one[name]], self.source[other[name]])
            for name in places
        )


def _equal(one: Tensor, other: Tensor) -> bool:
    return one is other or (one.dtype == other.dtype and torch.equal(one, other))


def _difference(source: str, target: str) -> _Change:
    """The prefixes left when the longest common end, in whole parts, is taken away."""
    here, there = source.split("."), target.split(".")
    n_same = 0
    while n_same < min(len(here), len(there)) and here[-1 - n_same] == there[-1 - n_same]:
        n_same += 1
    off, on = here[: len(here) - n_same], there[: len(there) - n_same]
    return _Change(".".join([*off, ""]), ".".join([*on, ""]))


def _leading_parts(names: Iterable[str]) -> set[str]:
    """All dotted beginnings, at most four deep: ``module.``, ``module.model.`` …"""
    parts = {""}
    for name in names:
        pieces = name.split(".")
        parts.update(".".join(pieces[:depth]) + "." for depth in range(1, min(_DEPTH, len(pieces) - 1) + 1))
    return parts


def _take_out_inner_parts(source: Mapping[str, Tensor], target: Iterable[str]) -> tuple[dict[str, str], list[str]]:
    """Names without what wrapping single layers put into them; what stands before all names is left to the prefixes.

    Returns:
        Clean name → name in the source, and notes.

    Raises:
        WeightsError: Two tensors would have the same name.
    """
    split = [name.split(".") for name in source]
    shared = 0
    while split and all(len(parts) > shared + 1 and parts[shared] == split[0][shared] for parts in split):
        shared += 1
    used = {part for name in target for part in name.split(".")}
    removable = [part for part in _INSIDE if part not in used]
    clean: dict[str, str] = {}
    changed: dict[str, int] = {}
    for name, parts in zip(source, split, strict=True):
        for part in set(parts[shared:-1]) & set(removable):
            changed[part] = changed.get(part, 0) + 1
        new = ".".join([*parts[:shared], *(part for part in parts[shared:-1] if part not in removable), parts[-1]])
        if new in clean:
            raise WeightsError(
                f"the source holds {clean[new]} and {name}, one of a wrapped layer and one not; keep the one to use"
            )
        clean[new] = name
    return clean, [f"{part + '.'!r} taken out of {count} names" for part, count in sorted(changed.items())]


def match_names(
    source: Mapping[str, Tensor], target: Mapping[str, tuple[int, ...]], second_names: Mapping[str, str]
) -> NameMatch:
    """Find the prefix change under which most parameters agree in name and shape.

    Training wrappers put ``module.``, ``_orig_mod.`` or ``model.`` before each name or inside it; without this, a load
    by name brings nothing. What one change leaves over is looked at again for prefixes that only part of the names has.

    Args:
        source: The source's tensors.
        target: Name → shape in the network.
        second_names: Other names of the network's tensors → the one in ``target``.

    Raises:
        WeightsError: Two changes bring equally much and different values, or a tensor that the network holds once is
            there twice with different values.
    """
    clean, notes = _take_out_inner_parts(source, [*target, *second_names])
    names = _Names(source, target, second_names, clean)
    change, remarks = _best_change(names)
    renamed = names.apply(change)
    if change.off or change.on:
        notes.append(change.note(names.clean))
    notes += remarks
    found = {name: renamed[name] for name in target if name in renamed}
    notes += _add_parts(names, found, renamed)
    twins = _twins(names, change, found)
    used = {*found.values(), *twins}
    return NameMatch(found, tuple(name for name in source if name not in used), tuple(notes), renamed)


def _best_change(names: _Names) -> tuple[_Change, list[str]]:
    plain = {_Change(off, "") for off in _leading_parts(names.clean)}
    plain |= {_Change("", on) for on in _leading_parts(names.target)}
    scores = {change: names.score(change) for change in plain}
    best = max(scores.values())
    exchanged = {change: names.score(change) for change in names.exchanges()}
    if exchanged and max(exchanged.values())[0] > best[0]:
        scores, best = exchanged, max(exchanged.values())
    # of equal choices the shortest change, and no change before all
    equal = sorted(
        (change for change, score in scores.items() if score == best),
        key=lambda change: (len(change.off) + len(change.on), change),
    )
    if best == (0, 0):
        return equal[0], []
    return _only_one(names, equal)


def _only_one(names: _Names, equal: list[_Change]) -> tuple[_Change, list[str]]:
    """One of several changes that bring equally much: averaged copies of the weights give way, others are refused."""
    first = names.apply(equal[0])
    rivals = [change for change in equal[1:] if not names.same_values(first, names.apply(change))]
    if not rivals:
        return equal[0], []
    choices = [equal[0], *rivals]
    raw = [change for change in choices if not _AVERAGED.search(change.off.casefold())]
    if len(raw) == 1:
        others = ", ".join(repr(change.off) for change in choices if change not in raw)
        return raw[0], [f"the averaged weights (EMA) under {others} were left; save them alone to use them"]
    listed = " and ".join(repr(change.off or change.on) for change in choices[:4])
    raise WeightsError(
        f"the source fits the network in two ways, by the prefixes {listed}, with different values; "
        "save the weights that are meant alone"
    )


def _add_parts(names: _Names, found: dict[str, str], renamed: dict[str, str]) -> list[str]:
    """Place what is left under prefixes that only part of the source's names has; complete copies are left alone."""
    notes = []
    for _ in range(_ROUNDS):
        taken = set(found.values())
        left = {name: origin for name, origin in names.clean.items() if origin not in taken}
        best: tuple[int, _Change, dict[str, str]] | None = None
        for off in sorted(_leading_parts(left)):
            rest = _Names(names.source, names.target, names.second_names, left).apply(_Change(off, ""))
            placed = {name: origin for name, origin in rest.items() if name in names.target}
            # names under this prefix that are taken already are a second copy of the weights, not a part of them
            if not placed or placed.keys() & found.keys():
                continue
            size = sum(math.prod(names.target[name]) for name in placed)
            if best is None or size > best[0]:
                best = size, _Change(off, ""), placed
        if best is None:
            break
        found.update(best[2])
        renamed.update(best[2])
        if best[1].off:
            notes.append(f"prefix {best[1].off!r} taken off {len(best[2])} of the source's names")
    return notes


def _twins(names: _Names, change: _Change, found: Mapping[str, str]) -> set[str]:
    """Names in the source that are second names of tensors already found.

    Raises:
        WeightsError: The two hold different values.
    """
    twins = set()
    for name, origin in names.clean.items():
        first = names.second_names.get(change.on + name[len(change.off) :]) if name.startswith(change.off) else None
        if first is not None:
            twins.add(origin)
            if not _equal(names.source[origin], names.source[found[first]]):
                raise WeightsError(
                    f"the source holds {found[first]} and {origin} with different values, which are one tensor in the "
                    "network; its network is another one"
                )
    return twins
