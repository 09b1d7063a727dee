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

    def mark(self, text: str, place: str = "") -> str:
        """Stands for a text that may not leave; the same for equal texts of one place, and a valid code string.

        Args:
            text: Anything.
            place: The attribute, so that equal texts in different ones do not show; empty for names of regions and
                codes, which are the same class wherever they stand.
        """
        plain = unicodedata.normalize("NFC", text.strip())
        return f"X{self.hasher.text(f'{place}|{plain}' if place else plain)}".upper()


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


def release_text(kind: str, text: str, context: PatientContext, place: str) -> str:
    """A text of a given kind of the profile, ASCII; empty where it does not pass.

    Args:
        kind: One of the kinds of ``profile.py`` that hold text.
        text: As read; several values are separated by backslashes.
        context: The patient's.
        place: The attribute: see ``PatientContext.mark``.
    """
    if not text:
        return ""
    if kind == "hash":
        return context.mark(text, place)
    if kind == "name":
        return text if is_structure(text, context.identity) else context.mark(text)
    return "\\".join(_release_part(kind, part.strip(" \x00"), context, place) for part in text.split("\\"))


def _release_part(kind: str, text: str, context: PatientContext, place: str) -> str:
    if not text:
        return ""
    if kind == "uid":
        return text if text in UID_dictionary else context.hasher.replaced_uid(text)
    if kind == "date":
        return shift_date(text, context.days_back) or ""
    if kind == "datetime":
        return shift_datetime(text, context.days_back, context.identifiers) or ""
    if kind == "time":
        return clean_time(text, context.identifiers) or ""
    if kind in ("device", "kernel"):
        is_known = (is_device if kind == "device" else is_kernel)(text, context.identity)
        return text if is_known else context.mark(text, place)
    plain = text.upper()
    if is_term(plain):
        return plain
    if kind == "label" and _COUNTER.fullmatch(text):
        return text
    return "" if kind == "term" else context.mark(text, place)
