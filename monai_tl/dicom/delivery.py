"""One file of a delivery: which study it is of, and a digest that a second delivery of it has too."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

from pydicom.datadict import tag_for_keyword

from monai_tl.dicom.index import OTHER_MODALITIES
from monai_tl.dicom.label_object import LABEL_CLASSES
from monai_tl.dicom.raw_values import RawValues
from monai_tl.dicom.reading import scan_file
from monai_tl.errors import DicomError
from monai_tl.modality import MODALITY_OF

_TAG_OF = {
    keyword: int(tag_for_keyword(keyword) or 0) for keyword in ("StudyInstanceUID", "SOPClassUID", "Modality", "Rows")
}
_WANTED = frozenset(_TAG_OF.values())
_CHUNK = 1 << 20


@dataclass(frozen=True)
class Delivered:
    """A DICOM file as it came.

    Attributes:
        study_uid: As in the file, so never to be written; may be empty.
        is_image: Something to segment; else a label, a report or the like.
        is_label: A SEG or RTSTRUCT.
        start: First byte of the data set: what lies before it differs from one delivery to the next.
    """

    study_uid: str
    is_image: bool
    is_label: bool
    start: int


def read_delivered(path: Path) -> Delivered:
    """Look at a file's header.

    Raises:
        DicomError: Codes ``not_dicom``, ``damaged``, ``unreadable``, ``deflate_bomb``.
    """
    found, meta = scan_file(path, _WANTED)
    values = RawValues(found, _TAG_OF)
    sop_class = values.text("SOPClassUID") or meta.sop_class_uid
    is_label = sop_class in LABEL_CLASSES
    is_other = is_label or values.text("Modality") in OTHER_MODALITIES
    # one that is cut off before its rows is an image that must be refused, not something else
    is_image = not is_other and (values.short("Rows", 0) > 0 or sop_class in MODALITY_OF or not sop_class)
    return Delivered(values.text("StudyInstanceUID"), is_image, is_label, meta.end)


def digest_of(path: Path, start: int = 0) -> str:
    """Hex sha256 of a file's bytes from a position on.

    Raises:
        DicomError: Code ``unreadable``.
    """
    digest = hashlib.sha256()
    try:
        with path.open("rb") as stream:
            stream.seek(start)
            while chunk := stream.read(_CHUNK):
                digest.update(chunk)
    except OSError as error:
        raise DicomError(f"a file cannot be read ({error.strerror}); check its permissions", "unreadable") from None
    return digest.hexdigest()
