"""SEG and RTSTRUCT objects: what they are, and which image series each refers to."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence, Set
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal, Protocol

from pydicom.dataset import Dataset

from monai_tl.dicom.deidentify import Pseudonyms
from monai_tl.dicom.header import Header
from monai_tl.dicom.reading import dicom_faults, read_file
from monai_tl.errors import DicomError
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
        frames_of_reference: UIDs of the coordinate frames it is drawn in.
        elsewhere: SOPInstanceUIDs of the other volumes of the series it is attached to: what is drawn on these does not
            belong here, and is not missing.
    """

    path: Path
    kind: Literal["SEG", "RTSTRUCT"]
    sop_instance_uid: str
    series_uid: str
    study_uid: str
    referenced_series: frozenset[str]
    frames_of_reference: frozenset[str]
    elsewhere: frozenset[str] = frozenset()


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
        return LabelObject(
            path=path,
            kind=kind,
            # never empty: it names the object in rejected.json
            sop_instance_uid=str(dataset.get("SOPInstanceUID") or meta.sop_instance_uid) or sha256_file(path),
            series_uid=str(dataset.get("SeriesInstanceUID") or ""),
            study_uid=str(dataset.get("StudyInstanceUID") or ""),
            referenced_series=series,
            frames_of_reference=frozenset(frames - {""}),
        )


def referenced_series(dataset: Dataset) -> frozenset[str]:
    """SeriesInstanceUIDs that a SEG or RTSTRUCT names as its images."""
    found = [item.get("SeriesInstanceUID") for item in dataset.get("ReferencedSeriesSequence") or ()]
    found += [item.get("SeriesInstanceUID") for item in _rt_series(dataset)]
    return frozenset(str(uid) for uid in found if uid)


def instances_of_others(dataset: Dataset, series_uid: str) -> frozenset[str]:
    """SOPInstanceUIDs that an RTSTRUCT lists under other series than this one."""
    return frozenset(
        str(image.get("ReferencedSOPInstanceUID") or "")
        for item in _rt_series(dataset)
        if str(item.get("SeriesInstanceUID") or "") != series_uid
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


def image_of(item: Dataset) -> tuple[tuple[str, int | None], ...]:
    """What an image reference names: SOPInstanceUID and, of a multi-frame image, each frame number from 1."""
    uid, numbers = str(item.get("ReferencedSOPInstanceUID") or ""), item.get("ReferencedFrameNumber")
    listed = numbers if hasattr(numbers, "__iter__") else [numbers]
    return tuple((uid, None if number is None else int(number)) for number in listed) if uid else ()


def _named_images(label: LabelObject) -> frozenset[tuple[str, int | None]]:
    """Images that the outlines or frames of a label name, each on its own; none where they cannot be read."""
    try:
        with dicom_faults():
            if label.kind == "RTSTRUCT":
                dataset, _ = read_file(label.path, ("ROIContourSequence",))
                items: Iterable[Dataset] = (
                    image
                    for roi in dataset.get("ROIContourSequence") or ()
                    for contour in roi.get("ContourSequence") or ()
                    for image in contour.get("ContourImageSequence") or ()
                )
            else:
                keywords = ("SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence")
                dataset, _ = read_file(label.path, keywords)
                items = (
                    image
                    for keyword in keywords
                    for frame in dataset.get(keyword) or ()
                    for derivation in frame.get("DerivationImageSequence") or ()
                    for image in derivation.get("SourceImageSequence") or ()
                )
            return frozenset(image for item in items for image in image_of(item))
    except DicomError:
        # whoever reads it for good says what is wrong with it
        return frozenset()


def attach_labels(
    labels: Sequence[LabelObject], series: Sequence[_Series], hasher: Pseudonyms
) -> tuple[list[tuple[LabelObject, ...]], list[Rejection]]:
    """Find the images of each label: by the series it names, else the instances, else by its frame of reference.

    Of a series that is several volumes it goes to those that hold an image that its outlines or frames name; where
    they name none, to all in its frame of reference.

    Args:
        labels: Any.
        series: One a volume; several may share a ``uid``.
        hasher: Names refused labels.

    Returns:
        Labels of each of ``series``, and a rejection for each label whose images are not there.
    """
    attached: list[list[LabelObject]] = [[] for _ in series]
    orphans: list[Rejection] = []
    for label in labels:
        targets = _targets(label, series)
        for index in targets:
            attached[index].append(replace(label, elsewhere=_instances_elsewhere(series, index)))
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
    return [tuple(sorted(found, key=lambda label: label.sop_instance_uid)) for found in attached], orphans


def _targets(label: LabelObject, series: Sequence[_Series]) -> list[int]:
    """Indices of the volumes that a label is drawn on."""
    if not label.referenced_series:
        return _holding(_named_images(label), series, range(len(series))) or _by_frame(label, series)
    volumes: dict[str, list[int]] = {}
    for index, one in enumerate(series):
        if one.uid in label.referenced_series:
            volumes.setdefault(one.uid, []).append(index)
    if not volumes:
        # what was drawn on images without a SeriesInstanceUID names one that stands for it
        nameless = [index for index, one in enumerate(series) if not one.headers[0].series_uid]
        return _holding(_named_images(label), series, nameless) if nameless else []
    if all(len(parts) == 1 for parts in volumes.values()):
        return [index for parts in volumes.values() for index in parts]
    images = _named_images(label)
    return [index for parts in volumes.values() for index in _choose(label, series, images, parts)]


def _choose(
    label: LabelObject, series: Sequence[_Series], images: Set[tuple[str, int | None]], parts: Sequence[int]
) -> list[int]:
    """Of the volumes of one series, those that a label is drawn on; never none."""
    in_frame = [index for index in parts if _frame_of(series[index]) in label.frames_of_reference]
    # where no frame fits, the reader of the first one refuses it by name
    return _holding(images, series, parts) or in_frame or list(parts[:1])


def _holding(images: Set[tuple[str, int | None]], series: Sequence[_Series], candidates: Iterable[int]) -> list[int]:
    """Volumes that hold one of these images."""
    if not images:
        return []
    uids = {uid for uid, _ in images}
    whole = {uid for uid, number in images if number is None}

    def is_named(header: Header) -> bool:
        uid, frame = header.sop_instance_uid, header.frame
        return uid in uids and (frame is None or uid in whole or (uid, frame) in images)

    return [index for index in candidates if any(map(is_named, series[index].headers))]


def _instances_elsewhere(series: Sequence[_Series], index: int) -> frozenset[str]:
    own = series[index]
    return frozenset(
        header.sop_instance_uid for one in series if one.uid == own.uid and one is not own for header in one.headers
    ) - {header.sop_instance_uid for header in own.headers}


def _frame_of(one: _Series) -> str:
    return one.headers[0].frame_of_reference_uid or ""


def _by_frame(label: LabelObject, series: Sequence[_Series]) -> list[int]:
    """The volumes of the one series of the study that lies in the frame of reference of a label."""
    found = [
        index
        for index, one in enumerate(series)
        if one.study_uid == label.study_uid and _frame_of(one) in label.frames_of_reference
    ]
    return found if len({series[index].uid for index in found}) == 1 else []


def refused_with_series(label: LabelObject, code: str, hasher: Pseudonyms) -> Rejection:
    """The rejection of a label whose image series is refused with this code."""
    return Rejection(
        item=hasher.item("label", label.sop_instance_uid),
        kind="label",
        code="series_refused",
        reason=f"{label.kind} left out: its image series was refused ({code}); mend that series",
    )
