"""Words of the patient that stand as text in pixel bytes, told from pixels that happen to read so."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from pydicom.dataset import Dataset

from monai_tl.dicom.identity import identity_words

_MIN_WORD = 5
_ENCODINGS = ("utf-8", "latin-1", "utf-16-le", "utf-16-be")
_OWN = ("PatientName", "PatientID", "OtherPatientIDs", "OtherPatientNames", "PatientBirthName", "PatientBirthDate")
_CHANCE = 1e-6
"""Expected chance hits in one frame from which on a word counts as pixels that read so."""
_CHANCE_OF_GREY = 1e-8
"""The same for native pixels: neighbours are alike, so letters follow each other more often than counts of each say."""


def pixel_words(dataset: Dataset) -> frozenset[str]:
    """Words to look for in the pixels: those of ``identity_words``, and the patient's own with their accents."""
    own = " ".join(str(dataset.get(keyword) or "") for keyword in _OWN)
    for mark in "^=\\,'[]()":
        own = own.replace(mark, " ")
    return frozenset(word for word in {*identity_words(dataset), *own.split()} if len(word) >= _MIN_WORD)


def holds_word(content: bytes, words: frozenset[str], is_native: bool) -> bool:
    """Whether one of the words stands in the bytes, in small or large letters, and not by chance.

    Args:
        content: Native pixels or one compressed stream.
        words: From ``pixel_words``.
        is_native: The bytes are grey values.
    """
    limit = _CHANCE_OF_GREY if is_native else _CHANCE
    forms = {form for word in words if len(word) >= _MIN_WORD for form in _forms(word)}
    return any(_is_meant(content, form, limit) for form in forms)


def _forms(word: str) -> Iterator[bytes]:
    for text in (word, word.lower(), word.upper(), word.title()):
        for encoding in _ENCODINGS:
            try:
                yield text.encode(encoding)
            except UnicodeEncodeError:
                continue


def _is_meant(content: bytes, form: bytes, limit: float) -> bool:
    place = content.find(form)
    if place < 0:
        return False
    # words of two bytes are counted apart by their first and second byte
    values = np.frombuffer(content, np.uint8)
    shares = [np.bincount(values[odd::2], minlength=256) / max(1, len(values[odd::2])) for odd in (0, 1)]
    expected = float(len(content))
    for offset, value in enumerate(form):
        expected *= float(shares[(place + offset) % 2][value])
    return expected < limit
