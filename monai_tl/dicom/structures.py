"""What label objects name, and the classes made of it when nobody says which ones are wanted."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from pydantic import ValidationError
from pydicom.dataset import Dataset

from monai_tl.dicom.identity import identity_words, shares_word
from monai_tl.errors import LabelError
from monai_tl.labels import MAX_CLASSES, ClassSpec, LabelScheme

_MAX_DIGITS = 5
"""A name with more may hold a date or a record number."""
_HASHED_NAME = re.compile(r"X[0-9A-F]{8}")
"""What ``monai-tl deidentify`` puts in the place of a name: the same for every patient, as a class must be."""
_HASHED_PATIENT = re.compile(r"[0-9a-f]{12}")


@dataclass(frozen=True)
class Structure:
    """An ROI of an RTSTRUCT or a segment of a SEG.

    Attributes:
        number: ROINumber or SegmentNumber.
        name: As read: free text, which may name the patient; it goes nowhere unchecked.
        codes: As ``SCHEME|VALUE``.
        n_parts: Closed outlines or frames; in a LABELMAP, where each frame may show it, all frames.
    """

    number: int
    name: str
    codes: tuple[str, ...] = ()
    n_parts: int = 0


def scheme_of(structures: Iterable[Structure], words: Iterable[str]) -> LabelScheme:
    """One class for each structure that is drawn, in the order of their names; names that differ in case are the same.

    A class is called what its structure is, where that is a plain short text that repeats nothing that identifies;
    else ``structure-N``; a keyed hash that de-identification put there is one. The same set of structures
    gives the same scheme.

    Args:
        structures: Of all label objects of a series.
        words: Words and numbers that identify somebody: see ``monai_tl.dicom.identity.identity_words``.

    Raises:
        LabelError: Code ``no_outline`` when nothing is drawn, ``too_many_classes`` beyond 254.
    """
    words = frozenset(words)
    spellings: dict[str, set[str]] = {}
    for one in structures:
        if one.n_parts:
            spellings.setdefault(_key(one.name), set()).add(one.name.strip())
    if not spellings:
        raise LabelError("none of the structures has an outline or a frame; finish the drawing", "no_outline")
    check_count(len(spellings))
    stand_ins = _stand_ins(spellings)
    specs = [
        _plain_class(min(names), words) or ClassSpec(name=next(stand_ins), structures=(key,))
        for key, names in sorted(spellings.items())
    ]
    return LabelScheme(classes=tuple(sorted(specs, key=lambda spec: (spec.name.casefold(), spec.name))))


def check_count(n_structures: int) -> None:
    """Refuse more structures than a label has values.

    Raises:
        LabelError: Code ``too_many_classes``.
    """
    if n_structures > MAX_CLASSES:
        raise LabelError(
            f"{n_structures} structures are more than the {MAX_CLASSES} classes of a label; choose among them with "
            "a map of labels",
            "too_many_classes",
        )


def values_of(structures: Sequence[Structure], scheme: LabelScheme, by_name_alone: bool = False) -> dict[int, int]:
    """Number of a structure → its value, for those that the scheme asks for.

    Args:
        structures: Of one label object.
        scheme: Names or codes of each class.
        by_name_alone: The scheme was made by ``scheme_of``, in which no text is a code.

    Raises:
        LabelError: Two classes claim the same structure.
    """
    found = (
        (one.number, scheme.value_of_structure(one.name, () if by_name_alone else one.codes)) for one in structures
    )
    return {number: value for number, value in found if value is not None}


def names_only(scheme: LabelScheme) -> LabelScheme:
    """A scheme without what the structures are called in the input."""
    return LabelScheme(classes=tuple(ClassSpec(name=name) for name in scheme.names))


def authors_words(dataset: Dataset) -> frozenset[str]:
    """Words that identify the patient of a label object, and those who drew or approved it."""
    items = [*(dataset.get("RTROIObservationsSequence") or ()), *(dataset.get("SegmentSequence") or ()), dataset]
    people = Dataset()
    people.OtherPatientNames = [
        str(item.get(keyword))
        for item in items
        for keyword in ("ROIInterpreter", "ContentCreatorName", "ReviewerName")
        if item.get(keyword)
    ]
    return identity_words(dataset) | identity_words(people)


def _key(name: str) -> str:
    return name.strip().casefold()


def _stand_ins(taken: Mapping[str, object]) -> Iterator[str]:
    number = 0
    while True:
        number += 1
        if f"structure-{number}" not in taken:
            yield f"structure-{number}"


def _plain_class(name: str, words: frozenset[str]) -> ClassSpec | None:
    is_hash = _HASHED_NAME.fullmatch(name) is not None
    n_digits = sum(one.isdigit() for one in name)
    if (n_digits > _MAX_DIGITS and not is_hash) or _key(name) == "background":
        return None
    # in a de-identified file both are hashes, and digits that they share by chance tell nothing; in any other file a
    # name of this form may be a record number
    if shares_word(name, words) and not (is_hash and _is_pseudonymous(words)):
        return None
    try:
        return ClassSpec(name=name, structures=(name,))
    except ValidationError:
        return None


def _is_pseudonymous(words: frozenset[str]) -> bool:
    """Whether the patient is called as ``monai-tl deidentify`` calls them: ``patient-`` and 12 hex digits."""
    return "patient" in words and any(_HASHED_PATIENT.fullmatch(word) for word in words)
