"""Numbers as they may leave: as many as the attribute holds, of a size that numbers have, and spelling no text."""

from __future__ import annotations

import math
import re
import struct
from collections.abc import Sequence
from functools import cache
from typing import Any

from pydicom.datadict import dictionary_has_tag, dictionary_VM, tag_for_keyword
from pydicom.dataelem import DataElement, RawDataElement

_NUMBER = r"(?:[+-]?(?:\d++(?:\.\d*+)?+|\.\d++)(?:[eE][+-]?\d{1,3})?+)?+"
_NUMBERS = re.compile(rf"{_NUMBER}(?:\\{_NUMBER})*+", re.ASCII)
_LONGEST_NUMBER = re.compile(r"[^\\]{33}")
_WHOLE = re.compile(r"[+-]?\d{1,12}", re.ASCII)
_FORMATS = {"US": "H", "SS": "h", "UL": "I", "SL": "i", "FL": "f", "FD": "d", "AT": "H", "OW": "H"}
_PRINTABLE = frozenset(range(32, 127))
_MOST_VALUES = {
    tag_for_keyword(keyword): most
    for keyword, most in {
        "WindowCenter": 8, "WindowWidth": 8, "DimensionIndexValues": 32, "FrameIncrementPointer": 4,
        "ReferencedSegmentNumber": 8, "ReferencedFrameNumber": 1 << 16, "FocalSpots": 8, "EchoNumbers": 16,
        "ContourData": None,
    }.items()
}  # fmt: skip
_MOST_OF_OTHERS = 64
_LARGEST = {
    tag_for_keyword(keyword): largest
    for keyword, largest in {"AcquisitionMatrix": 8191, "ROIDisplayColor": 255}.items()
}
_LARGEST_TEXT_NUMBER = 1e20
_SMALLEST_FLOAT, _LARGEST_FLOAT = 1e-20, 1e10
_LARGEST_PLAIN_FLOAT = 1e5
_LARGEST_LONG = 0x1FFFFFFF
"""Four characters as one number are larger."""
_LEAST_TEXT = {"FL": 8, "FD": 24}


def number_text(tag: int, representation: str, text: str) -> str | None:
    """Numbers written as text (DS, IS): numbers and nothing else.

    Args:
        tag: Of the attribute, which says how many it holds.
        representation: DS or IS.
        text: As read.

    Returns:
        None where one is no number, or there are more or fewer than the attribute holds.
    """
    if " " in text or "\x00" in text:
        text = "\\".join(part.strip(" \x00") for part in text.split("\\"))
    if not _NUMBERS.fullmatch(text) or _LONGEST_NUMBER.search(text):
        return None
    if text and not _fits(tag, text.count("\\") + 1):
        return None
    parts = text.split("\\")
    if ("e" in text or "E" in text) and not all(abs(float(part)) < _LARGEST_TEXT_NUMBER for part in parts if part):
        return None
    if representation != "IS":
        return text
    if not all(_WHOLE.fullmatch(part) for part in parts if part):
        values = [float(part) if part else None for part in parts]
        if not all(value is None or (value.is_integer() and abs(value) < 2**31) for value in values):
            return None
        parts = ["" if value is None else str(int(value)) for value in values]
    largest = _LARGEST.get(tag)
    if largest is not None and not all(0 <= int(part) <= largest for part in parts if part):
        return None
    return "\\".join(parts)


def binary_numbers(tag: int, representation: str, element: RawDataElement | DataElement) -> tuple[Any, ...] | None:
    """Values of binary numbers; for tags (AT), their halves.

    Args:
        tag: Of the attribute, which says how many it holds.
        representation: Of the attribute, ``US`` or ``SS`` where the standard leaves the choice.
        element: As read.

    Returns:
        None where the bytes are no such numbers.
    """
    values = _unpacked(representation, element)
    if values is None:
        return None
    if representation == "AT":
        count = len(values) // 2
        return values if _are_standard_tags(values) and (not count or _fits(tag, count)) else None
    if representation == "OW":
        return values
    if (values and not _fits(tag, len(values))) or not _are_plausible(tag, representation, values):
        return None
    return values


def packed(representation: str, values: Sequence[Any]) -> bytes | None:
    """Values as little endian bytes; None where one does not fit."""
    try:
        return struct.pack(f"<{len(values)}{_FORMATS[representation]}", *values)
    except struct.error:
        return None


def _unpacked(representation: str, element: RawDataElement | DataElement) -> tuple[Any, ...] | None:
    code = _FORMATS[representation]
    size = struct.calcsize(f"<{code}")
    if isinstance(element, RawDataElement):
        content = element.value or b""
        given = element.VR or representation
        if len(content) % size or given not in (representation, "UN", "US", "SS", "OW") or _is_other(given, size):
            return None
        order = "<" if element.is_little_endian else ">"
        return struct.unpack(f"{order}{len(content) // size}{code}", content)
    value = element.value
    if value in (None, "", b""):
        return ()
    parts = value if isinstance(value, Sequence) and not isinstance(value, (str, bytes)) else [value]
    if not all(isinstance(part, (int, float)) for part in parts):
        return None
    if representation == "AT":
        return tuple(half for part in parts for half in (int(part) >> 16, int(part) & 0xFFFF))
    return tuple(parts)


def _is_other(given: str, size: int) -> bool:
    """Whether two-byte numbers were written where the attribute holds longer ones."""
    return given in ("US", "SS", "OW") and size != 2


def _are_standard_tags(halves: Sequence[int]) -> bool:
    tags = [(group << 16) | item for group, item in zip(halves[::2], halves[1::2], strict=False)]
    return len(halves) % 2 == 0 and all(dictionary_has_tag(tag) for tag in tags)


def _are_plausible(tag: int, representation: str, values: Sequence[Any]) -> bool:
    content = packed(representation, values)
    if content is None:
        return False
    # numbers all of whose bytes are characters are text; of short ones it cannot be told
    if len(content) >= _LEAST_TEXT.get(representation, 6) and _PRINTABLE.issuperset(content):
        return False
    if representation in ("FL", "FD"):
        return all(_is_plausible_float(representation, value) for value in values)
    largest = _LARGEST.get(tag, _LARGEST_LONG if representation in ("UL", "SL") else 0xFFFF)
    return all(abs(value) <= largest for value in values)


def _is_plausible_float(representation: str, value: float) -> bool:
    if value == 0:
        return True
    if not math.isfinite(value) or not _SMALLEST_FLOAT <= abs(value) <= _LARGEST_FLOAT:
        return False
    content = packed(representation, (value,)) or b""
    return representation == "FL" or abs(value) <= _LARGEST_PLAIN_FLOAT or not _PRINTABLE.issuperset(content)


def _fits(tag: int, count: int) -> bool:
    least, most, step = _multiplicity(tag)
    return least <= count and (most is None or count <= most) and (count - least) % step == 0


@cache
def _multiplicity(tag: int) -> tuple[int, int | None, int]:
    """Least and largest number of values, and the step between, as the standard has them."""
    low, _, high = dictionary_VM(tag).partition("-")
    least = int(low)
    if not high:
        return least, least, 1
    if not high.endswith("n"):
        return least, int(high), 1
    # an open end is a place for a text, number by number
    return least, _MOST_VALUES.get(tag, _MOST_OF_OTHERS), int(high.removesuffix("n") or 1)
