"""Masks as RTSTRUCT: closed outlines whose filling gives back the masks, the same bytes every time."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset
from pydicom.uid import RTStructureSetStorage

from monai_tl.dicom.geometry import SliceGeometry
from monai_tl.dicom.outline import mask_to_outlines
from monai_tl.dicom.write import (
    FIXED_DATE,
    FIXED_TIME,
    SeriesInfo,
    decimal_text,
    derive_uid,
    fill,
    fill_private,
    save,
)
from monai_tl.errors import GeometryError


def write_rtstruct(
    path: Path,
    masks: Mapping[str, NDArray[np.bool_]],
    reference: SliceGeometry,
    info: SeriesInfo,
    *,
    with_image_references: bool = True,
) -> None:
    """Write masks as the closed outlines of an RTSTRUCT; filling them gives back the masks.

    Args:
        path: The file.
        masks: ROI name → (K, rows, columns) bool in slice order of ``reference``; may overlap.
        reference: The image series.
        info: UIDs of the RTSTRUCT's own series; ``frame_of_reference_uid`` must be the reference's.
        with_image_references: False leaves out ContourImageSequence, so a reader must find slices by position.
    """
    dataset = Dataset()
    dataset.SOPClassUID = RTStructureSetStorage
    dataset.SOPInstanceUID = derive_uid(info.series_uid, "instance", "0")
    dataset.StudyInstanceUID, dataset.SeriesInstanceUID = info.study_uid, info.series_uid
    dataset.Modality = "RTSTRUCT"
    dataset.InstanceNumber = "1"
    dataset.StructureSetLabel = "OUTLINES"
    dataset.StructureSetDate, dataset.StructureSetTime = FIXED_DATE, FIXED_TIME
    instances = [
        {"ReferencedSOPClassUID": reference.sop_class_uid, "ReferencedSOPInstanceUID": uid}
        for uid in reference.sop_instance_uids
    ]
    series = {"SeriesInstanceUID": reference.series_instance_uid, "ContourImageSequence": instances}
    study = {
        "ReferencedSOPClassUID": "1.2.840.10008.3.1.2.3.1",
        "ReferencedSOPInstanceUID": reference.study_instance_uid,
        "RTReferencedSeriesSequence": [series],
    }
    frame = {"FrameOfReferenceUID": info.frame_of_reference_uid, "RTReferencedStudySequence": [study]}
    rois = list(enumerate(masks.items(), start=1))
    content: dict[str, Any] = {
        "ReferencedFrameOfReferenceSequence": [frame],
        "StructureSetROISequence": [
            {
                "ROINumber": str(number),
                "ReferencedFrameOfReferenceUID": info.frame_of_reference_uid,
                "ROIName": name,
                "ROIGenerationAlgorithm": "MANUAL",
            }
            for number, (name, _) in rois
        ],
        "ROIContourSequence": [
            {
                "ReferencedROINumber": str(number),
                "ContourSequence": _contours(mask, reference, instances if with_image_references else None),
            }
            for number, (_, mask) in rois
        ],
        "RTROIObservationsSequence": [
            {
                "ObservationNumber": str(number),
                "ReferencedROINumber": str(number),
                "RTROIInterpretedType": "",
                "ROIInterpreter": "",
            }
            for number, _ in rois
        ],
    }
    fill(dataset, content)
    fill(dataset, info.attributes)
    fill_private(dataset, info.private)
    save(dataset, path)


def _contours(
    mask: NDArray[np.bool_], reference: SliceGeometry, instances: list[dict[str, str]] | None
) -> list[dict[str, Any]]:
    if mask.shape != (reference.n_slices, reference.rows, reference.columns):
        raise GeometryError(
            f"a mask of shape {mask.shape} does not lie on the series; give one bool for each of its pixels"
        )
    row_step = reference.column_direction * reference.pixel_spacing_mm[0]
    column_step = reference.row_direction * reference.pixel_spacing_mm[1]
    contours = []
    for k in range(reference.n_slices):
        for outline in mask_to_outlines(mask[k]):
            points = reference.positions_lps[k] + outline[:, :1] * row_step + outline[:, 1:] * column_step
            contour: dict[str, Any] = {
                "ContourGeometricType": "CLOSED_PLANAR",
                "NumberOfContourPoints": str(len(points)),
                "ContourData": [decimal_text(value) for value in points.ravel()],
            }
            if instances is not None:
                contour["ContourImageSequence"] = [instances[k]]
            contours.append(contour)
    return contours
