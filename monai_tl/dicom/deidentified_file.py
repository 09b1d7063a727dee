"""One DICOM file as a new one that tells nothing of its patient, or the reason why there is none."""

from __future__ import annotations

import unicodedata
from dataclasses import dataclass
from pathlib import Path

from pydicom.dataset import Dataset

from monai_tl.dicom.admission import admit
from monai_tl.dicom.deidentify import Pseudonyms
from monai_tl.dicom.explicit_writing import element, join, sequence, to_implicit
from monai_tl.dicom.identifiers import identifying_numbers
from monai_tl.dicom.identity import identity_words
from monai_tl.dicom.last_look import refuse_identity
from monai_tl.dicom.pixel_release import release_pixels
from monai_tl.dicom.pixel_source import PixelSource, read_format
from monai_tl.dicom.pixel_text import pixel_words
from monai_tl.dicom.reading import dicom_faults, read_file, scan_file
from monai_tl.dicom.released_value import PatientContext
from monai_tl.dicom.scrub import scrub
from monai_tl.dicom.write import IMPLEMENTATION_CLASS_UID, IMPLEMENTATION_VERSION_NAME
from monai_tl.errors import DicomError

METHODS = (
    ("113100", "Basic Application Confidentiality Profile"),
    ("113105", "Clean Descriptors Option"),
    ("113107", "Retain Longitudinal Temporal Information Modified Dates Option"),
)
"""Codes of DICOM PS3.16 CID 7050, scheme DCM."""
_METHOD_TEXT = "PS3.15 Basic Profile by allow-list\\Clean Descriptors\\Modified Dates"
_IMPLICIT_LITTLE_ENDIAN, _EXPLICIT_LITTLE_ENDIAN = "1.2.840.10008.1.2", "1.2.840.10008.1.2.1"
_SOP_CLASS, _SOP_INSTANCE, _STUDY, _SERIES = 0x00080016, 0x00080018, 0x0020000D, 0x0020000E
_PIXEL_DATA = 0x7FE00010
_MAX_BYTES = 2 << 30
"""A file is read whole; the largest enhanced objects have some hundred megabytes."""


@dataclass(frozen=True)
class DeidentifiedFile:
    """A new file.

    Attributes:
        place: Relative path of hashes: patient, study, series, instance.
        content: The whole file.
        has_pixels: False for an RTSTRUCT.
    """

    place: Path
    content: bytes
    has_pixels: bool


def deidentify_file(path: Path, name: str, hasher: Pseudonyms) -> DeidentifiedFile:
    """Compose the de-identified counterpart of a file.

    Args:
        path: Any file.
        name: Its path below the source folder: stands for identifiers that were blanked; only hashes of it leave.
        hasher: Pseudonyms of the project.

    Raises:
        DicomError: The file is no DICOM, cannot be parsed, or may not leave; ``code`` says why.
    """
    with dicom_faults():
        if path.stat().st_size > _MAX_BYTES:
            raise DicomError(f"the file has more than {_MAX_BYTES >> 30} GiB; split it", "too_large")
        # what stands behind the pixels is never read
        scanned, meta = scan_file(path, frozenset(), enter_all=True)
        if scanned.is_repeated:
            raise DicomError("an element stands twice, and readers differ over which counts; export again", "damaged")
        dataset, _ = read_file(path)
        return _compose(dataset, PixelSource(path, meta, scanned), name, hasher)


