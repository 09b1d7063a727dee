"""RTSTRUCT outlines as a label on the native slices of their series."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset

from monai_tl.dicom.areas import fill_area
from monai_tl.dicom.contour_placing import Counts, PlacedStructure, Placing
from monai_tl.dicom.contour_planes import Reach, reach_of
from monai_tl.dicom.contours import Points, first_points
from monai_tl.dicom.drawing import Labels, Patch, compose, count_voxels, draw_scheme, overlap_notes, shape_of
from monai_tl.dicom.geometry import SliceGeometry
from monai_tl.dicom.identity import IDENTITY_TAGS
from monai_tl.dicom.label_object import code_texts, instances_of_others, referenced_series
from monai_tl.dicom.reading import dicom_faults, read_file
from monai_tl.dicom.structures import Structure, authors_words
from monai_tl.errors import LabelError
from monai_tl.labels import LabelScheme

MAX_FILE_BYTES = 512 << 20
_TAGS = (
    "StructureSetROISequence", "ROIContourSequence", "RTROIObservationsSequence",
    "ReferencedFrameOfReferenceSequence", "FrameOfReferenceUID", "ReviewerName", *IDENTITY_TAGS,
)  # fmt: skip


class RtstructDrawing:
    """The structures of an RTSTRUCT on the slices of a series; see ``monai_tl.dicom.drawing.Drawing``.

    Slices are found by position: many exporters leave the image references out, and others are wrong about them. A
    slice takes the outlines of the plane nearest to it; how far a plane reaches, and so what becomes of outlines
    between the slices, is said in ``monai_tl.dicom.contour_planes.reach_of``. How the outlines of one plane make
    an area is said in ``monai_tl.dicom.areas.fill_area``.

    Args:
        path: The RTSTRUCT file.
        geometry: Native slices of the series.
        elsewhere: SOPInstanceUIDs of the other volumes of the series; outlines drawn on these are left out.

    Raises:
        LabelError: Code ``missing_series`` or ``too_large``.
        DicomError: The file is damaged.
    """

    kind = "RTSTRUCT"

    def __init__(self, path: Path, geometry: SliceGeometry, elsewhere: frozenset[str] = frozenset()) -> None:
        self._dataset = _read(path)
        self._geometry = geometry
        self._elsewhere = elsewhere
        self._placed: dict[int, PlacedStructure | LabelError] = {}
        with dicom_faults():
            _check_series(self._dataset, geometry)
            self._rois = _contour_items(self._dataset)
            self._starts = {number: first_points(roi) for number, roi in self._rois.items()}
            self.structures = _structures(self._dataset, self._starts)
            self.words = authors_words(self._dataset)

    def draw(self, values: Mapping[int, int]) -> tuple[Labels, tuple[str, ...]]:
        """See ``monai_tl.dicom.drawing.Drawing.draw``.

        Raises:
            LabelError: Codes ``no_outline``, ``frame_of_reference``, ``missing_instance``, ``contour_position``,
                ``contour_plane``, ``damaged_contour``, ``too_large``.
            DicomError: The file is damaged.
        """
        with dicom_faults():
            placed = self._place(values)
            counts = Counts(other_frame=len(values) - len(placed)).add(one.counts for one in placed.values())
            labels, n_overlapping = compose(self._patches(placed, values, counts), shape_of(self._geometry))
        notes = [*counts.notes(), *overlap_notes(n_overlapping, self.kind)]
        if self._reach.planes_apart_mm is not None:
            notes.append(
                f"RTSTRUCT: outlines lie between the slices, {self._reach.planes_apart_mm:.2f} mm apart; each slice "
                f"took the nearest within {self._reach.half_mm:.2f} mm"
            )
        return labels, tuple(notes)

    def sizes(self, values: Mapping[int, int]) -> NDArray[np.float64]:
        """See ``monai_tl.dicom.drawing.Drawing.sizes``."""
        with dicom_faults():
            return count_voxels(self._patches(self._place(values), values, Counts()))

    def _place(self, values: Mapping[int, int]) -> dict[int, PlacedStructure]:
        """The structures asked for that are drawn in the frame of reference of the series; refused when there is none.

        Any other fault of one of them refuses them all.
        """
        found: dict[int, PlacedStructure] = {}
        elsewhere: LabelError | None = None
        for number in values:
            if number not in self._placed:
                self._placed[number] = self._place_one(number)
            placed = self._placed[number]
            if isinstance(placed, PlacedStructure):
                found[number] = placed
            elif placed.code == "frame_of_reference":
                elsewhere = placed
            else:
                raise placed
        if not any(one.outlines for one in found.values()):
            raise elsewhere or _nothing_drawn([one.counts for one in found.values()])
        return found

    def _place_one(self, number: int) -> PlacedStructure | LabelError:
        try:
            return self._placing.place(self._rois.get(number, Dataset()), self._frames.get(number, ""))
        except LabelError as error:
            return error

    def _patches(
        self, placed: Mapping[int, PlacedStructure], values: Mapping[int, int], counts: Counts
    ) -> Iterator[Patch]:
        rows, columns = self._geometry.rows, self._geometry.columns
        for number, structure in placed.items():
            for one in structure.outlines:
                area = fill_area(one.polygons, rows, columns, one.is_xor, counts)
                yield Patch(one.slice_index, np.flatnonzero(area), values[number])

    @cached_property
    def _reach(self) -> Reach:
        normal = self._geometry.normal
        return reach_of([points @ normal for points in self._starts.values()], self._geometry)

    @cached_property
    def _placing(self) -> Placing:
        others = instances_of_others(self._dataset, self._geometry.series_instance_uid)
        return Placing(self._geometry, self._reach, self._elsewhere | others)

    @cached_property
    def _frames(self) -> dict[int, str]:
        """Frame of reference of each structure; the only one listed where it names none."""
        items = self._dataset.get("ReferencedFrameOfReferenceSequence") or ()
        listed = {str(item.get("FrameOfReferenceUID") or "") for item in items} - {""}
        usual = listed.pop() if len(listed) == 1 else str(self._dataset.get("FrameOfReferenceUID") or "")
        return {
            int(roi.ROINumber): str(roi.get("ReferencedFrameOfReferenceUID") or "") or usual
            for roi in self._dataset.get("StructureSetROISequence") or ()
        }


def read_rtstruct(path: Path, geometry: SliceGeometry, scheme: LabelScheme) -> tuple[Labels, tuple[str, ...]]:
    """Rasterise the structures that a scheme asks for; see ``RtstructDrawing``.

    Args:
        path: The RTSTRUCT file.
        geometry: Native slices of the series it refers to.
        scheme: Which structures become which value, by ROI name or by a code of the ROI's identification.

    Returns:
        (K, rows, columns) uint8 in slice order, and notes.

    Raises:
        LabelError: Code ``no_class``, and those of ``RtstructDrawing`` and its ``draw``.
        DicomError: The file is damaged.
    """
    return draw_scheme(RtstructDrawing(path, geometry), scheme)


def rtstruct_structures(path: Path) -> tuple[Structure, ...]:
    """What an RTSTRUCT names.

    Raises:
        LabelError: Code ``too_large``.
        DicomError: The file is damaged.
    """
    dataset = _read(path)
    with dicom_faults():
        return _structures(dataset, {number: first_points(roi) for number, roi in _contour_items(dataset).items()})


def _read(path: Path) -> Dataset:
    with dicom_faults():
        n_bytes = path.stat().st_size
    if n_bytes > MAX_FILE_BYTES:
        raise LabelError(
            f"the RTSTRUCT has {n_bytes >> 20} MiB, and {MAX_FILE_BYTES >> 20} MiB are the most that is read; thin its "
            "outlines out and export it again",
            "too_large",
        )
    return read_file(path, _TAGS)[0]


def _contour_items(dataset: Dataset) -> dict[int, Dataset]:
    found: dict[int, Dataset] = {}
    for item in dataset.get("ROIContourSequence") or ():
        number = int(item.ReferencedROINumber)
        if number in found:
            raise LabelError(
                "two sets of outlines name one structure of the RTSTRUCT, and one of them must be another's; export it "
                "again",
                "damaged_contour",
            )
        found[number] = item
    return found


def _structures(dataset: Dataset, starts: Mapping[int, Points]) -> tuple[Structure, ...]:
    codes: dict[int, tuple[str, ...]] = defaultdict(tuple)
    for item in dataset.get("RTROIObservationsSequence") or ():
        codes[int(item.ReferencedROINumber)] += code_texts(item.get("RTROIIdentificationCodeSequence") or ())
    return tuple(
        Structure(
            number=(number := int(roi.ROINumber)),
            name=str(roi.get("ROIName") or ""),
            codes=codes[number],
            n_parts=len(starts.get(number, ())),
        )
        for roi in dataset.get("StructureSetROISequence") or ()
    )


def _check_series(dataset: Dataset, geometry: SliceGeometry) -> None:
    named = referenced_series(dataset)
    if named and geometry.series_instance_uid and geometry.series_instance_uid not in named:
        raise LabelError(
            "the RTSTRUCT refers to another image series; ingest it together with that series", "missing_series"
        )


def _nothing_drawn(counts: list[Counts]) -> LabelError:
    if any(one.other_image for one in counts):
        return LabelError(
            "the outlines of the RTSTRUCT name images that are not in the series; add the missing images",
            "missing_instance",
        )
    n_beyond = sum(one.beyond for one in counts)
    if n_beyond:
        return LabelError(
            f"the outlines of the RTSTRUCT lie on {n_beyond} planes, all beyond the first or the last slice; its "
            "images are missing or it belongs to another series",
            "contour_position",
        )
    # to train on it as background would teach that there is no such organ
    return LabelError(
        f"none of the {len(counts)} structures of the RTSTRUCT that are classes has a closed outline; finish the "
        "outlines and export it again, or remove it",
        "no_outline",
    )
