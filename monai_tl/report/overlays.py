"""Pictures of single cases: three planes of the image with the outlines of reference and predictions.

The image is a PNG, the outlines are vectors in millimetres above it: sharp at any size, and each can be switched off.
"""

from __future__ import annotations

import base64
import io
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from monai_tl.config import IntensityConfig
from monai_tl.geometry import Spacing, Volume
from monai_tl.metrics.cohort import ArmResult
from monai_tl.report.viewer import SliceView, draw_slices

LabelMap = NDArray[np.uint8]
Window = tuple[float, float]
"""Stored values shown as black and as white."""

_MARGIN = 1.3
_MIN_SIDE_MM = 60.0
_MAX_GROWTH = 2.5
_PLANES = (("axial", 2, "R L A P"), ("coronal", 1, "R L S I"), ("sagittal", 0, "A P S I"))


@dataclass(frozen=True)
class Outline:
    """The boundary of one label map in one plane.

    Attributes:
        role: ``reference`` or the arm's name.
        path: SVG path data, mm from the top left of the picture.
    """

    role: str
    path: str


@dataclass(frozen=True)
class Picture:
    """One plane of one case; x to the right and y down, in mm; radiological view (the patient's right is left).

    Attributes:
        side_mm: Of the square that is shown.
        image: data URI of a PNG.
        left_mm, top_mm, width_mm, height_mm: Where the PNG lies.
        edges: Anatomical letters at the left, right, top and bottom.
    """

    plane: str
    side_mm: float
    image: str
    left_mm: float
    top_mm: float
    width_mm: float
    height_mm: float
    edges: tuple[str, ...]
    outlines: tuple[Outline, ...]


@dataclass(frozen=True)
class Overlay:
    """A case shown in three planes.

    Attributes:
        title: Why it is shown, e.g. ``Worst case``.
        dice: Arm → mean foreground Dice of the case; NaN where undefined.
        slices: The case to look through, with the first arm's prediction.
    """

    title: str
    case_id: str
    dice: dict[str, float]
    pictures: tuple[Picture, ...]
    slices: SliceView | None = None


