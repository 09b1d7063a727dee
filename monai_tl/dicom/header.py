"""The header of one image instance as plain values."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydicom.dataset import Dataset

from monai_tl.dicom.identity import IDENTITY_TAGS, identity_words
from monai_tl.dicom.reading import FileMeta, dicom_faults, read_file
from monai_tl.errors import DicomError

_TAGS = (
    "SOPInstanceUID", "SOPClassUID", "SeriesInstanceUID", "StudyInstanceUID", "FrameOfReferenceUID",
    "Modality", "ImageType",
    "Rows", "Columns", "NumberOfFrames", "SamplesPerPixel", "PhotometricInterpretation",
    "BitsAllocated", "BitsStored", "HighBit", "PixelRepresentation",
    "RescaleSlope", "RescaleIntercept", "ModalityLUTSequence", "BurnedInAnnotation",
    "ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing", "SliceThickness", "EchoTime",
    "Manufacturer", "ManufacturerModelName", "ConvolutionKernel", "MagneticFieldStrength", "KVP",
    *IDENTITY_TAGS,
)  # fmt: skip
_SCANNER_TEXTS = ("Manufacturer", "ManufacturerModelName", "ConvolutionKernel")
_SCANNER_NUMBERS = ("MagneticFieldStrength", "SliceThickness", "KVP")
# device facts are free text that people type into; only short plain words pass
_PLAIN = re.compile(r"[A-Za-z0-9][A-Za-z0-9 ._/+-]{0,31}")


@dataclass(frozen=True)
class Header:
    """One instance. Holds identifiers as read: it stays in memory and is never written or shown.

    Attributes:
        position_lps: Centre of the first pixel, mm; None when absent.
        orientation: Row direction then column direction; None when absent.
        pixel_spacing_mm: (between rows, between columns); None when absent.
        has_scaling: Whether slope or intercept was given (else 1 and 0).
        scanner: Facts about the device, free text among them: see ``identity_words`` before one goes further.
        identity_words: Words of the attributes that identify.
    """

    path: Path
    sop_instance_uid: str
    sop_class_uid: str
    series_uid: str
    study_uid: str
    frame_of_reference_uid: str | None
    modality: str
    image_type: tuple[str, ...]
    patient_id: str
    institution: str
    rows: int
    columns: int
    n_frames: int
    samples: int
    photometric: str
    bits_allocated: int
    bits_stored: int
    high_bit: int
    is_signed: bool
    slope: float
    intercept: float
    has_scaling: bool
    has_lookup_table: bool
    burned_in: bool
    position_lps: tuple[float, ...] | None
    orientation: tuple[float, ...] | None
    pixel_spacing_mm: tuple[float, ...] | None
    slice_thickness_mm: float | None
    echo_time_ms: float | None
    transfer_syntax_uid: str
    scanner: tuple[tuple[str, str], ...]
    identity_words: frozenset[str]


def read_header(path: Path) -> Header:
    """Read what is needed to sort, check and place one instance; pixels are not touched.

    Raises:
        DicomError: The file is not DICOM or a value cannot be parsed.
    """
    dataset, meta = read_file(path, _TAGS)
    with dicom_faults():
        return _header_of(dataset, meta, path)


def _header_of(ds: Dataset, meta: FileMeta, path: Path) -> Header:
    bits_allocated = _integer(ds, "BitsAllocated", 16)
    bits_stored = _integer(ds, "BitsStored", bits_allocated)
    slope, intercept = _number(ds, "RescaleSlope"), _number(ds, "RescaleIntercept")
    institution = "|".join(_text(ds, word) for word in ("InstitutionName", "Manufacturer", "ManufacturerModelName"))
    return Header(
        path=path,
        # some anonymisers blank these in the data set and forget the file meta group
        sop_instance_uid=_text(ds, "SOPInstanceUID") or meta.sop_instance_uid,
        sop_class_uid=_text(ds, "SOPClassUID") or meta.sop_class_uid,
        series_uid=_text(ds, "SeriesInstanceUID"),
        study_uid=_text(ds, "StudyInstanceUID"),
        frame_of_reference_uid=_text(ds, "FrameOfReferenceUID") or None,
        modality=_text(ds, "Modality").upper(),
        image_type=tuple(part.strip().upper() for part in _text(ds, "ImageType").split("\\")),
        # without the issuer: it is often filled on one scanner only, and one patient must not become two
        patient_id=_text(ds, "PatientID"),
        institution=institution,
        rows=_integer(ds, "Rows", 0),
        columns=_integer(ds, "Columns", 0),
        n_frames=_integer(ds, "NumberOfFrames", 1),
        samples=_integer(ds, "SamplesPerPixel", 1),
        photometric=_text(ds, "PhotometricInterpretation").upper() or "MONOCHROME2",
        bits_allocated=bits_allocated,
        bits_stored=bits_stored,
        high_bit=_integer(ds, "HighBit", bits_stored - 1),
        is_signed=_integer(ds, "PixelRepresentation", 0) == 1,
        slope=1.0 if slope is None else slope,
        intercept=0.0 if intercept is None else intercept,
        has_scaling=slope is not None or intercept is not None,
        has_lookup_table=bool(ds.get("ModalityLUTSequence")),
        burned_in=_text(ds, "BurnedInAnnotation").upper() == "YES",
        position_lps=_numbers(ds, "ImagePositionPatient", 3),
        orientation=_numbers(ds, "ImageOrientationPatient", 6),
        pixel_spacing_mm=_numbers(ds, "PixelSpacing", 2),
        slice_thickness_mm=_number(ds, "SliceThickness"),
        echo_time_ms=_number(ds, "EchoTime"),
        transfer_syntax_uid=meta.transfer_syntax_uid,
        scanner=_scanner(ds),
        identity_words=identity_words(ds),
    )


def _text(ds: Dataset, keyword: str) -> str:
    value = ds.get(keyword)
    if value is None:
        return ""
    if not isinstance(value, str) and hasattr(value, "__iter__"):
        return "\\".join(str(part) for part in value)
    return str(value).strip()


def _integer(ds: Dataset, keyword: str, default: int) -> int:
    value = ds.get(keyword)
    return default if value is None or value == "" else int(value)


def _number(ds: Dataset, keyword: str) -> float | None:
    value: Any = ds.get(keyword)
    if value is None or value == "":
        return None
    number = float(value)
    if not math.isfinite(number):
        raise DicomError(f"{keyword} is not finite; export the file again", "damaged")
    return number


def _numbers(ds: Dataset, keyword: str, count: int) -> tuple[float, ...] | None:
    value: Any = ds.get(keyword)
    if value is None or value == "":
        return None
    numbers = tuple(float(part) for part in value) if hasattr(value, "__iter__") else (float(value),)
    if len(numbers) != count or not all(math.isfinite(number) for number in numbers):
        raise DicomError(f"{keyword} does not hold {count} finite numbers; export the file again", "damaged")
    return numbers


def _scanner(ds: Dataset) -> tuple[tuple[str, str], ...]:
    facts: list[tuple[str, str]] = []
    for keyword in _SCANNER_TEXTS:
        text = _text(ds, keyword).split("\\")[0]
        if _PLAIN.fullmatch(text):
            facts.append((keyword, text))
    for keyword in _SCANNER_NUMBERS:
        number = _number(ds, keyword)
        if number is not None:
            facts.append((keyword, f"{number:g}"))
    return tuple(facts)
