"""Data sets of NIfTI files: the layouts of the Medical Segmentation Decathlon and of nnU-Net v2."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from monai_tl.errors import DataError
from monai_tl.files import read_json

DESCRIPTION = "dataset.json"
PATIENTS = "patients.json"
_ENDINGS = (".nii.gz", ".nii")
_CHANNEL = re.compile(r"(?P<case>.+)_(?P<channel>\d{4})")
_MR_WORDS = ("MR", "T1", "T2", "FLAIR", "ADC", "DWI", "DIFFUSION")


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
        modality: ``CT``, ``MR`` or what the description says, in capitals.
    """

    name: str
    modality: str
    cases: tuple[NiftiCase, ...]


def layout_of(root: Path) -> Literal["decathlon", "nnunet"] | None:
    """Which layout a folder has, or None when it has no dataset.json."""
    if not (root / DESCRIPTION).is_file():
        return None
    description = _description(root)
    return "decathlon" if "training" in description else "nnunet"


def read_decathlon(root: Path) -> NiftiDataset:
    """List the cases of a Decathlon folder (dataset.json with ``training`` and ``test``; imagesTr, labelsTr, imagesTs).

    Raises:
        DataError: The description is damaged or points outside the folder.
    """
    description = _description(root)
    patients = _patients(root)
    cases: list[NiftiCase] = []
    for entry in [*description.get("training", []), *description.get("test", [])]:
        pair = entry if isinstance(entry, dict) else {"image": entry}
        image = _inside(root, pair.get("image"))
        label = _inside(root, pair["label"]) if pair.get("label") else None
        name = _stem(image)
        missing = sum(not path.is_file() for path in (image, label) if path is not None)
        cases.append(NiftiCase(name, (image,), label, patients.get(name, name), missing))
    channels = description.get("modality", {})
    return NiftiDataset(str(description.get("name", "")), _modality(channels), _unique(cases))


def read_nnunet(root: Path) -> NiftiDataset:
    """List the cases of an nnU-Net v2 folder (imagesTr/NAME_0000.nii.gz, labelsTr/NAME.nii.gz, imagesTs).

    Raises:
        DataError: The description is damaged, or the files are no NIfTI.
    """
    description = _description(root)
    channels = description.get("channel_names", {})
    ending = str(description.get("file_ending", ".nii.gz"))
    if ending not in _ENDINGS:
        raise DataError(
            f"{root.name}/{DESCRIPTION}: file_ending {ending!r} is not supported; convert the files to .nii.gz"
        )
    patients = _patients(root)
    n_channels = max(1, len(channels))
    cases: list[NiftiCase] = []
    for images, labels in (("imagesTr", "labelsTr"), ("imagesTs", "labelsTs")):
        names = {
            match["case"]
            for path in sorted((root / images).glob(f"*{ending}"))
            if (match := _CHANNEL.fullmatch(path.name.removesuffix(ending)))
        }
        for name in sorted(names):
            files = tuple(root / images / f"{name}_{channel:04d}{ending}" for channel in range(n_channels))
            label = root / labels / f"{name}{ending}"
            absent = sum(not path.is_file() for path in files)
            known = label if label.is_file() else None
            cases.append(NiftiCase(name, files, known, patients.get(name, name), absent))
    return NiftiDataset(str(description.get("name", "")), _modality(channels), _unique(cases))


def _description(root: Path) -> dict[str, Any]:
    try:
        content = read_json(root / DESCRIPTION)
    except (OSError, json.JSONDecodeError, UnicodeDecodeError):
        raise DataError(f"{root.name}/{DESCRIPTION} cannot be read as JSON; mend it") from None
    if not isinstance(content, dict):
        raise DataError(f"{root.name}/{DESCRIPTION} holds no mapping; mend it")
    return content


def _patients(root: Path) -> dict[str, str]:
    """Case name → patient, where a patient has several cases."""
    path = root / PATIENTS
    if not path.is_file():
        return {}
    try:
        content = read_json(path)
    except ValueError:
        raise DataError(f"{root.name}/{PATIENTS} cannot be read as JSON; mend it") from None
    if not isinstance(content, dict) or not all(isinstance(value, str | int) for value in content.values()):
        raise DataError(f"{root.name}/{PATIENTS} must map case names to patients")
    return {str(name): str(patient) for name, patient in content.items()}


def _inside(root: Path, text: Any) -> Path:
    """A listed path, which must stay in the folder."""
    if not isinstance(text, str) or not text:
        raise DataError(f"{root.name}/{DESCRIPTION}: each entry needs an image path")
    path = root / text
    if not path.resolve().is_relative_to(root.resolve()) and ".." in Path(text).parts:
        raise DataError(f"{root.name}/{DESCRIPTION} lists a path outside its folder; mend it")
    if Path(text).is_absolute() or not path.name.endswith(_ENDINGS):
        raise DataError(f"{root.name}/{DESCRIPTION} must list relative paths of .nii or .nii.gz files")
    return path


def _stem(path: Path) -> str:
    return path.name.removesuffix(".gz").removesuffix(".nii")


def _modality(channels: Any) -> str:
    names = [str(name).upper() for name in (channels.values() if isinstance(channels, dict) else channels)]
    if any(word in name for name in names for word in _MR_WORDS):
        return "MR"
    if any(name.startswith("CT") for name in names):
        return "CT"
    plain = re.sub(r"[^A-Z0-9]", "", names[0])[:16] if names else ""
    return plain or "OT"


def _unique(cases: list[NiftiCase]) -> tuple[NiftiCase, ...]:
    names = [case.name for case in cases]
    if len(set(names)) != len(names):
        raise DataError("the data set lists two cases of one name; rename one of them")
    return tuple(sorted(cases, key=lambda case: case.name))
