"""SEG and RTSTRUCT objects: what they are, and which image series each refers to."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol

from pydicom.dataset import Dataset

from monai_tl.dicom.deidentify import Pseudonyms
from monai_tl.dicom.header import Header
from monai_tl.dicom.reading import dicom_faults, read_file
from monai_tl.files import sha256_file
from monai_tl.records import Rejection

RTSTRUCT_CLASS = "1.2.840.10008.5.1.4.1.1.481.3"
SEG_CLASSES = frozenset(("1.2.840.10008.5.1.4.1.1.66.4", "1.2.840.10008.5.1.4.1.1.66.7"))
LABEL_CLASSES = SEG_CLASSES | {RTSTRUCT_CLASS}

_TAGS = (
    "SOPInstanceUID", "SOPClassUID", "SeriesInstanceUID", "StudyInstanceUID", "FrameOfReferenceUID",
    "ReferencedSeriesSequence", "ReferencedFrameOfReferenceSequence", "StructureSetROISequence",
)  # fmt: skip


@dataclass(frozen=True)
class LabelObject:
    """One SEG or RTSTRUCT file.

    Attributes:
        referenced_series: SeriesInstanceUIDs it names.
        referenced_instances: SOPInstanceUIDs it names; only filled when it names no series.
        frames_of_reference: UIDs of the coordinate frames it is drawn in.
    """

    path: Path
    kind: Literal["SEG", "RTSTRUCT"]
    sop_instance_uid: str
    series_uid: str
    study_uid: str
    referenced_series: frozenset[str]
    referenced_instances: frozenset[str]
    frames_of_reference: frozenset[str]


class _Series(Protocol):
    @property
    def uid(self) -> str: ...
    @property
    def study_uid(self) -> str: ...
    @property
    def headers(self) -> tuple[Header, ...]: ...


def read_label_object(path: Path) -> LabelObject:
    """Read what a label file says about itself; contours and frames are left for later.

    Raises:
        DicomError: The file is damaged.
    """
    dataset, meta = read_file(path, _TAGS)
    with dicom_faults():
        kind: Literal["SEG", "RTSTRUCT"] = (
            "RTSTRUCT" if (dataset.get("SOPClassUID") or meta.sop_class_uid) == RTSTRUCT_CLASS else "SEG"
        )
        frames = {str(dataset.get("FrameOfReferenceUID") or "")}
        for item in dataset.get("ReferencedFrameOfReferenceSequence") or ():
            frames.add(str(item.get("FrameOfReferenceUID") or ""))
        for item in dataset.get("StructureSetROISequence") or ():
            frames.add(str(item.get("ReferencedFrameOfReferenceUID") or ""))
        series = referenced_series(dataset)
        instances = frozenset[str]() if series else _referenced_instances(path, kind)
        return LabelObject(
            path=path,
            kind=kind,
            # never empty: it names the object in rejected.json
            sop_instance_uid=str(dataset.get("SOPInstanceUID") or meta.sop_instance_uid) or sha256_file(path),
            series_uid=str(dataset.get("SeriesInstanceUID") or ""),
            study_uid=str(dataset.get("StudyInstanceUID") or ""),
            referenced_series=series,
            referenced_instances=instances,
            frames_of_reference=frozenset(frames - {""}),
        )


def referenced_series(dataset: Dataset) -> frozenset[str]:
    """SeriesInstanceUIDs that a SEG or RTSTRUCT names as its images."""
    found = [item.get("SeriesInstanceUID") for item in dataset.get("ReferencedSeriesSequence") or ()]
    found += [item.get("SeriesInstanceUID") for item in _rt_series(dataset)]
    return frozenset(str(uid) for uid in found if uid)


def listed_instances(dataset: Dataset) -> frozenset[str]:
    """SOPInstanceUIDs that an RTSTRUCT lists as those of the series it names."""
    return frozenset(
        str(image.get("ReferencedSOPInstanceUID") or "")
        for item in _rt_series(dataset)
        for image in item.get("ContourImageSequence") or ()
    ) - {""}


def _rt_series(dataset: Dataset) -> Iterator[Dataset]:
    for frame in dataset.get("ReferencedFrameOfReferenceSequence") or ():
        for study in frame.get("RTReferencedStudySequence") or ():
            yield from study.get("RTReferencedSeriesSequence") or ()


def code_texts(items: Iterable[Dataset]) -> tuple[str, ...]:
    """Coded concepts of a code sequence as ``SCHEME|VALUE``."""
    return tuple(
        f"{item.get('CodingSchemeDesignator', '')}|{item.get('CodeValue') or item.get('LongCodeValue') or ''}"
        for item in items
    )


def _referenced_instances(path: Path, kind: str) -> frozenset[str]:
    if kind == "RTSTRUCT":
        dataset, _ = read_file(path, ("ROIContourSequence",))
        images: Iterable[Dataset] = (
            image
            for roi in dataset.get("ROIContourSequence") or ()
            for contour in roi.get("ContourSequence") or ()
            for image in contour.get("ContourImageSequence") or ()
        )
    else:
        dataset, _ = read_file(path, ("PerFrameFunctionalGroupsSequence",))
        images = (
            image
            for frame in dataset.get("PerFrameFunctionalGroupsSequence") or ()
            for derivation in frame.get("DerivationImageSequence") or ()
            for image in derivation.get("SourceImageSequence") or ()
        )
    return frozenset(str(image.get("ReferencedSOPInstanceUID") or "") for image in images) - {""}


def attach_labels(
    labels: Sequence[LabelObject], series: Sequence[_Series], hasher: Pseudonyms
) -> tuple[list[tuple[LabelObject, ...]], list[Rejection]]:
    """Find the image series of each label: by the series it names, else the instances, else by its frame of reference.

    Returns:
        Labels of each of ``series``, and a rejection for each label whose images are not there.
    """
    attached: dict[str, list[LabelObject]] = defaultdict(list)
    orphans: list[Rejection] = []
    owners = {header.sop_instance_uid: one.uid for one in series for header in one.headers}
    known = {one.uid for one in series}
    for label in labels:
        targets = sorted(label.referenced_series & known)
        if not label.referenced_series:
            targets = sorted({owners[uid] for uid in label.referenced_instances if uid in owners})
            targets = targets or _by_frame(label, series)
        for uid in targets:
            attached[uid].append(label)
        if not targets:
            named = "the image series it refers to is not in the folder" if label.referenced_series else (
                "it names no image series, and its frame of reference does not belong to exactly one"
            )  # fmt: skip
            orphans.append(
                Rejection(
                    item=hasher.item("label", label.sop_instance_uid), kind="label",
                    code="missing_series", reason=f"{label.kind} left out: {named}; add the images or remove the label",
                )
            )  # fmt: skip
    in_order = [tuple(sorted(attached[one.uid], key=lambda label: label.sop_instance_uid)) for one in series]
    return in_order, orphans


def refused_with_series(label: LabelObject, code: str, hasher: Pseudonyms) -> Rejection:
    """The rejection of a label whose image series is refused with this code."""
    return Rejection(
        item=hasher.item("label", label.sop_instance_uid),
        kind="label",
        code="series_refused",
        reason=f"{label.kind} left out: its image series was refused ({code}); mend that series",
    )


def _by_frame(label: LabelObject, series: Sequence[_Series]) -> list[str]:
    found = [
        one.uid
        for one in series
        if one.study_uid == label.study_uid and one.headers[0].frame_of_reference_uid in label.frames_of_reference
    ]
    return found if len(found) == 1 else []
