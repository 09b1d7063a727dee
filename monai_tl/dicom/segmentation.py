"""Label maps as DICOM SEG on the source series: coded, referenced, with the same bytes for the same input.

Reading is in ``monai_tl.dicom.segmentation_reading``; ``read_segmentation`` is offered here too.
"""

from __future__ import annotations

import hashlib
import json
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence as DicomSequence

from monai_tl import __version__
from monai_tl.dicom.geometry import SliceGeometry
from monai_tl.dicom.patient import PATIENT_TAGS, read_patient
from monai_tl.dicom.reading import dicom_faults
from monai_tl.dicom.segment_description import Algorithm, describe_segments
from monai_tl.dicom.segmentation_reading import read_segmentation
from monai_tl.dicom.source_references import (
    STAND_IN_CLASS,
    frames_by_instance,
    refer_to_source,
    stand_in_uid,
    with_all_uids,
)
from monai_tl.dicom.write import FIXED_DATE, FIXED_TIME, encode, fill
from monai_tl.errors import DicomError, LabelError
from monai_tl.files import sha256_of
from monai_tl.labels import LabelScheme

__all__ = ["Algorithm", "read_segmentation", "write_segmentation"]

_NO_IDENTITY = "keyed hash for name and identifier; allow-list for the rest"
"""DeidentificationMethod; at most 64 characters."""


def write_segmentation(
    path: Path,
    labels: NDArray[np.uint8],
    reference: SliceGeometry,
    scheme: LabelScheme,
    *,
    identity: Literal["pseudonymous", "source"],
    pseudonym: str,
    uid_key: Callable[[str], str],
    algorithm: Algorithm | None,
    series_description: str = "monai_tl segmentation",
    series_number: int = 9001,
    read_back: bool = False,
) -> tuple[str, ...]:
    """Write a label map as a binary, multi-segment DICOM SEG on the grid of its source series.

    Each class of the scheme is described, whether a voxel has it or not; frames without a voxel are left out, but
    for one where no voxel has any class. Study, series, instance and frame references are true in both identities, so
    the object finds its image. An attribute of the source that breaks the rules of DICOM is left blank: no library
    writes it, and the label must not be lost for it. UIDs come from all that the object says, so two objects share a
    SOPInstanceUID only when they are the same; volumes split from one series have each their own SEG series.

    Args:
        path: The file to write.
        labels: (K, rows, columns) uint8, in slice order of ``reference``; 0 is background.
        reference: The source volume; ``paths`` are read for their identity only.
        scheme: Meaning of the values.
        identity: ``source`` copies patient and study attributes, so a PACS takes the object; ``pseudonymous`` puts the
            pseudonym in place of name and identifier and leaves all else of the patient empty.
        pseudonym: Used by ``pseudonymous``.
        uid_key: Text → UID, by keyed hash, e.g. ``Pseudonyms.uid``.
        algorithm: None for a label drawn by hand.
        series_description: Of the SEG's series.
        series_number: Of the SEG's series.
        read_back: Read the file again and compare, so that what goes to a PACS was seen to hold the labels.

    Returns:
        Keywords of the source's attributes that were left blank because they are invalid.

    Raises:
        LabelError: The labels do not lie on the series, or hold a value without a class.
        DicomError: A source file cannot be read, or no DICOM object can be made of its attributes; code
            ``no_instance_uid`` for images nothing could refer to, ``round_trip`` when the file does not read back as
            written, and then it is removed.
    """
    labels = np.ascontiguousarray(labels)
    expected = (reference.n_slices, reference.rows, reference.columns)
    if labels.shape != expected:
        raise LabelError(
            f"labels of shape {labels.shape} do not lie on a series of shape {expected}; resample them first"
        )
    if int(labels.max(initial=0)) > len(scheme.classes):
        raise LabelError(f"labels hold the value {int(labels.max())}, but the scheme has {len(scheme.classes)} classes")
    # pydicom and highdicom quote the value they choke on; the file is written outside, where a fault is the disk's
    with dicom_faults("no SEG can be made of the source's attributes", "check its first slice with a DICOM validator"):
        patient, blank = read_patient(reference, identity, pseudonym)
        reference = with_all_uids(reference, uid_key)
        slices = _slices(reference, patient)
        title = (series_number, series_description)
        uids = _uids(labels, slices, reference, scheme, algorithm, uid_key, title)
        dataset = _segmentation(labels, slices, scheme, algorithm, uids, title)
        refer_to_source(dataset, reference)
        _remove_chance(dataset, uid_key)
        dataset.SpecificCharacterSet = "ISO_IR 192"
        fill(dataset, {key: value for key, value in patient.items() if value})
        if identity == "pseudonymous":
            dataset.PatientIdentityRemoved = "YES"
            dataset.DeidentificationMethod = _NO_IDENTITY
        content = encode(dataset)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    if read_back:
        _check_reads_back(path, labels, reference, scheme)
    return blank


def _check_reads_back(path: Path, labels: NDArray[np.uint8], reference: SliceGeometry, scheme: LabelScheme) -> None:
    # each class is found by its own name, which is the segment's label
    as_written = LabelScheme(classes=tuple(spec.model_copy(update={"structures": ()}) for spec in scheme.classes))
    found, _ = read_segmentation(path, reference, as_written)
    if not np.array_equal(found, labels):
        path.unlink()
        raise DicomError(
            "the DICOM SEG does not read back as written; report this as a fault of monai_tl", "round_trip"
        )


