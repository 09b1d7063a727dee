"""``monai-tl phantom``: write the demo cohort as DICOM, the same bytes on each machine."""

from __future__ import annotations

import shutil
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

import numpy as np
from numpy.typing import NDArray

from monai_tl.dataset.anatomy import IntegerDraws
from monai_tl.dataset.cohort import TILT_DEGREES, HospitalName, StudyPlan, plan_studies
from monai_tl.dataset.phantom import render
from monai_tl.dicom.geometry import SliceGeometry
from monai_tl.dicom.rtstruct_writing import write_rtstruct
from monai_tl.dicom.segmentation import write_segmentation
from monai_tl.dicom.write import PrivateBlock, SeriesInfo, derive_uid, write_series
from monai_tl.errors import ConfigError
from monai_tl.files import whole_folder
from monai_tl.labels import ClassSpec, LabelScheme
from monai_tl.parallel import map_cases
from monai_tl.progress import Progress

_MORPHOLOGY = "SCT|49755003|Morphologically Abnormal Structure"
SCHEMES = {
    "a": LabelScheme(
        classes=(
            ClassSpec(name="Liver", type="SCT|10200004|Liver"),
            ClassSpec(name="Spleen", type="SCT|78961009|Spleen"),
            ClassSpec(name="Kidney_L", type="SCT|18639004|Left kidney"),
            ClassSpec(name="Kidney_R", type="SCT|9846003|Right kidney"),
            ClassSpec(name="Spine", type="SCT|421060004|Vertebral column"),
        )
    ),
    "b": LabelScheme(
        classes=(
            ClassSpec(name="Liver", type="SCT|10200004|Liver"),
            ClassSpec(
                name="Tumour",
                category=_MORPHOLOGY,
                type="SCT|108369006|Neoplasm",
                anatomic_region="SCT|10200004|Liver",
            ),
        )
    ),
}
"""Segments of each hospital's DICOM SEG."""
ROI_NAMES = {
    "a": {
        "Liver": "liver",
        "Spleen": "spleen",
        "Kidney_L": "kidney_left",
        "Kidney_R": "kidney_right",
        "Spine": "spine",
    },
    "b": {"Liver": "liver", "GTV": "tumour"},
}
"""ROI name in each hospital's RTSTRUCT → part of the phantom, in the order of the segments."""
CANARY = "Kanari"
"""Part of every text in the cohort that would identify a patient (in some, in capitals)."""


@dataclass(frozen=True)
class _Job:
    plan: StudyPlan
    seed: int
    folder: Path


def run(out: Path, seed: int = 0, n_a: int = 32, n_b: int = 24, coarse: int = 1) -> str:
    """Write the cohort and say what was written.

    Args:
        out: Gets ``hospital_a`` and ``hospital_b``; both are replaced.
        seed: Same seed, same bytes.
        n_a: Studies of hospital A, the source domain; all labelled.
        n_b: Studies of hospital B, the target; the last one has no label. However small, the dirt comes along: a
            localizer, one study more with a slice missing, a duplicate file, a file that is no DICOM.
        coarse: Voxels so many times larger along each axis, for quick tests.

    Returns:
        One paragraph.

    Raises:
        ConfigError: A count is below 1.
    """
    counts = write_cohort(out, seed, n_a, n_b, coarse)
    hospitals = "; ".join(
        f"hospital {name.upper()}: {found['studies']} studies, "
        f"{found['seg']} with DICOM SEG, {found['rtstruct']} with RTSTRUCT"
        for name, found in counts.items()
    )
    return f"{out}: {hospitals}"


def write_cohort(out: Path, seed: int, n_a: int, n_b: int, coarse: int = 1) -> dict[str, dict[str, int]]:
    """Write both hospitals; see ``run``.

    Returns:
        For each hospital, how many studies there are (``studies``) and how many labels of each kind.
    """
    sizes: dict[HospitalName, int] = {"a": n_a, "b": n_b}
    if min(n_a, n_b, coarse) < 1 or seed < 0:
        raise ConfigError("phantom: --n-a and --n-b are at least 1, --seed at least 0", "arguments")
    progress = Progress("phantom", total=n_a + n_b + 1)
    counts: dict[str, dict[str, int]] = {}
    for name in get_args(HospitalName):
        with whole_folder(out / f"hospital_{name}") as folder:
            jobs = [_Job(plan, seed, folder) for plan in plan_studies(name, seed, sizes[name], coarse)]
            kinds: Counter[str] = Counter()
            for kind in map_cases(_write_study, jobs):
                kinds[kind] += 1
                progress.advance(f"hospital {name.upper()}")
        counts[name] = {"studies": len(jobs), "seg": kinds["seg"], "rtstruct": kinds["rtstruct"]}
    return counts


