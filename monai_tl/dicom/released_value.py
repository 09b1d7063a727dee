"""One value of the allow-list as it may leave: checked against what its attribute can hold, or replaced."""

from __future__ import annotations

import re
import struct
import unicodedata
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from pydicom.datadict import dictionary_has_tag
from pydicom.dataelem import DataElement, RawDataElement
from pydicom.uid import UID_dictionary

from monai_tl.dicom.deidentify import Pseudonyms
from monai_tl.dicom.shifting import clean_time, shift_date, shift_datetime
from monai_tl.dicom.terms import is_device, is_kernel, is_structure, is_term

_NUMBER = r"(?:[+-]?(?:\d++(?:\.\d*+)?+|\.\d++)(?:[eE][+-]?\d{1,3})?+)?+"
_NUMBERS = re.compile(rf"{_NUMBER}(?:\\{_NUMBER})*+", re.ASCII)
_LONGEST_NUMBER = re.compile(r"[^\\]{33}")
_WHOLE = re.compile(r"[+-]?\d{1,12}", re.ASCII)
_FORMATS = {"US": "H", "SS": "h", "UL": "I", "SL": "i", "FL": "f", "FD": "d", "AT": "H", "OW": "H"}
_COUNTER = re.compile(r"[0-9]{1,3}")
_MIN_IDENTIFIER = 5


@dataclass(frozen=True)
class PatientContext:
    """What stands for the patient in all objects of theirs.

    Attributes:
        hasher: Pseudonyms of the project.
        pseudonym: Name and identifier.
        days_back: How far dates are moved.
        identity: Words that tell who the patient is, as ``identity.identity_words`` gives them; never written.
    """

    hasher: Pseudonyms
    pseudonym: str
    days_back: int
    identity: frozenset[str] = field(repr=False)

    @cached_property
    def identifiers(self) -> tuple[str, ...]:
        """Numbers that could be a record number or a birth date."""
        return tuple(sorted(word for word in self.identity if word.isdigit() and len(word) >= _MIN_IDENTIFIER))

    def mark(self, text: str) -> str:
        """Stands for a text that may not leave; the same for equal texts, and a valid code string."""
        return f"X{self.hasher.text(unicodedata.normalize('NFC', text.strip()))}".upper()


def as_text(element: RawDataElement | DataElement, decoded: Callable[[], Any]) -> str:
    """The text of an element; ASCII without a detour over character sets."""
    if isinstance(element, RawDataElement):
        content = element.value or b""
        if content.isascii():
            return content.decode("ascii").strip(" \x00")
    value = decoded()
    if value is None:
        return ""
    if isinstance(value, bytes):
        return value.decode("latin-1").strip(" \x00")
    parts = [value] if isinstance(value, str) or not isinstance(value, Sequence) else list(value)
    return "\\".join(str(part) for part in parts).strip(" \x00")


def release_text(kind: str, text: str, context: PatientContext) -> str:
    """A text of a given kind of the profile, ASCII; empty where it does not pass.

    Args:
        kind: One of the kinds of ``profile.py`` that hold text.
        text: As read; several values are separated by backslashes.
        context: The patient's.
    """
    if not text:
        return ""
    if kind == "hash":
        return context.mark(text)
    if kind == "name":
        return text if is_structure(text, context.identity) else context.mark(text)
    return "\\".join(_release_part(kind, part.strip(" \x00"), context) for part in text.split("\\"))


def _release_part(kind: str, text: str, context: PatientContext) -> str:
    if not text:
        return ""
    if kind == "uid":
        return text if text in UID_dictionary else context.hasher.replaced_uid(text)
    if kind in ("date", "datetime"):
        return (shift_date if kind == "date" else shift_datetime)(text, context.days_back) or ""
    if kind == "time":
        return clean_time(text) or ""
    if kind in ("device", "kernel"):
        return text if (is_device if kind == "device" else is_kernel)(text) else context.mark(text)
    plain = text.upper()
    if is_term(plain):
        return plain
    if kind == "label" and _COUNTER.fullmatch(text):
        return text
    return "" if kind == "term" else context.mark(text)


def release_number_text(representation: str, text: str, context: PatientContext) -> str | None:
    """Numbers written as text (DS, IS): numbers and nothing else, none of them an identifier of the patient.

    Returns:
        None where one is no number.
    """
    if " " in text or "\x00" in text:
        text = "\\".join(part.strip(" \x00") for part in text.split("\\"))
    if not _NUMBERS.fullmatch(text) or _LONGEST_NUMBER.search(text):
        return None
    if any(number in text for number in context.identifiers):
        digits = {re.split("[.eE]", part.lstrip("+-"))[0] for part in text.split("\\")}
        if not digits.isdisjoint(context.identifiers):
            return None
    if representation == "IS" and not all(_WHOLE.fullmatch(part) for part in text.split("\\") if part):
        values = [float(part) if part else None for part in text.split("\\")]
        if not all(value is None or (value.is_integer() and abs(value) < 2**31) for value in values):
            return None
        return "\\".join("" if value is None else str(int(value)) for value in values)
    return text


def release_numbers(
    representation: str, element: RawDataElement | DataElement, context: PatientContext
) -> bytes | None:
    """Binary numbers, little endian.

    Args:
        representation: Of the attribute, ``US`` or ``SS`` where the standard leaves the choice.
        element: As read.
        context: The patient's.

    Returns:
        None where the bytes are no such numbers, or one is an identifier of the patient.
    """
    code = _FORMATS[representation]
    size = struct.calcsize(f"<{code}")
    if isinstance(element, RawDataElement):
        content = element.value or b""
        given = element.VR or representation
        if len(content) % size or given not in (representation, "UN", "US", "SS", "OW") or _is_other(given, size):
            return None
        order = "<" if element.is_little_endian else ">"
        values = struct.unpack(f"{order}{len(content) // size}{code}", content)
    else:
        value = element.value
        parts = (
            []
            if value in (None, "", b"")
            else value
            if isinstance(value, Sequence) and not isinstance(value, (str, bytes))
            else [value]
        )
        if not all(isinstance(part, (int, float)) for part in parts):
            return None
        if representation == "AT":
            parts = [half for part in parts for half in (int(part) >> 16, int(part) & 0xFFFF)]
        values = tuple(parts)
    if representation == "AT" and not _are_standard_tags(values):
        return None
    if representation not in ("AT", "FL", "FD") and any(str(value) in context.identifiers for value in values):
        return None
    try:
        return struct.pack(f"<{len(values)}{code}", *values)
    except struct.error:
        return None


def _is_other(given: str, size: int) -> bool:
    """Whether two-byte numbers were written where the attribute holds longer ones."""
    return given in ("US", "SS", "OW") and size != 2


def _are_standard_tags(halves: Sequence[int]) -> bool:
    tags = [(group << 16) | item for group, item in zip(halves[::2], halves[1::2], strict=False)]
    return len(halves) % 2 == 0 and all(dictionary_has_tag(tag) for tag in tags)