def choose_cases(arm: ArmResult) -> list[tuple[str, str]]:
    """Title and case id of the worst, the median and the best case by mean foreground Dice.

    Cases without a prediction cannot be drawn and are not chosen. Ties go by case id; of an even number the lower
    middle is the median.
    """
    scored = [(case.mean("dice"), case.case_id) for case in arm.cases if not case.failed]
    ranked = [case_id for dice, case_id in sorted(scored) if not math.isnan(dice)]
    if len(ranked) < 3:
        return list(zip(["Worst case", "Best case"] if len(ranked) == 2 else ["The only case"], ranked, strict=False))
    return [
        ("Worst case", ranked[0]),
        ("Median case", ranked[(len(ranked) - 1) // 2]),
        ("Best case", ranked[-1]),
    ]


def display_window(image: Volume, intensity: IntensityConfig) -> Window:
    """Stored values to show as black and white: the plan's window, else the 1st and 99.5th percentile of the case."""
    if intensity.rule == "window" and intensity.low is not None and intensity.high is not None:
        return intensity.low, intensity.high
    low, high = np.percentile(image, [1.0, 99.5])
    return float(low), float(max(high, low + 1e-6))


def draw_planes(
    image: Volume, reference: LabelMap, predictions: Mapping[str, LabelMap], spacing_mm: Spacing, window: Window
) -> tuple[Picture, ...]:
    """Draw the axial, coronal and sagittal slice with the largest reference area.

    Args:
        image: (I, J, K) stored values, RAS+.
        reference: (I, J, K) uint8; where it is empty the first prediction that is not stands in for it.
        predictions: Arm → (I, J, K) uint8; the first decides with the reference what is shown.
        spacing_mm: Voxel size along I, J, K, mm.
        window: Values shown as black and white.
    """
    anchor, centre, side = _frame(reference, predictions, spacing_mm)
    roles = {"reference": reference, **predictions}
    pictures = []
    for plane, axis, letters in _PLANES:
        others = tuple(other for other in range(3) if other != axis)
        index = int(np.argmax(np.count_nonzero(anchor, axis=others)))
        steps, middle = [spacing_mm[other] for other in others], [centre[other] for other in others]
        sizes = [image.shape[other] for other in others]
        boxes = [_range(size, step, mid, side) for size, step, mid in zip(sizes, steps, middle, strict=True)]
        cut = _Cut(axis, index, boxes, steps, [mid - side / 2 for mid in middle], side)
        left, top = cut.place(0), cut.place(1)
        pictures.append(
            Picture(
                plane=plane,
                side_mm=side,
                image=_png(cut.take(image), window),
                left_mm=left[0],
                top_mm=top[0],
                width_mm=left[1],
                height_mm=top[1],
                edges=tuple(letters.split()),
                outlines=tuple(Outline(role, cut.outline(labels)) for role, labels in roles.items()),
            )
        )
    return tuple(pictures)


def look_through(
    image: Volume, reference: LabelMap, predictions: Mapping[str, LabelMap], spacing_mm: Spacing, window: Window
) -> SliceView:
    """The same part of the case for the viewer, with the first prediction; arguments as of ``draw_planes``."""
    _, centre, side = _frame(reference, predictions, spacing_mm)
    return draw_slices(image, reference, next(iter(predictions.values()), None), spacing_mm, centre, side, window)


def _frame(
    reference: LabelMap, predictions: Mapping[str, LabelMap], spacing_mm: Spacing
) -> tuple[LabelMap, list[float], float]:
    """The map that decides what is shown, and centre and side of a cube around it, mm."""
    maps = [reference, *predictions.values()]
    anchor = next((labels for labels in maps if labels.any()), np.ones_like(reference))
    centre, side = _view(anchor, maps[1] if len(maps) > 1 else anchor, spacing_mm)
    return anchor, centre, side


@dataclass(frozen=True)
class _Cut:
    """A window of one slice; both axes are turned round, so that right, anterior and superior come first."""

    axis: int
    index: int
    boxes: Sequence[tuple[int, int]]
    steps: Sequence[float]
    starts: Sequence[float]
    side: float

    def take(self, volume: Volume) -> Volume:
        """(rows, columns) of the window."""
        (first, last), (start, stop) = self.boxes
        part: Volume = np.take(volume, self.index, axis=self.axis)[first:last, start:stop]
        return part.T[::-1, ::-1]

    def place(self, which: int) -> tuple[float, float]:
        """Start and length of the voxels shown along x (0) or y (1), mm from the picture's edge."""
        (first, last), step = self.boxes[which], self.steps[which]
        return round(self.starts[which] + self.side - last * step, 2), round((last - first) * step, 2)

    def outline(self, labels: LabelMap) -> str:
        from skimage.measure import find_contours

        part = np.pad(self.take(labels), 1)
        (left, _), (top, _) = self.place(0), self.place(1)
        commands = []
        for value in np.unique(part[part > 0]):
            for contour in find_contours((part == value).astype(np.float32), 0.5):
                points = [
                    f"{left + (column - 0.5) * self.steps[0]:.1f} {top + (row - 0.5) * self.steps[1]:.1f}"
                    for row, column in contour[:-1]
                ]
                commands.append("M" + "L".join(points) + "Z")
        return "".join(commands)


def _view(anchor: LabelMap, prediction: LabelMap, spacing_mm: Spacing) -> tuple[list[float], float]:
    """Centre, mm, and side of a cube around reference and prediction; a far false positive does not blow it up."""
    low, high = _box_mm(anchor, spacing_mm)
    both = _box_mm((anchor > 0) | (prediction > 0), spacing_mm)
    side, wide = max(high - low), max(both[1] - both[0])
    if wide <= _MAX_GROWTH * side:
        (low, high), side = both, wide
    return list((low + high) / 2), round(max(side * _MARGIN, _MIN_SIDE_MM), 1)


def _box_mm(mask: Volume, spacing_mm: Spacing) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    ends = []
    for axis in range(3):
        there = np.flatnonzero(mask.any(axis=tuple(other for other in range(3) if other != axis)))
        ends.append((float(there[0]), float(there[-1] + 1)))
    low, high = np.array(ends).T * np.asarray(spacing_mm)
    return low, high


def _range(size: int, step: float, middle: float, side: float) -> tuple[int, int]:
    first = max(0, math.floor((middle - side / 2) / step))
    return first, min(size, math.ceil((middle + side / 2) / step))


def _png(part: Volume, window: Window) -> str:
    from PIL import Image

    low, high = window
    grey = np.clip((part.astype(np.float32) - low) / (high - low), 0.0, 1.0) * 255.0
    stream = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(grey.round().astype(np.uint8))).save(stream, format="PNG", optimize=True)
    return "data:image/png;base64," + base64.b64encode(stream.getvalue()).decode("ascii")
