"""DICOM SEG to a label map on the slices of its image series."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset

from monai_tl.dicom.geometry import SliceGeometry
from monai_tl.dicom.label_object import code_texts
from monai_tl.dicom.reading import dicom_faults, read_file
from monai_tl.errors import DicomError, LabelError
from monai_tl.geometry import resample_to_grid
from monai_tl.labels import LabelScheme

MAX_VOXELS = 1 << 31
"""Frames × rows × columns beyond this are refused before anything is allocated."""
_POSITION_TOLERANCE = 0.1
"""Of a slice's or pixel's size: a frame this close to a slice lies on it."""
_ANGLE_TOLERANCE = 1e-3
_SPACING_TOLERANCE = 1e-3
"""Of the spacing; over 512 pixels this is half a pixel, and positions are checked on their own."""

Labels = NDArray[np.uint8]
Vector = NDArray[np.float64]


@dataclass(frozen=True)
class _Frame:
    """Where one frame lies and, but in a LABELMAP, what it shows."""

    segment: int | None
    position_lps: Vector | None
    directions: Vector | None
    spacing_mm: Vector | None
    step_mm: float | None
    sources: tuple[str, ...]


@dataclass(frozen=True)
class _Content:
    """A SEG object in plain terms.

    Attributes:
        kind: ``BINARY``, ``FRACTIONAL`` or ``LABELMAP``.
        pixels: (F, rows, columns) as stored.
        threshold: Stored value from which a pixel is inside (BINARY and FRACTIONAL).
        segments: Number, label and codes of each segment.
    """

    kind: str
    pixels: NDArray[Any]
    threshold: float
    frames: tuple[_Frame, ...]
    segments: tuple[tuple[int, str, tuple[str, ...]], ...]
    frame_of_reference_uid: str
    series_uids: frozenset[str]


def read_segmentation(path: Path, reference: SliceGeometry, scheme: LabelScheme) -> tuple[Labels, tuple[str, ...]]:
    """Read a DICOM SEG onto the slices of an image series.

    A frame finds its slice by position, or by the instance it names when it gives no position. Frames left out are
    background. Where segments overlap the later class wins. Segments the scheme does not ask for are skipped. On
    another grid of the same frame of reference the label is resampled to the nearest neighbour.

    Args:
        path: BINARY, FRACTIONAL (half of the maximum and more is inside) or LABELMAP.
        reference: The image series.
        scheme: Which segments to take, by label or by code of type.

    Returns:
        (K, rows, columns) uint8 in slice order of ``reference``, and notes on what was done.

    Raises:
        LabelError: Codes ``frame_of_reference``, ``missing_series``, ``no_class``, ``frame_position``.
        DicomError: Codes ``not_seg``, ``too_large``, ``damaged``.
    """
    content = _read(path)
    _check_belongs(content, reference)
    values, skipped = _class_values(content, scheme)
    notes = [f"{skipped} segments are not asked for and were skipped"] if skipped else []
    slots = [_slice_of(frame, content.pixels.shape[1:], reference) for frame in content.frames]
    if all(slot is not None for slot in slots):
        found = [slot for slot in slots if slot is not None]
        labels = _assemble(content, values, found, reference.n_slices, notes)
    else:
        labels = _resample(content, values, reference, notes)
    return labels, tuple(notes)


def _read(path: Path) -> _Content:
    dataset, _ = read_file(path, with_pixels=True)
    with dicom_faults():
        kind = str(dataset.get("SegmentationType", ""))
        if kind not in ("BINARY", "FRACTIONAL", "LABELMAP") or not dataset.get("SegmentSequence"):
            raise DicomError("the file is no DICOM SEG with segments; export it again", "not_seg")
        n_frames = int(dataset.get("NumberOfFrames", 1))
        if n_frames < 1 or n_frames * int(dataset.Rows) * int(dataset.Columns) > MAX_VOXELS:
            raise DicomError(f"the SEG claims {n_frames} frames that do not fit in memory; it is damaged", "too_large")
        if len(dataset.PerFrameFunctionalGroupsSequence) != n_frames:
            raise DicomError("the SEG describes another number of frames than it holds; export it again", "damaged")
        return _Content(
            kind=kind,
            pixels=np.asarray(dataset.pixel_array).reshape(n_frames, int(dataset.Rows), int(dataset.Columns)),
            threshold=0.5 * float(dataset.MaximumFractionalValue) if kind == "FRACTIONAL" else 1.0,
            frames=tuple(_frame(dataset, item, kind) for item in dataset.PerFrameFunctionalGroupsSequence),
            segments=tuple(_segment(item) for item in dataset.SegmentSequence),
            frame_of_reference_uid=str(dataset.get("FrameOfReferenceUID") or ""),
            series_uids=frozenset(
                str(item.SeriesInstanceUID) for item in dataset.get("ReferencedSeriesSequence") or []
            ),
        )


def _segment(item: Dataset) -> tuple[int, str, tuple[str, ...]]:
    codes = code_texts(item.get("SegmentedPropertyTypeCodeSequence") or ())
    return int(item.SegmentNumber), str(item.get("SegmentLabel", "")), codes


def _frame(dataset: Dataset, item: Dataset, kind: str) -> _Frame:
    shared = (dataset.get("SharedFunctionalGroupsSequence") or [Dataset()])[0]

    def group(keyword: str) -> Dataset:
        return (item.get(keyword) or shared.get(keyword) or [Dataset()])[0]

    measures = group("PixelMeasuresSequence")
    step = measures.get("SpacingBetweenSlices")
    return _Frame(
        segment=None if kind == "LABELMAP" else int(group("SegmentIdentificationSequence").ReferencedSegmentNumber),
        position_lps=_vector(group("PlanePositionSequence").get("ImagePositionPatient"), 3),
        directions=_vector(group("PlaneOrientationSequence").get("ImageOrientationPatient"), 6),
        spacing_mm=_vector(measures.get("PixelSpacing"), 2),
        step_mm=None if step is None else float(step),
        sources=tuple(
            str(source.ReferencedSOPInstanceUID)
            for derivation in item.get("DerivationImageSequence") or []
            for source in derivation.get("SourceImageSequence") or []
        ),
    )


def _vector(values: Any, count: int) -> Vector | None:
    if values is None:
        return None
    vector = np.asarray([float(value) for value in values], dtype=np.float64)
    if vector.shape != (count,) or not np.isfinite(vector).all():
        raise DicomError("a frame of the SEG has a damaged position; export it again", "damaged")
    return vector


def _check_belongs(content: _Content, reference: SliceGeometry) -> None:
    frame = content.frame_of_reference_uid
    if frame and reference.frame_of_reference_uid and frame != reference.frame_of_reference_uid:
        raise LabelError(
            "the SEG lies in another frame of reference than the image; export it on this image", "frame_of_reference"
        )
    if content.series_uids and reference.series_instance_uid not in content.series_uids:
        raise LabelError("the SEG was drawn on another series; export it on this image", "missing_series")


def _class_values(content: _Content, scheme: LabelScheme) -> tuple[dict[int, int], int]:
    """Segment number → value in the scheme, and how many segments have none."""
    found = {number: scheme.value_of_structure(label, codes) for number, label, codes in content.segments}
    values = {number: value for number, value in found.items() if value is not None}
    if not values:
        raise LabelError(
            f"none of the {len(found)} segments of the SEG is one of {', '.join(scheme.names)}; "
            "add its label or code (SCHEME|VALUE) to ingest.classes",
            "no_class",
        )
    # segment 0 of a LABELMAP is its background
    return values, len(found) - len(values) - (0 in found and 0 not in values)


def _slice_of(frame: _Frame, shape: tuple[int, ...], reference: SliceGeometry) -> int | None:
    """The slice a frame lies on; None when it lies on none."""
    if shape != (reference.rows, reference.columns):
        return None
    if frame.position_lps is None:
        known = {uid: k for k, uid in enumerate(reference.sop_instance_uids)}
        return next((known[uid] for uid in frame.sources if uid in known), None)
    spacing = np.asarray(reference.pixel_spacing_mm)
    directions = np.concatenate([reference.row_direction, reference.column_direction])
    if frame.directions is not None and np.abs(frame.directions - directions).max() > _ANGLE_TOLERANCE:
        return None
    if frame.spacing_mm is not None and (np.abs(frame.spacing_mm - spacing) > _SPACING_TOLERANCE * spacing).any():
        return None
    offsets = reference.positions_lps - frame.position_lps
    k = int(np.argmin(np.abs(offsets @ reference.normal)))
    in_plane = max(
        abs(float(offsets[k] @ reference.row_direction)) / spacing[1],
        abs(float(offsets[k] @ reference.column_direction)) / spacing[0],
    )
    across = abs(float(offsets[k] @ reference.normal)) / reference.spacing_between_slices_mm
    return k if max(in_plane, across) <= _POSITION_TOLERANCE else None


def _assemble(content: _Content, values: dict[int, int], slots: list[int], n_slices: int, notes: list[str]) -> Labels:
    """Frames into a label map; frame f goes to slice ``slots[f]``."""
    labels = np.zeros((n_slices, *content.pixels.shape[1:]), dtype=np.uint8)
    n_overlapping = 0
    for frame, slot, pixels in zip(content.frames, slots, content.pixels, strict=True):
        if frame.segment is None:
            table = np.zeros(max(int(pixels.max()), *values) + 1, dtype=np.uint8)
            table[list(values)] = list(values.values())
            shown = table[pixels]
        else:
            shown = np.where(pixels >= content.threshold, values.get(frame.segment, 0), 0).astype(np.uint8)
        n_overlapping += int(((labels[slot] > 0) & (shown > 0) & (labels[slot] != shown)).sum())
        np.maximum(labels[slot], shown, out=labels[slot])
    if n_overlapping:
        notes.append(f"segments overlap in {n_overlapping} voxels; the later class won")
    return labels


def _resample(content: _Content, values: dict[int, int], reference: SliceGeometry, notes: list[str]) -> Labels:
    """A label on another regular grid of the same world, to the nearest neighbour."""
    first = content.frames[0]
    positions = [frame.position_lps for frame in content.frames if frame.position_lps is not None]
    if len(positions) < len(content.frames) or first.directions is None or first.spacing_mm is None:
        raise LabelError(
            "frames of the SEG lie on no slice of the image and do not say where; export it on this image",
            "frame_position",
        )
    same = all(
        frame.directions is not None and np.abs(frame.directions - first.directions).max() <= _ANGLE_TOLERANCE
        for frame in content.frames
    )
    normal = np.cross(first.directions[:3], first.directions[3:])
    depths = np.stack(positions) @ normal
    step = first.step_mm or _smallest_gap(depths) or reference.spacing_between_slices_mm
    exact = (depths - depths.min()) / step
    slots = np.rint(exact).astype(int)
    if not same or np.abs(exact - slots).max() > _POSITION_TOLERANCE:
        raise LabelError(
            "the SEG lies on slices that are not parallel and evenly spaced; export it on this image", "frame_position"
        )
    low, high = int(np.argmin(depths)), int(np.argmax(depths))
    n_slices = int(slots.max()) + 1
    affine = np.eye(4)
    affine[:3, 0] = first.directions[:3] * first.spacing_mm[1]
    affine[:3, 1] = first.directions[3:] * first.spacing_mm[0]
    affine[:3, 2] = normal * step if n_slices == 1 else (positions[high] - positions[low]) / (n_slices - 1)
    affine[:3, 3] = positions[low]
    labels = _assemble(content, values, slots.tolist(), n_slices, notes)
    # one empty voxel around it: half a voxel beyond its last centre still belongs to it
    padded, corner = np.pad(labels, 1), np.array([-1.0, -1.0, -1.0, 1.0])
    affine[:3, 3] = (affine @ corner)[:3]
    shape = (reference.columns, reference.rows, reference.n_slices)
    moved = resample_to_grid(padded.transpose(2, 1, 0), affine, reference.affine_lps, shape, order=0)
    notes.append("the SEG lies on another grid; resampled to the nearest neighbour")
    return np.ascontiguousarray(moved.transpose(2, 1, 0))


def _smallest_gap(depths: Vector) -> float | None:
    gaps = np.diff(np.unique(np.round(depths, 4)))
    return float(gaps.min()) if gaps.size else None
