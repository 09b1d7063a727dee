"""Classes of a segmentation task: names, values, DICOM codes, and how structures in the input map to them."""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any, TypeVar

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError

from monai_tl.errors import ConfigError, LabelError
from monai_tl.faults import fault_lines, parse_yaml, read_text

MAX_CLASSES = 254
"""A label is a byte a voxel."""
Item = TypeVar("Item", bound=Hashable)


_SNOMED_CT = "SCT"
_VERHOEFF_STEP = (1, 5, 7, 6, 2, 8, 3, 0, 9, 4)


def _check_code(text: str) -> str:
    parts = [part.strip() for part in text.split("|")]
    if len(parts) != 3 or not all(parts):
        raise ValueError("a code is SCHEME|VALUE|MEANING, e.g. SCT|10200004|Liver")
    scheme, value, meaning = parts
    # what DICOM can hold (SH and LO)
    if len(scheme) > 16 or len(meaning) > 64 or not text.isprintable() or "\\" in text:
        raise ValueError("in SCHEME|VALUE|MEANING a scheme has at most 16 characters, a meaning 64, none a backslash")
    if scheme == _SNOMED_CT and not _is_snomed(value):
        raise ValueError(f"{value} is no SNOMED CT identifier: its check digit does not agree; a digit was mistyped")
    return text


def _is_snomed(value: str) -> bool:
    """Whether a text is 6 to 18 digits of which the last is the Verhoeff check digit of the others."""
    if not (value.isascii() and value.isdigit() and 6 <= len(value) <= 18):
        return False
    total = 0
    for place, character in enumerate(reversed(value)):
        digit = int(character)
        for _ in range(place % 8):
            digit = _VERHOEFF_STEP[digit]
        total = _turn_and_flip(total, digit)
    return total == 0


def _turn_and_flip(one: int, other: int) -> int:
    """Product in the symmetry group of the pentagon: 0 to 4 turn it, 5 to 9 flip it too."""
    turns = one % 5 + other % 5 if one < 5 else one % 5 - other % 5
    return turns % 5 + (5 if (one < 5) != (other < 5) else 0)


CodeText = Annotated[str, AfterValidator(_check_code)]
"""A coded concept as ``SCHEME|VALUE|MEANING``."""


class ClassSpec(BaseModel):
    """One foreground class.

    Attributes:
        name: Its name in metrics and reports.
        structures: What it is called in the input: an RTSTRUCT ROI name or SEG segment label (case and
            surrounding blanks do not matter), or a code as ``SCHEME|VALUE``. Empty: the name alone.
        values: For NIfTI labels, the voxel values that mean it. Empty: its position in the list, from 1.
        category: Segmented property category for DICOM SEG.
        type: Segmented property type for DICOM SEG.
        anatomic_region: Where it lies, for types that do not say so themselves (a neoplasm).
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str = Field(min_length=1, max_length=64, pattern=r"^[A-Za-z][A-Za-z0-9 _.-]*$")
    structures: tuple[str, ...] = ()
    values: tuple[Annotated[int, Field(strict=True)], ...] = ()
    category: CodeText = "SCT|91723000|Anatomical Structure"
    type: CodeText = "SCT|85756007|Tissue"
    anatomic_region: CodeText | None = None


class LabelScheme(BaseModel):
    """The ordered foreground classes; class k (from 0) has the value k + 1, background is 0.

    Where two structures overlap the later class wins, so a tumour is listed after its organ.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    classes: tuple[ClassSpec, ...] = Field(min_length=1, max_length=MAX_CLASSES)

    @property
    def names(self) -> tuple[str, ...]:
        """Foreground class names in the order of their values."""
        return tuple(spec.name for spec in self.classes)

    @property
    def n_outputs(self) -> int:
        """Output channels of a softmax network: background and each class."""
        return len(self.classes) + 1

    def value_of_structure(self, name: str, codes: tuple[str, ...] = ()) -> int | None:
        """Label value for an ROI or segment, or None when the scheme does not ask for it.

        Args:
            name: ROI name or segment label as read.
            codes: Codes of the ROI or segment as ``SCHEME|VALUE``.

        Raises:
            LabelError: Two classes claim the same structure.
        """
        wanted = {name.strip().casefold(), *(code.casefold() for code in codes)}
        found = [index + 1 for index, spec in enumerate(self.classes) if wanted & _structures_of(spec)]
        if len(found) > 1:
            names = ", ".join(self.classes[value - 1].name for value in found)
            raise LabelError(f"one structure matches several classes ({names}); make ingest.classes distinct")
        return found[0] if found else None

    def value_map(self) -> dict[int, int]:
        """Voxel value in a NIfTI label → value in this scheme."""
        return {value: index + 1 for index, spec in enumerate(self.classes) for value in _values_of(spec, index)}


