"""Training patches from memory-mapped arrays: which case comes when and what is cut where, by seed and number."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from monai_tl.dataset.augmentation import Image, Label, PresetName, augment, reading_size
from monai_tl.errors import DataError
from monai_tl.geometry import Shape, Spacing
from monai_tl.records import SizeRule

_ORDER, _SAMPLE, _PATIENT = 1, 2, 3
"""Streams of random numbers that must not touch: the order of cases, what happens to one sample, and to one
patch of a patient."""
_MAX_POSITIONS = 20_000
"""Foreground positions kept a class; more change nothing but the memory."""


@dataclass(frozen=True)
class TrainingCase:
    """A labelled case on the plan's grid.

    Attributes:
        image: (C, I, J, K), memory-mapped.
        label: (I, J, K) uint8, memory-mapped.
        foreground: For each class present, by value: flat indices into ``label``, ascending, thinned evenly.
    """

    case_id: str
    image: NDArray[np.floating]
    label: Label
    foreground: dict[int, NDArray[np.int64]]


def load_case(folder: Path, needs_label: bool = True) -> TrainingCase:
    """Open a folder of the preprocess stage; its voxels stay on disk.

    Args:
        folder: ``artifacts/prepared/<case_id>``.
        needs_label: False takes an empty label where there is none.

    Raises:
        DataError: Arrays are missing, damaged or on different grids.
    """
    case_id = folder.name
    try:
        image = np.load(folder / "image.npy", mmap_mode="r", allow_pickle=False)
        if not needs_label and not (folder / "label.npy").exists():
            return TrainingCase(case_id, image, np.zeros(image.shape[1:], dtype=np.uint8), {})
        label = np.load(folder / "label.npy", mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise DataError(
            f"case {case_id}: its prepared arrays cannot be read; run the preprocess stage again"
        ) from error
    if image.ndim != 4 or image.shape[1:] != label.shape:
        raise DataError(
            f"case {case_id}: image {image.shape} and label {label.shape} share no grid; run preprocess again"
        )
    return TrainingCase(case_id, image, label, find_foreground(label))


def find_foreground(label: Label) -> dict[int, NDArray[np.int64]]:
    """Flat indices of each class's voxels, at most ``_MAX_POSITIONS`` spread evenly over the class."""
    flat = np.ravel(label)
    inside = np.flatnonzero(flat)
    values = flat[inside]
    found: dict[int, NDArray[np.int64]] = {}
    for value in np.unique(values):
        positions = inside[values == value]
        n_kept = min(len(positions), _MAX_POSITIONS)
        found[int(value)] = positions[np.linspace(0, len(positions) - 1, n_kept).astype(np.int64)]
    return found


def cut(array: NDArray[np.generic], start: Sequence[int], size: Shape, padding: str) -> NDArray[np.generic]:
    """Copy a box that may reach beyond the array.

    Args:
        array: (..., I, J, K).
        start: First voxel of the box along I, J, K; may be negative.
        size: (I, J, K) of the box.
        padding: ``constant`` (zero) or ``edge`` for what lies outside.

    Returns:
        (..., *size), a new array.
    """
    lead = array.ndim - 3
    positions = [np.arange(begin, begin + length) for begin, length in zip(start, size, strict=True)]
    nearest = [np.clip(row, 0, full - 1) for row, full in zip(positions, array.shape[lead:], strict=True)]
    index: tuple[Any, ...] = (..., *(slice(row[0], row[-1] + 1) for row in nearest))
    box = np.array(array[index])
    for axis, (row, inside) in enumerate(zip(positions, nearest, strict=True), start=lead):
        outside = row != inside
        if outside.any():
            box = np.take(box, inside - inside[0], axis=axis)
            if padding != "edge":
                np.moveaxis(box, axis, 0)[outside] = 0
    return box


