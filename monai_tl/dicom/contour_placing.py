"""The outlines of a structure on the slices of a series: which belong there, and where each one goes."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, fields
from typing import ClassVar

import numpy as np
from pydicom.dataset import Dataset

from monai_tl.dicom.areas import Remarks
from monai_tl.dicom.contour_planes import Reach, group_planes, planes_of_slices
from monai_tl.dicom.contours import Budget, Contour, Points, read_contours
from monai_tl.dicom.geometry import SliceGeometry
from monai_tl.dicom.polygons import Polygon, count_crossings
from monai_tl.errors import LabelError

MAX_CROSSINGS = 1 << 28
"""Of all edges with the rows of their slices; a large real RTSTRUCT has a tenth of it."""


@dataclass
class Counts(Remarks):
    """What happened that the user should know."""

    not_areas: int = 0
    other_slice: int = 0
    other_image: int = 0
    foreign_frame: int = 0
    other_frame: int = 0
    nearer: int = 0
    beyond: int = 0
    skipped_slices: int = 0

    _SENTENCES: ClassVar[Mapping[str, str]] = {
        "not_areas": "points or open lines are no areas and were left out",
        "repeated": "outlines are given twice; each counts once",
        "other_image": "outlines name images of another volume and were left out",
        "other_slice": "outlines name another slice than the one they lie in; position was followed",
        "foreign_frame": "outlines name another frame of reference but the instances of this series; the instances "
        "were followed",
        "other_frame": "structures are drawn in another frame of reference and were left out",
        "lost": "outlines are so small that they hold no pixel centre",
        "nearer": "outline planes fell on a slice that has a nearer one and were left out",
        "beyond": "outline planes lie beyond the first or the last slice and were cut off",
        "skipped_slices": "slices between the outlines have none; they stay empty",
    }

    def notes(self) -> tuple[str, ...]:
        """One sentence for each kind."""
        found = ((getattr(self, name), sentence) for name, sentence in self._SENTENCES.items())
        return tuple(f"RTSTRUCT: {count} {sentence}" for count, sentence in found if count)

    def add(self, others: Iterable[Counts]) -> Counts:
        """Self, with others added."""
        for other in others:
            for one in fields(self):
                setattr(self, one.name, getattr(self, one.name) + getattr(other, one.name))
        return self


@dataclass(frozen=True)
class PlacedOutlines:
    """The outlines that one slice takes of one structure, in its pixels."""

    slice_index: int
    polygons: tuple[Polygon, ...]
    is_xor: bool


@dataclass
class PlacedStructure:
    """One structure on the slices."""

    outlines: list[PlacedOutlines] = field(default_factory=list)
    counts: Counts = field(default_factory=Counts)


class Placing:
    """Places the structures of one RTSTRUCT.

    Args:
        geometry: Native slices of the series.
        reach: How far a plane reaches.
        elsewhere: SOPInstanceUIDs of other volumes that the RTSTRUCT may be drawn on as well.
    """

    def __init__(self, geometry: SliceGeometry, reach: Reach, elsewhere: frozenset[str]) -> None:
        self._geometry = geometry
        self._normal, self._distances = geometry.normal, geometry.distances_mm
        self._reach = reach
        self._elsewhere = elsewhere
        self._known = frozenset(geometry.sop_instance_uids)
        self._budget = Budget()
        self._crossings = 0

    def place(self, roi: Dataset, frame: str) -> PlacedStructure:
        """Place one structure.

        Args:
            roi: Its item of ROIContourSequence.
            frame: FrameOfReferenceUID it is drawn in; empty when it names none.

        Raises:
            LabelError: Codes ``contour_plane``, ``missing_instance``, ``frame_of_reference``, ``damaged_contour``,
                ``too_large``.
        """
        placed, geometry = PlacedStructure(), self._geometry
        contours = [one for one in self._areas(roi, placed.counts) if self._belongs(one, frame, placed.counts)]
        distances = np.array([self._distance(one.points) for one in contours])
        planes, groups = group_planes(distances, geometry)
        taken = planes_of_slices(planes, geometry, self._reach)
        for slice_index, plane in taken:
            outlines = [contours[index] for index in groups[plane]]
            polygons = tuple(self._to_pixels(one.points, slice_index) for one in outlines)
            placed.outlines.append(PlacedOutlines(slice_index, polygons, any(one.is_xor for one in outlines)))
        self._count(placed.counts, taken, planes, [[contours[index] for index in group] for group in groups])
        return placed

    def _areas(self, roi: Dataset, counts: Counts) -> Iterator[Contour]:
        for contour in read_contours(roi, self._budget):
            if contour is None:
                counts.not_areas += 1
                continue
            spread = float(np.ptp(contour.points @ self._normal))
            if spread > self._geometry.spacing_between_slices_mm / 2:
                raise LabelError(
                    f"an outline of the RTSTRUCT is not parallel to the slices (it spans {spread:.1f} mm across them); "
                    "export outlines in the image planes",
                    "contour_plane",
                )
            yield contour

    def _belongs(self, contour: Contour, frame: str, counts: Counts) -> bool:
        """Whether an outline was drawn on these slices, by the images and the frame of reference it names."""
        known = contour.images & self._known
        if contour.images and not known:
            if not contour.images <= self._elsewhere:
                raise LabelError(
                    "an outline of the RTSTRUCT names an image that is not in the series; "
                    "add the missing images or export it again",
                    "missing_instance",
                )
            counts.other_image += 1
            return False
        own = self._geometry.frame_of_reference_uid
        if not frame or not own or frame == own:
            return True
        if not known or not self._lies_on(contour, known):
            raise LabelError(
                "the RTSTRUCT is drawn in another frame of reference than the images; register them or export it again",
                "frame_of_reference",
            )
        counts.foreign_frame += 1
        return True

    def _lies_on(self, contour: Contour, known: frozenset[str]) -> bool:
        """Whether the slice that an outline names is where its points are."""
        geometry = self._geometry
        named = [index for index, uid in enumerate(geometry.sop_instance_uids) if uid in known]
        offsets = np.abs(self._distances[named] - self._distance(contour.points))
        return bool(offsets.min() <= geometry.spacing_between_slices_mm / 2)

    def _to_pixels(self, points: Points, index: int) -> Polygon:
        """(N, 2) of (column, row): from the slice's own first pixel, so a tilted stack needs no special care."""
        geometry = self._geometry
        relative = points - geometry.positions_lps[index]
        column = relative @ geometry.row_direction / geometry.pixel_spacing_mm[1]
        row = relative @ geometry.column_direction / geometry.pixel_spacing_mm[0]
        polygon = np.stack([column, row], axis=1)
        self._crossings += count_crossings(polygon, geometry.rows)
        if self._crossings > MAX_CROSSINGS:
            raise LabelError(
                f"the outlines of the RTSTRUCT cross the rows of the images more than {MAX_CROSSINGS} times; they are "
                "damaged, draw them again",
                "too_large",
            )
        return polygon

    def _count(self, counts: Counts, taken: list[tuple[int, int]], planes: Points, groups: list[list[Contour]]) -> None:
        uids, distances = self._geometry.sop_instance_uids, self._distances
        slices_of: dict[int, list[int]] = {}
        for slice_index, plane in taken:
            slices_of.setdefault(plane, []).append(slice_index)
        for plane, contours in enumerate(groups):
            own = frozenset(uids[index] for index in slices_of.get(plane, ()))
            if own:
                named = [one.images & self._known for one in contours]
                counts.other_slice += sum(bool(known) and not known & own for known in named)
            elif distances[0] <= planes[plane] <= distances[-1]:
                counts.nearer += 1
            else:
                counts.beyond += 1
        if taken:
            counts.skipped_slices += taken[-1][0] - taken[0][0] + 1 - len(taken)

    def _distance(self, points: Points) -> float:
        return float((points @ self._normal).mean())
