"""One DICOM file into memory, safely: no guessing, no bombs, no patient values in warnings."""

from __future__ import annotations

import logging
import struct
import warnings
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

import pydicom
from pydicom import config as pydicom_config
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.filereader import dcmread, read_dataset

from monai_tl.errors import DicomError, MonaiTLError

DEFLATED = "1.2.840.10008.1.2.1.99"
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
            reason = error.strerror or "input or output error"
            raise DicomError(f"the file cannot be read: {reason}; check its permissions", "unreadable") from None
        except Exception as error:
            kind = type(error).__name__
            raise DicomError(f"{fault} ({kind}); {mend}", "damaged") from None


def read_meta(path: Path) -> FileMeta:
    """Read the preamble and the file meta group by hand: a bomb must be seen before pydicom opens the file.

    Raises:
        DicomError: Code ``not_dicom`` without the DICM mark, ``damaged`` when the group is not closed.
    """
    with path.open("rb") as stream:
        head = stream.read(_MAX_META_BYTES)
    if not head:
        raise DicomError("the file is empty; transfer it again, or remove it", "not_dicom")
    if head[128:132] != b"DICM":
        raise DicomError(
            "the file has no DICM mark after its preamble; if it should be DICOM export it again as a Part 10 file, "
            "else leave it: it is not used",
            "not_dicom",
        )
    found: dict[int, str] = {}
    position = 132
    while position + 8 <= len(head):
        group, element = struct.unpack_from("<HH", head, position)
        if group != 2:
            break
        long = head[position + 4 : position + 6] in _LONG_LENGTH_VRS
        start = position + (12 if long else 8)
        if start > len(head):
            raise DicomError("the file meta group is cut off; export the file again", "damaged")
        length = struct.unpack_from("<I" if long else "<H", head, position + (8 if long else 6))[0]
        found[element] = head[start : start + length].rstrip(b"\x00 ").decode("ascii", "replace")
        position = start + length
    if position > len(head) or (len(head) == _MAX_META_BYTES and position + 8 > len(head)):
        raise DicomError("the file meta group is too long; the file is damaged", "damaged")
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
    with dicom_faults():
        meta = read_meta(path)
        if meta.transfer_syntax_uid == DEFLATED:
            return _read_deflated(path, meta, tags, with_pixels), meta
        wanted: list[Any] | None = None if tags is None else list(tags)
        return dcmread(path, stop_before_pixels=not with_pixels, specific_tags=wanted), meta


def _read_deflated(path: Path, meta: FileMeta, tags: Sequence[str] | None, with_pixels: bool) -> Dataset:
    with path.open("rb") as stream:
        stream.seek(meta.end)
        packed = stream.read(MAX_INFLATED_BYTES + 1)
    inflater = zlib.decompressobj(-zlib.MAX_WBITS)
    body = inflater.decompress(packed, MAX_INFLATED_BYTES)
    if inflater.unconsumed_tail or len(packed) > MAX_INFLATED_BYTES:
        limit = MAX_INFLATED_BYTES >> 20
        raise DicomError(
            f"the deflated file inflates to more than {limit} MiB; convert it to a raw syntax", "deflate_bomb"
        )
    stop = None if with_pixels else _at_pixels
    wanted: list[Any] | None = None if tags is None else [pydicom.tag.Tag(keyword) for keyword in tags]
    dataset = read_dataset(
        BytesIO(body), is_implicit_VR=False, is_little_endian=True, stop_when=stop, specific_tags=wanted
    )
    dataset.file_meta = FileMetaDataset()
    # what is in memory now is the inflated form
    dataset.file_meta.TransferSyntaxUID = pydicom.uid.ExplicitVRLittleEndian
    return dataset


def _at_pixels(tag: Any, _vr: str | None, _length: int) -> bool:
    return int(tag) in _PIXEL_TAGS
