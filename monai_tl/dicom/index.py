"""What a folder of DICOM holds: image series with the labels that refer to them, and what is neither."""

from __future__ import annotations

import os
import stat
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from monai_tl.dicom.deidentify import Pseudonyms
from monai_tl.dicom.header import Header, read_header
from monai_tl.dicom.label_object import LABEL_CLASSES, LabelObject, attach_labels, read_label_object
from monai_tl.errors import DicomError
from monai_tl.files import sha256_file
from monai_tl.parallel import map_cases
from monai_tl.records import Rejection

_CHUNK = 500
_PARALLEL_FROM = 2000
# objects with pixels that are no image to segment
_OTHER_MODALITIES = frozenset(("RTDOSE", "RTIMAGE", "REG", "SR", "PR", "KO", "DOC", "SEG", "RTSTRUCT", "ECG", "AU"))


@dataclass(frozen=True)
class ImageSeries:
    """Instances that share a SeriesInstanceUID, not yet checked to be one volume.

    Attributes:
        uid: SeriesInstanceUID; a made-up text where the files have none.
        study_uid: May be empty.
        headers: In no particular order.
        labels: SEG and RTSTRUCT objects that refer to this series.
        notes: What was done while grouping, e.g. duplicates dropped.
    """

    uid: str
    study_uid: str
    headers: tuple[Header, ...]
    labels: tuple[LabelObject, ...] = ()
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class DicomIndex:
    """A folder's content.

    Attributes:
        series: Ordered by study and series.
        rejected: Files that are no DICOM or unreadable, series that contradict themselves, labels without their series.
    """

    series: tuple[ImageSeries, ...]
    rejected: tuple[Rejection, ...]


def index_folder(root: Path, hasher: Pseudonyms) -> DicomIndex:
    """Read the headers of all files below a folder and sort them into series.

    Args:
        root: Any nesting; links are followed once, pipes and sockets are left alone.
        hasher: Names refused items.

    Raises:
        DicomError: The folder does not exist.
    """
    if not root.is_dir():
        raise DicomError(f"there is no folder {root}; check ingest.source", "missing_folder")
    paths = sorted(_walk(root))
    series: dict[str, list[Header]] = defaultdict(list)
    labels: list[LabelObject] = []
    rejected: list[Rejection] = []
    for path, found in zip(paths, _read_headers(paths), strict=True):
        name = path.relative_to(root).as_posix()
        item = hasher.item("file", name)
        if isinstance(found, DicomError):
            rejected.append(Rejection(item=item, kind="file", code=found.code, reason=str(found)))
        elif found.sop_class_uid in LABEL_CLASSES:
            try:
                labels.append(read_label_object(path))
            except DicomError as error:
                rejected.append(Rejection(item=item, kind="label", code=error.code, reason=str(error)))
        elif found.rows < 1 or found.columns < 1 or found.modality in _OTHER_MODALITIES:
            reason = "the DICOM object is neither an image nor a label this pipeline reads"
            rejected.append(Rejection(item=item, kind="file", code="other_object", reason=reason))
        else:
            series[found.series_uid or _stand_in(found, name)].append(found)
    kept, refused = _drop_duplicates(series, hasher)
    unique, refused_labels = _drop_duplicate_labels(labels, hasher)
    attached, orphans = attach_labels(unique, kept, hasher)
    ordered = sorted(
        (replace(one, labels=attached.get(one.uid, ())) for one in kept), key=lambda one: (one.study_uid, one.uid)
    )
    return DicomIndex(tuple(ordered), tuple(rejected + refused + refused_labels + orphans))


def _walk(root: Path) -> Iterator[Path]:
    """All regular files, each folder once even when links make a loop."""
    seen: set[tuple[int, int]] = set()
    pending = [root]
    while pending:
        folder = pending.pop()
        try:
            facts = folder.stat()
            if (facts.st_dev, facts.st_ino) in seen:
                continue
            seen.add((facts.st_dev, facts.st_ino))
            entries = list(os.scandir(folder))
        except OSError:
            continue
        for entry in entries:
            try:
                mode = entry.stat().st_mode
            except OSError:
                continue  # a link to nothing
            if stat.S_ISDIR(mode):
                pending.append(Path(entry.path))
            elif stat.S_ISREG(mode):
                yield Path(entry.path)


def _read_headers(paths: list[Path]) -> Iterable[Header | DicomError]:
    if len(paths) < _PARALLEL_FROM:
        return _read_chunk(paths)
    chunks = [paths[start : start + _CHUNK] for start in range(0, len(paths), _CHUNK)]
    return (found for chunk in map_cases(_read_chunk, chunks) for found in chunk)


def _read_chunk(paths: list[Path]) -> list[Header | DicomError]:
    found: list[Header | DicomError] = []
    for path in paths:
        try:
            found.append(read_header(path))
        except DicomError as error:
            found.append(error)
    return found


def _stand_in(header: Header, name: str) -> str:
    """A series name for files whose SeriesInstanceUID was blanked: what shares a folder and a frame of reference."""
    folder = name.rpartition("/")[0]
    return f"no uid|{header.study_uid}|{header.frame_of_reference_uid or ''}|{header.modality}|{folder}"


def _drop_duplicates(series: dict[str, list[Header]], hasher: Pseudonyms) -> tuple[list[ImageSeries], list[Rejection]]:
    kept: list[ImageSeries] = []
    refused: list[Rejection] = []
    for uid, headers in series.items():
        groups: dict[str, list[Header]] = defaultdict(list)
        for header in headers:
            groups[header.sop_instance_uid or str(header.path)].append(header)
        conflicts = sum(not _same_bytes([one.path for one in group]) for group in groups.values())
        if conflicts:
            reason = (
                f"{conflicts} instance identifiers are each used by files of different content; "
                "keep one version of the series"
            )
            refused.append(
                Rejection(
                    item=hasher.item("series", uid), kind="series", code="conflicting_instance",
                    reason=reason, n_files=len(headers),
                )
            )  # fmt: skip
            continue
        n_dropped = len(headers) - len(groups)
        notes = (f"{n_dropped} byte-identical duplicate files dropped",) if n_dropped else ()
        unique = tuple(group[0] for group in groups.values())
        kept.append(ImageSeries(uid, unique[0].study_uid, unique, notes=notes))
    return kept, refused


def _drop_duplicate_labels(labels: list[LabelObject], hasher: Pseudonyms) -> tuple[list[LabelObject], list[Rejection]]:
    groups: dict[str, list[LabelObject]] = defaultdict(list)
    for label in labels:
        groups[label.sop_instance_uid].append(label)
    kept: list[LabelObject] = []
    refused: list[Rejection] = []
    for uid, group in groups.items():
        if _same_bytes([label.path for label in group]):
            kept.append(group[0])
            continue
        reason = "label objects of different content share one instance identifier; keep one of them"
        refused.append(
            Rejection(
                item=hasher.item("label", uid),
                kind="label",
                code="conflicting_instance",
                reason=reason,
                n_files=len(group),
            )
        )
    return kept, refused


def _same_bytes(paths: list[Path]) -> bool:
    return len(paths) == 1 or len({sha256_file(path) for path in paths}) == 1
