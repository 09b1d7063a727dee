"""What a label object draws on the native slices of a series, whatever kind of object it is."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from monai_tl.dicom.geometry import SliceGeometry
from monai_tl.dicom.structures import Structure, values_of
from monai_tl.errors import LabelError
from monai_tl.labels import LabelScheme

Labels = NDArray[np.uint8]
"""(K, rows, columns) in slice order; 0 is background."""


@dataclass(frozen=True)
class Patch:
    """Pixels of one slice that are drawn.

    Attributes:
        slice_index: From 0.
        pixels: (N,) indices into the slice as one row of pixels, each once.
        values: Of all of them, or (N,) one for each; never 0.
    """

    slice_index: int
    pixels: NDArray[np.intp]
    values: int | NDArray[np.uint8]


class Drawing(Protocol):
    """A label object that belongs to a series."""

    @property
    def kind(self) -> str:
        """``RTSTRUCT`` or ``SEG``."""

    @property
    def structures(self) -> tuple[Structure, ...]:
        """What it names, drawn or not."""

    @property
    def words(self) -> frozenset[str]:
        """Words in it that identify somebody."""

    def draw(self, values: Mapping[int, int]) -> tuple[Labels, tuple[str, ...]]:
        """Draw structures; where two overlap the higher value wins.

        Args:
            values: Number of each structure wanted → its value.

        Returns:
            The label and notes; these hold nothing that was read as text.

        Raises:
            LabelError: Nothing of it can be drawn on these slices.
            DicomError: The file is damaged.
        """

    def sizes(self, values: Mapping[int, int]) -> NDArray[np.float64]:
        """(256,) voxels of each value, before any other is laid over it.

        Raises:
            LabelError: As ``draw``.
            DicomError: The file is damaged.
        """


def compose(patches: Iterable[Patch], shape: tuple[int, int, int]) -> tuple[Labels, int]:
    """Lay patches over each other, the higher value on top.

    Returns:
        The label, and in how many voxels different values met.
    """
    labels = np.zeros(shape, dtype=np.uint8)
    n_overlapping = 0
    for patch in patches:
        plane = labels[patch.slice_index].reshape(-1)
        below = plane[patch.pixels]
        n_overlapping += int(np.count_nonzero((below != 0) & (below != patch.values)))
        plane[patch.pixels] = np.maximum(below, np.asarray(patch.values, dtype=np.uint8))
    return labels, n_overlapping


def count_voxels(patches: Iterable[Patch]) -> NDArray[np.float64]:
    """(256,) voxels of each value."""
    counts = np.zeros(256)
    for patch in patches:
        if isinstance(patch.values, int):
            counts[patch.values] += len(patch.pixels)
        else:
            counts += np.bincount(patch.values, minlength=256)
    return counts


def overlap_notes(n_overlapping: int, kind: str) -> tuple[str, ...]:
    """The note on structures that overlap."""
    return (f"{kind}: structures overlap in {n_overlapping} voxels; the one on top counts",) if n_overlapping else ()


def draw_scheme(drawing: Drawing, scheme: LabelScheme) -> tuple[Labels, tuple[str, ...]]:
    """Draw what a scheme asks for; where classes overlap the later one is on top.

    Raises:
        LabelError: Code ``no_class`` when that is nothing; and see ``Drawing.draw``.
        DicomError: The file is damaged.
    """
    return draw_values(drawing, asked_for(drawing, scheme), scheme.names)


def asked_for(drawing: Drawing, scheme: LabelScheme) -> dict[int, int]:
    """Number of each structure that a scheme asks for → its value.

    Raises:
        LabelError: Code ``no_class`` when there is none.
    """
    values = values_of(drawing.structures, scheme)
    if not values:
        raise LabelError(
            f"none of the {len(drawing.structures)} structures of the {drawing.kind} is one of the classes; list their "
            "names or codes (SCHEME|VALUE) with the classes",
            "no_class",
        )
    return values


def draw_values(drawing: Drawing, values: Mapping[int, int], names: Sequence[str]) -> tuple[Labels, tuple[str, ...]]:
    """Draw structures by value, and note the classes of those that are named but not drawn.

    Args:
        drawing: Any.
        values: Number of each structure → its value.
        names: What value 1, 2, … is called in notes.

    Raises:
        LabelError: See ``Drawing.draw``.
        DicomError: The file is damaged.
    """
    labels, notes = drawing.draw(values)
    undrawn = [values[one.number] for one in drawing.structures if one.number in values and not one.n_parts]
    part = "outline" if drawing.kind == "RTSTRUCT" else "frame"
    # by class: the structure's own name is free text
    missing = [
        f"{drawing.kind}: {undrawn.count(value)} of the structures of class {names[value - 1]} have no {part}"
        for value in sorted(set(undrawn))
    ]
    return labels, (*notes, *missing)


def shape_of(geometry: SliceGeometry) -> tuple[int, int, int]:
    """(K, rows, columns)."""
    return geometry.n_slices, geometry.rows, geometry.columns