def _compose(dataset: Dataset, source: PixelSource, name: str, hasher: Pseudonyms) -> DeidentifiedFile:
    meta = source.meta
    sop_class = _uid(dataset, "SOPClassUID") or meta.sop_class_uid
    has_pixels = admit(dataset, sop_class)
    # files whose identifiers were blanked: what shares a folder shares a study and a series
    folder = name.rpartition("/")[0]
    instance = _uid(dataset, "SOPInstanceUID") or meta.sop_instance_uid or f"no instance|{name}"
    study = _uid(dataset, "StudyInstanceUID") or f"no study|{folder}"
    series = _uid(dataset, "SeriesInstanceUID") or f"no series|{study}|{dataset.get('Modality')}|{folder}"
    context = _patient(dataset, study, hasher)
    uids = {
        tag: hasher.replaced_uid(uid) for tag, uid in ((_SOP_INSTANCE, instance), (_STUDY, study), (_SERIES, series))
    }
    syntax = _EXPLICIT_LITTLE_ENDIAN
    pixels: dict[int, bytes] = {}
    signed = dataset.get("PixelRepresentation") == 1
    if has_pixels:
        pixels[_PIXEL_DATA], syntax = release_pixels(source, read_format(dataset), pixel_words(dataset))
    scrubbed = scrub(dataset, context, signed=signed)
    refuse_identity(scrubbed, context.identity, context.identifiers)
    elements = {
        **scrubbed,
        **{tag: element(tag, "UI", uid.encode("ascii")) for tag, uid in uids.items()},
        _SOP_CLASS: element(_SOP_CLASS, "UI", sop_class.encode("ascii")),
        **_stamps(),
        **pixels,
    }
    body = join(elements)
    if not has_pixels:
        # a contour of thousands of points is longer than Explicit VR lets a text be
        body, syntax = to_implicit(body), _IMPLICIT_LITTLE_ENDIAN
    content = _file_meta(sop_class, uids[_SOP_INSTANCE], syntax) + body
    place = Path(context.pseudonym, *(hasher.place(uids[tag]) for tag in (_STUDY, _SERIES, _SOP_INSTANCE)))
    return DeidentifiedFile(place.with_name(f"{place.name}.dcm"), content, has_pixels)


def _patient(dataset: Dataset, study: str, hasher: Pseudonyms) -> PatientContext:
    # as text: one identifier is written in several character sets
    patient = unicodedata.normalize("NFC", str(dataset.get("PatientID") or "").strip())
    # the study is the widest thing known to be one patient's
    patient = patient or f"no patient id|{study}"
    return PatientContext(
        hasher=hasher,
        pseudonym=hasher.patient_key(patient),
        days_back=hasher.days_back(patient),
        identity=identity_words(dataset),
        identifiers=identifying_numbers(dataset),
    )


def _uid(dataset: Dataset, keyword: str) -> str:
    return str(dataset.get(keyword) or "").strip(" \x00")


def _stamps() -> dict[int, bytes]:
    """What was done, in the attributes that PS3.15 names for it."""
    items = (
        join({
            0x00080100: element(0x00080100, "SH", code.encode("ascii")),
            0x00080102: element(0x00080102, "SH", b"DCM"),
            0x00080104: element(0x00080104, "LO", meaning.encode("ascii")),
        })
        for code, meaning in METHODS
    )  # fmt: skip
    return {
        0x00120062: element(0x00120062, "CS", b"YES"),
        0x00120063: element(0x00120063, "LO", _METHOD_TEXT.encode("ascii")),
        0x00120064: sequence(0x00120064, items),
        0x00280303: element(0x00280303, "CS", b"MODIFIED"),
    }


def _file_meta(sop_class: str, instance: str, syntax: str) -> bytes:
    """Preamble of zeros, mark and file meta group, made anew: no application titles, no private information."""
    uids = {0x00020002: sop_class, 0x00020003: instance, 0x00020010: syntax, 0x00020012: IMPLEMENTATION_CLASS_UID}
    elements = {
        0x00020001: element(0x00020001, "OB", b"\x00\x01"),
        **{tag: element(tag, "UI", uid.encode("ascii")) for tag, uid in uids.items()},
        0x00020013: element(0x00020013, "SH", IMPLEMENTATION_VERSION_NAME.encode("ascii")),
    }
    group = join(elements)
    length = element(0x00020000, "UL", len(group).to_bytes(4, "little"))
    return b"\x00" * 128 + b"DICM" + length + group
