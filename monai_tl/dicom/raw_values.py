"""Elements of a data set from their raw bytes (PS3.5, section 6.2)."""

from __future__ import annotations

import math
from collections.abc import Mapping
from functools import lru_cache

from pydicom.charset import convert_encodings, decode_bytes

from monai_tl.dicom.scan import Scanned
from monai_tl.errors import DicomError


class RawValues:
    """Values by keyword.

    Args:
        found: What a pass over the file has kept.
        tag_of: Keyword → tag of everything that will be asked for.
    """

    def __init__(self, found: Scanned, tag_of: Mapping[str, int]) -> None:
        self.is_little = found.is_little
        self._values, self._tag_of = found.values, tag_of

    def raw(self, keyword: str) -> bytes:
        """As in the file; empty when absent."""
        return self._values.get(self._tag_of[keyword], b"")

    def text(self, keyword: str) -> str:
        """Text of the default character set, without padding; empty when absent."""
        raw = self._values.get(self._tag_of[keyword])
        return plain_text(raw) if raw else ""

    def decoded(self, keyword: str) -> str:
        """Text in the file's own character set."""
        raw = self._values.get(self._tag_of[keyword])
        if not raw:
            return ""
        return (
            plain_text(raw) if raw.isascii() and b"\x1b" not in raw else decode(raw, self.raw("SpecificCharacterSet"))
        )

    def short(self, keyword: str, default: int, is_signed: bool = False) -> int:
        """A 16-bit number."""
        raw = self._values.get(self._tag_of[keyword])
        if not raw:
            return default
        return int.from_bytes(raw[:2], "little" if self.is_little else "big", signed=is_signed)

    def integer(self, keyword: str, default: int) -> int:
        """An integer string.

        Raises:
            DicomError: Code ``damaged``: it is no number.
        """
        text = self.text(keyword)
        try:
            return int(text) if text else default
        except ValueError:
            raise DicomError(f"{keyword} is no whole number; export the file again", "damaged") from None

    def number(self, keyword: str) -> float | None:
        """A decimal string, the first where there are more; None when absent.

        Raises:
            DicomError: Code ``damaged``: it is no finite number.
        """
        found = self.numbers(keyword, 1)
        return found[0] if found else None

    def number_if_any(self, keyword: str) -> float | None:
        """The same for an attribute that can be done without: None too where it is no finite number."""
        try:
            return self.number(keyword)
        except DicomError:
            return None

    def numbers(self, keyword: str, count: int) -> tuple[float, ...] | None:
        """Decimal strings; None when absent.

        Raises:
            DicomError: Code ``damaged``: they are not ``count`` finite numbers.
        """
        raw = self._values.get(self._tag_of[keyword])
        try:
            found = _decimals(raw) if raw else ()
        except ValueError:
            raise DicomError(f"{keyword} holds something that is no number; export the file again", "damaged") from None
        if not found:
            return None
        # a second value where one is meant does no harm
        found = found[:1] if count == 1 else found
        if len(found) != count or not all(map(math.isfinite, found)):
            numbers = "a finite number" if count == 1 else f"{count} finite numbers"
            raise DicomError(f"{keyword} does not hold {numbers}; export the file again", "damaged")
        return found


@lru_cache(maxsize=4096)
def plain_text(raw: bytes) -> str:
    """Text byte by byte, without padding."""
    return raw.decode("latin-1").strip(" \0\t\r\n")


@lru_cache(maxsize=4096)
def _decimals(raw: bytes) -> tuple[float, ...]:
    text = raw.decode("latin-1").strip(" \0")
    return tuple(float(part) for part in text.split("\\")) if text else ()


def decode(raw: bytes, character_set: bytes) -> str:
    """Text of a data set's character set; what that set cannot read is taken byte by byte, so that nothing is lost."""
    names = character_set.decode("latin-1").strip(" \0").split("\\")
    try:
        return str(decode_bytes(raw, convert_encodings(names), {"\\", "^", "="})).strip(" \0")
    except (LookupError, UnicodeError, ValueError):
        return plain_text(raw)
