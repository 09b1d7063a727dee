"""RTSTRUCT outlines as a label on the native slices of their series."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset

from monai_tl.dicom.geometry import SliceGeometry
from monai_tl.dicom.label_object import code_texts, referenced_series
from monai_tl.dicom.polygons import fill_polygons
from monai_tl.dicom.reading import dicom_faults, read_file
from monai_tl.errors import LabelError
from monai_tl.labels import LabelScheme

_AREAS = frozenset(("CLOSED_PLANAR", "CLOSEDPLANAR_XOR"))
_TAGS = (
    "StructureSetROISequence", "ROIContourSequence", "RTROIObservationsSequence",
    "ReferencedFrameOfReferenceSequence", "FrameOfReferenceUID",
)  # fmt: skip
_SAME_PLANE_MM = 0.01


@dataclass
class _Counts:
    """What happened that the user should know."""

    not_areas: int = 0
    other_slice: int = 0
    foreign_frame: int = 0
    lost: int = 0
    shared_slices: int = 0
    skipped_slices: int = 0

    def notes(self) -> tuple[str, ...]:
        sentences = {
            "points or open lines are no areas and were left out": self.not_areas,
            "outlines name another slice than the one they lie in; position was followed": self.other_slice,
            "outlines name another frame of reference but the instances of this series; the instances were followed":
                self.foreign_frame,
            "outlines are so small that they hold no pixel centre": self.lost,
            "outline planes fell on a slice that has a nearer one and were left out": self.shared_slices,
            "slices between the outlines have none; they stay empty": self.skipped_slices,
        }  # fmt: skip
        return tuple(f"RTSTRUCT: {count} {sentence}" for sentence, count in sentences.items() if count)


@dataclass(frozen=True)
class _Plane:
    """Outlines of one structure in one plane."""

    distance_mm: float
    outlines: list[NDArray[np.float64]] = field(default_factory=list)


def read_rtstruct(
    path: Path, geometry: SliceGeometry, scheme: LabelScheme
) -> tuple[NDArray[np.uint8], tuple[str, ...]]:
    """Rasterise the structures that the scheme asks for.

    Slices are found by position: many exporters leave the image references out. Outlines in one plane are combined by
    the even-odd rule, so a hole is a hole. Where classes overlap the later one wins.

    Args:
        path: The RTSTRUCT file.
        geometry: Native slices of the series it refers to.
        scheme: Which structures become which value, by ROI name or by a code of the ROI's identification.

    Returns:
        (K, rows, columns) uint8 in slice order, and notes.

    Raises:
        LabelError: Codes ``no_class``, ``no_outline``, ``frame_of_reference``, ``missing_series``,
            ``missing_instance``, ``contour_position``, ``contour_plane``, ``damaged_contour``.
        DicomError: The file is damaged.
    """
    dataset, _ = read_file(path, _TAGS)
    with dicom_faults():
        return _rasterise(dataset, geometry, scheme)


def _rasterise(
    dataset: Dataset, geometry: SliceGeometry, scheme: LabelScheme
) -> tuple[NDArray[np.uint8], tuple[str, ...]]:
    _check_series(dataset, geometry)
    wanted = _wanted(dataset, scheme)
    label = np.zeros((geometry.n_slices, geometry.rows, geometry.columns), dtype=np.uint8)
    counts = _Counts()
    contours = {int(item.ReferencedROINumber): item for item in dataset.get("ROIContourSequence") or ()}
    empty: list[int] = []
    for number, value in sorted(wanted.items(), key=lambda entry: (entry[1], entry[0])):
        roi = contours.get(number, Dataset())
        planes = _planes(roi, _frame_of(dataset, number), geometry, counts)
        if not planes:
            empty.append(value)
        _draw(planes, value, label, geometry, counts)
    if len(empty) == len(wanted):
        # to train on it as background would teach that there is no such organ
        raise LabelError(
            f"none of the {len(wanted)} structures of the RTSTRUCT that are classes has a closed outline; finish the "
            "outlines and export it again, or remove it",
            "no_outline",
        )
    # by class: the structure's own name is free text
    missing = [f"RTSTRUCT: {empty.count(value)} of the structures of class {scheme.names[value - 1]} have no outline"
               for value in sorted(set(empty))]  # fmt: skip
    return label, (*counts.notes(), *missing)


def _check_series(dataset: Dataset, geometry: SliceGeometry) -> None:
    named = referenced_series(dataset)
    if named and geometry.series_instance_uid and geometry.series_instance_uid not in named:
        raise LabelError(
            "the RTSTRUCT refers to another image series; ingest it together with that series", "missing_series"
        )


def _wanted(dataset: Dataset, scheme: LabelScheme) -> dict[int, int]:
    """ROI number → label value, for the structures the scheme asks for."""
    rois = dataset.get("StructureSetROISequence") or ()
    codes: dict[int, tuple[str, ...]] = defaultdict(tuple)
    for item in dataset.get("RTROIObservationsSequence") or ():
        codes[int(item.ReferencedROINumber)] += code_texts(item.get("RTROIIdentificationCodeSequence") or ())
    found: dict[int, int] = {}
    for roi in rois:
        value = scheme.value_of_structure(str(roi.get("ROIName") or ""), codes[int(roi.ROINumber)])
        if value is not None:
            found[int(roi.ROINumber)] = value
    if not found:
        raise LabelError(
            f"none of the {len(rois)} structures of the RTSTRUCT is one of the classes; list their names or codes "
            "(SCHEME|VALUE) in ingest.classes",
            "no_class",
        )
    return found


def _frame_of(dataset: Dataset, number: int) -> str:
    for roi in dataset.StructureSetROISequence:
        if int(roi.ROINumber) == number:
            return str(roi.get("ReferencedFrameOfReferenceUID") or "")
    return ""


def _planes(roi: Dataset, frame: str, geometry: SliceGeometry, counts: _Counts) -> dict[int, list[_Plane]]:
    """Outlines of one structure by slice, and within a slice by their own plane."""
    found: dict[int, list[_Plane]] = defaultdict(list)
    is_foreign = bool(frame and geometry.frame_of_reference_uid and frame != geometry.frame_of_reference_uid)
    for points, named in _outlines(roi, counts):
        known = _known_instances(named, is_foreign, geometry)
        distances = points @ geometry.normal
        distance = float(distances.mean())
        index = _slice_at(distance, float(np.ptp(distances)), geometry)
        counts.foreign_frame += is_foreign
        counts.other_slice += bool(known) and geometry.sop_instance_uids[index] not in known
        for plane in found[index]:
            if abs(plane.distance_mm - distance) <= _SAME_PLANE_MM:
                plane.outlines.append(points)
                break
        else:
            found[index].append(_Plane(distance, [points]))
    return found


def _outlines(roi: Dataset, counts: _Counts) -> Iterator[tuple[NDArray[np.float64], frozenset[str]]]:
    """(N, 3) LPS mm of each area, and the SOPInstanceUIDs it names."""
    for contour in roi.get("ContourSequence") or ():
        points = np.array([float(number) for number in contour.get("ContourData") or ()], dtype=np.float64)
        if len(points) % 3 or not np.isfinite(points).all():
            raise LabelError("an outline of the RTSTRUCT is not a list of points; export it again", "damaged_contour")
        if str(contour.get("ContourGeometricType") or "CLOSED_PLANAR") not in _AREAS or len(points) < 9:
            counts.not_areas += 1
            continue
        images = contour.get("ContourImageSequence") or ()
        named = frozenset(str(image.get("ReferencedSOPInstanceUID") or "") for image in images) - {""}
        yield points.reshape(-1, 3), named


def _slice_at(distance: float, spread: float, geometry: SliceGeometry) -> int:
    """The slice nearest to a plane, within half a step."""
    half = geometry.spacing_between_slices_mm / 2
    if spread > half:
        raise LabelError(
            f"an outline of the RTSTRUCT is not parallel to the slices (it spans {spread:.1f} mm across them); "
            "export outlines in the image planes",
            "contour_plane",
        )
    offsets = np.abs(geometry.distances_mm - distance)
    index = int(np.argmin(offsets))
    if offsets[index] > half + 1e-3:
        raise LabelError(
            f"an outline of the RTSTRUCT lies {offsets[index]:.1f} mm from the nearest slice (half a step is "
            f"{half:.1f} mm); its images are missing or it belongs to another series",
            "contour_position",
        )
    return index


def _known_instances(named: frozenset[str], is_foreign: bool, geometry: SliceGeometry) -> frozenset[str]:
    """The instances of this series that an outline names; it must name no others, and some if its frame is foreign."""
    known = named & frozenset(geometry.sop_instance_uids)
    if named and not known:
        raise LabelError(
            "an outline of the RTSTRUCT names an image that is not in the series; "
            "add the missing images or export it again",
            "missing_instance",
        )
    if is_foreign and not known:
        raise LabelError(
            "the RTSTRUCT is drawn in another frame of reference than the images; register them or export it again",
            "frame_of_reference",
        )
    return known


def _draw(
    planes: dict[int, list[_Plane]], value: int, label: NDArray[np.uint8], geometry: SliceGeometry, counts: _Counts
) -> None:
    for index, candidates in planes.items():
        # two planes on one slice must not cut holes into each other: the nearer one counts
        candidates.sort(key=lambda plane: abs(plane.distance_mm - float(geometry.distances_mm[index])))
        counts.shared_slices += len(candidates) - 1
        polygons = [_to_pixels(points, index, geometry) for points in candidates[0].outlines]
        mask = fill_polygons(polygons, geometry.rows, geometry.columns)
        counts.lost += 0 if mask.any() else len(polygons)
        label[index][mask] = value
    if planes:
        counts.skipped_slices += max(planes) - min(planes) + 1 - len(planes)


def _to_pixels(points: NDArray[np.float64], index: int, geometry: SliceGeometry) -> NDArray[np.float64]:
    """(N, 2) of (column, row): from the slice's own first pixel, so a tilted stack needs no special care."""
    relative = points - geometry.positions_lps[index]
    column = relative @ geometry.row_direction / geometry.pixel_spacing_mm[1]
    row = relative @ geometry.column_direction / geometry.pixel_spacing_mm[0]
    return np.stack([column, row], axis=1)
