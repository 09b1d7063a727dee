"""Label maps as DICOM SEG on the source series: coded, referenced, with the same bytes for the same input.

Reading is in :mod:`monai_tl.dicom.segmentation_reading`; :func:`read_segmentation` is offered here too.
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable
from dataclasses import dataclass
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
from monai_tl.dicom.segmentation_reading import read_segmentation
from monai_tl.dicom.write import FIXED_DATE, FIXED_TIME, decimal_text, encode, fill
from monai_tl.errors import LabelError
from monai_tl.files import sha256_of
from monai_tl.labels import LabelScheme

__all__ = ["Algorithm", "read_segmentation", "write_segmentation"]

_COLOURS = (
    (48.0, 38.0, 33.0),
    (81.0, -2.0, 68.0),
    (57.0, -5.0, -33.0),
    (63.0, -34.0, 33.0),
    (53.0, 33.0, -27.0),
    (63.0, 26.0, 52.0),
)
"""L*a*b* of segments in turn; the way there from RGB has powers, whose last bit depends on the machine."""


@dataclass(frozen=True)
class Algorithm:
    """What made the label map.

    Attributes:
        name, version: As shown to a reader of the object.
        model_sha256: Hash of the model's weights.
    """

    name: str
    version: str
    model_sha256: str


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
) -> tuple[str, ...]:
    """Write a label map as a binary, multi-segment DICOM SEG on the grid of its source series.

    Each class of the scheme is described, whether a voxel has it or not; frames without a voxel are left out. Study,
    series and instance references are true in both identities, so the object finds its image. An attribute of the
    source that breaks the rules of DICOM is left blank: no library writes it, and the label must not be lost for it.
    UIDs come from all that the object says, so two objects share a SOPInstanceUID only when they are the same.

    Args:
        path: The file to write.
        labels: (K, rows, columns) uint8, in slice order of ``reference``; 0 is background.
        reference: The source series; ``paths`` are read for their identity only.
        scheme: Meaning of the values.
        identity: ``source`` copies patient and study attributes, so a PACS takes the object; ``pseudonymous`` puts the
            pseudonym in place of name and identifier and leaves all else of the patient empty.
        pseudonym: Used by ``pseudonymous``.
        uid_key: Text → UID, by keyed hash, e.g. ``Pseudonyms.uid``.
        algorithm: None for a label drawn by hand.
        series_description: Of the SEG's series.
        series_number: Of the SEG's series.

    Returns:
        Keywords of the source's attributes that were left blank because they are invalid.

    Raises:
        LabelError: The labels do not lie on the series, or hold a value without a class.
        DicomError: A source file cannot be read, or no DICOM object can be made of its attributes.
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
        sources = _sources(reference, patient, uid_key)
        dataset = _segmentation(labels, sources, scheme, algorithm, uid_key, series_description, series_number)
        _remove_chance(dataset, uid_key)
        dataset.SpecificCharacterSet = "ISO_IR 192"
        fill(dataset, {key: value for key, value in patient.items() if value})
        if identity == "pseudonymous":
            dataset.PatientIdentityRemoved = "YES"
            dataset.DeidentificationMethod = "keyed hash in place of name and identifier; attributes by allow-list"
        content = encode(dataset)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return blank


def _sources(reference: SliceGeometry, patient: dict[str, str], uid_key: Callable[[str], str]) -> list[dict[str, Any]]:
    """Attributes of each source slice as highdicom needs them, from geometry alone: what is not put in cannot come out.

    Plain texts and numbers, so that UIDs made of them depend on no library.
    """
    frame = reference.frame_of_reference_uid or uid_key(f"frame of reference|{reference.series_instance_uid}")
    directions = (*reference.row_direction, *reference.column_direction)
    shared = {
        "SOPClassUID": reference.sop_class_uid,
        "StudyInstanceUID": reference.study_instance_uid,
        "SeriesInstanceUID": reference.series_instance_uid,
        "FrameOfReferenceUID": frame,
        "Rows": reference.rows,
        "Columns": reference.columns,
        "ImageOrientationPatient": [decimal_text(value) for value in directions],
        "PixelSpacing": [decimal_text(value) for value in reference.pixel_spacing_mm],
        "SliceThickness": decimal_text(reference.spacing_between_slices_mm),
        **{keyword: patient.get(keyword, "") for keyword in PATIENT_TAGS},
    }
    return [
        {**shared, "SOPInstanceUID": uid, "ImagePositionPatient": [decimal_text(value) for value in position]}
        for uid, position in zip(reference.sop_instance_uids, reference.positions_lps, strict=True)
    ]


