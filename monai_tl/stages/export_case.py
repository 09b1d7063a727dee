"""The export stage's work on one case, in a process of its own; nothing here loads torch."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from monai_tl.config import ExportConfig
from monai_tl.dataset.nifti import read_label, write_image
from monai_tl.dicom.deidentify import Pseudonyms
from monai_tl.dicom.image_series import ImageSeries
from monai_tl.dicom.segmentation import Algorithm, write_segmentation
from monai_tl.dicom.volume import labels_to_source, read_volume
from monai_tl.errors import DataError, DicomError, describe_fault
from monai_tl.geometry import Affine, same_grid
from monai_tl.labels import LabelScheme
from monai_tl.records import CaseRecord


@dataclass(frozen=True)
class ExportTask:
    """One prediction to hand over.

    Attributes:
        series: The DICOM series of the case; None for a case from NIfTI.
        prediction: Label map on the case's grid.
        key: Secret behind derived UIDs; repr hides it.
    """

    case: CaseRecord
    series: ImageSeries | None
    prediction: Path
    folder: Path
    scheme: LabelScheme
    algorithm: Algorithm
    config: ExportConfig
    key: bytes
    min_slices: int

    def __repr__(self) -> str:
        return f"ExportTask({self.case.case_id})"


def export_case(task: ExportTask) -> dict[str, Any]:
    """Write one case; its own faults come back with a ``code``.

    Raises:
        OSError: The disk is full or the like: no fault of the case, and every other would meet it too.
    """
    case_id = task.case.case_id
    blank: tuple[str, ...] = ()
    try:
        label, affine = read_label(task.prediction)
        if not same_grid(affine, label.shape, np.asarray(task.case.affine), task.case.spatial_shape):
            raise DataError(f"the prediction of {case_id} is not on its image's grid; run predict again")
        if task.case.provenance.kind == "nifti":
            path = _write_nifti(task, label, affine)
        else:
            path, blank = _write_seg(task, label)
    except Exception as error:
        code, reason = describe_fault(error)
        return {"case_id": case_id, "code": code, "reason": reason}
    counts = np.bincount(label.ravel(), minlength=task.scheme.n_outputs)
    voxels = {name: int(counts[value]) for value, name in enumerate(task.scheme.names, start=1)}
    entry = {"case_id": case_id, "file": path.relative_to(task.folder).as_posix(), "class_voxels": voxels}
    return {**entry, "left_blank": list(blank)} if blank else entry


def _write_nifti(task: ExportTask, label: NDArray[Any], affine: Affine) -> Path:
    path = task.folder / "nifti" / f"{task.case.case_id}.nii.gz"
    write_image(path, label.astype(np.uint8), affine)
    return path


def _write_seg(task: ExportTask, label: NDArray[Any]) -> tuple[Path, tuple[str, ...]]:
    """Write the SEG, and see that it reads back.

    Returns:
        The file, and the keywords of the source's attributes that are invalid and so left blank.
    """
    if task.series is None:
        raise DicomError(
            "its source series is no longer in ingest.source; put it back or run ingest again", "missing_series"
        )
    hasher = Pseudonyms(task.key)
    volume = read_volume(task.series, task.min_slices)
    if tuple(hasher.hash_uid(uid) for uid in volume.sop_instance_uids) != task.case.provenance.instances:
        raise DicomError("its source series has other instances than when it was ingested; run ingest again", "changed")
    path = task.folder / "seg" / f"{task.case.case_id}.dcm"
    blank = write_segmentation(
        path,
        labels_to_source(label.astype(np.uint8), volume),
        volume.geometry,
        task.scheme,
        identity=task.config.identity,
        pseudonym=task.case.case_id,
        uid_key=hasher.uid,
        algorithm=task.algorithm,
        series_description=task.config.series_description,
        series_number=task.config.series_number,
        read_back=True,
    )
    return path, blank
