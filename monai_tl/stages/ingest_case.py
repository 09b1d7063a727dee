"""The ingest stage's work on one case, in a process of its own."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from monai_tl.cache import CaseCache
from monai_tl.config import IngestConfig
from monai_tl.dataset.layouts import NiftiCase
from monai_tl.dataset.nifti import slabs_of, write_image
from monai_tl.dataset.nifti_case import read_case
from monai_tl.dicom.deidentify import Pseudonyms
from monai_tl.dicom.image_series import ImageSeries
from monai_tl.dicom.label_object import refused_with_series
from monai_tl.dicom.labelled_series import LabelledSeries, read_labelled_series
from monai_tl.dicom.stacking import stack
from monai_tl.dicom.volume import patient_of, to_ras
from monai_tl.errors import DicomError, WorkerLostError, describe_fault
from monai_tl.files import sha256_files
from monai_tl.geometry import Affine, Volume, affine_to_rows, spacing_of
from monai_tl.records import UNKNOWN_SITE, CaseRecord, Provenance, Rejection, RejectionList

IMAGE_FILE, LABEL_FILE, CASE_FILE = "image.nii.gz", "label.nii.gz", "case.json"
_REJECTED_FILE = "rejected.json"
_LOST = "process_ended"


@dataclass(frozen=True)
class Workplace:
    """What all cases of one run share.

    Attributes:
        key: Secret behind the pseudonyms; repr hides it.
        folder: Where the case's folder goes.
        code: Digest of the code that makes a case.
    """

    config: IngestConfig
    key: bytes
    cache_root: Path
    folder: Path
    code: str

    def __repr__(self) -> str:
        return f"Workplace({self.folder})"

    def cache_key(self, *parts: str) -> str:
        """Key of a case: code, parameters, the secret and what is given; keyed, as UIDs and names are among it."""
        classes = self.config.scheme.model_dump_json()
        return Pseudonyms(self.key).cache_key("ingest", self.code, classes, str(self.config.min_slices), *parts)


@dataclass(frozen=True)
class DicomTask:
    """One image series with its labels."""

    place: Workplace
    series: ImageSeries


@dataclass(frozen=True)
class NiftiTask:
    """One case of a NIfTI data set."""

    place: Workplace
    case: NiftiCase
    modality: str
    dataset: str


@dataclass(frozen=True)
class CaseOutcome:
    """A case, or the reasons why there is none; a case may come with refused labels."""

    case: CaseRecord | None
    rejected: tuple[Rejection, ...] = ()
    from_cache: bool = False


def ingest_series(task: DicomTask) -> CaseOutcome:
    """Make the case of one image series; its own faults come back as rejections.

    Raises:
        OSError: The case cannot be written: no fault of the series, and every other would meet it too.
    """
    place, series = task.place, task.series
    hasher = Pseudonyms(place.key)
    try:
        _, geometry = stack(series.headers, place.config.min_slices)
        input_sha256 = _hash_input([*dict.fromkeys(geometry.paths), *(label.path for label in series.labels)])
        case_id = hasher.case_id(series.study_uid, series.name)
        key = place.cache_key(input_sha256, series.name, series.study_uid, *series.notes)

        def build(folder: Path) -> None:
            found = read_labelled_series(series, place.config.scheme, place.config.min_slices)
            image, affine = to_ras(found.volume)
            record = _dicom_record(found, task, case_id, input_sha256, image, affine)
            rejected = tuple(
                Rejection(
                    item=hasher.item("label", one.label.sop_instance_uid),
                    kind="label",
                    code=one.code,
                    reason=one.reason,
                )
                for one in found.refused
            )
            _write(folder, record, image, found.label, affine, rejected)

        return _fetch(place, case_id, key, build)
    except Exception as error:
        code, reason = describe_fault(error)
        item, reason = hasher.item("series", series.name), series.reason(reason)
        refused = Rejection(item=item, kind="series", code=code, reason=reason, n_files=len(series.paths))
        return CaseOutcome(None, (refused, *(refused_with_series(label, code, hasher) for label in series.labels)))


def ingest_nifti(task: NiftiTask) -> CaseOutcome:
    """Make one case of a NIfTI data set; its own faults come back as rejections.

    Raises:
        OSError: The case cannot be written: no fault of the case, and every other would meet it too.
    """
    place, case = task.place, task.case
    hasher = Pseudonyms(place.key)
    case_id = hasher.case_id("nifti", f"{task.dataset}|{case.name}")
    item = hasher.item("file", f"{task.dataset}|{case.name}")
    paths = [path for path in (*case.images, case.label) if path is not None and path.is_file()]
    try:
        input_sha256 = _hash_input(paths)
        key = place.cache_key(input_sha256, task.dataset, task.modality, case.name, case.patient, str(len(paths)))

        def build(folder: Path) -> None:
            found = read_case(case, place.config.scheme)
            provenance = Provenance(
                kind="nifti", study=hasher.hash_uid(task.dataset),
                series=hasher.hash_uid(f"{task.dataset}|{case.name}"),
                instances=tuple(hasher.hash_uid(f"{task.dataset}|{path.name}") for path in case.images),
                label_series=hasher.hash_uid(f"label|{task.dataset}|{case.name}") if found.label is not None else None,
                input_sha256=input_sha256, image_sha256=_image_sha256(found.image),
                scaling="as stored in the NIfTI file", notes=found.notes,
            )  # fmt: skip
            record = _record(
                place.config, case_id, hasher.patient_key(case.patient), UNKNOWN_SITE,
                task.modality, found.image, found.label, found.affine, provenance,
            )  # fmt: skip
            fault = found.label_fault
            rejected = (Rejection(item=item, kind="label", code=fault[0], reason=fault[1]),) if fault else ()
            _write(folder, record, found.image, found.label, found.affine, rejected)

        return _fetch(place, case_id, key, build)
    except Exception as error:
        code, reason = describe_fault(error)
        return CaseOutcome(None, (Rejection(item=item, kind="case", code=code, reason=reason, n_files=len(paths)),))


def lose_series(task: DicomTask, fault: WorkerLostError) -> CaseOutcome:
    """What becomes of a series whose work ends each process that takes it."""
    hasher, series = Pseudonyms(task.place.key), task.series
    item, reason = hasher.item("series", series.name), series.reason(str(fault))
    refused = Rejection(item=item, kind="series", code=_LOST, reason=reason, n_files=len(series.paths))
    return CaseOutcome(None, (refused, *(refused_with_series(label, _LOST, hasher) for label in series.labels)))


def lose_nifti(task: NiftiTask, fault: WorkerLostError) -> CaseOutcome:
    """The same for a case of a NIfTI data set."""
    item = Pseudonyms(task.place.key).item("file", f"{task.dataset}|{task.case.name}")
    n_files = len(task.case.images) + (task.case.label is not None)
    return CaseOutcome(None, (Rejection(item=item, kind="case", code=_LOST, reason=str(fault), n_files=n_files),))


def _image_sha256(image: Volume) -> str:
    digest = hashlib.sha256(f"{image.shape}|{image.dtype.name}|".encode("ascii"))
    for slab in slabs_of(image):
        digest.update(slab)
    return digest.hexdigest()


def _hash_input(paths: Sequence[Path]) -> str:
    """Over the bytes of the files; what cannot be read is a fault of the input, not of the disk written to."""
    try:
        return sha256_files(paths)
    except OSError as error:
        raise DicomError(
            f"a file of the case cannot be read ({error.strerror}); check its permissions", "unreadable"
        ) from None


def _dicom_record(
    found: LabelledSeries, task: DicomTask, case_id: str, input_sha256: str, image: Volume, affine: Affine
) -> CaseRecord:
    series, volume = task.series, found.volume
    hasher = Pseudonyms(task.place.key)
    patient, remarks = patient_of(volume, series)
    notes = (*found.notes, *remarks)
    provenance = Provenance(
        kind="dicom",
        study=hasher.hash_uid(series.study_uid),
        series=hasher.hash_uid(series.name),
        label_series=hasher.hash_uid("|".join(label.series_uid for label in found.used)) if found.used else None,
        instances=tuple(hasher.hash_uid(uid) for uid in volume.sop_instance_uids),
        input_sha256=input_sha256,
        image_sha256=_image_sha256(image),
        scaling=volume.scaling,
        scanner=volume.scanner,
        notes=notes,
    )
    site = hasher.site(volume.institution)
    return _record(
        task.place.config,
        case_id,
        hasher.patient_key(patient),
        site,
        volume.modality,
        image,
        found.label,
        affine,
        provenance,
    )


def _record(
    config: IngestConfig,
    case_id: str,
    patient_key: str,
    site: str,
    modality: str,
    image: Volume,
    label: Volume | None,
    affine: Affine,
    provenance: Provenance,
) -> CaseRecord:
    voxels: dict[str, int] = {}
    if label is not None:
        counts = np.bincount(label.ravel(), minlength=config.scheme.n_outputs)
        voxels = {name: int(counts[value]) for value, name in enumerate(config.scheme.names, start=1)}
    return CaseRecord(
        case_id=case_id,
        patient_key=patient_key,
        site=site,
        modality=modality,
        n_channels=image.shape[0] if image.ndim == 4 else 1,
        has_label=label is not None,
        spacing_mm=spacing_of(np.round(affine, 9)),
        spatial_shape=(image.shape[-3], image.shape[-2], image.shape[-1]),
        affine=affine_to_rows(affine),
        class_voxels=voxels,
        provenance=provenance,
    )


def _write(
    folder: Path,
    record: CaseRecord,
    image: Volume,
    label: Volume | None,
    affine: Affine,
    rejected: tuple[Rejection, ...],
) -> None:
    write_image(folder / IMAGE_FILE, image, affine)
    if label is not None:
        write_image(folder / LABEL_FILE, label, affine)
    record.write(folder / CASE_FILE)
    RejectionList(rejected=rejected).write(folder / _REJECTED_FILE)


def _fetch(place: Workplace, case_id: str, key: str, build: Callable[[Path], None]) -> CaseOutcome:
    """The case from the cache, or made now; the labels it refused are remembered with it."""
    folder, cache = place.folder / case_id, CaseCache(place.cache_root)
    from_cache = cache.fetch(key, folder, build, kept=(_REJECTED_FILE,))
    rejected = RejectionList.read(cache.entry(key) / _REJECTED_FILE).rejected
    return CaseOutcome(CaseRecord.read(folder / CASE_FILE), rejected, from_cache)
