"""Data sets of NIfTI files: the layouts of the Medical Segmentation Decathlon and of nnU-Net v2."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ValidationError

from monai_tl.errors import DataError
from monai_tl.files import read_json
from monai_tl.modality import known_modality

DESCRIPTION = "dataset.json"
PATIENTS = "patients.json"
_ENDINGS = (".nii.gz", ".nii")
_CHANNEL = re.compile(r"(?P<case>.+)_(?P<channel>\d{4})")
_KNOWN_CHANNELS = frozenset((
    "adc", "ct", "cta", "dwi", "flair", "hbv", "mr", "mri", "pd", "pdw", "pet", "swi", "t1", "t1c", "t1ce", "t1gd",
    "t1post", "t1w", "t2", "t2*", "t2-flair", "t2flair", "t2w",
))  # fmt: skip
_MR_WORDS = ("MR", "T1", "T2", "FLAIR", "ADC", "DWI", "DIFFUSION")
_TERM_OF = {"PET": "PT", "PD": "MR", "PDW": "MR", "SWI": "MR", "HBV": "MR"}


@dataclass(frozen=True)
class NiftiCase:
    """One case as it lies on disk.

    Attributes:
        name: The case's name in the data set; may identify a patient, so it is never written or shown.
        images: One file a channel, or a single file with all channels.
        label: None when there is none.
        patient: What tells patients apart: from patients.json, else the name.
        missing: Files that the data set lists and the folder lacks.
    """

    name: str
    images: tuple[Path, ...]
    label: Path | None
    patient: str
    missing: int = 0


@dataclass(frozen=True)
class NiftiDataset:
    """A data set in a known layout.

    Attributes:
        name: As its description gives it, else empty.
        modality: ``CT``, ``MR`` or another term of DICOM; ``OT`` where the description has no known word.
        channels: What each channel holds; empty where the description does not say it for all in known words.
    """

    name: str
    modality: str
    cases: tuple[NiftiCase, ...]
    channels: tuple[str, ...] = ()


class _Pair(BaseModel):
    """A case in the Decathlon's lists."""

    image: str
    label: str | None = None


class _Files(BaseModel):
    """A case in nnU-Net's own list."""

    images: list[str]
    label: str | None = None


class _Description(BaseModel):
    """What is used of dataset.json: the Decathlon's and nnU-Net's forms; further keys are theirs."""

    name: str = ""
    modality: dict[str, str] = {}
    channel_names: dict[str, str] = {}
    file_ending: str = ".nii.gz"
    training: list[_Pair | str] = []
    test: list[_Pair | str] = []
    dataset: dict[str, _Files] = {}


_FORMS = {
    "name": "a text",
    "modality": 'a mapping such as {"0": "CT"}',
    "channel_names": 'a mapping such as {"0": "CT"}',
    "file_ending": 'a text such as ".nii.gz"',
    "training": 'a list of {"image": PATH, "label": PATH}',
    "test": "a list of paths",
    "dataset": 'a mapping such as {NAME: {"images": [PATH], "label": PATH}}',
}


def layout_of(root: Path) -> Literal["decathlon", "nnunet"] | None:
    """Which layout a folder has, or None when it has no dataset.json.

    Raises:
        DataError: The description is damaged.
    """
    if not (root / DESCRIPTION).is_file():
        return None
    return "decathlon" if "training" in _description(root).model_fields_set else "nnunet"


def read_decathlon(root: Path) -> NiftiDataset:
    """List the cases of a Decathlon folder (dataset.json with ``training`` and ``test``; imagesTr, labelsTr, imagesTs).

    Raises:
        DataError: The description is damaged or points outside the folder, or patients.json does not fit.
    """
    description = _description(root)
    cases: list[NiftiCase] = []
    for entry in [*description.training, *description.test]:
        pair = _Pair(image=entry) if isinstance(entry, str) else entry
        image = _inside(root, pair.image)
        cases.append(_case(_stem(image), (image,), _inside(root, pair.label) if pair.label else None))
    return _dataset(root, description, description.modality, cases)


