"""Tiny DICOM files for tests, written with plain pydicom: independent of the package's own writer."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from pydicom.dataset import Dataset, FileDataset, FileMetaDataset
from pydicom.sequence import Sequence as Items
from pydicom.uid import UID, ExplicitVRLittleEndian

CT_CLASS = "1.2.840.10008.5.1.4.1.1.2"
RTSTRUCT_CLASS = "1.2.840.10008.5.1.4.1.1.481.3"
SERIES, STUDY, FRAME = "1.2.3.4", "1.2.3", "1.2.3.9"
AXIAL = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0)


def slice_dataset(pixels: np.ndarray, position: Sequence[float], number: int, **tags: Any) -> FileDataset:
    """One CT slice; ``tags`` override any attribute, None removes it."""
    meta = FileMetaDataset()
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    ds = FileDataset("", {}, file_meta=meta, preamble=b"\0" * 128)
    ds.SOPClassUID = CT_CLASS
    ds.SOPInstanceUID = f"{tags.get('SeriesInstanceUID', SERIES)}.{number + 1}"
    ds.SeriesInstanceUID, ds.StudyInstanceUID, ds.FrameOfReferenceUID = SERIES, STUDY, FRAME
    ds.Modality, ds.ImageType = "CT", ["ORIGINAL", "PRIMARY", "AXIAL"]
    ds.PatientID, ds.PatientName = "CANARY-4711", "CANARY^NAME"
    ds.InstitutionName, ds.StationName = "CANARY HOSPITAL", "CANARY-STATION"
    ds.Manufacturer, ds.ManufacturerModelName, ds.ConvolutionKernel = "ACME", "Scan 1", "B30f"
    ds.Rows, ds.Columns = pixels.shape
    ds.SamplesPerPixel, ds.PhotometricInterpretation = 1, "MONOCHROME2"
    ds.BitsAllocated, ds.BitsStored, ds.HighBit = 16, 12, 11
    ds.PixelRepresentation = 0
    ds.RescaleSlope, ds.RescaleIntercept = 1, -1024
    ds.PixelSpacing = [0.7, 0.8]
    ds.SliceThickness = 2.5
    ds.ImageOrientationPatient = list(AXIAL)
    ds.ImagePositionPatient = [float(value) for value in position]
    ds.InstanceNumber = number
    ds.PixelData = np.ascontiguousarray(pixels).astype(pixels.dtype.newbyteorder("<")).tobytes()
    for keyword, value in tags.items():
        if value is None:
            if keyword in ds:
                delattr(ds, keyword)
        else:
            setattr(ds, keyword, value)
    if ds.get("SOPInstanceUID"):
        meta.MediaStorageSOPInstanceUID = ds.SOPInstanceUID
    if ds.get("SOPClassUID"):
        meta.MediaStorageSOPClassUID = ds.SOPClassUID
    return ds


def save(ds: FileDataset, path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    ds.save_as(path, enforce_file_format=True)
    return path


def write_ct(
    folder: Path,
    stored: np.ndarray,
    *,
    origin: Sequence[float] = (-10.0, -20.0, 30.0),
    step: Sequence[float] = (0.0, 0.0, 2.5),
    leave_out: Sequence[int] = (),
    names: Sequence[str] | None = None,
    **tags: Any,
) -> list[Path]:
    """A series of (K, rows, columns) stored values, file names and instance numbers in reverse order of position."""
    n_slices = len(stored)
    paths = []
    for k in range(n_slices):
        if k in leave_out:
            continue
        position = np.asarray(origin) + k * np.asarray(step)
        name = names[k] if names else f"{n_slices - k:03d}.dcm"
        ds = slice_dataset(stored[k], position, n_slices - k, **tags)
        paths.append(save(ds, folder / name))
    return paths


def write_rtstruct(
    path: Path,
    structures: dict[str, list[np.ndarray]],
    *,
    series: str | None = SERIES,
    frame: str = FRAME,
    instances: dict[int, str] | None = None,
    geometric_type: str = "CLOSED_PLANAR",
) -> Path:
    """An RTSTRUCT of (N, 3) LPS outlines by structure name; ``instances`` names the image of the n-th outline."""
    meta = FileMetaDataset()
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    meta.MediaStorageSOPClassUID = UID(RTSTRUCT_CLASS)
    meta.MediaStorageSOPInstanceUID = UID("1.2.3.77")
    ds = FileDataset("", {}, file_meta=meta, preamble=b"\0" * 128)
    ds.SOPClassUID, ds.SOPInstanceUID = RTSTRUCT_CLASS, "1.2.3.77"
    ds.SeriesInstanceUID, ds.StudyInstanceUID = "1.2.3.7", STUDY
    ds.Modality, ds.PatientID = "RTSTRUCT", "CANARY-4711"
    reference = Dataset()
    reference.FrameOfReferenceUID = frame
    if series is not None:
        study, item = Dataset(), Dataset()
        item.SeriesInstanceUID = series
        study.RTReferencedSeriesSequence = Items([item])
        reference.RTReferencedStudySequence = Items([study])
    ds.ReferencedFrameOfReferenceSequence = Items([reference])
    rois, drawn = [], []
    n_outlines = 0
    for number, (name, outlines) in enumerate(structures.items(), start=1):
        roi, contours = Dataset(), Dataset()
        roi.ROINumber, roi.ROIName, roi.ReferencedFrameOfReferenceUID = number, name, frame
        contours.ReferencedROINumber = number
        items = []
        for outline in outlines:
            item = Dataset()
            item.ContourGeometricType = geometric_type
            item.NumberOfContourPoints = len(outline)
            item.ContourData = [f"{value:.10g}" for value in np.asarray(outline).ravel()]
            if instances and n_outlines in instances:
                image = Dataset()
                image.ReferencedSOPInstanceUID = instances[n_outlines]
                item.ContourImageSequence = Items([image])
            n_outlines += 1
            items.append(item)
        contours.ContourSequence = Items(items)
        rois.append(roi)
        drawn.append(contours)
    ds.StructureSetROISequence, ds.ROIContourSequence = Items(rois), Items(drawn)
    return save(ds, path)
