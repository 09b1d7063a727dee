"""Label files in two folders, looked at once, and which prediction belongs to which reference."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from monai_tl.dataset.nifti import read_label
from monai_tl.dicom.segmentation_alone import is_segmentation
from monai_tl.dicom.segmentation_frames import read_seg
from monai_tl.dicom.structures import Structure
from monai_tl.errors import ConfigError, describe_fault
from monai_tl.parallel import map_cases
from monai_tl.progress import Progress

Kind = Literal["nifti", "seg"]
_NIFTI = (".nii.gz", ".nii")
_LABEL = "_label"


@dataclass(frozen=True)
class LabelFile:
    """One label file.

    Attributes:
        key: What it is called, without the ending and in POSIX form: its path below the folder.
        values: NIfTI: voxel values in it but 0.
        structures, words, series: SEG: its segments, what identifies somebody in it, the image series it names.
        fault: Why it cannot be used; None when it can.
    """

    path: Path
    key: str
    kind: Kind
    values: tuple[int, ...] = ()
    structures: tuple[Structure, ...] = ()
    words: frozenset[str] = frozenset()
    series: frozenset[str] = frozenset()
    fault: str | None = None


@dataclass(frozen=True)
class Pair:
    """A reference and its prediction.

    Attributes:
        number: From 1, in the order of names: messages say it in place of a name, which may be a patient's.
        name: The reference's key.
        prediction: None when there is none.
    """

    number: int
    name: str
    reference: LabelFile
    prediction: LabelFile | None


def look_through(folder: Path, argument: str) -> list[LabelFile]:
    """All label files below a folder.

    Of NIfTI files, where some are called ``label`` or end with ``_label``, these alone are labels and the others their
    images; a name that all files share is left off, so that ``case-1/label.nii.gz`` is ``case-1``. DICOM files that are
    no SEG are passed over. A folder with both NIfTI and SEG gives both.

    Args:
        folder: Any nesting.
        argument: What the folder is called in messages.

    Raises:
        ConfigError: There is no such folder, or no label file in it.
    """
    if not folder.is_dir():
        raise ConfigError(f"{argument}: there is no such folder", "arguments")
    paths = sorted(
        Path(root) / name for root, _, names in os.walk(folder) for name in names if not name.startswith(".")
    )
    keyed = _nifti_keys([path for path in paths if path.name.lower().endswith(_NIFTI)], folder)
    tasks: list[tuple[Path, str, bool]] = [
        *((path, key, True) for path, key in keyed.items()),
        *(
            (path, path.relative_to(folder).with_suffix("").as_posix(), False)
            for path in paths
            if path.suffix.lower() in ("", ".dcm")
        ),
    ]
    progress = Progress(f"look at {argument.strip('-')}", total=len(tasks))
    found = []
    for one in map_cases(_look, tasks):
        progress.advance()
        if one is not None:
            found.append(one)
    if not found:
        raise ConfigError(f"{argument}: holds no label file; NIfTI (.nii, .nii.gz) or DICOM SEG is read", "arguments")
    return found


def one_kind(references: Sequence[LabelFile], predictions: Sequence[LabelFile]) -> tuple[list[LabelFile], ...]:
    """Where a folder holds the same labels as NIfTI and as SEG, the kind that both folders have; NIfTI first."""
    kinds = [{one.kind for one in files} for files in (references, predictions)]
    shared = kinds[0] & kinds[1]
    kept: list[list[LabelFile]] = []
    for files, own in zip((references, predictions), kinds, strict=True):
        wanted = own if len(own) == 1 else {"nifti" if "nifti" in (shared or own) else "seg"}
        kept.append([one for one in files if one.kind in wanted])
    return tuple(kept)


def pair_files(references: Sequence[LabelFile], predictions: Sequence[LabelFile]) -> tuple[list[Pair], int]:
    """Find each reference's prediction.

    SEG objects belong together when they name the same image series and nothing else in their folder names it; else
    files of the same name do: the path below the folder without its ending, or the last part of it where no path fits.

    Returns:
        The pairs in the order of names, and how many predictions belong to no reference.

    Raises:
        ConfigError: Two files of a folder have one name; not a single prediction belongs to a reference; or some belong
            by their whole path, or the series they name, and others would by the last part of their names alone.
    """
    for argument, files in (("--references", references), ("--predictions", predictions)):
        twice = sum(count > 1 for count in Counter(one.key for one in files).values())
        if twice:
            raise ConfigError(
                f"{argument}: {twice} names are given to several label files; keep one of each", "arguments"
            )
    matched = _by_series(references, predictions) or _by_key(references, predictions)
    if not matched:
        raise ConfigError(
            "--predictions: no file belongs to a reference; give both the same names "
            "(case-1.nii.gz and case-1.nii.gz, or case-1/label.nii.gz)",
            "arguments",
        )
    _refuse_half_fits(references, predictions, matched)
    ordered = sorted(references, key=lambda one: one.key)
    pairs = [Pair(number, one.key, one, matched.get(one.key)) for number, one in enumerate(ordered, start=1)]
    return pairs, len(predictions) - len(matched)


def _nifti_keys(paths: Sequence[Path], folder: Path) -> dict[Path, str]:
    stems = {path: path.name[: -len(next(end for end in _NIFTI if path.name.lower().endswith(end)))] for path in paths}
    labels = {path for path, stem in stems.items() if stem.lower() == "label" or stem.lower().endswith(_LABEL)}
    chosen = [path for path in paths if path in labels or not labels]
    shared = len(chosen) > 1 and len({stems[path] for path in chosen}) == 1
    keys = {}
    for path in chosen:
        parent, stem = path.relative_to(folder).parent, stems[path]
        if parent.parts and (shared or stem.lower() == "label"):
            keys[path] = parent.as_posix()
        else:
            plain = stem[: -len(_LABEL)] if stem.lower().endswith(_LABEL) else stem
            keys[path] = (parent / plain).as_posix()
    return keys


def _look(task: tuple[Path, str, bool]) -> LabelFile | None:
    path, key, is_nifti = task
    try:
        if is_nifti:
            volume, _ = read_label(path)
            return LabelFile(path, key, "nifti", values=tuple(int(value) for value in np.unique(volume) if value != 0))
        if not is_segmentation(path):
            return None
        content = read_seg(path)
    except Exception as error:
        return LabelFile(path, key, "nifti" if is_nifti else "seg", fault=describe_fault(error)[1])
    return LabelFile(path, key, "seg", structures=content.segments, words=content.words, series=content.series_uids)


def _by_series(references: Sequence[LabelFile], predictions: Sequence[LabelFile]) -> dict[str, LabelFile]:
    known: dict[frozenset[str], LabelFile] = {}
    for files in (references, predictions):
        counts = Counter(one.series for one in files if one.series)
        if sum(counts.values()) < len(files) or any(count > 1 for count in counts.values()):
            return {}
    known = {one.series: one for one in predictions}
    return {one.key: known[one.series] for one in references if one.series in known}


def _by_key(references: Sequence[LabelFile], predictions: Sequence[LabelFile]) -> dict[str, LabelFile]:
    known = {one.key: one for one in predictions}
    found = {one.key: known[one.key] for one in references if one.key in known}
    if found:
        return found
    last = [{one.key.rsplit("/", 1)[-1]: one for one in files} for files in (references, predictions)]
    if [len(one) for one in last] != [len(references), len(predictions)]:
        return {}
    return {one.key: last[1][name] for name, one in last[0].items() if name in last[1]}


def _refuse_half_fits(
    references: Sequence[LabelFile], predictions: Sequence[LabelFile], matched: Mapping[str, LabelFile]
) -> None:
    """What is left over on both sides and has the same name is a pair that was missed, and would score worst."""
    used = {one.key for one in matched.values()}
    left = ([one for one in references if one.key not in matched], [one for one in predictions if one.key not in used])
    names = [Counter(_last_part(one) for one in files) for files in (references, predictions)]
    alone = [{_last_part(one) for one in files if names[side][_last_part(one)] == 1} for side, files in enumerate(left)]
    if missed := len(alone[0] & alone[1]):
        raise ConfigError(
            f"--predictions: {len(matched)} of {len(references)} references have one, and {missed} more would by the "
            "last part of the file's name, but not by its folder or by the series it names; lay both folders out alike",
            "arguments",
        )


def _last_part(one: LabelFile) -> str:
    return one.key.rsplit("/", 1)[-1].casefold()