def read_nnunet(root: Path) -> NiftiDataset:
    """List the cases of an nnU-Net v2 folder (imagesTr/NAME_0000.nii.gz, labelsTr/NAME.nii.gz, imagesTs).

    Where dataset.json lists the files itself (``dataset``), these are taken.

    Raises:
        DataError: The description is damaged, the files are no NIfTI, or patients.json does not fit.
    """
    description = _description(root)
    if description.dataset:
        cases = [
            _case(
                name,
                tuple(_inside(root, text) for text in entry.images),
                _inside(root, entry.label) if entry.label else None,
            )
            for name, entry in description.dataset.items()
        ]
        return _dataset(root, description, description.channel_names, cases)
    ending = description.file_ending
    if ending not in _ENDINGS:
        raise DataError(f"{DESCRIPTION}: this file_ending is not supported; convert the files to .nii.gz")
    n_channels = max(1, len(description.channel_names))
    cases = []
    for images, labels in (("imagesTr", "labelsTr"), ("imagesTs", "labelsTs")):
        names = {
            match["case"]
            for path in sorted((root / images).glob(f"*{ending}"))
            if (match := _CHANNEL.fullmatch(path.name.removesuffix(ending)))
        }
        for name in sorted(names):
            files = tuple(root / images / f"{name}_{channel:04d}{ending}" for channel in range(n_channels))
            label = root / labels / f"{name}{ending}"
            cases.append(_case(name, files, label if label.is_file() else None))
    return _dataset(root, description, description.channel_names, cases)


def _description(root: Path) -> _Description:
    try:
        return _Description.model_validate(_read_mapping(root / DESCRIPTION))
    except ValidationError as error:
        # neither keys nor values are repeated: they may be names of files, and so of patients
        places = {
            (str(fault["loc"][0]), ".".join(str(part) for part in fault["loc"] if isinstance(part, int)))
            for fault in error.errors()
        }
        lines = [f"  {key}{'.' * bool(at)}{at}: must be {_FORMS[key]}" for key, at in sorted(places)]
        raise DataError("\n".join([f"{DESCRIPTION}: not in the form of the Decathlon or nnU-Net", *lines])) from None


def _read_mapping(path: Path) -> dict[str, Any]:
    try:
        content = read_json(path)
    except (OSError, ValueError, RecursionError):
        raise DataError(f"{path.name} of the data set cannot be read as JSON; mend it") from None
    if not isinstance(content, dict):
        raise DataError(f"{path.name} of the data set holds no mapping; mend it")
    return content


def _case(name: str, images: tuple[Path, ...], label: Path | None) -> NiftiCase:
    files = [path for path in (*images, label) if path is not None]
    return NiftiCase(name, images, label, patient=name, missing=sum(not path.is_file() for path in files))


def _dataset(
    root: Path, description: _Description, channels: Mapping[str, str], cases: list[NiftiCase]
) -> NiftiDataset:
    names = {case.name for case in cases}
    if len(names) != len(cases):
        raise DataError("the data set lists two cases of one name; rename one of them")
    patients = _patients(root)
    n_unknown = len(patients.keys() - names)
    if n_unknown:
        raise DataError(
            f"{PATIENTS}: {n_unknown} of its {len(patients)} names are no case, so patients could be taken apart; use "
            "the cases' names as in the image files, without channel number and ending"
        )
    known = (replace(case, patient=patients.get(case.name, case.name)) for case in cases)
    ordered = tuple(sorted(known, key=lambda case: case.name))
    return NiftiDataset(description.name, _modality(channels), ordered, _channel_names(channels))


def _patients(root: Path) -> dict[str, str]:
    """Case name → patient, where a patient has several cases."""
    if not (root / PATIENTS).is_file():
        return {}
    content = _read_mapping(root / PATIENTS)
    if not all(isinstance(value, str | int) for value in content.values()):
        raise DataError(f"{PATIENTS} must map each case's name to its patient, a text or a number")
    return {name: str(patient) for name, patient in content.items()}


def _inside(root: Path, text: str) -> Path:
    """A listed path, whose text must not lead out of the folder.

    Links in the folder are the user's own and are followed: DVC makes some, with cache.type symlink.
    """
    path = root / text
    if "\0" in text or Path(text).is_absolute() or not path.name.endswith(_ENDINGS):
        raise DataError(f"{DESCRIPTION} must list relative paths of .nii or .nii.gz files")
    if not path.resolve().is_relative_to(root.resolve()) and ".." in Path(text).parts:
        raise DataError(f"{DESCRIPTION} lists a path outside its folder; mend it")
    return path


def _stem(path: Path) -> str:
    return path.name.removesuffix(".gz").removesuffix(".nii")


def _channel_names(channels: Mapping[str, str]) -> tuple[str, ...]:
    """In the order of the channels; empty unless all are known words, since any other text may name somebody."""
    if not all(number.isdecimal() and name.casefold() in _KNOWN_CHANNELS for number, name in channels.items()):
        return ()
    return tuple(channels[number] for number in sorted(channels, key=int))


def _modality(channels: Mapping[str, str]) -> str:
    """A term of DICOM for a known word, since any other text may name somebody; ``OT`` where there is none."""
    names = [name.strip().upper() for name in channels.values()]
    if any(word in name for name in names for word in _MR_WORDS):
        return "MR"
    if any(name.startswith("CT") for name in names):
        return "CT"
    return next(filter(None, (known_modality(_TERM_OF.get(name, name)) for name in names)), "OT")
