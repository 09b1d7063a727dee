"""One reference and its prediction, brought to one grid and scored."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from monai_tl.commands.evaluate_files import LabelFile, Pair
from monai_tl.dataset.nifti import read_label
from monai_tl.dicom.segmentation_alone import LoneSegmentation, open_alone
from monai_tl.dicom.structures import values_of
from monai_tl.errors import GeometryError, LabelError, describe_fault
from monai_tl.geometry import Affine, BoolVolume, Shape, grid_corners, same_grid, spacing_of
from monai_tl.labels import LabelScheme
from monai_tl.metrics.case import ClassScore, score_case, worst_scores
from monai_tl.metrics.lesions import LesionScore, no_prediction, score_lesions

_LATTICE_TOLERANCE = 0.1
"""Of a voxel."""
_RESAMPLE = (
    "the prediction lies on another grid than the reference; write it on the reference's grid with the program that "
    "made it: resampling here would count as the model's error"
)


@dataclass(frozen=True)
class Task:
    """A pair, for a worker process.

    Attributes:
        scheme: The classes; of NIfTI files by value, of SEG by name or code.
        by_name_alone: The scheme was made of the files' own names, in which no text is a code.
        lesions: Classes counted lesion by lesion, from 0.
    """

    pair: Pair
    scheme: LabelScheme
    by_name_alone: bool
    lesions: tuple[int, ...]
    tolerance_mm: float


@dataclass(frozen=True)
class Outcome:
    """What a worker found.

    Attributes:
        lesions: Class from 0 → its lesions.
        thickness_mm: Largest voxel size of the reference.
        fault: Why the pair cannot be scored; nothing else holds then.
    """

    scores: tuple[ClassScore, ...] = ()
    lesions: Mapping[int, LesionScore] | None = None
    thickness_mm: float = 0.0
    fault: str | None = None


@dataclass(frozen=True)
class NiftiSide:
    """A label map; ``label`` is (I, J, K) uint8 with class k at k + 1."""

    label: NDArray[np.uint8]
    affine: Affine

    @property
    def shape(self) -> Shape:
        """(I, J, K)."""
        return self.label.shape[0], self.label.shape[1], self.label.shape[2]

    def mask(self, value: int) -> BoolVolume:
        """Where a class is."""
        return np.asarray(self.label == value)


@dataclass(frozen=True)
class SegSide:
    """A SEG; ``numbers`` gives the segments of each class, which may overlap others."""

    content: LoneSegmentation
    numbers: Mapping[int, tuple[int, ...]]

    @property
    def affine(self) -> Affine:
        """Voxel → RAS mm."""
        return self.content.affine

    @property
    def shape(self) -> Shape:
        """(I, J, K)."""
        return self.content.shape

    def mask(self, value: int) -> BoolVolume:
        """Where a class is; nowhere when no segment is called so."""
        numbers = self.numbers.get(value, ())
        return self.content.mask(numbers) if numbers else np.zeros(self.shape, dtype=np.bool_)


Side = NiftiSide | SegSide
"""One label file on its grid."""


def score_pair(task: Task) -> Outcome:
    """Score each class of a pair; its own faults come back as text."""
    try:
        reference = _open(task.pair.reference, task)
        prediction = None if task.pair.prediction is None else _open(task.pair.prediction, task)
        if isinstance(reference, NiftiSide) and isinstance(prediction, NiftiSide | None):
            scores = _score_maps(reference, prediction, task)
        else:
            scores = _score_masks(reference, prediction, task)
        lesions = {}
        for index in task.lesions:
            first, second = _place(reference, prediction, index + 1)
            lesions[index] = no_prediction(first) if second is None else score_lesions(first, second)
        return Outcome(scores, lesions, max(spacing_of(reference.affine)))
    except Exception as error:
        return Outcome(fault=describe_fault(error)[1])


def _open(file: LabelFile, task: Task) -> Side:
    if file.kind == "seg":
        content = open_alone(file.path)
        found = values_of(content.structures, task.scheme, task.by_name_alone)
        numbers: dict[int, tuple[int, ...]] = {}
        for number, value in found.items():
            numbers[value] = (*numbers.get(value, ()), number)
        return SegSide(content, numbers)
    volume, affine = read_label(file.path)
    table = task.scheme.value_map()
    unknown = sorted(set(file.values) - set(table))
    if unknown:
        raise LabelError(f"holds the value {unknown[0]}, which is no class; list it with the classes")
    label = np.zeros(volume.shape, dtype=np.uint8)
    if volume.dtype == np.uint8:
        lookup = np.zeros(256, dtype=np.uint8)
        for value in file.values:
            lookup[value] = table[value]
        label = lookup[volume]
    else:
        for value in file.values:
            label[volume == value] = table[value]
    return NiftiSide(label, affine)


def _score_maps(reference: NiftiSide, prediction: NiftiSide | None, task: Task) -> tuple[ClassScore, ...]:
    n_classes, spacing_mm = len(task.scheme.classes), spacing_of(reference.affine)
    if prediction is None:
        return worst_scores(reference.label, n_classes, spacing_mm)
    if not same_grid(reference.affine, reference.shape, prediction.affine, prediction.shape):
        raise GeometryError(f"{_RESAMPLE} ({prediction.shape} voxels against {reference.shape})")
    return score_case(reference.label, prediction.label, n_classes, spacing_mm, task.tolerance_mm)


def _score_masks(reference: Side, prediction: Side | None, task: Task) -> tuple[ClassScore, ...]:
    """Class by class, so that segments may overlap."""
    spacing_mm = spacing_of(reference.affine)
    scores: list[ClassScore] = []
    for value in range(1, len(task.scheme.classes) + 1):
        first, second = _place(reference, prediction, value)
        if second is None:
            scores += worst_scores(first.view(np.uint8), 1, spacing_mm)
        else:
            scores += score_case(first.view(np.uint8), second.view(np.uint8), 1, spacing_mm, task.tolerance_mm)
    return tuple(scores)


def _place(reference: Side, prediction: Side | None, value: int) -> tuple[BoolVolume, BoolVolume | None]:
    """Both masks on the smallest grid that holds both; frames of a SEG reach only as far as something is drawn.

    Raises:
        GeometryError: Their voxels do not lie on one lattice.
    """
    if prediction is None:
        return reference.mask(value), None
    step = _lattice_step(reference, prediction)
    if step == (0, 0, 0) and reference.shape == prediction.shape:
        return reference.mask(value), prediction.mask(value)
    low = [min(0, offset) for offset in step]
    high = [
        max(size, offset + other) for size, offset, other in zip(reference.shape, step, prediction.shape, strict=True)
    ]
    shape = tuple(stop - start for start, stop in zip(low, high, strict=True))
    both = []
    for side, offsets in ((reference, (0, 0, 0)), (prediction, step)):
        whole = np.zeros(shape, dtype=np.bool_)
        box = tuple(
            slice(offset - start, offset - start + size)
            for offset, start, size in zip(offsets, low, side.shape, strict=True)
        )
        whole[box] = side.mask(value)
        both.append(whole)
    return both[0], both[1]


def _lattice_step(reference: Side, prediction: Side) -> tuple[int, int, int]:
    """Whole voxels from the reference's first voxel to the prediction's."""
    mapping = np.linalg.inv(reference.affine) @ prediction.affine
    offset = np.rint(mapping[:3, 3])
    corners = grid_corners(prediction.shape)
    apart = np.abs((corners @ mapping.T)[:, :3] - corners[:, :3] - offset)
    if float(apart.max()) > _LATTICE_TOLERANCE:
        raise GeometryError(_RESAMPLE)
    i, j, k = (int(value) for value in offset)
    return i, j, k
