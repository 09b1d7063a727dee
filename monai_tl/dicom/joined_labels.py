"""All label objects of one series as one label."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from monai_tl.dicom.drawing import Drawing, Labels, asked_for, draw_values
from monai_tl.dicom.geometry import SliceGeometry
from monai_tl.dicom.label_object import LabelObject
from monai_tl.dicom.rtstruct import RtstructDrawing, rtstruct_structures
from monai_tl.dicom.segmentation_reading import SegDrawing, seg_structures
from monai_tl.dicom.structures import Structure, check_count, names_only, scheme_of, values_of
from monai_tl.errors import LabelError, describe_fault
from monai_tl.labels import LabelScheme


@dataclass(frozen=True)
class RefusedLabel:
    """A label object that could not be used, and why."""

    label: LabelObject
    code: str
    reason: str


@dataclass(frozen=True)
class JoinedLabels:
    """What the label objects of a series draw together.

    Attributes:
        slices: (K, rows, columns) uint8 in slice order; None when no label object could be used.
        scheme: The classes of its values: as asked for, or else those found; None when nothing was found.
        used: The label objects in it.
        refused: The others.
        notes: On what was done.
    """

    slices: Labels | None
    scheme: LabelScheme | None
    used: tuple[LabelObject, ...] = ()
    refused: tuple[RefusedLabel, ...] = ()
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class _Opened:
    """A label object, and in which layer each of its structures lies; the higher layer is on top."""

    label: LabelObject
    drawing: Drawing
    layers: Mapping[int, int]


def read_structures(label: LabelObject) -> tuple[Structure, ...]:
    """What a label object names.

    Raises:
        LabelError: Code ``too_large``.
        DicomError: The file is damaged.
    """
    return rtstruct_structures(label.path) if label.kind == "RTSTRUCT" else seg_structures(label.path)


def join_labels(
    labels: Sequence[LabelObject], geometry: SliceGeometry, scheme: LabelScheme | None, words: Iterable[str]
) -> JoinedLabels:
    """Draw the label objects of a series over each other; a bad one is refused and the others go on.

    Where classes overlap the later one is on top. Without a scheme each structure is a class of its own (see
    ``monai_tl.dicom.structures.scheme_of``), and the one with fewer voxels is on top: a tumour lies in its organ.
    Where two objects draw the same class differently, and it shows, none is taken: which reader to believe is not for
    this pipeline to guess.

    Args:
        labels: Of one series.
        geometry: Its native slices.
        scheme: What to draw; None for everything.
        words: Words and numbers in the images' headers that identify somebody.
    """
    refused: list[RefusedLabel] = []
    opened: list[_Opened] = []
    for label in labels:
        try:
            drawing: Drawing = _open(label, geometry)
            # of everything that is drawn, to be put in order below
            layers = _each_its_own(drawing) if scheme is None else asked_for(drawing, scheme)
            opened.append(_Opened(label, drawing, layers))
        except Exception as error:
            refused.append(RefusedLabel(label, *describe_fault(error)))
    notes: list[str] = []
    if scheme is None:
        opened, found, order = _by_size(opened, words, refused)
        notes += ["each structure is a class; where two overlap the one with fewer voxels is on top"] if found else []
    else:
        found, order = scheme, tuple(range(1, len(scheme.classes) + 1))
    if found is None:
        return JoinedLabels(None, None, refused=tuple(refused))
    names = [found.names[value - 1] for value in order]
    joined, used = _draw(opened, geometry, names, refused, notes)
    shown = names_only(found) if scheme is None else found
    if joined is None:
        return JoinedLabels(None, shown, refused=tuple(refused))
    contested = _contested(used, joined, names)
    if contested:
        reason = f"label objects of one series draw {', '.join(contested)} differently; keep one of them"
        refused += [RefusedLabel(one.label, "contested_class", reason) for one in used]
        return JoinedLabels(None, shown, refused=tuple(refused))
    if scheme is None:
        table = np.array([0, *order], dtype=np.uint8)
        for plane in joined:
            plane[...] = table[plane]
    return JoinedLabels(joined, shown, tuple(one.label for one in used), tuple(refused), tuple(notes))


def _open(label: LabelObject, geometry: SliceGeometry) -> RtstructDrawing | SegDrawing:
    if label.kind == "RTSTRUCT":
        return RtstructDrawing(label.path, geometry, label.elsewhere)
    return SegDrawing(label.path, geometry)


def _each_its_own(drawing: Drawing) -> dict[int, int]:
    drawn = [one.number for one in drawing.structures if one.n_parts]
    check_count(len(drawn))
    return {number: layer for layer, number in enumerate(drawn, start=1)}


def _by_size(
    opened: Sequence[_Opened], words: Iterable[str], refused: list[RefusedLabel]
) -> tuple[list[_Opened], LabelScheme | None, tuple[int, ...]]:
    """The classes of everything that is drawn, and their values in the order of layers, the largest at the bottom."""
    sizes: list[tuple[_Opened, dict[int, float]]] = []
    for one in opened:
        try:
            counted = one.drawing.sizes(one.layers)
        except Exception as error:
            refused.append(RefusedLabel(one.label, *describe_fault(error)))
            continue
        sizes.append((one, {number: float(counted[layer]) for number, layer in one.layers.items()}))
    if not sizes:
        return [], None, ()
    structures = [found for one, _ in sizes for found in one.drawing.structures]
    known = frozenset(words).union(*(one.drawing.words for one, _ in sizes))
    try:
        scheme = scheme_of(structures, known)
    except LabelError as error:
        refused += [RefusedLabel(one.label, error.code, str(error)) for one, _ in sizes]
        return [], None, ()
    values = [values_of(one.drawing.structures, scheme, by_name_alone=True) for one, _ in sizes]
    totals: Counter[int] = Counter()
    for (_, counts), own in zip(sizes, values, strict=True):
        for number, count in counts.items():
            totals[own[number]] += int(count)
    order = tuple(sorted(range(1, len(scheme.classes) + 1), key=lambda value: (-totals[value], value)))
    layer_of = {value: layer for layer, value in enumerate(order, start=1)}
    placed = [
        _Opened(one.label, one.drawing, {number: layer_of[own[number]] for number in counts})
        for (one, counts), own in zip(sizes, values, strict=True)
    ]
    return placed, scheme, order


def _draw(
    opened: Sequence[_Opened],
    geometry: SliceGeometry,
    names: Sequence[str],
    refused: list[RefusedLabel],
    notes: list[str],
) -> tuple[Labels | None, list[_Opened]]:
    joined: Labels | None = None
    used: list[_Opened] = []
    for one in opened:
        try:
            drawn, remarks = draw_values(one.drawing, one.layers, names)
        except Exception as error:
            refused.append(RefusedLabel(one.label, *describe_fault(error)))
            continue
        joined = drawn if joined is None else np.maximum(joined, drawn, out=joined)
        used.append(one)
        notes += remarks
    return joined, used


def _contested(used: Sequence[_Opened], joined: Labels, names: Sequence[str]) -> list[str]:
    """Names of classes that two label objects draw differently where no later class of any of them lies over it.

    One reader's liver includes the tumour that another drew, or leaves it out: both say the same of the liver. What is
    shared is drawn again, one object at a time, so that many objects need no more memory than two.
    """
    owners = Counter(layer for one in used for layer in set(one.layers.values()))
    shared = {layer for layer, count in owners.items() if count > 1}
    digests: dict[int, set[bytes]] = {layer: set() for layer in shared}
    for one in used if shared else ():
        drawn, _ = one.drawing.draw(one.layers)
        for layer in shared & set(one.layers.values()):
            is_drawn, digest = False, hashlib.sha256()
            for mine, whole in zip(drawn, joined, strict=True):
                own = mine == layer
                is_drawn = is_drawn or bool(own.any())
                digest.update(np.packbits(own & (whole == layer)).tobytes())
            # who draws nothing of a class says nothing of it
            if is_drawn:
                digests[layer].add(digest.digest())
    return [names[layer - 1] for layer in sorted(shared) if len(digests[layer]) > 1]