def _filled(attributes: dict[str, Any]) -> Dataset:
    dataset = Dataset()
    fill(dataset, attributes)
    return dataset


def _segmentation(
    labels: NDArray[np.uint8],
    sources: list[dict[str, Any]],
    scheme: LabelScheme,
    algorithm: Algorithm | None,
    uid_key: Callable[[str], str],
    series_description: str,
    series_number: int,
) -> Dataset:
    import highdicom

    maker = "manual" if algorithm is None else f"{algorithm.name}|{algorithm.version}|{algorithm.model_sha256}"
    identity = sha256_of(*(sources[0][keyword] for keyword in PATIENT_TAGS))
    series = f"{sources[0]['SeriesInstanceUID']}|{maker}|{series_number}|{series_description}|{identity}"
    version = "1" if algorithm is None else __version__
    content = sha256_of(labels.tobytes(), scheme.model_dump_json(), json.dumps(sources, sort_keys=True), version)
    with warnings.catch_warnings():
        # highdicom warns about an empty label map; it is a result like any other
        warnings.simplefilter("ignore")
        return highdicom.seg.Segmentation(
            source_images=[_filled(source) for source in sources],
            pixel_array=labels,
            segmentation_type=highdicom.seg.SegmentationTypeValues.BINARY,
            segment_descriptions=_descriptions(scheme, algorithm),
            series_instance_uid=uid_key(f"seg series|{series}"),
            series_number=series_number,
            sop_instance_uid=uid_key(f"seg instance|{series}|{content}"),
            instance_number=1,
            manufacturer="monai_tl",
            manufacturer_model_name="monai_tl",
            software_versions=version,
            device_serial_number="0",
            content_label="SEGMENTATION",
            content_description=series_description,
            series_description=series_description,
            content_date=FIXED_DATE,
            content_time=FIXED_TIME,
        )


def _descriptions(scheme: LabelScheme, algorithm: Algorithm | None) -> list[Any]:
    import highdicom
    from highdicom.seg import SegmentAlgorithmTypeValues, SegmentDescription

    kind, identification = SegmentAlgorithmTypeValues.MANUAL, None
    if algorithm is not None:
        kind = SegmentAlgorithmTypeValues.AUTOMATIC
        identification = highdicom.AlgorithmIdentificationSequence(
            name=algorithm.name,
            family=highdicom.sr.CodedConcept("123109", "DCM", "Artificial Intelligence"),
            version=algorithm.version,
            parameters={"model_sha256": algorithm.model_sha256},
        )
    return [
        SegmentDescription(
            segment_number=number,
            segment_label=spec.name,
            segmented_property_category=_concept(spec.category),
            segmented_property_type=_concept(spec.type),
            algorithm_type=kind,
            algorithm_identification=identification,
            anatomic_regions=None if spec.anatomic_region is None else [_concept(spec.anatomic_region)],
            display_color=highdicom.color.CIELabColor(*_COLOURS[(number - 1) % len(_COLOURS)]),
        )
        for number, spec in enumerate(scheme.classes, start=1)
    ]


def _concept(code: str) -> Any:
    import highdicom

    designator, value, meaning = (part.strip() for part in code.split("|"))
    return highdicom.sr.CodedConcept(value=value, scheme_designator=designator, meaning=meaning)


def _remove_chance(dataset: Dataset, uid_key: Callable[[str], str]) -> None:
    """Replace what highdicom takes from the clock or draws at random."""
    organization = uid_key(f"dimension organization|{dataset.SOPInstanceUID}")
    for item in (*dataset.DimensionOrganizationSequence, *dataset.DimensionIndexSequence):
        item.DimensionOrganizationUID = organization
    dataset.ContentDate = dataset.InstanceCreationDate = FIXED_DATE
    dataset.ContentTime = dataset.InstanceCreationTime = FIXED_TIME
    if "ContributingEquipmentSequence" in dataset:
        dataset.ContributingEquipmentSequence = DicomSequence()
        del dataset.ContributingEquipmentSequence
