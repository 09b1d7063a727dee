"""Where the pixels of a file lie, and what its header says of them; both checked before anything is read."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from pydicom.dataset import Dataset

from monai_tl.dicom.reading import DEFLATED, FileMeta, inflate
from monai_tl.dicom.scan import PixelPlace, Scanned
from monai_tl.errors import DicomError

_EXPLICIT_LITTLE_ENDIAN = "1.2.840.10008.1.2.1"


@dataclass(frozen=True)
class PixelSource:
    """Where a file's pixels lie.

    Attributes:
        path: The file.
        meta: Its file meta group.
        scanned: What one pass over it found.
    """

    path: Path
    meta: FileMeta
    scanned: Scanned

    @property
    def place(self) -> PixelPlace | None:
        """None when there are none."""
        return self.scanned.pixels

    @property
    def syntax(self) -> str:
        """Transfer syntax; explicit little endian where the file does not say."""
        return self.meta.transfer_syntax_uid or _EXPLICIT_LITTLE_ENDIAN

    @property
    def is_little(self) -> bool:
        """Byte order."""
        return self.scanned.is_little

    @property
    def is_words(self) -> bool:
        """Whether pixels were written as 16-bit words."""
        return self.place is not None and self.place.is_words

    def read(self, count: int) -> bytes:
        """The first bytes of the pixel data; fewer where there are no more."""
        if self.place is None:
            return b""
        count = min(count, self.place.length)
        if self.meta.transfer_syntax_uid == DEFLATED:
            return inflate(self.path, self.meta)[self.place.offset : self.place.offset + count]
        with self.path.open("rb") as stream:
            stream.seek(self.place.offset)
            return stream.read(count)


@dataclass(frozen=True)
class PixelFormat:
    """What the header says of the pixels; checked."""

    rows: int
    columns: int
    frames: int
    bits_allocated: int
    bits_stored: int
    high_bit: int
    signed: bool

    @property
    def per_frame(self) -> int:
        """Pixels of one frame."""
        return self.rows * self.columns

    @property
    def frame_bytes(self) -> int:
        """Bytes of one native frame."""
        return -(-self.per_frame * self.bits_allocated // 8)


def read_format(dataset: Dataset) -> PixelFormat:
    """The pixels' format.

    Raises:
        DicomError: Codes ``bits``, ``colour``, ``damaged``: nothing that a volume or a segmentation can have.
    """
    allocated = _number(dataset, "BitsAllocated", 16)
    stored = _number(dataset, "BitsStored", allocated)
    found = PixelFormat(
        rows=_number(dataset, "Rows", 0),
        columns=_number(dataset, "Columns", 0),
        frames=_number(dataset, "NumberOfFrames", 1),
        bits_allocated=allocated,
        bits_stored=stored,
        high_bit=_number(dataset, "HighBit", stored - 1),
        signed=_number(dataset, "PixelRepresentation", 0) == 1,
    )
    if _number(dataset, "SamplesPerPixel", 1) != 1:
        raise DicomError("pixels of several samples are those of a colour image; it is held back", "colour")
    if min(found.rows, found.columns, found.frames) < 1:
        raise DicomError("the header gives the image no size; export the file again", "damaged")
    if allocated not in (1, 8, 16, 32) or not 1 <= stored <= found.high_bit + 1 <= allocated:
        raise DicomError(f"{stored} of {allocated} bits a pixel are not supported; export the file again", "bits")
    return found


def _number(dataset: Dataset, keyword: str, default: int) -> int:
    value = dataset.get(keyword)
    return default if value is None or value == "" else int(value)
