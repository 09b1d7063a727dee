"""The allow-list applied to a data set and all its sequences: a new object is composed, nothing is copied whole."""

from __future__ import annotations

import numpy as np
from pydicom.datadict import dictionary_VR
from pydicom.dataelem import DataElement, RawDataElement
from pydicom.dataset import Dataset
from pydicom.tag import BaseTag, Tag

from monai_tl.dicom.explicit_writing import element, join, sequence
from monai_tl.dicom.profile import DUMMIES, RULES
from monai_tl.dicom.released_number import binary_numbers, number_text, packed
from monai_tl.dicom.released_value import (
    PatientContext,
    as_text,
    release_text,
)
from monai_tl.dicom.repeated_identity import as_numbers, repeats_number, spells_by_codes, spells_word
from monai_tl.dicom.terms import is_structure, known_code
from monai_tl.errors import DicomError

_CODE_VALUE, _SCHEME, _MEANING = 0x00080100, 0x00080102, 0x00080104
_LONG_VALUE, _URN_VALUE = 0x00080119, 0x00080120
_CODE_TAGS = frozenset((_CODE_VALUE, _SCHEME, _MEANING, _LONG_VALUE, _URN_VALUE))
_OWN_SCHEME = "99MONAI_TL"
_DUMMY_BY_TAG = {Tag(keyword): text for keyword, text in DUMMIES.items()}
_MAX_DEPTH = 12
_HEAD = 8
"""Bytes of an element without a value."""
_DESCRIPTOR, _PHOTOMETRIC = 0x00283002, 0x00280004
_TABLE_FAULT = (
    "the look-up table does not rise or fall throughout, or contradicts its description; export with a rescale"
)
_MAX_ENTRIES = 1 << 16


def scrub(dataset: Dataset, context: PatientContext, *, signed: bool, depth: int = 0) -> dict[int, bytes]:
    """What may leave of a data set, pixel data aside.

    Args:
        dataset: Of a file or an item.
        context: Stands for the patient.
        signed: Whether the object's pixels are: decides the representation of some numbers.
        depth: Sequences above this data set.

    Returns:
        Tag → the element's bytes in Explicit VR Little Endian.

    Raises:
        DicomError: An attribute without which the image cannot be read is invalid; or the nesting is absurd.
    """
    if depth > _MAX_DEPTH:
        raise DicomError(f"sequences are nested more than {_MAX_DEPTH} deep; the file is damaged", "damaged")
    found: dict[int, bytes] = {}
    tags = tuple(dataset.keys())
    for tag in tags:
        kind = RULES.get(int(tag))
        if kind is not None:
            content = _release(kind, tag, dataset, context, signed, depth)
            if content is not None:
                found[int(tag)] = content
    if any(tag in dataset for tag in _CODE_TAGS):
        found.update(_coded_entry(dataset, context))
    return found


def _release(
    kind: str, tag: BaseTag, dataset: Dataset, context: PatientContext, signed: bool, depth: int
) -> bytes | None:
    representation = dictionary_VR(tag)
    if " or " in representation:
        representation = "OW" if representation.endswith("OW") else "SS" if signed else "US"
    if kind == "zero":
        return element(tag, representation, b"")
    if kind == "dummy":
        return element(tag, representation, _DUMMY_BY_TAG[tag].encode("ascii"))
    if kind == "pseudonym":
        return element(tag, representation, context.pseudonym.encode("ascii"))
    if kind == "items":
        found = dataset[tag]
        if found.VR != "SQ":
            return None
        return sequence(tag, (join(scrub(item, context, signed=signed, depth=depth + 1)) for item in found.value))
    if kind == "table":
        return _table(tag, dataset, context)
    raw = dataset.get_item(tag)
    if kind in ("number", "essential", "vital", "tag"):
        content = _numbers(kind, representation, tag, dataset, context)
        if kind == "essential" and (content is None or len(content) <= _HEAD):
            raise DicomError("a number that describes the pixels is none; export the file again", "damaged")
        return content
    text = release_text(kind, _text(dataset, tag, raw), context, place=f"{int(tag):08X}")
    if tag == _PHOTOMETRIC and text.startswith("PALETTE"):
        # a label map in colours: without its tables, which are free bytes, it is one in grey
        text = "MONOCHROME2"
    return element(tag, representation, text.encode("ascii"))


