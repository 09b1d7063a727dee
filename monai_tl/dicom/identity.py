"""Words that tell who the patient is, so that free text which repeats one of them goes no further."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Mapping
from functools import lru_cache

from pydicom.dataset import Dataset
from pydicom.multival import MultiValue

IDENTITY_TAGS = (
    "PatientID", "IssuerOfPatientID", "OtherPatientIDs", "OtherPatientIDsSequence", "PatientName", "OtherPatientNames",
    "PatientBirthName", "PatientMotherBirthName", "PatientBirthDate", "PatientAddress", "PatientTelephoneNumbers",
    "MedicalRecordLocator", "AccessionNumber", "StudyID", "ReferringPhysicianName",
    "PerformingPhysicianName", "PhysiciansOfRecord", "NameOfPhysiciansReadingStudy", "RequestingPhysician",
    "OperatorsName", "InstitutionName", "InstitutionAddress", "InstitutionalDepartmentName",
)  # fmt: skip
_DATE = re.compile(r"(\d{2})(\d{2})(\d{2})(\d{2})")
_MIN_LENGTH = 3
_MIN_PART = 4
"""A word that holds another one counts from this length of the shorter; with 3, "Siemens" would hold "men"."""
_GENERIC = frozenset(("medical", "systems", "healthcare", "general", "electric"))
"""Words of makers' names that hospitals' names have too, and that tell nobody from others."""


def identity_words(dataset: Dataset) -> frozenset[str]:
    """Words and numbers of 3 characters and more in the attributes that identify; they stay in memory."""
    return words_of_values({keyword: _text_of(dataset, keyword) for keyword in IDENTITY_TAGS})


def words_of_values(texts: Mapping[str, str]) -> frozenset[str]:
    """The same of texts by keyword; several values in one text do no harm."""
    return _words_of(tuple(texts.values()), texts.get("PatientBirthDate", ""))


# the thousand slices of a series share one set
@lru_cache(maxsize=1024)
def _words_of(texts: tuple[str, ...], birth_date: str) -> frozenset[str]:
    found = set[str]().union(*(_words(text) for text in texts))
    date = _DATE.fullmatch(birth_date)
    if date:
        century, year, month, day = date.groups()
        found |= {year + month + day, day + month + year, month + day + year}
        found |= {day + month + century + year, month + day + century + year}
    return frozenset(found)


def shares_word(text: str, words: Iterable[str]) -> bool:
    """Whether a text repeats one of these words or numbers, whole or, from 4 characters on, as a part."""
    return any(_alike(own, other) for own in _words(text) for other in words)


def _alike(one: str, other: str) -> bool:
    short, long = sorted((one, other), key=len)
    return short == long or (len(short) >= _MIN_PART and short in long)


def _text_of(dataset: Dataset, keyword: str) -> str:
    value = dataset.get(keyword)
    if value is None:
        return ""
    if keyword == "OtherPatientIDsSequence":
        return " ".join(str(item.get("PatientID") or "") for item in value)
    return " ".join(map(str, value)) if isinstance(value, MultiValue) else str(value)


def _words(text: str) -> set[str]:
    """Runs of letters and digits, and within them the letters and the digits alone; case and accents do not count."""
    plain = "".join(one for one in unicodedata.normalize("NFKD", text) if not unicodedata.combining(one)).casefold()
    found = {*re.findall(r"[^\W_]+", plain), *re.findall(r"\d+", plain), *re.findall(r"[^\W\d_]+", plain)}
    return {word for word in found if len(word) >= _MIN_LENGTH} - _GENERIC
