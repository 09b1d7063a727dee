"""A DICOM SEG in plain terms: its segments, where its frames lie, and their pixels, read one frame at a time."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset

from monai_tl.dicom.header import read_header
from monai_tl.dicom.label_object import code_texts, image_of
from monai_tl.dicom.pixels import read_pixels
from monai_tl.dicom.reading import DEFLATED, dicom_faults, inflate, read_file, scan_file
from monai_tl.dicom.scan import Bytes
from monai_tl.dicom.structures import Structure, authors_words
from monai_tl.errors import DicomError

MAX_VOXELS = 1 << 36
"""Frames × rows × columns beyond this are no SEG of this world; a hundred organs on a thousand slices are a third."""
MAX_FRAME_PIXELS = 1 << 26
"""Only one frame is in memory at a time."""

Vector = NDArray[np.float64]


@dataclass(frozen=True)
class Frame:
    """Where one frame lies and, but in a LABELMAP, what it shows.

    Attributes:
        sources: SOPInstanceUID and, of a multi-frame image, frame number from 1 of each image it was drawn on; only
            looked up where there is no position.
    """

    segment: int | None
    position_lps: Vector | None
    directions: Vector | None
    spacing_mm: Vector | None
    step_mm: float | None
    sources: tuple[tuple[str, int | None], ...]


@dataclass(frozen=True)
class Segmentation:
    """A SEG object.

    Attributes:
        kind: ``BINARY``, ``FRACTIONAL`` or ``LABELMAP``.
        threshold: Stored value from which a pixel is inside (BINARY and FRACTIONAL).
        segments: But the background of a LABELMAP.
        words: Words in it that identify somebody.
    """

    path: Path
    kind: str
    rows: int
    columns: int
    threshold: float
    frames: tuple[Frame, ...]
    segments: tuple[Structure, ...]
    frame_of_reference_uid: str
    series_uids: frozenset[str]
    words: frozenset[str]
    bits: int

    def read_frames(self, wanted: Sequence[int]) -> Iterator[tuple[int, NDArray[Any]]]:
        """The frames with these indices as (rows × columns,) arrays of stored values, in the order of the file.

        Raises:
            DicomError: Code ``damaged``, and those of ``monai_tl.dicom.pixels.read_pixels``.
        """
        with dicom_faults("the frames of the SEG cannot be read", "transfer it again"):
            scanned, meta = scan_file(self.path, frozenset())
            place = scanned.pixels
            if place is None or place.is_float:
                raise DicomError("the SEG has no pixel data; transfer it again", "damaged")
            if place.is_encapsulated or not scanned.is_little:
                yield from self._decoded(wanted)
            elif place.length < self._span(len(self.frames) - 1)[1]:
                raise DicomError("the pixel data of the SEG are cut off; transfer it again", "damaged")
            elif meta.transfer_syntax_uid == DEFLATED:
                yield from self._native(Bytes(inflate(self.path, meta)), place.offset, wanted)
            else:
                with self.path.open("rb") as stream:
                    yield from self._native(Bytes(stream.fileno()), place.offset, wanted)

    def _native(self, source: Bytes, offset: int, wanted: Sequence[int]) -> Iterator[tuple[int, NDArray[Any]]]:
        n_pixels = self.rows * self.columns
        for index in wanted:
            first, last = self._span(index)
            piece = np.frombuffer(source.take(offset + first, last - first), dtype=np.uint8)
            if self.bits == 1:
                skip = index * n_pixels - first * 8
                yield index, np.unpackbits(piece, bitorder="little")[skip : skip + n_pixels].view(np.bool_)
            else:
                yield index, piece.view(np.dtype(f"<u{self.bits // 8}"))

    def _decoded(self, wanted: Sequence[int]) -> Iterator[tuple[int, NDArray[Any]]]:
        if self.bits == 1:
            raise DicomError(
                "the frames of the SEG are single bits in a transfer syntax that cannot hold them; export it "
                "uncompressed",
                "undecodable_pixels",
            )
        header = read_header(self.path)
        headers = [replace(header, frame=index + 1) for index in wanted]
        for index, values in read_pixels(headers):
            yield wanted[index], values.reshape(-1)

    def _span(self, index: int) -> tuple[int, int]:
        """First byte of a frame, and the one after its last; frames of single bits follow each other without a gap."""
        bits = self.rows * self.columns * self.bits
        return index * bits // 8, ((index + 1) * bits + 7) // 8


def read_seg(path: Path) -> Segmentation:
    """Read what a SEG says of its segments and frames; the pixels are left for later.

    Raises:
        DicomError: Codes ``not_seg``, ``slide_coordinates``, ``too_large``, ``damaged``.
    """
    dataset, _ = read_file(path)
    with dicom_faults():
        kind = str(dataset.get("SegmentationType", ""))
        if kind not in ("BINARY", "FRACTIONAL", "LABELMAP") or not dataset.get("SegmentSequence"):
            raise DicomError("the file is no DICOM SEG with segments; export it again", "not_seg")
        _check_no_slide(dataset)
        n_frames, rows, columns = int(dataset.get("NumberOfFrames", 1)), int(dataset.Rows), int(dataset.Columns)
        if not 0 < rows * columns <= MAX_FRAME_PIXELS or not 0 < n_frames * rows * columns <= MAX_VOXELS:
            raise DicomError(
                f"the SEG claims {n_frames} frames of {rows} x {columns} pixels; it is damaged, export it again",
                "too_large",
            )
        items = dataset.get("PerFrameFunctionalGroupsSequence") or ()
        if len(items) != n_frames:
            raise DicomError("the SEG describes another number of frames than it holds; export it again", "damaged")
        shared = (dataset.get("SharedFunctionalGroupsSequence") or [Dataset()])[0]
        frames = tuple(_frame(item, shared, kind) for item in items)
        return Segmentation(
            path=path,
            kind=kind,
            rows=rows,
            columns=columns,
            threshold=_threshold(dataset) if kind == "FRACTIONAL" else 1.0,
            frames=frames,
            segments=_segments(dataset, kind, frames),
            frame_of_reference_uid=str(dataset.get("FrameOfReferenceUID") or ""),
            series_uids=frozenset(
                str(item.SeriesInstanceUID) for item in dataset.get("ReferencedSeriesSequence") or []
            ),
            words=authors_words(dataset),
            bits=_bits(dataset),
        )


def _check_no_slide(dataset: Dataset) -> None:
    tiled = str(dataset.get("DimensionOrganizationType") or "").startswith("TILED")
    if tiled or "TotalPixelMatrixRows" in dataset or "ImageOrientationSlide" in dataset:
        raise DicomError(
            "the SEG lies on a microscope slide (tiles in slide coordinates), not on slices of a patient; nothing is "
            "to be done",
            "slide_coordinates",
        )


def _threshold(dataset: Dataset) -> float:
    # a probability of one half and an occupancy of one half are the same border: the likelier, the larger part
    maximum = float(dataset.MaximumFractionalValue)
    if maximum < 1:
        raise DicomError("MaximumFractionalValue of the SEG is below 1; export it again", "damaged")
    return 0.5 * maximum


def _bits(dataset: Dataset) -> int:
    bits = int(dataset.BitsAllocated)
    if bits not in (1, 8, 16):
        raise DicomError(f"the SEG has {bits} bits a pixel, which no SEG has; export it again", "damaged")
    return bits


def _segments(dataset: Dataset, kind: str, frames: Sequence[Frame]) -> tuple[Structure, ...]:
    counts: dict[int, int] = {}
    for frame in frames:
        if frame.segment is not None:
            counts[frame.segment] = counts.get(frame.segment, 0) + 1
    found = [
        Structure(
            number=(number := int(item.SegmentNumber)),
            name=str(item.get("SegmentLabel", "")),
            codes=code_texts(item.get("SegmentedPropertyTypeCodeSequence") or ()),
            n_parts=len(frames) if kind == "LABELMAP" else counts.get(number, 0),
        )
        for item in dataset.SegmentSequence
    ]
    return tuple(one for one in found if kind != "LABELMAP" or one.number != 0)


def _frame(item: Dataset, shared: Dataset, kind: str) -> Frame:
    def group(keyword: str) -> Dataset:
        return (item.get(keyword) or shared.get(keyword) or [Dataset()])[0]

    segment = group("SegmentIdentificationSequence").get("ReferencedSegmentNumber")
    if segment is None and kind != "LABELMAP":
        raise DicomError("a frame of the SEG does not say which segment it shows; export it again", "damaged")
    measures = group("PixelMeasuresSequence")
    step = measures.get("SpacingBetweenSlices")
    position = _vector(group("PlanePositionSequence").get("ImagePositionPatient"), 3)
    return Frame(
        segment=None if segment is None or kind == "LABELMAP" else int(segment),
        position_lps=position,
        directions=_vector(group("PlaneOrientationSequence").get("ImageOrientationPatient"), 6),
        spacing_mm=_vector(measures.get("PixelSpacing"), 2),
        step_mm=None if step is None else float(step),
        sources=tuple(_sources(item) or _sources(shared)) if position is None else (),
    )


def _sources(groups: Dataset) -> list[tuple[str, int | None]]:
    return [
        source
        for derivation in groups.get("DerivationImageSequence") or ()
        for image in derivation.get("SourceImageSequence") or ()
        for source in image_of(image)
    ]


def _vector(values: Any, count: int) -> Vector | None:
    if values is None:
        return None
    vector = np.asarray([float(value) for value in values], dtype=np.float64)
    if vector.shape != (count,) or not np.isfinite(vector).all():
        raise DicomError("a frame of the SEG has a damaged position; export it again", "damaged")
    return vector