def _numbers(kind: str, representation: str, tag: BaseTag, dataset: Dataset, context: PatientContext) -> bytes | None:
    raw = dataset.get_item(tag)
    content: bytes | None
    if representation in ("DS", "IS"):
        text = number_text(tag, representation, _text(dataset, tag, raw))
        content, parts = (text or "").encode("ascii"), (text or "").split("\\")
    else:
        values = binary_numbers(tag, representation, raw)
        content = None if values is None else packed(representation, values)
        if content is None:
            return None
        parts = [] if representation == "AT" else as_numbers(representation, values or ())
        if spells_word(content, context.identity):
            _refused(kind)
            return None
    if repeats_number(parts, context.identifiers, is_bulk=kind == "vital") or spells_by_codes(parts, context.identity):
        _refused(kind)
        return element(tag, representation, b"") if representation in ("DS", "IS") else None
    return element(tag, representation, content)


def _refused(kind: str) -> None:
    """Nothing stands for a number that repeats the identity; without some, the others would mean something else."""
    if kind in ("essential", "vital"):
        raise DicomError(
            "a number that the image or its outlines need repeats an identifier of the patient; look at the file",
            "identity_in_numbers",
        )


def _text(dataset: Dataset, tag: BaseTag, raw: RawDataElement | DataElement) -> str:
    return as_text(raw, lambda: dataset[tag].value)


def _table(tag: BaseTag, dataset: Dataset, context: PatientContext) -> bytes:
    """A lookup table, no longer than its descriptor says: what is behind it could be anything.

    Raises:
        DicomError: Code ``lookup_table``: it is none that rises or falls throughout, as no text does.
    """
    raw = dataset.get_item(tag)
    descriptor = dataset.get(_DESCRIPTOR)
    values = binary_numbers(tag, "OW", raw) if isinstance(raw, RawDataElement) else None
    content = packed("OW", values) if values else None
    if content is None or descriptor is None or len(descriptor.value or ()) != 3:
        raise DicomError(_TABLE_FAULT, "lookup_table")
    entries = int(descriptor.value[0]) % _MAX_ENTRIES or _MAX_ENTRIES
    bits = int(descriptor.value[2])
    # tables of 8-bit entries are also written with 16 bits an entry
    size = 2 if bits > 8 or len(content) >= 2 * entries else 1
    content = content[: entries * size]
    outputs = np.frombuffer(content, "<u2" if size == 2 else np.uint8).astype(np.int64)
    steps = np.diff(outputs)
    fine = len(outputs) == entries and 8 <= bits <= 16 and int(outputs.max()) < 1 << bits
    if not fine or not ((steps >= 0).all() or (steps <= 0).all()) or spells_word(content, context.identity):
        raise DicomError(_TABLE_FAULT, "lookup_table")
    # the pad of an odd number of bytes is a zero, which a text's would not be
    return element(tag, "OW", content + b"\x00" * (len(content) % 2))


def _coded_entry(dataset: Dataset, context: PatientContext) -> dict[int, bytes]:
    """A code of the standard's lists with the meaning it has there; any other as keyed hashes, in our own scheme."""
    texts = {tag: _text(dataset, Tag(tag), dataset.get_item(Tag(tag))) for tag in _CODE_TAGS if tag in dataset}
    value = texts.get(_CODE_VALUE) or texts.get(_LONG_VALUE) or texts.get(_URN_VALUE) or ""
    scheme, given = texts.get(_SCHEME, ""), texts.get(_MEANING, "")
    meaning = known_code(scheme, value)
    if meaning is None:
        value, scheme = context.mark(f"{scheme}|{value}"), _OWN_SCHEME
        meaning = given if is_structure(given, context.identity) else context.mark(given or value)
    tag, representation = (_CODE_VALUE, "SH") if len(value) <= 16 else (_LONG_VALUE, "UC")
    return {
        tag: element(tag, representation, value.encode("ascii")),
        _SCHEME: element(_SCHEME, "SH", scheme.encode("ascii")),
        _MEANING: element(_MEANING, "LO", meaning.encode("ascii")),
    }
