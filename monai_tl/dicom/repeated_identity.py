"""Whether numbers or bytes repeat the patient's identity, however they are written."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Sequence
from decimal import Decimal
from typing import Any

_MIN_WORD, _MIN_NUMBER = 4, 5
_MIN_PART = 8
"""From this many digits on a number counts within a longer one, and without its decimal point in a coordinate; shorter
ones would be met by chance among the thousands of coordinates of a contour."""
_MOST_CHARACTERS = 256
_LONGEST_EXPONENT = 30


def repeats_number(parts: Sequence[str], identifiers: Iterable[str], *, is_bulk: bool) -> bool:
    """Whether one of several numbers is an identifier: without sign, leading zeros, decimal point and exponent.

    Args:
        parts: Numbers as text.
        identifiers: Digits.
        is_bulk: Coordinates and the like: an identifier counts without its decimal point from 8 digits on.
    """
    wanted = frozenset(identifiers)
    if not wanted:
        return False
    squeezed = "\\".join(parts).replace(".", "")
    if "e" not in squeezed.lower() and not any(number in squeezed for number in wanted):
        return False
    long = [] if is_bulk else [number for number in wanted if len(number) >= _MIN_PART]
    for part in set(parts):
        forms = _forms(part, is_bulk)
        if not wanted.isdisjoint(forms) or any(number in form for number in long for form in forms):
            return True
    return False


def _forms(text: str, is_bulk: bool) -> set[str]:
    mantissa, _, exponent = text.strip().lower().lstrip("+-").partition("e")
    whole, _, fraction = mantissa.partition(".")
    digits = whole + fraction
    joined = {digits, digits.lstrip("0"), digits.strip("0")}
    found = {whole, whole.lstrip("0")} | {one for one in joined if not is_bulk or len(one) >= _MIN_PART}
    if exponent and digits and abs(int(exponent)) <= _LONGEST_EXPONENT:
        found.add(str(abs(int(Decimal(f"{mantissa}e{exponent}")))))
    return found


def as_numbers(representation: str, values: Iterable[Any]) -> list[str]:
    """Binary numbers as they would be typed."""
    if representation == "FL":
        return [text for value in values for text in (f"{value:.7g}", f"{value:.8g}", f"{value:.9g}")]
    return [str(value) for value in values]


def spells_word(content: bytes, words: Iterable[str]) -> bool:
    """Whether bytes hold a word (4 letters) or number (5 digits) of the identity as text of some kind."""
    wanted = [word for word in words if len(word) >= (_MIN_NUMBER if word.isdigit() else _MIN_WORD)]
    if not wanted or len(content) < _MIN_WORD:
        return False
    even = content[: len(content) - len(content) % 2]
    swapped = b"".join(even[index + 1 : index + 2] + even[index : index + 1] for index in range(0, len(even), 2))
    texts = {
        *(_folded(content.decode(encoding, "ignore")) for encoding in ("latin-1", "utf-8")),
        # characters of two bytes begin at an odd place as well
        *(_folded(content[start:].decode(kind, "ignore")) for kind in ("utf-16-le", "utf-16-be") for start in (0, 1)),
        _folded(swapped.decode("latin-1")),
    }
    return any(word in text for text in texts for word in wanted)


def spells_by_codes(parts: Sequence[str], words: Iterable[str]) -> bool:
    """Whether numbers are the codes of the characters of such a word, one by one."""
    if not _MIN_WORD <= len(parts) <= _MOST_CHARACTERS or not all(
        re.fullmatch(r"\d{2,3}(\.0*)?", one) for one in parts
    ):
        return False
    return spells_word("".join(chr(int(float(part))) for part in parts).encode("latin-1", "ignore"), words)


def _folded(text: str) -> str:
    plain = "".join(one for one in unicodedata.normalize("NFKD", text) if not unicodedata.combining(one))
    return plain.casefold()