def canaries(seed: int = 0, n_a: int = 32, n_b: int = 24) -> tuple[str, ...]:
    """Every text in the cohort that would identify a patient; none may be found in any product of the pipeline.

    UIDs are not among them: a DICOM SEG refers to its source by them, on purpose.
    """
    sizes: dict[HospitalName, int] = {"a": n_a, "b": n_b}
    found: set[str] = set()
    for name, size in sizes.items():
        for plan in plan_studies(name, seed, size):
            found |= _texts(_identity(plan))
            found.add(_folder_name(plan))
    return tuple(sorted(found | {CANARY, CANARY.upper()}))


def _texts(value: Any) -> set[str]:
    if isinstance(value, dict):
        return {text for inner in value.values() for text in _texts(inner)}
    if isinstance(value, list):
        return {text for inner in value for text in _texts(inner)}
    # shorter texts, e.g. the sex, occur anywhere
    return {value} if isinstance(value, str) and len(value) >= 8 else set()


def _identity(plan: StudyPlan) -> dict[str, Any]:
    """Attributes that identify the patient, the study or the people around it."""
    letter, who = plan.hospital.name.upper(), f"{plan.patient:02d}{plan.hospital.name.upper()}"
    study = f"{plan.index:02d}{letter}"
    name = f"{CANARY}^Änne{who}" if plan.hospital.name == "b" else f"{CANARY}^Otto{who}"
    return {
        "PatientName": name,
        "PatientID": f"KANARI-ID-{who}",
        "IssuerOfPatientID": f"KANARI-HOSPITAL-{letter}",
        "PatientBirthDate": f"1903{plan.patient % 12 + 1:02d}{plan.patient % 28 + 1:02d}",
        "PatientSex": "F" if plan.patient % 2 else "M",
        "PatientAddress": f"Kanari Street {who}",
        "PatientComments": f"cousin of Kanari {who}",
        "OtherPatientIDsSequence": [{"PatientID": f"KANARI-OTHER-{who}", "TypeOfPatientID": "TEXT"}],
        "AccessionNumber": f"KANARI-ACC-{study}",
        "StudyID": f"KANARI-ST-{study}",
        "StudyDate": f"1987{plan.index % 12 + 1:02d}{plan.index % 27 + 1:02d}",
        "StudyTime": "101112",
        "StudyDescription": f"Abdomen of Kanari {who}",
        "InstitutionName": f"Kanari Clinic {letter}",
        "InstitutionAddress": f"Kanari Square {letter}",
        "ReferringPhysicianName": f"Kanari^Doctor{letter}",
        "OperatorsName": f"Kanari^Operator{letter}",
        "StationName": f"KANARI-STN-{letter}",
        "DeviceSerialNumber": f"KANARI-SN-{letter}",
        "RequestAttributesSequence": [
            {
                "RequestedProcedureID": f"KANARI-RP-{study}",
                "ScheduledProcedureStepDescription": f"staging of Kanari {who}",
                "ReferencedStudySequence": [{"ReferencedSOPClassUID": "1.2.840.10008.3.1.2.3.1"}],
            }
        ],
    }


def _folder_name(plan: StudyPlan) -> str:
    return f"{CANARY}_{plan.patient:02d}{plan.hospital.name.upper()}"


def _info(plan: StudyPlan, seed: int, series: str, attributes: dict[str, Any]) -> SeriesInfo:
    key = ("monai_tl phantom", str(seed), plan.hospital.name, str(plan.index))
    identity = _identity(plan)
    private = {0x10: ("LO", identity["PatientName"]), 0x11: ("LO", identity["PatientID"])}
    return SeriesInfo(
        modality="CT",
        study_uid=derive_uid(*key, "study"),
        series_uid=derive_uid(*key, series),
        frame_of_reference_uid=derive_uid(*key, "frame of reference"),
        attributes={"SpecificCharacterSet": "ISO_IR 192", **identity, **attributes},
        private=(PrivateBlock(0x0029, "KANARI PRIVATE", private),),
    )


