"""``monai-tl convert``: any folder of DICOM to NIfTI, one file a volume, and a list of what was refused and why."""

from __future__ import annotations

import re
import string
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import count
from pathlib import Path

from monai_tl import DEFAULT_KEY_FILE
from monai_tl.conversion_records import ConvertedIndex, ConvertedVolume
from monai_tl.dataset.nifti import write_image
from monai_tl.dicom.deidentify import Pseudonyms, load_key
from monai_tl.dicom.image_series import ImageSeries
from monai_tl.dicom.index import index_folder
from monai_tl.dicom.label_object import refused_with_series
from monai_tl.dicom.labelled_series import LabelledSeries, read_labelled_series
from monai_tl.dicom.volume import patient_of, to_ras
from monai_tl.errors import ConfigError, DataError, describe_fault
from monai_tl.geometry import Affine, Volume, affine_lps_to_ras, affine_to_rows, spacing_of
from monai_tl.labels import LabelScheme, read_scheme
from monai_tl.parallel import map_cases, n_jobs
from monai_tl.progress import Progress
from monai_tl.records import Rejection, RejectionList

INDEX_FILE, REJECTED_FILE = "index.json", "rejected.json"
_FIELDS = ("case", "patient", "study", "series", "modality", "part", "number")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
_MAX_STEM = 200
_NO_NAME = re.compile(r"[^A-Za-z0-9.]+")


@dataclass(frozen=True)
class _Task:
    """One volume to convert; ``stem`` is the name of its files."""

    series: ImageSeries
    stem: str
    out: Path
    scheme: LabelScheme | None
    keep_shear: bool
    in_parallel: bool
    key: bytes

    def __repr__(self) -> str:
        return f"Task({self.stem})"


def run(
    source: Path,
    out: Path,
    *,
    labels: Path | None = None,
    names: str = "{case}",
    keep_shear: bool = False,
    key_file: Path = Path(DEFAULT_KEY_FILE),
) -> str:
    """Convert every image volume below a folder, with the labels drawn on it.

    ``OUT/<name>.nii.gz`` is RAS+, int16 where all values are whole and fit, else float32; ``OUT/<name>_label.nii.gz``
    is uint8 on its grid. ``OUT/index.json`` lists the files, ``OUT/rejected.json`` what was refused. Each file is
    whole or absent; other files in OUT are left alone.

    Args:
        source: Any nesting.
        out: Made if missing; not below ``source``.
        labels: YAML file that maps structures to classes; None: each structure is a class of its own.
        names: Pattern of the files' names, of {case}, {patient}, {study} and {series} (pseudonyms), {modality}, {part}
            and {number}.
        keep_shear: Keep the slices of a tilted gantry as they are, with a sheared affine.
        key_file: Secret behind the pseudonyms.

    Returns:
        A sentence with the counts.

    Raises:
        ConfigError: An argument is wrong.
        DataError: Nothing could be converted; rejected.json says why.
        PrivacyError: The key is missing or readable by others.
        OSError: The results cannot be written.
    """
    _check(source, out, names)
    scheme = None if labels is None else read_scheme(labels)
    key = load_key(key_file)
    hasher = Pseudonyms(key)
    out.mkdir(parents=True, exist_ok=True)
    index = index_folder(source, hasher)
    in_parallel = len(index.series) < n_jobs()
    tasks = [
        _Task(series, stem, out, scheme, keep_shear, in_parallel, key)
        for series, stem in zip(index.series, _stems(index.series, names, hasher), strict=True)
    ]
    progress = Progress("convert", total=len(tasks))
    volumes: list[ConvertedVolume] = []
    rejected = list(index.rejected)
    # few volumes: one after another, and the slices of each in parallel
    for volume, refused in map(_convert, tasks) if in_parallel else map_cases(_convert, tasks, brief=True):
        rejected += refused
        if volume is not None:
            volumes.append(volume)
        progress.advance(volume.file if volume else f"refused: {refused[0].code}", is_warning=volume is None)
    in_order = tuple(sorted(rejected, key=lambda one: (one.kind, one.code, one.item)))
    ConvertedIndex(key_id=hasher.key_id, volumes=tuple(volumes)).write(out / INDEX_FILE)
    RejectionList(rejected=in_order).write(out / REJECTED_FILE)
    return _summary(volumes, in_order, out)


def _check(source: Path, out: Path, names: str) -> None:
    faults = []
    if not source.is_dir():
        faults.append("SRC: there is no such folder; give the one that holds the studies")
    elif out.resolve().is_relative_to(source.resolve()):
        faults.append("OUT: lies inside SRC, where the next run would take results for input; give another place")
    try:
        fields = [name for _, name, form, turn in string.Formatter().parse(names) if name is not None]
        plain = all(not form and not turn for _, _, form, turn in string.Formatter().parse(names))
    except ValueError:
        fields, plain = [""], False
    rest = re.sub(r"\{[a-z]*\}", "x", names)
    if not plain or set(fields) - set(_FIELDS) or not _NAME.fullmatch(rest):
        listed = ", ".join(f"{{{field}}}" for field in _FIELDS)
        faults.append(f"--names: letters, digits and . _ - around {listed}; e.g. {{modality}}-{{case}}")
    if faults:
        raise ConfigError(faults, "arguments")


