"""What a folder of DICOM holds: image series with the labels that refer to them, and what is neither."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

from monai_tl.dicom.deidentify import Pseudonyms
from monai_tl.dicom.duplicates import drop_duplicate_labels, drop_duplicates
from monai_tl.dicom.frames import read_headers
from monai_tl.dicom.grouping import split_series
from monai_tl.dicom.header import Header
from monai_tl.dicom.image_series import ImageSeries, describe_part
from monai_tl.dicom.label_object import (
    LABEL_CLASSES,
    LabelObject,
    attach_labels,
    read_label_object,
    refused_with_series,
)
from monai_tl.dicom.listing import list_files
from monai_tl.errors import DicomError
from monai_tl.modality import MODALITY_OF
from monai_tl.parallel import map_cases
from monai_tl.records import Rejection

_CHUNK = 500
_PARALLEL_FROM = 3000
OTHER_MODALITIES = frozenset(("RTDOSE", "RTIMAGE", "REG", "SR", "PR", "KO", "DOC", "SEG", "RTSTRUCT", "ECG", "AU"))
"""Of objects that are no image to segment, even those with pixels."""


@dataclass(frozen=True)
class DicomIndex:
    """A folder's content.

    Attributes:
        series: One a volume, ordered by study and series.
        rejected: Files that are no DICOM or unreadable, series that contradict themselves, labels without their series,
            what lies behind dead links and closed folders.
        places: Files of each series, label and refused item, by the name it has in rejected.json. Patient data: for
            ``monai-tl whois``, never written.
    """

    series: tuple[ImageSeries, ...]
    rejected: tuple[Rejection, ...]
    places: Mapping[str, tuple[Path, ...]] = field(default_factory=dict, repr=False)


Found = tuple[Header, ...] | DicomError
"""Headers of one file, or why it has none."""


@dataclass
class _Sorted:
    """Files by what they are."""

    series: dict[str, list[Header]] = field(default_factory=lambda: defaultdict(list))
    labels: list[LabelObject] = field(default_factory=list)
    rejected: list[Rejection] = field(default_factory=list)
    places: dict[str, tuple[Path, ...]] = field(default_factory=dict)

    def refuse(self, item: str, path: Path, code: str, reason: str, kind: Literal["file", "label"] = "file") -> None:
        self.rejected.append(Rejection(item=item, kind=kind, code=code, reason=reason))
        self.places[item] = (path,)


def index_folder(root: Path, hasher: Pseudonyms) -> DicomIndex:
    """Read the headers of all files below a folder and sort them into series.

    Args:
        root: Any nesting; links are followed once, pipes and sockets are left alone.
        hasher: Names refused items.

    Raises:
        DicomError: The folder does not exist.
    """
    if not root.is_dir():
        raise DicomError(f"there is no folder {root}; check its path", "missing_folder")
    found = _sort(root, hasher)
    grouped, refused = drop_duplicates(found.series, hasher)
    labels, refused_labels = drop_duplicate_labels(found.labels, hasher)
    volumes = [volume for one in grouped for volume in _volumes(one)]
    # refused series take part: a label of theirs must not go to another one
    attached, orphans = attach_labels(labels, volumes, hasher)
    kept: list[ImageSeries] = []
    for volume, own in zip(volumes, attached, strict=True):
        item = hasher.item("series", volume.uid)
        found.places[item] = tuple(sorted({header.path for header in found.series[volume.uid]}))
        if item in refused:
            orphans += [refused_with_series(label, refused[item].code, hasher) for label in own]
        else:
            found.places[hasher.item("series", volume.name)] = volume.paths
            kept.append(replace(volume, labels=own))
    for label in found.labels:
        item = hasher.item("label", label.sop_instance_uid)
        found.places[item] = (*found.places.get(item, ()), label.path)
    ordered = sorted(kept, key=lambda one: (one.study_uid, one.name))
    rejected = (*found.rejected, *refused.values(), *refused_labels, *orphans)
    return DicomIndex(tuple(ordered), rejected, found.places)


def _volumes(series: ImageSeries) -> list[ImageSeries]:
    parts = split_series(series.headers)
    if len(parts) == 1:
        return [series]
    return [
        replace(
            series, headers=headers, part=part,
            notes=(*series.notes, f"one of {len(parts)} volumes of its series: {describe_part(part)}"),
        )
        for part, headers in parts
    ]  # fmt: skip


def _sort(root: Path, hasher: Pseudonyms) -> _Sorted:
    found = _Sorted()
    listing = list_files(root)

    def item_of(path: Path) -> str:
        return hasher.item("file", path.relative_to(root).as_posix())

    for lost in listing.unfollowed:
        found.refuse(item_of(lost.path), lost.path, lost.code, lost.reason)
    for path, headers in zip(listing.files, _read_headers(listing.files), strict=True):
        if isinstance(headers, DicomError):
            found.refuse(item_of(path), path, headers.code, str(headers))
            continue
        header = headers[0]
        if header.sop_class_uid in LABEL_CLASSES:
            try:
                found.labels.append(read_label_object(path))
            except DicomError as error:
                found.refuse(item_of(path), path, error.code, str(error), "label")
        elif header.rows < 1 or header.columns < 1 or header.modality in OTHER_MODALITIES:
            found.refuse(item_of(path), path, *_no_image(header))
        else:
            name = path.relative_to(root).as_posix()
            found.series[header.series_uid or _stand_in(header, name)] += headers
    return found


def _no_image(header: Header) -> tuple[str, str]:
    """Code and reason for a file without rows and columns, or of a kind that is not segmented."""
    if header.sop_class_uid in MODALITY_OF or (not header.sop_class_uid and header.modality in MODALITY_OF.values()):
        return "damaged", (
            "an image without Rows and Columns: the file is cut off, or they were removed; transfer it again"
        )
    if not (header.sop_class_uid or header.modality):
        return "damaged", "the file ends before anything that tells what it is; transfer it again"
    return "other_object", "the DICOM object is neither an image nor a label this pipeline reads; nothing is to be done"


def _read_headers(paths: list[Path]) -> Iterable[Found]:
    if len(paths) < _PARALLEL_FROM:
        return _read_chunk(paths)
    chunks = [paths[start : start + _CHUNK] for start in range(0, len(paths), _CHUNK)]
    return (found for chunk in map_cases(_read_chunk, chunks, brief=True) for found in chunk)


def _read_chunk(paths: list[Path]) -> list[Found]:
    found: list[Found] = []
    for path in paths:
        try:
            found.append(read_headers(path))
        except DicomError as error:
            # not the error itself: its traceback keeps alive what was read, for a bomb a quarter of a GiB
            found.append(DicomError(str(error), error.code))
    return found


def _stand_in(header: Header, name: str) -> str:
    """A series name for files whose SeriesInstanceUID was blanked: what shares a folder and a frame of reference."""
    folder = name.rpartition("/")[0]
    return f"no uid|{header.study_uid}|{header.frame_of_reference_uid or ''}|{header.modality}|{folder}"