def _scanner(plan: StudyPlan) -> dict[str, Any]:
    return {
        "Manufacturer": plan.hospital.manufacturer,
        "ManufacturerModelName": plan.hospital.model,
        "ConvolutionKernel": plan.hospital.kernel_name,
        "KVP": "120",
        "PatientPosition": plan.position,
        "GantryDetectorTilt": str(TILT_DEGREES) if plan.is_tilted else "0",
        "SeriesNumber": "2",
        "SeriesDescription": f"Kanari {plan.hospital.kernel_name}",
        "ImageComments": f"Kanari image {plan.index:02d}",
    }


def _write_study(job: _Job) -> str:
    """Write one study; returns the kind of its label, or ``none``."""
    plan = job.plan
    noise = IntegerDraws(job.seed, plan.hospital.number, 3, plan.index)
    parts = ROI_NAMES[plan.hospital.name].values()
    image, masks = render(plan.anatomy, plan.scan, noise, ("body", *parts))
    folder = job.folder / _folder_name(plan) / f"study_{plan.index:02d}"
    info = _info(plan, job.seed, "image", _scanner(plan))
    geometry = write_series(folder / "CT", image, plan.scan.affine_lps, info, intercept=plan.hospital.intercept)
    if plan.label == "seg":
        _write_seg(folder / "SEG.dcm", job, masks, geometry)
    elif plan.label == "rtstruct":
        _write_rtstruct(folder / "RTSTRUCT.dcm", job, masks, geometry)
    _add_dirt(folder, job, image, geometry)
    return plan.label or "none"


def _write_seg(path: Path, job: _Job, masks: dict[str, NDArray[np.bool_]], geometry: SliceGeometry) -> None:
    name = job.plan.hospital.name
    labels = np.zeros(masks["liver"].shape, dtype=np.uint8)
    for value, part in enumerate(ROI_NAMES[name].values(), start=1):
        labels[masks[part]] = value
    write_segmentation(
        path, labels, geometry, SCHEMES[name], identity="source", pseudonym="",
        uid_key=lambda text: derive_uid("monai_tl phantom", text), algorithm=None,
        series_description="manual outlines", series_number=3,
    )  # fmt: skip


def _write_rtstruct(path: Path, job: _Job, masks: dict[str, NDArray[np.bool_]], geometry: SliceGeometry) -> None:
    plan = job.plan
    rois = {"BODY": masks["body"]} | {roi: masks[part] for roi, part in ROI_NAMES[plan.hospital.name].items()}
    info = _info(plan, job.seed, "outlines", {"SeriesNumber": "3", "SeriesDescription": "Kanari outlines"})
    # every other one names no image, so slices must be found by position
    write_rtstruct(path, rois, geometry, info, with_image_references=plan.index % 4 == 1)


def _add_dirt(folder: Path, job: _Job, image: NDArray[np.int16], geometry: SliceGeometry) -> None:
    plan = job.plan
    if "localizer" in plan.dirt:
        _write_localizer(folder / "CT", job, image)
    if "no_dicom" in plan.dirt:
        notes = f"Call {CANARY} {plan.patient:02d}B back, birth date {_identity(plan)['PatientBirthDate']}.\n"
        (folder / f"{CANARY}_notes.txt").write_text(notes, encoding="utf-8")
    if "duplicate" in plan.dirt:
        copies = folder / "CT" / "copy"
        copies.mkdir()
        shutil.copyfile(geometry.paths[3], copies / f"{CANARY} copy.dcm")
    if "gap" in plan.dirt:
        geometry.paths[geometry.n_slices // 2].unlink()


def _write_localizer(folder: Path, job: _Job, image: NDArray[np.int16]) -> None:
    """One coronal slice through the middle, head up."""
    plan = job.plan
    affine = plan.scan.affine_lps
    pixel, step = abs(float(affine[0, 0])), abs(float(affine[2, 2]))
    middle = plan.scan.rows // 2
    plane = image[::-1, middle, :] if affine[2, 2] > 0 else image[:, middle, :]
    top = max(float(affine[2, 3]), float(affine[2, 3] + affine[2, 2] * (plan.scan.n_slices - 1)))
    coronal = np.eye(4)
    coronal[:3, 0], coronal[:3, 1], coronal[:3, 2] = (pixel, 0.0, 0.0), (0.0, 0.0, -step), (0.0, pixel, 0.0)
    coronal[:3, 3] = (float(affine[0, 3]), float(affine[1, 3] + affine[1, 1] * middle), top)
    attributes = {**_scanner(plan), "ImageType": ["ORIGINAL", "PRIMARY", "LOCALIZER"], "SeriesNumber": "1"}
    info = _info(plan, job.seed, "localizer", attributes)
    write_series(folder / "localizer", plane[None], coronal, info, intercept=plan.hospital.intercept)