def _stems(series: Sequence[ImageSeries], names: str, hasher: Pseudonyms) -> list[str]:
    """A name for each volume that no other has, from pseudonyms and plain words alone."""
    taken: set[str] = set()
    stems = []
    for number, one in enumerate(series, start=1):
        header = one.headers[0]
        words = {
            "case": hasher.case_id(one.study_uid, one.name),
            "patient": hasher.patient_key(header.patient_id or f"no patient id|{one.study_uid or one.uid}"),
            "study": f"study-{hasher.hash_uid(one.study_uid)[:12]}",
            "series": f"series-{hasher.hash_uid(one.uid)[:12]}",
            "modality": header.modality if header.modality in ("CT", "MR", "PT") else "other",
            "part": _NO_NAME.sub("-", "-".join(value for _, value in one.part)).strip("-") or "whole",
            "number": f"{number:04d}",
        }
        stem = names.format(**words)
        if len(stem) > _MAX_STEM:
            raise ConfigError(f"--names: makes names of {len(stem)} letters; {_MAX_STEM} are the most", "arguments")
        free = (f"{stem}-{copy}" for copy in count(2))
        stem = stem if stem not in taken else next(name for name in free if name not in taken)
        taken.add(stem)
        stems.append(stem)
    return stems


def _convert(task: _Task) -> tuple[ConvertedVolume | None, tuple[Rejection, ...]]:
    """Write one volume; its own faults come back as rejections.

    Raises:
        OSError: It cannot be written: no fault of the series, and every other would meet it too.
    """
    series, hasher = task.series, Pseudonyms(task.key)
    image_path, label_path = (task.out / f"{task.stem}{end}.nii.gz" for end in ("", "_label"))
    try:
        found = read_labelled_series(series, task.scheme, 1, keep_shear=task.keep_shear, in_parallel=task.in_parallel)
        image, affine = to_ras(found.volume)
    except Exception as error:
        # of an earlier run, when there was one: they are no longer what the series says
        image_path.unlink(missing_ok=True)
        label_path.unlink(missing_ok=True)
        code, reason = describe_fault(error)
        item = hasher.item("series", series.name)
        refused = Rejection(
            item=item, kind="series", code=code, reason=series.reason(reason), n_files=len(series.paths)
        )
        return None, (refused, *(refused_with_series(label, code, hasher) for label in series.labels))
    write_image(image_path, image, affine)
    if found.label is None:
        label_path.unlink(missing_ok=True)
    else:
        write_image(label_path, found.label, affine)
    labels = tuple(
        Rejection(item=hasher.item("label", one.label.sop_instance_uid), kind="label", code=one.code, reason=one.reason)
        for one in found.refused
    )
    return _record(task, found, image, affine, hasher), labels


def _record(task: _Task, found: LabelledSeries, image: Volume, affine: Affine, hasher: Pseudonyms) -> ConvertedVolume:
    series, volume = task.series, found.volume
    patient, remarks = patient_of(volume, series)
    names = found.scheme.names if found.label is not None and found.scheme is not None else ()
    return ConvertedVolume(
        file=f"{task.stem}.nii.gz",
        label_file=None if found.label is None else f"{task.stem}_label.nii.gz",
        case_id=hasher.case_id(series.study_uid, series.name),
        patient_key=hasher.patient_key(patient),
        study=hasher.hash_uid(series.study_uid),
        series=hasher.hash_uid(series.uid),
        part=dict(series.part),
        modality=volume.modality,
        n_slices=volume.geometry.n_slices,
        n_files=len(series.paths),
        spatial_shape=(image.shape[0], image.shape[1], image.shape[2]),
        spacing_mm=spacing_of(affine),
        affine=affine_to_rows(affine),
        native_affine=affine_to_rows(affine_lps_to_ras(volume.geometry.affine_lps)),
        tilt_deg=round(volume.geometry.tilt_deg, 4),
        scaling=volume.scaling,
        photometric=volume.photometric,
        label_classes={str(value): name for value, name in enumerate(names, start=1)},
        scanner=volume.scanner,
        notes=(*found.notes, *remarks),
    )


def _summary(volumes: Sequence[ConvertedVolume], rejected: Sequence[Rejection], out: Path) -> str:
    codes = Counter(one.code for one in rejected)
    listed = f" ({', '.join(f'{code} {count}' for code, count in sorted(codes.items()))})" if codes else ""
    if not volumes:
        found = f"none of {len(rejected)} items could be converted{listed}" if rejected else "no DICOM file was found"
        raise DataError(f"{found}; each reason is in {out / REJECTED_FILE}")
    n_labels = sum(volume.label_file is not None for volume in volumes)
    return (
        f"{len(volumes)} volumes converted, {n_labels} with a label, {len(rejected)} items refused{listed}; "
        f"{out / INDEX_FILE} and {out / REJECTED_FILE} list them"
    )