@dataclass(frozen=True)
class PatchSampler:
    """Makes any sample of a training run from its number alone: no state, so any sample can be made again.

    Attributes:
        cases: Training cases of the fold, in the order of the split.
        patch_size_vox: Size given to the network; fits ``size_rule``.
        foreground_fraction: Share of samples centred on a foreground voxel of a class drawn evenly.
    """

    cases: tuple[TrainingCase, ...]
    patch_size_vox: Shape
    size_rule: SizeRule
    spacing_mm: Spacing
    foreground_fraction: float
    augmentation: PresetName
    seed: int

    def case_of(self, sample: int) -> TrainingCase:
        """The case of sample number ``sample``; each epoch visits every case once in an order of (seed, epoch)."""
        epoch, position = divmod(sample, len(self.cases))
        order = np.random.default_rng([self.seed, _ORDER, epoch]).permutation(len(self.cases))
        return self.cases[int(order[position])]

    def make(self, sample: int) -> tuple[Image, Label]:
        """Sample number ``sample``: (C, *patch) float32 and (*patch) uint8, augmented."""
        return self._augment(*self.read(sample))

    def read(self, sample: int) -> tuple[Image, Label, np.random.Generator]:
        """What ``make`` changes: (C, *size) and (*size) of ``reading_size``, and the generator that says how."""
        return self._read(self.case_of(sample), np.random.default_rng([self.seed, _SAMPLE, sample]))

    def make_of(self, positions: Sequence[int], numbers: Sequence[int]) -> tuple[str, Image, Label]:
        """A sample of one of some cases, a function of the seed and the numbers given.

        Args:
            positions: Of the cases to draw from.
            numbers: What tells this sample from others.

        Returns:
            Case id, (C, *patch) float32, (*patch) uint8.
        """
        generator = np.random.default_rng([self.seed, _PATIENT, *numbers])
        case = self.cases[positions[int(generator.integers(len(positions)))]]
        image, label = self._augment(*self._read(case, generator))
        return case.case_id, image, label

    def _augment(self, image: Image, label: Label, generator: np.random.Generator) -> tuple[Image, Label]:
        return augment(image, label, self.patch_size_vox, self.spacing_mm, self.augmentation, generator)

    def _read(self, case: TrainingCase, generator: np.random.Generator) -> tuple[Image, Label, np.random.Generator]:
        size = reading_size(self.patch_size_vox, self.augmentation)
        start = self._place(case, size, generator)
        image = cut(case.image, start, size, self.size_rule.padding).astype(np.float32, copy=False)
        label = cut(case.label, start, size, "constant").astype(np.uint8, copy=False)
        return image, label, generator

    def _place(self, case: TrainingCase, size: Shape, generator: np.random.Generator) -> list[int]:
        """First voxel of the box to read, so that the patch in its middle holds what it should."""
        wants_foreground = generator.random() < self.foreground_fraction
        choice, shift = generator.random(2), generator.random(3)
        starts = []
        centre: list[int | None] = [None, None, None]
        if wants_foreground and case.foreground:
            classes = sorted(case.foreground)
            positions = case.foreground[classes[int(choice[0] * len(classes))]]
            voxel = np.unravel_index(int(positions[int(choice[1] * len(positions))]), case.label.shape)
            centre = [int(index) for index in voxel]
        for axis, patch in enumerate(self.patch_size_vox):
            room = case.label.shape[axis] - patch
            wanted = centre[axis]
            if room <= 0:
                # the whole case fits: near the middle, where inference puts it
                begin = -(-room // 2) + round((shift[axis] - 0.5) * -room / 2)
            elif wanted is None:
                begin = int(shift[axis] * (room + 1))
            else:
                # the voxel lies somewhere in the middle half of the patch
                begin = wanted - patch // 4 - int(shift[axis] * (patch - 2 * (patch // 4)))
                begin = min(max(begin, 0), room)
            starts.append(begin - (size[axis] - patch) // 2)
        return starts
