"""Each instance once: copies to the byte are dropped, contradictions refused."""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path

from monai_tl.dicom.deidentify import Pseudonyms
from monai_tl.dicom.header import Header
from monai_tl.dicom.image_series import ImageSeries
from monai_tl.dicom.label_object import LabelObject
from monai_tl.files import sha256_file
from monai_tl.records import Rejection


def drop_duplicates(
    series: dict[str, list[Header]], hasher: Pseudonyms
) -> tuple[list[ImageSeries], dict[str, Rejection]]:
    """All series, each instance once; and the refused among them by item, as their instances contradict each other."""
    found: list[ImageSeries] = []
    refused: dict[str, Rejection] = {}
    for uid, headers in series.items():
        files: dict[str, list[Path]] = defaultdict(list)
        for header in headers:
            if (header.frame or 1) == 1:
                files[header.sop_instance_uid or str(header.path)].append(header.path)
        conflicts = sum(not _same_bytes(paths) for paths in files.values())
        if conflicts:
            reason = (
                f"{conflicts} instance identifiers are each used by files of different content; "
                "keep one version of the series"
            )
            item = hasher.item("series", uid)
            n_files = sum(map(len, files.values()))
            refused[item] = Rejection(
                item=item, kind="series", code="conflicting_instance", reason=reason, n_files=n_files
            )
        n_dropped = sum(len(paths) - 1 for paths in files.values())
        notes = (f"{n_dropped} byte-identical duplicate files dropped",) if n_dropped else ()
        kept = {paths[0] for paths in files.values()}
        unique = tuple(header for header in headers if header.path in kept) if n_dropped else tuple(headers)
        found.append(ImageSeries(uid, unique[0].study_uid, unique, notes=notes))
    return found, refused


def drop_duplicate_labels(labels: list[LabelObject], hasher: Pseudonyms) -> tuple[list[LabelObject], list[Rejection]]:
    """All label objects, each once; those that contradict each other are refused together."""
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
