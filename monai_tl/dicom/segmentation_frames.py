"""A DICOM SEG in plain terms: its segments, where its frames lie, and their pixels, read one frame at a time."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset
from pydicom.filereader import read_partial
from pydicom.pixels import get_decoder

from monai_tl.dicom.label_object import code_texts
from monai_tl.dicom.reading import FileMeta, dicom_faults, read_file
from monai_tl.dicom.structures import Structure, authors_words
from monai_tl.errors import DicomError

MAX_VOXELS = 1 << 36
"""Frames × rows × columns beyond this are no SEG of this world; a hundred organs on a thousand slices are a third."""
MAX_FRAME_PIXELS = 1 << 26
"""Only one frame is in memory at a time."""
_NATIVE = frozenset(("1.2.840.10008.1.2", "1.2.840.10008.1.2.1"))
_PIXEL_DATA = 0x7FE00010

Vector = NDArray[np.float64]


@dataclass(frozen=True)
class Frame:
    """Where one frame lies and, but in a LABELMAP, what it shows.

    Attributes:
        sources: SOPInstanceUID and, of a multi-frame image, frame number from 1 of each image it was drawn on.
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
    meta: FileMeta

    def read_frames(self, wanted: Sequence[int]) -> Iterator[tuple[int, NDArray[Any]]]:
        """The frames with these indices as (rows × columns,) arrays of stored values, in the order of the file.

        Raises:
            DicomError: Codes ``damaged``, ``undecodable_pixels``.
        """
        if self.meta.transfer_syntax_uid in _NATIVE:
            yield from self._from_file(wanted)
            return
        dataset, _ = read_file(self.path, with_pixels=True)
        # a deflated file is native once it is inflated
        syntax = dataset.file_meta.TransferSyntaxUID
        if syntax in _NATIVE:
            pixels = bytes(dataset.PixelData)
            self._check_length(len(pixels))
            yield from ((index, self._unpack(pixels, index, 0)) for index in wanted)
            return
        with dicom_faults("the frames of the SEG cannot be decoded", "export it uncompressed"):
            decoded = get_decoder(syntax).iter_array(dataset, indices=list(wanted), raw=True)
            for index, (frame, _) in zip(wanted, decoded, strict=True):
                yield index, frame.reshape(-1)

    def _from_file(self, wanted: Sequence[int]) -> Iterator[tuple[int, NDArray[Any]]]:
        with dicom_faults(), self.path.open("rb") as stream:
            start = _seek_pixels(stream, self.meta)
            self._check_length(os.fstat(stream.fileno()).st_size - start)
            for index in wanted:
                first, last = self._span(index)
                yield index, self._unpack(os.pread(stream.fileno(), last - first, start + first), index, first)

    def _check_length(self, n_bytes: int) -> None:
        if n_bytes < self._span(len(self.frames) - 1)[1]:
            raise DicomError("the pixel data of the SEG are cut off; transfer it again", "damaged")

    def _span(self, index: int) -> tuple[int, int]:
        """First byte of a frame, and the one after its last; frames of single bits follow each other without a gap."""
        bits = self.rows * self.columns * self.bits
        return index * bits // 8, ((index + 1) * bits + 7) // 8

    def _unpack(self, data: bytes, index: int, start: int) -> NDArray[Any]:
        first, last = self._span(index)
        piece = np.frombuffer(data, dtype=np.uint8)[first - start : last - start]
        if self.bits > 1:
            return piece.view(np.dtype(f"<u{self.bits // 8}"))
        n_pixels = self.rows * self.columns
        skip = index * n_pixels - first * 8
        return np.unpackbits(piece, bitorder="little")[skip : skip + n_pixels]


def read_seg(path: Path) -> Segmentation:
    """Read what a SEG says of its segments and frames; the pixels are left for later.

    Raises:
        DicomError: Codes ``not_seg``, ``slide_coordinates``, ``too_large``, ``damaged``.
    """
    dataset, meta = read_file(path)
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
        items = dataset.PerFrameFunctionalGroupsSequence
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
            meta=meta,
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

    measures = group("PixelMeasuresSequence")
    step = measures.get("SpacingBetweenSlices")
    return Frame(
        segment=None if kind == "LABELMAP" else int(group("SegmentIdentificationSequence").ReferencedSegmentNumber),
        position_lps=_vector(group("PlanePositionSequence").get("ImagePositionPatient"), 3),
        directions=_vector(group("PlaneOrientationSequence").get("ImageOrientationPatient"), 6),
        spacing_mm=_vector(measures.get("PixelSpacing"), 2),
        step_mm=None if step is None else float(step),
        sources=tuple(
            source
            for derivation in item.get("DerivationImageSequence") or shared.get("DerivationImageSequence") or ()
            for image in derivation.get("SourceImageSequence") or ()
            for source in _sources(image)
        ),
    )


def _sources(image: Dataset) -> list[tuple[str, int | None]]:
    uid, numbers = str(image.get("ReferencedSOPInstanceUID") or ""), image.get("ReferencedFrameNumber")
    if numbers is None:
        return [(uid, None)]
    return [(uid, int(number)) for number in (numbers if hasattr(numbers, "__iter__") else [numbers])]


def _vector(values: Any, count: int) -> Vector | None:
    if values is None:
        return None
    vector = np.asarray([float(value) for value in values], dtype=np.float64)
    if vector.shape != (count,) or not np.isfinite(vector).all():
        raise DicomError("a frame of the SEG has a damaged position; export it again", "damaged")
    return vector


def _seek_pixels(stream: Any, meta: FileMeta) -> int:
    """Where the pixels of a native file begin."""
    is_implicit = meta.transfer_syntax_uid == "1.2.840.10008.1.2"
    read_partial(stream, stop_when=lambda tag, _representation, _length: int(tag) == _PIXEL_DATA, specific_tags=[])
    head = 8 if is_implicit else 12
    if stream.read(head)[:4] != b"\xe0\x7f\x10\x00":
        raise DicomError("the SEG has no pixel data; transfer it again", "damaged")
    return int(stream.tell())