def exact_text(value: float) -> str:
    """The DICOM decimal string (at most 16 characters) of which a reader makes the same number, or the next to it.

    Shorter texts would move a slice against its source, by a hair: a viewer that compares must find them equal.
    """
    text = repr(float(value) + 0.0).removesuffix(".0")
    return next(shown for shown in (text, *(format(value, f".{n}g") for n in range(16, 0, -1))) if len(shown) <= 16)


def _slices(reference: SliceGeometry, patient: dict[str, str]) -> list[dict[str, Any]]:
    """Attributes of each source slice as highdicom needs them, from geometry alone: what is not put in cannot come out.

    Plain texts and numbers, so that UIDs made of them depend on no library.
    """
    directions = (*reference.row_direction, *reference.column_direction)
    step = exact_text(reference.spacing_between_slices_mm)
    shared = {
        "SOPClassUID": STAND_IN_CLASS,
        "StudyInstanceUID": reference.study_instance_uid,
        "SeriesInstanceUID": reference.series_instance_uid,
        "FrameOfReferenceUID": reference.frame_of_reference_uid,
        "Rows": reference.rows,
        "Columns": reference.columns,
        "ImageOrientationPatient": [exact_text(value) for value in directions],
        "PixelSpacing": [exact_text(value) for value in reference.pixel_spacing_mm],
        "SliceThickness": step,
        # frames are left out, so a reader cannot take it from their distances
        "SpacingBetweenSlices": step,
        **{keyword: patient.get(keyword, "") for keyword in PATIENT_TAGS},
    }
    return [
        {**shared, "SOPInstanceUID": stand_in_uid(k), "ImagePositionPatient": [exact_text(value) for value in position]}
        for k, position in enumerate(reference.positions_lps)
    ]


def _filled(attributes: dict[str, Any]) -> Dataset:
    dataset = Dataset()
    fill(dataset, attributes)
    return dataset


def _uids(
    labels: NDArray[np.uint8],
    slices: list[dict[str, Any]],
    reference: SliceGeometry,
    scheme: LabelScheme,
    algorithm: Algorithm | None,
    uid_key: Callable[[str], str],
    title: tuple[int, str],
) -> tuple[str, str]:
    """SeriesInstanceUID and SOPInstanceUID, from all that the object says."""
    maker = "manual" if algorithm is None else f"{algorithm.name}|{algorithm.version}|{algorithm.model_sha256}"
    identity = sha256_of(*(slices[0][keyword] for keyword in PATIENT_TAGS))
    # a series lies in one frame of reference, and is one volume's
    frame, instances = reference.frame_of_reference_uid, json.dumps(frames_by_instance(reference))
    source = sha256_of(reference.series_instance_uid, frame or "", instances)
    series = f"{source}|{maker}|{title[0]}|{title[1]}|{identity}"
    places = json.dumps([slices, reference.sop_class_uid, reference.frame_numbers], sort_keys=True)
    content = sha256_of(hashlib.sha256(labels.data).digest(), scheme.model_dump_json(), places, _version(algorithm))
    return uid_key(f"seg series|{series}"), uid_key(f"seg instance|{series}|{content}")


def _version(algorithm: Algorithm | None) -> str:
    return "1" if algorithm is None else __version__


def _segmentation(
    labels: NDArray[np.uint8],
    slices: list[dict[str, Any]],
    scheme: LabelScheme,
    algorithm: Algorithm | None,
    uids: tuple[str, str],
    title: tuple[int, str],
) -> Dataset:
    import highdicom

    shown, is_empty = labels, not labels.any()
    if is_empty:
        # an object has a frame at least; highdicom would write all of all segments
        shown = labels.copy()
        shown[0, 0, 0] = 1
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        dataset = highdicom.seg.Segmentation(
            source_images=[_filled(one) for one in slices],
            pixel_array=shown,
            segmentation_type=highdicom.seg.SegmentationTypeValues.BINARY,
            segment_descriptions=describe_segments(scheme, algorithm),
            series_instance_uid=uids[0],
            series_number=title[0],
            sop_instance_uid=uids[1],
            instance_number=1,
            manufacturer="monai_tl",
            manufacturer_model_name="monai_tl",
            software_versions=_version(algorithm),
            device_serial_number="0",
            content_label="SEGMENTATION",
            content_description=title[1],
            series_description=title[1],
            content_date=FIXED_DATE,
            content_time=FIXED_TIME,
        )
    n_bytes = (dataset.NumberOfFrames * labels[0].size + 7) // 8
    pixels = bytes(n_bytes) if is_empty else dataset.PixelData[:n_bytes]
    # highdicom pads to an even length with the digit 0
    dataset.PixelData = pixels + bytes(n_bytes % 2)
    return dataset


def _remove_chance(dataset: Dataset, uid_key: Callable[[str], str]) -> None:
    """Replace what highdicom takes from the clock or draws at random."""
    organization = uid_key(f"dimension organization|{dataset.SOPInstanceUID}")
    for item in (*dataset.DimensionOrganizationSequence, *dataset.DimensionIndexSequence):
        item.DimensionOrganizationUID = organization
    dataset.ContentDate = dataset.InstanceCreationDate = FIXED_DATE
    dataset.ContentTime = dataset.InstanceCreationTime = FIXED_TIME
    # readers of older editions of the standard ask for it
    dataset.ContentCreatorName = ""
    if "ContributingEquipmentSequence" in dataset:
        dataset.ContributingEquipmentSequence = DicomSequence()
        del dataset.ContributingEquipmentSequence
