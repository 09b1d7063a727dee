"""The header of one image, or of one frame of a multi-frame object, as plain values."""

from __future__ import annotations

import re
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from sys import intern

from pydicom.datadict import tag_for_keyword

from monai_tl.dicom.identity import IDENTITY_TAGS, words_of_values
from monai_tl.dicom.lookup import LookupTable, read_lookup
from monai_tl.dicom.raw_values import RawValues, decode, plain_text
from monai_tl.dicom.reading import FileMeta, dicom_faults, scan_file
from monai_tl.dicom.scan import PixelPlace, Scanned
from monai_tl.modality import known_modality

_SCANNER_TEXTS = ("Manufacturer", "ManufacturerModelName", "ConvolutionKernel")
_SCANNER_NUMBERS = {"MagneticFieldStrength": 50.0, "SliceThickness": 1000.0, "KVP": 1000.0, "EchoTime": 10_000.0}
"""Keyword → largest that a device has: a longer number may be a patient's, and rounded it repeats no word."""
# device facts are free text that people type into; only short plain words pass
_PLAIN = re.compile(r"[A-Za-z0-9][A-Za-z0-9 ._/+-]{0,31}")
_LOCALIZER = re.compile(r"locali[sz]er|scout|survey|surview|topogram|3.?plane", re.IGNORECASE)
TRAITS = (
    "AcquisitionNumber", "TemporalPositionIdentifier", "DiffusionBValue", "DiffusionGradientOrientation",
    "InversionTime", "FlipAngle", "TriggerTime", "KVP", "ConvolutionKernel", "AcquisitionTime", "ContentTime",
    "FrameReferenceTime", "NominalPercentageOfCardiacPhase",
)  # fmt: skip
"""What may tell volumes at one place apart, the most telling first."""
_KEYWORDS = frozenset((
    "SpecificCharacterSet", "SOPInstanceUID", "SOPClassUID", "SeriesInstanceUID", "StudyInstanceUID",
    "FrameOfReferenceUID", "Modality", "ImageType", "ComplexImageComponent", "EchoTime", "EchoNumbers",
    "Rows", "Columns", "NumberOfFrames", "SamplesPerPixel", "PhotometricInterpretation",
    "BitsAllocated", "BitsStored", "HighBit", "PixelRepresentation", "PixelPaddingValue", "PixelPaddingRangeLimit",
    "RescaleSlope", "RescaleIntercept", "ModalityLUTSequence", "BurnedInAnnotation",
    "SeriesDescription", "ProtocolName", "PerFrameFunctionalGroupsSequence",
    "ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing",
    *_SCANNER_TEXTS, *_SCANNER_NUMBERS, *TRAITS, *IDENTITY_TAGS,
))  # fmt: skip
TAG_OF: Mapping[str, int] = {keyword: int(tag_for_keyword(keyword) or 0) for keyword in _KEYWORDS}
_WANTED = frozenset(TAG_OF.values())


# slots: a folder's index holds one of these for each slice, and a dictionary for each would be half of its memory
@dataclass(frozen=True, slots=True)
class Header:
    """One image. Holds identifiers as read: it stays in memory and is never written or shown.

    Attributes:
        frame: Number from 1 within a multi-frame object; None for the header of a whole object.
        has_frame_groups: The object says of each frame where it lies: see ``monai_tl.dicom.frames``.
        position_lps: Centre of the first pixel, mm; None when absent.
        orientation: Row direction then column direction; None when absent.
        pixel_spacing_mm: (between rows, between columns); None when absent.
        has_scaling: Whether slope or intercept was given (else 1 and 0).
        lookup: Modality look-up table, which takes the place of slope and intercept.
        said_localizer: Its description says so; not written anywhere.
        padding: Lowest and highest stored value that mean no image.
        echo: What tells the echo: its time in ms, else its number; empty when neither is given.
        traits: Of ``TRAITS``, those given, as text.
        pixels: Where the pixel data lie; None when there are none.
        scanner: Facts about the device, free text among them: see ``identity_words`` before one goes further.
        identity_words: Words of the attributes that identify.
    """

    path: Path
    frame: int | None
    has_frame_groups: bool
    sop_instance_uid: str
    sop_class_uid: str
    series_uid: str
    study_uid: str
    frame_of_reference_uid: str | None
    modality: str
    image_type: tuple[str, ...]
    component: str
    echo: str
    has_echo_time: bool
    traits: tuple[tuple[str, str], ...]
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
    lookup: LookupTable | None
    padding: tuple[int, int] | None
    burned_in: bool
    said_localizer: bool
    position_lps: tuple[float, ...] | None
    orientation: tuple[float, ...] | None
    pixel_spacing_mm: tuple[float, ...] | None
    slice_thickness_mm: float | None
    transfer_syntax_uid: str
    is_little: bool
    pixels: PixelPlace | None
    scanner: tuple[tuple[str, str], ...]
    identity_words: frozenset[str]


def read_header(path: Path) -> Header:
    """Read what is needed to sort, check and place one image; no pixels.

    Raises:
        DicomError: The file is not DICOM or a value cannot be parsed.
    """
    found, meta = scan_file(path, _WANTED)
    with dicom_faults():
        return _header_of(found, meta, path)


