"""Numbers that tell who the patient is: record numbers, numbers of orders and visits, and true dates."""

from __future__ import annotations

import re
from collections.abc import Iterator, Set

from pydicom.datadict import dictionary_VR, tag_for_keyword
from pydicom.dataset import Dataset
from pydicom.multival import MultiValue

from monai_tl.dicom.identity import IDENTITY_TAGS
from monai_tl.errors import DicomError

_ORDERS = (
    "AdmissionID", "ServiceEpisodeID", "RequestedProcedureID", "ScheduledProcedureStepID", "PerformedProcedureStepID",
    "PlacerOrderNumberImagingServiceRequest", "FillerOrderNumberImagingServiceRequest",
    "PlacerOrderNumberProcedure", "FillerOrderNumberProcedure",
    "ClinicalTrialSubjectID", "ClinicalTrialSubjectReadingID", "SpecimenIdentifier", "ContainerIdentifier",
)  # fmt: skip
_TAGS = frozenset(tag for tag in map(tag_for_keyword, (*IDENTITY_TAGS, *_ORDERS)) if tag is not None)
_DAY = re.compile(r"\s*(\d{2})(\d{2})[.]?(\d{2})[.]?(\d{2})")
_SEPARATORS = re.compile(r"[^0-9A-Za-z\\]+")
MIN_DIGITS = 5
"""Shorter numbers are those of any slice or series."""
_MAX_DEPTH = 12


def identifying_numbers(dataset: Dataset) -> frozenset[str]:
    """Digits, 5 and more, of all identifiers and dates of a data set and its sequences, in the ways they are written.

    Raises:
        DicomError: The nesting is absurd.
    """
    found: set[str] = set()
    for representation, text in set(_texts(dataset, 0)):
        if representation in ("DA", "DT"):
            found |= _written_dates(text)
        if representation != "DT":
            found |= _numbers(text)
    return frozenset(one for number in found for one in (number, number.lstrip("0")) if len(one) >= MIN_DIGITS)


def _numbers(text: str) -> Set[str]:
    joined = _SEPARATORS.sub("", text)
    # 12-345-678 is typed again without its hyphens
    return {*re.findall("[0-9]+", text), *re.findall("[0-9]+", joined), re.sub("[^0-9]", "", text)}


def _written_dates(text: str) -> Set[str]:
    day_found = _DAY.match(text)
    if day_found is None:
        return set()
    century, year, month, day = day_found.groups()
    short = (year + month + day, day + month + year, month + day + year)
    return {
        century + year + month + day, day + month + century + year, month + day + century + year, *short
    }  # fmt: skip


def _texts(dataset: Dataset, depth: int) -> Iterator[tuple[str, str]]:
    if depth > _MAX_DEPTH:
        raise DicomError(f"sequences are nested more than {_MAX_DEPTH} deep; the file is damaged", "damaged")
    for tag in tuple(dataset.keys()):
        if tag.is_private:
            continue
        try:
            representation = dictionary_VR(tag)
        except KeyError:
            continue
        if representation == "SQ":
            element = dataset[tag]
            if element.VR == "SQ":
                for item in element.value or ():
                    yield from _texts(item, depth + 1)
        elif representation in ("DA", "DT") or tag in _TAGS:
            value = dataset[tag].value
            for part in value if isinstance(value, (MultiValue, list)) else (value,):
                if part is not None:
                    yield representation, str(part)
