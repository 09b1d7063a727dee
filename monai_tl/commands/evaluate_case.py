"""One reference and its prediction, brought to one grid and scored."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
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
from monai_tl.metrics.case import ClassScore, Extent, score_case, with_penalty, worst_scores
from monai_tl.metrics.lesions import LesionScore, no_prediction, score_lesions

_NO_EXTENT = Extent(0.0, 0.0)
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
    tolerances_mm: tuple[float, ...]


@dataclass(frozen=True)
class Outcome:
    """What a worker found.

    Attributes:
        scores: None without a prediction: they depend on the other cases.
        reference_ml: Volume of each class in the reference.
        extent: Of the grid that holds both.
        is_cut: A SEG is among them, whose frames reach only as far as something is drawn.
        lesions: Class from 0 → its lesions.
        thickness_mm: Largest voxel size of the reference.
        fault: Why the pair cannot be scored; nothing else holds then.
    """

    scores: tuple[ClassScore, ...] | None = None
    reference_ml: tuple[float, ...] = ()
    extent: Extent = _NO_EXTENT
    is_cut: bool = False
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
        spacing_mm, values = spacing_of(reference.affine), range(1, len(task.scheme.classes) + 1)
        grid = _shared_grid(reference, prediction)
        lesions = {}
        for index in task.lesions:
            first = grid.place(reference, index + 1)
            lesions[index] = (
                no_prediction(first) if prediction is None else score_lesions(first, grid.place(prediction, index + 1))
            )
        scores = None if prediction is None else _score(reference, prediction, grid, task)
        voxel_ml = math.prod(spacing_mm) / 1000.0
        return Outcome(
            scores=scores,
            reference_ml=tuple(score.reference_ml for score in scores)
            if scores is not None
            else tuple(np.count_nonzero(reference.mask(value)) * voxel_ml for value in values),
            extent=Extent.of_grid(grid.shape, spacing_mm),
            is_cut=isinstance(reference, SegSide) or isinstance(prediction, SegSide),
            lesions=lesions,
            thickness_mm=max(spacing_mm),
        )
    except Exception as error:
        return Outcome(fault=describe_fault(error)[1])


def scores_together(outcomes: Sequence[Outcome]) -> list[tuple[ClassScore, ...]]:
    """The scores of each case, with one penalty for all that it depends on.

    A case without a prediction scores as the worst in the largest grid of all: its own may be small, and a SEG's grid
    holds no more planes than are drawn on, so a prediction far away would have scored worse than none. For the same
    reason an empty mask on a SEG's grid has the longest diagonal of all, and not its own.

    Args:
        outcomes: Of all cases, none with a fault.
    """
    extent = Extent.widest(outcome.extent for outcome in outcomes)
    found = []
    for outcome in outcomes:
        if outcome.scores is None:
            found.append(worst_scores(outcome.reference_ml, extent))
        elif outcome.is_cut:
            found.append(tuple(with_penalty(score, extent.diagonal_mm) for score in outcome.scores))
        else:
            found.append(outcome.scores)
    return found


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


@dataclass(frozen=True)
class _Grid:
    """The smallest grid that holds both; ``starts`` is where each side's first voxel lies in it."""

    shape: Shape
    starts: Mapping[int, tuple[int, int, int]]

    def place(self, side: Side, value: int) -> BoolVolume:
        """A class's mask."""
        if side.shape == self.shape:
            return side.mask(value)
        whole = np.zeros(self.shape, dtype=np.bool_)
        start = self.starts[id(side)]
        whole[tuple(slice(first, first + size) for first, size in zip(start, side.shape, strict=True))] = side.mask(
            value
        )
        return whole


def _score(reference: Side, prediction: Side, grid: _Grid, task: Task) -> tuple[ClassScore, ...]:
    n_classes, spacing_mm = len(task.scheme.classes), spacing_of(reference.affine)
    if isinstance(reference, NiftiSide) and isinstance(prediction, NiftiSide):
        return score_case(reference.label, prediction.label, n_classes, spacing_mm, task.tolerances_mm)
    # class by class, so that segments may overlap
    scores: list[ClassScore] = []
    for value in range(1, n_classes + 1):
        first, second = (grid.place(side, value).view(np.uint8) for side in (reference, prediction))
        scores += score_case(first, second, 1, spacing_mm, task.tolerances_mm[value - 1])
    return tuple(scores)


def _shared_grid(reference: Side, prediction: Side | None) -> _Grid:
    """The smallest grid that holds both; frames of a SEG reach only as far as something is drawn.

    Raises:
        GeometryError: Their voxels do not lie on one lattice; or two label maps do not lie on one grid.
    """
    if prediction is None:
        return _Grid(reference.shape, {})
    if isinstance(reference, NiftiSide) and isinstance(prediction, NiftiSide):
        if not same_grid(reference.affine, reference.shape, prediction.affine, prediction.shape):
            raise GeometryError(f"{_RESAMPLE} ({prediction.shape} voxels against {reference.shape})")
        return _Grid(reference.shape, {})
    step = _lattice_step(reference, prediction)
    low = [min(0, offset) for offset in step]
    i, j, k = (
        max(size, offset + other) - first
        for size, offset, other, first in zip(reference.shape, step, prediction.shape, low, strict=True)
    )
    starts = {id(reference): (-low[0], -low[1], -low[2])}
    starts[id(prediction)] = (step[0] - low[0], step[1] - low[1], step[2] - low[2])
    return _Grid((i, j, k), starts)


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