def _header_of(found: Scanned, meta: FileMeta, path: Path) -> Header:
    values = RawValues(found, TAG_OF)
    text, short = values.text, values.short
    bits_allocated = short("BitsAllocated", 16)
    bits_stored = short("BitsStored", bits_allocated)
    is_signed = short("PixelRepresentation", 0) == 1
    slope, intercept = values.number("RescaleSlope"), values.number("RescaleIntercept")
    # some anonymisers blank these in the data set and forget the file meta group
    sop_class = text("SOPClassUID") or meta.sop_class_uid
    return Header(
        path=path,
        frame=None,
        has_frame_groups=bool(values.raw("PerFrameFunctionalGroupsSequence")),
        sop_instance_uid=text("SOPInstanceUID") or meta.sop_instance_uid,
        # what all slices of a series have in common is in memory once
        sop_class_uid=intern(sop_class),
        series_uid=intern(text("SeriesInstanceUID")),
        study_uid=intern(text("StudyInstanceUID")),
        frame_of_reference_uid=intern(text("FrameOfReferenceUID")) or None,
        modality=known_modality(text("Modality").upper(), sop_class),
        image_type=tuple(part.strip() for part in text("ImageType").upper().split("\\")),
        component=text("ComplexImageComponent").upper(),
        echo=_echo(values),
        has_echo_time=bool(values.raw("EchoTime")),
        traits=_traits(values),
        # without the issuer: it is often filled on one scanner only, and one patient must not become two
        patient_id=values.decoded("PatientID"),
        institution=values.decoded("InstitutionName"),
        rows=short("Rows", 0),
        columns=short("Columns", 0),
        n_frames=values.integer("NumberOfFrames", 1),
        samples=short("SamplesPerPixel", 1),
        photometric=intern(text("PhotometricInterpretation").upper()) or "MONOCHROME2",
        bits_allocated=bits_allocated,
        bits_stored=bits_stored,
        high_bit=short("HighBit", bits_stored - 1),
        is_signed=is_signed,
        slope=1.0 if slope is None else slope,
        intercept=0.0 if intercept is None else intercept,
        has_scaling=slope is not None or intercept is not None,
        lookup=read_lookup(path, is_signed) if values.raw("ModalityLUTSequence") else None,
        padding=_padding(values, is_signed),
        said_localizer=any(_LOCALIZER.search(text(keyword)) for keyword in ("SeriesDescription", "ProtocolName")),
        burned_in=text("BurnedInAnnotation").upper() == "YES",
        position_lps=values.numbers("ImagePositionPatient", 3),
        orientation=values.numbers("ImageOrientationPatient", 6),
        pixel_spacing_mm=values.numbers("PixelSpacing", 2),
        slice_thickness_mm=values.number_if_any("SliceThickness"),
        transfer_syntax_uid=intern(meta.transfer_syntax_uid),
        is_little=values.is_little,
        pixels=found.pixels,
        scanner=_scanner(values),
        identity_words=_identity_words(values),
    )


def _echo(values: RawValues) -> str:
    time = values.number_if_any("EchoTime")
    return f"{time:.6g}" if time is not None else values.text("EchoNumbers")


def _padding(values: RawValues, is_signed: bool) -> tuple[int, int] | None:
    if not values.raw("PixelPaddingValue"):
        return None
    first = values.short("PixelPaddingValue", 0, is_signed)
    last = values.short("PixelPaddingRangeLimit", first, is_signed)
    return min(first, last), max(first, last)


def _traits(values: RawValues) -> tuple[tuple[str, str], ...]:
    found = []
    for keyword in TRAITS:
        raw = values.raw(keyword)
        if raw and keyword == "DiffusionBValue" and len(raw) == 8:
            (weight,) = struct.unpack("<d" if values.is_little else ">d", raw)
            found.append((keyword, f"{weight:g}"))
        elif raw:
            # binary too; as text it only has to differ where the bytes do
            is_binary = keyword in (
                "DiffusionBValue",
                "DiffusionGradientOrientation",
                "NominalPercentageOfCardiacPhase",
            )
            found.append((keyword, raw.hex() if is_binary else plain_text(raw)))
    return tuple(found)


def _scanner(values: RawValues) -> tuple[tuple[str, str], ...]:
    facts: list[tuple[str, str]] = []
    for keyword in _SCANNER_TEXTS:
        text = values.text(keyword).split("\\")[0]
        if _PLAIN.fullmatch(text):
            facts.append((keyword, text))
    for keyword, largest in _SCANNER_NUMBERS.items():
        number = values.number_if_any(keyword)
        if number is not None and 0.0 <= number <= largest:
            facts.append((keyword, f"{number:g}"))
    return tuple(facts)


def _identity_words(values: RawValues) -> frozenset[str]:
    raw = tuple((keyword, content) for keyword in IDENTITY_TAGS if (content := values.raw(keyword)))
    return _identity_of(raw, values.raw("SpecificCharacterSet"))


# the thousand slices of a series share one set
@lru_cache(maxsize=1024)
def _identity_of(raw: tuple[tuple[str, bytes], ...], character_set: bytes) -> frozenset[str]:
    return words_of_values({keyword: decode(content, character_set) for keyword, content in raw})
