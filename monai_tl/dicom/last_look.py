"""A look over what was composed, whatever made it: no word or number of the patient's identity stands in it as text."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping

from pydicom.datadict import dictionary_VR

from monai_tl.dicom.explicit_writing import elements_of, items_of
from monai_tl.dicom.profile import RULES
from monai_tl.dicom.repeated_identity import spells_word
from monai_tl.errors import DicomError

_OURS = frozenset(("uid", "hash", "pseudonym", "dummy", "zero", "date", "datetime", "time", "term", "token", "tag"))
"""Made by us, or of closed lists of the standard, whose words may be those of a name or hospital by chance."""
_MARK = re.compile(rb"X[0-9A-F]{8} ?")
_TYPED_NUMBERS = ("DS", "IS")
"""No letters can be in them, and their digits were compared number by number."""
_MIN_LETTERS = 5


def refuse_identity(elements: Mapping[int, bytes], identity: frozenset[str], identifiers: frozenset[str]) -> None:
    """Look through all elements that hold what was in the file.

    Args:
        elements: As ``monai_tl.dicom.scrub.scrub`` gives them.
        identity: Words of the patient's identity.
        identifiers: Numbers that identify.

    Raises:
        DicomError: Code ``identity_in_values``.
    """
    words = {word for word in identity if len(word) >= _MIN_LETTERS and not word.isdigit()}
    wanted = words | identifiers
    for value in _values(b"".join(elements.values())):
        if spells_word(value, wanted):
            raise DicomError(
                "a word or number that tells who the patient is would stand in the new file; it is held back",
                "identity_in_values",
            )


def _values(content: bytes) -> Iterator[bytes]:
    for tag, representation, value in elements_of(content):
        if representation == "SQ":
            for item in items_of(value):
                yield from _values(item)
        elif _is_of_the_file(tag) and value and not _MARK.fullmatch(value):
            yield value


def _is_of_the_file(tag: int) -> bool:
    return RULES.get(tag, "term") not in _OURS and dictionary_VR(tag) not in _TYPED_NUMBERS
