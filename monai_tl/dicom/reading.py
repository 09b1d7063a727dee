"""One DICOM file into memory, safely: no guessing, no bombs, no patient values in warnings."""

from __future__ import annotations

import logging
import os
import warnings
import zlib
from collections.abc import Iterator, Sequence, Set
from contextlib import contextmanager
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

import pydicom
from pydicom import config as pydicom_config
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.filereader import dcmread, read_dataset

from monai_tl.dicom.scan import Bytes, Scanned, scan
from monai_tl.errors import DicomError, MonaiTLError, describe_os_error

IMPLICIT, BIG_ENDIAN, DEFLATED = "1.2.840.10008.1.2", "1.2.840.10008.1.2.2", "1.2.840.10008.1.2.1.99"
MAX_INFLATED_BYTES = 256 << 20
"""A deflated data set that grows beyond this is refused while it is being inflated."""
_MAX_META_BYTES = 64 << 10
_LONG_LENGTH_VRS = frozenset(
    (b"OB", b"OW", b"OF", b"OD", b"OL", b"OV", b"SQ", b"UC", b"UN", b"UR", b"UT", b"SV", b"UV")
)
_PIXEL_TAGS = frozenset((0x7FE00008, 0x7FE00009, 0x7FE00010))

# pydicom quotes the offending value (a name, an identifier) in its log lines and warnings
logging.getLogger("pydicom").setLevel(logging.CRITICAL)
pydicom_config.settings.reading_validation_mode = pydicom_config.IGNORE


@dataclass(frozen=True)
class FileMeta:
    """What the file meta group says; empty text where it is silent."""

    transfer_syntax_uid: str
    sop_class_uid: str
    sop_instance_uid: str
    end: int


@contextmanager
def dicom_faults(fault: str = "the file cannot be parsed", mend: str = "export it again") -> Iterator[None]:
    """Make DicomError of whatever pydicom raises on a damaged file, and drop its warnings: both may quote a patient.

    Args:
        fault: What could not be done, for the message.
        mend: What to do then.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            yield
        except MonaiTLError:
            raise
        except RecursionError:
            raise DicomError("sequences are nested too deeply; the file is damaged", "damaged") from None
        except MemoryError:
            raise DicomError("the file asks for more memory than there is; it is damaged", "damaged") from None
        except OSError as error:
            reason = describe_os_error(error)
            raise DicomError(f"the file cannot be read: {reason}; check its permissions", "unreadable") from None
        except Exception as error:
            kind = type(error).__name__
            raise DicomError(f"{fault} ({kind}); {mend}", "damaged") from None


def scan_file(path: Path, wanted: Set[int], enter_all: bool = False) -> tuple[Scanned, FileMeta]:
    """Find the elements of a file up to its pixel data, without building a data set.

    Args:
        path: A DICOM file (Part 10); never guessed at when the DICM mark is missing.
        wanted: Tags whose raw bytes are kept.
        enter_all: See ``monai_tl.dicom.scan.scan``.

    Returns:
        What was found; for a deflated file positions are those in the inflated bytes of ``inflate``.

    Raises:
        DicomError: Codes ``not_dicom``, ``damaged``, ``unreadable``, ``deflate_bomb``.
    """
    with dicom_faults():
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            source = Bytes(descriptor)
            meta = _meta_of(source)
            position, syntax = meta.end, meta.transfer_syntax_uid
            if syntax == DEFLATED:
                source, position = Bytes(_inflate(source.take(position, MAX_INFLATED_BYTES + 1))), 0
            is_explicit = syntax not in ("", IMPLICIT)
            return scan(source, position, is_explicit, syntax != BIG_ENDIAN, wanted, enter_all), meta
        finally:
            os.close(descriptor)


def _meta_of(source: Bytes) -> FileMeta:
    """The file meta group by hand: a bomb must be seen before pydicom opens the file."""
    if not source.size:
        raise DicomError("the file is empty; transfer it again, or remove it", "not_dicom")
    if source.take(128, 4) != b"DICM":
        raise DicomError(
            "the file has no DICM mark after its preamble; if it should be DICOM export it again as a Part 10 file, "
            "else leave it: it is not used",
            "not_dicom",
        )
    found: dict[int, str] = {}
    position = 132
    while position < _MAX_META_BYTES:
        head = source.take(position, 12)
        if len(head) < 8 or head[:2] != b"\x02\x00":
            break
        element = int.from_bytes(head[2:4], "little")
        is_long = head[4:6] in _LONG_LENGTH_VRS
        start = position + (12 if is_long else 8)
        length = int.from_bytes(head[8:12] if is_long else head[6:8], "little")
        position = start + length
        if position > min(source.size, _MAX_META_BYTES):
            raise DicomError("the file meta group is cut off or too long; transfer the file again", "damaged")
        found[element] = source.take(start, length).rstrip(b"\x00 ").decode("ascii", "replace")
    return FileMeta(found.get(0x0010, ""), found.get(0x0002, ""), found.get(0x0003, ""), position)


def read_file(path: Path, tags: Sequence[str] | None = None, with_pixels: bool = False) -> tuple[Dataset, FileMeta]:
    """Read one DICOM file.

    Args:
        path: A DICOM file (Part 10); never guessed at when the DICM mark is missing.
        tags: Keywords to keep; None keeps all.
        with_pixels: False stops before the pixel data.

    Returns:
        The data set, with ``file_meta`` set, and what the file meta group says.

    Raises:
        DicomError: Codes ``not_dicom``, ``damaged``, ``unreadable``, ``deflate_bomb``.
    """
    # sees lengths that lead nowhere and depths that pydicom would follow by recursion
    _, meta = scan_file(path, frozenset(), enter_all=True)
    with dicom_faults():
        wanted: list[Any] | None = None if tags is None else list(tags)
        if meta.transfer_syntax_uid != DEFLATED:
            return dcmread(path, stop_before_pixels=not with_pixels, specific_tags=wanted), meta
        if wanted is not None:
            wanted = [pydicom.tag.Tag(keyword) for keyword in wanted]
        stop = None if with_pixels else _at_pixels
        dataset = read_dataset(
            BytesIO(inflate(path, meta)), is_implicit_VR=False, is_little_endian=True, stop_when=stop,
            specific_tags=wanted,
        )  # fmt: skip
        dataset.file_meta = FileMetaDataset()
        # what is in memory now is the inflated form
        dataset.file_meta.TransferSyntaxUID = pydicom.uid.ExplicitVRLittleEndian
        return dataset, meta


def inflate(path: Path, meta: FileMeta) -> bytes:
    """The data set of a deflated file.

    Raises:
        DicomError: Codes ``deflate_bomb``, ``damaged``, ``unreadable``.
    """
    with dicom_faults(), path.open("rb") as stream:
        stream.seek(meta.end)
        return _inflate(stream.read(MAX_INFLATED_BYTES + 1))


def _inflate(packed: bytes) -> bytes:
    inflater = zlib.decompressobj(-zlib.MAX_WBITS)
    body = inflater.decompress(packed, MAX_INFLATED_BYTES)
    if inflater.unconsumed_tail or len(packed) > MAX_INFLATED_BYTES:
        limit = MAX_INFLATED_BYTES >> 20
        raise DicomError(
            f"the deflated file inflates to more than {limit} MiB; convert it to a raw syntax", "deflate_bomb"
        )
    return body


def _at_pixels(tag: Any, _vr: str | None, _length: int) -> bool:
    return int(tag) in _PIXEL_TAGS