def read_scheme(path: Path) -> LabelScheme:
    """Read the classes of a label from a YAML file.

    Either ``classes:``, a list as in ``ingest.classes`` of params.yaml, or short, in the order of label values::

        liver: [Liver, SCT|10200004]
        tumour: GTV
        spleen:

    Args:
        path: UTF-8. A class with nothing behind it is found by its own name.

    Raises:
        ConfigError: The file is missing, no YAML, or describes no classes; every fault with its key path.
    """
    content = parse_yaml(read_text(path, "there is no such file; give the path of a map of labels"), path.name)
    if not isinstance(content, dict) or not content:
        raise ConfigError("(file): a map of class names to structures is needed, e.g. liver: [Liver]", path.name)
    is_long = set(content) == {"classes"} and _are_specs(content["classes"])
    entries = list(_long_form(content["classes"])) if is_long else list(_short_form(content))
    faults: list[str] = []
    found: list[ClassSpec] = []
    for key, entry in entries:
        try:
            found.append(ClassSpec.model_validate(entry))
        except ValidationError as error:
            faults += [f"{key}.{line}".replace(".(file):", ":", 1) for line in fault_lines(error, ClassSpec)]
    if not 1 <= len(entries) <= MAX_CLASSES:
        faults.append(f"classes: {len(entries)} classes; 1 to {MAX_CLASSES} are possible")
    if faults := faults or [f"classes: {fault}" for fault in class_faults(found)]:
        raise ConfigError(faults, path.name)
    return LabelScheme(classes=tuple(found))


def _are_specs(value: Any) -> bool:
    """Whether this is the list of the long form, and not what a class that is called classes is called in the input."""
    return value in (None, []) or (isinstance(value, list) and any(isinstance(item, dict) for item in value))


def _long_form(items: list[Any] | None) -> Iterator[tuple[str, Any]]:
    """Each class with its key path."""
    yield from ((f"classes.{index}", item) for index, item in enumerate(items or ()))


def _short_form(content: dict[Any, Any]) -> Iterator[tuple[str, Any]]:
    """Each class as in the long form, with its key path."""
    for name, value in content.items():
        structures = [] if value is None else value if isinstance(value, list) else [value]
        yield str(name), {"name": name, "structures": structures}


def _structures_of(spec: ClassSpec) -> set[str]:
    return {text.strip().casefold() for text in (spec.structures or (spec.name,))}


def _values_of(spec: ClassSpec, index: int) -> tuple[int, ...]:
    return spec.values or (index + 1,)


def class_faults(classes: Sequence[ClassSpec]) -> list[str]:
    """What keeps classes from being told apart: equal names, structures or values, and a value that is background's."""
    faults = [
        f"the name {name!r} is given to classes {listed}; each class needs its own"
        for name, listed in _shared([{spec.name.casefold()} for spec in classes])
    ]
    for number, spec in enumerate(classes, start=1):
        if spec.name.casefold() == "background":
            faults.append(f"class {number} is called 'background', which is no class; leave it out")
        if any(value < 1 for value in spec.values):
            faults.append(f"class {number} ({spec.name}) has a value below 1; 0 is background in a label")
    for text, listed in _shared([_structures_of(spec) for spec in classes]):
        faults.append(f"the structure {text!r} belongs to classes {listed}; give it to one of them")
    for value, listed in _shared([set(_values_of(spec, index)) for index, spec in enumerate(classes)]):
        faults.append(f"the NIfTI value {value} belongs to classes {listed}; give it to one of them")
    return faults


def _shared(sets: Sequence[set[Item]]) -> Iterator[tuple[Item, str]]:
    """Items of more than one set, with the numbers of these, from 1."""
    for item in sorted(set().union(*sets), key=str):
        owners = [str(number) for number, items in enumerate(sets, start=1) if item in items]
        if len(owners) > 1:
            yield item, " and ".join(owners)
