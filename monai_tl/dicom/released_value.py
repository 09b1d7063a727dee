"""One value of the allow-list as it may leave: checked against what its attribute can hold, or replaced."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from pydicom.dataelem import DataElement, RawDataElement
from pydicom.uid import UID_dictionary

from monai_tl.dicom.deidentify import Pseudonyms
from monai_tl.dicom.shifting import clean_time, shift_date, shift_datetime
from monai_tl.dicom.terms import is_device, is_kernel, is_structure, is_term

_COUNTER = re.compile(r"[0-9]{1,3}")


@dataclass(frozen=True)
class PatientContext:
    """What stands for the patient in all objects of theirs.

    Attributes:
        hasher: Pseudonyms of the project.
        pseudonym: Name and identifier.
        days_back: How far dates are moved.
        identity: Words that tell who the patient is, as ``identity.identity_words`` gives them; never written.
        identifiers: Numbers that do, as ``identifiers.identifying_numbers`` gives them; never written.
    """

    hasher: Pseudonyms
    pseudonym: str
    days_back: int
    identity: frozenset[str] = field(repr=False)
    identifiers: frozenset[str] = field(repr=False)

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
