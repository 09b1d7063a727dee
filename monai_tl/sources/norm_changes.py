"""Normalisation that differs between source and network: said where it is nearly the same, refused where it is not.

The rule. Trained scale and shift go over to any other normalisation that has them, and the audit calls it approximate:
mean and variance are then taken over something else. Refused is what would change the features without a word: running
statistics that the source does not have (fresh ones, 0 and 1, would not normalise at all), a trained scale or shift
without a place, a normalisation that one side does not have. Folding running statistics into scale and shift is exact
for a network in eval mode only, and is not done.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from torch import Tensor

from monai_tl.networks.layout import Layout
from monai_tl.networks.normalisation import STATISTICS, Normalisation, is_neutral
from monai_tl.sources.surgery import Line

_AFFINE = ("weight", "bias")


@dataclass(frozen=True)
class NormChanges:
    """What was found.

    Attributes:
        notes: Approximate changes.
        faults: Changes that must not pass.
    """

    notes: tuple[str, ...]
    faults: tuple[str, ...]


def _parent(name: str) -> str:
    return name.rpartition(".")[0]


class _Look:
    """Source and network side by side, in the network's names."""

    def __init__(
        self,
        lines: Sequence[Line],
        source_names: Mapping[str, str],
        state: Mapping[str, Tensor],
        layout: Layout,
        source_layout: Layout | None,
    ) -> None:
        self.lines = {line.name: line for line in lines}
        self.source = {name: state[origin] for name, origin in source_names.items()}
        self.here = layout.normalisations
        self.there = source_layout.normalisations if source_layout else None
        # ancestors of all parameters that came across
        self.came = {ancestor for line in lines if line.n_came for ancestor in ancestors(line.name)}
        self.parameters = [line.name for line in lines if line.n_parameters]

    def kind_there(self, layer: str) -> Normalisation | None:
        """What the source has in this place; None where it has nothing or nothing is known."""
        if self.there is not None and layer in self.there:
            return self.there[layer]
        affine = f"{layer}.weight" in self.source
        if all(f"{layer}.{leaf}" in self.source for leaf in STATISTICS):
            return Normalisation("batch", affine, True)
        return None

    def knows(self, layer: str) -> bool:
        """Whether the source holds any tensor of this layer."""
        return any(f"{layer}.{leaf}" in self.source for leaf in (*_AFFINE, *STATISTICS))

    def neighbours_came(self, layer: str) -> bool:
        """Whether parameters beside a layer, in the smallest block that has others, come from the source."""
        own = f"{layer}."
        for block in ancestors(layer):
            within = f"{block}." if block else ""
            if any(name.startswith(within) and not name.startswith(own) for name in self.parameters):
                return block in self.came
        return False


def ancestors(name: str) -> Iterable[str]:
    """Blocks around a layer or tensor, the smallest first; the network itself is ``""``."""
    while name:
        name = _parent(name)
        yield name


def find_norm_changes(
    lines: Sequence[Line],
    source_names: Mapping[str, str],
    state: Mapping[str, Tensor],
    layout: Layout,
    source_layout: Layout | None,
    on_purpose: frozenset[str],
) -> NormChanges:
    """Compare normalisation layer by layer, and mark scale and shift that went to another kind as adapted.

    Args:
        lines: Decided; those of changed layers are marked.
        source_names: Name as the network would have it → name in the source, for all of the source's tensors.
        state: The source's tensors.
        layout: Of the network.
        source_layout: Of the network that the card names; None where it is not known, and then only batch normalisation
            can be told from other kinds.
        on_purpose: Layer groups that stay fresh on purpose.
    """
    look = _Look(lines, source_names, state, layout, source_layout)
    groups = {_parent(line.name): line.group for line in lines}
    approximate: dict[str, int] = {}
    faults = []
    for layer, here in look.here.items():
        if groups.get(layer) in on_purpose:
            continue
        fault = _fault_of(look, layer, here)
        if fault:
            faults.append(f"{layer}: {fault}")
            continue
        change = _mark(look, layer, here)
        if change:
            approximate[change] = approximate.get(change, 0) + 1
    faults += _removed(look)
    notes = [f"approximate: {change} in {_layers(count)}" for change, count in approximate.items()]
    return NormChanges(tuple(notes), tuple(faults))


def _layers(count: int) -> str:
    return "1 layer" if count == 1 else f"{count} layers"


def _fault_of(look: _Look, layer: str, here: Normalisation) -> str:
    there = look.kind_there(layer)
    own = [line for name, line in look.lines.items() if _parent(name) == layer]
    came = any(line.n_came for line in own)
    if look.there is not None and there is None and look.neighbours_came(layer):
        return f"{here}, where the source does not normalise"
    lost = [line.name for line in own if line.name.rpartition(".")[2] in STATISTICS and line.value is None]
    if here.tracks and lost and (came or look.neighbours_came(layer)):
        return f"{here} needs running statistics, and the source has none for it"
    homeless = [leaf for leaf in _AFFINE if f"{layer}.{leaf}" in look.source and f"{layer}.{leaf}" not in look.lines]
    trained = [leaf for leaf in homeless if not is_neutral(leaf, look.source[f"{layer}.{leaf}"])]
    if trained and look.neighbours_came(layer):
        return f"{here}, so the source's trained scale and shift have no place"
    return ""


def _mark(look: _Look, layer: str, here: Normalisation) -> str:
    """The change in words, where there is one and the layer or its neighbours came across."""
    there = look.kind_there(layer)
    if there is None or (there.kind, there.n_groups) == (here.kind, here.n_groups):
        return ""
    if not (look.knows(layer) or look.neighbours_came(layer)):
        return ""
    change = f"{there} to {here}"
    for leaf in _AFFINE:
        line = look.lines.get(f"{layer}.{leaf}")
        if line is not None and line.status == "matched":
            line.status, line.detail = "adapted", f"{change}: approximate"
    return change


def _removed(look: _Look) -> list[str]:
    """Layers that normalise in the source and have no place in the network."""
    known = look.there if look.there is not None else {}
    tracked = [_parent(name) for name in look.source if name.rpartition(".")[2] == "running_mean"]
    blocks = {block for name in look.lines for block in ancestors(name)}
    # a whole branch that the network lacks, such as a copy of the weights, is none of its layers
    layers = [
        layer
        for layer in dict.fromkeys([*known, *tracked])
        if layer not in look.here and (next(block for block in ancestors(layer) if block in blocks) or "." not in layer)
    ]
    return [
        f"{layer}: normalises in the source, and nothing does here" for layer in layers if look.neighbours_came(layer)
    ]
