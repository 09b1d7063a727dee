"""Image series out, the same bytes every time: no clock, no random UID, no library version."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.sequence import Sequence as DicomSequence
from pydicom.uid import UID, CTImageStorage, ExplicitVRLittleEndian, MRImageStorage

from monai_tl.dicom.geometry import SliceGeometry
from monai_tl.errors import GeometryError
from monai_tl.geometry import Affine

IMPLEMENTATION_CLASS_UID = "2.25.305828488182831875890203105390285383139"
IMPLEMENTATION_VERSION_NAME = "MONAI_TL"
FIXED_DATE, FIXED_TIME = "20000101", "000000"
"""Stand where DICOM demands a date of creation: a clock would change the bytes."""

_STORAGE = {"CT": CTImageStorage, "MR": MRImageStorage}


@dataclass(frozen=True)
class PrivateBlock:
    """Private elements of one creator.

    Attributes:
        group: Odd group number.
        creator: Name that reserves the block.
        elements: Offset → (value representation, value).
    """

    group: int
    creator: str
    elements: Mapping[int, tuple[str, Any]]


@dataclass(frozen=True)
class SeriesInfo:
    """What is written into each object of a series beside geometry and pixels.

    Attributes:
        modality: ``CT`` or ``MR``; not used for an RTSTRUCT.
        study_uid, series_uid, frame_of_reference_uid: UIDs; instance UIDs are derived from the series'.
        attributes: DICOM keyword → value; a list of mappings is a sequence.
        private: Private blocks.
    """

    modality: str
    study_uid: str
    series_uid: str
    frame_of_reference_uid: str
    attributes: Mapping[str, Any] = field(default_factory=dict)
    private: tuple[PrivateBlock, ...] = ()


def derive_uid(*parts: str) -> str:
    """A UID (``2.25.`` and 128 bits of sha256) from texts. Not keyed: for data that identify nobody."""
    digest = hashlib.sha256("\x00".join(parts).encode("utf-8")).digest()
    return f"2.25.{int.from_bytes(digest[:16], 'big')}"


def decimal_text(value: float) -> str:
    """A number as a DICOM decimal string (at most 16 characters)."""
    text = format(float(value) + 0.0, ".10g")
    return "0" if text == "-0" else text


def save(dataset: Dataset, path: Path) -> None:
    """Write a data set with file meta information that is the same for every version of every library.

    Args:
        dataset: Must hold SOPClassUID and SOPInstanceUID; written as Explicit VR Little Endian.
        path: The file; its folder is made.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(encode(dataset))


def encode(dataset: Dataset) -> bytes:
    """The bytes that ``save`` writes."""
    meta = FileMetaDataset()
    meta.FileMetaInformationVersion = b"\x00\x01"
    meta.MediaStorageSOPClassUID = dataset.SOPClassUID
    meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    meta.ImplementationClassUID = UID(IMPLEMENTATION_CLASS_UID)
    meta.ImplementationVersionName = IMPLEMENTATION_VERSION_NAME
    dataset.file_meta = meta
    dataset.preamble = b"\x00" * 128
    buffer = io.BytesIO()
    dataset.save_as(buffer, enforce_file_format=True)
    return buffer.getvalue()


def fill(dataset: Dataset, attributes: Mapping[str, Any]) -> None:
    """Set elements by keyword; a list of mappings becomes a sequence."""
    for keyword, value in attributes.items():
        if isinstance(value, list) and all(isinstance(item, Mapping) for item in value):
            items = []
            for entry in value:
                item = Dataset()
                fill(item, entry)
                items.append(item)
            value = DicomSequence(items)
        if keyword == "ContourData":
            # pydicom would parse each of thousands of numbers that were formatted a moment ago
            dataset[keyword] = DataElement(0x30060050, "DS", value, already_converted=True)
        else:
            setattr(dataset, keyword, value)


def series_geometry(folder: Path, shape: Sequence[int], affine_lps: Affine, info: SeriesInfo) -> SliceGeometry:
    """Where the slices of a series that ``write_series`` writes lie.

    Raises:
        GeometryError: The in-plane axes are not at right angles, or slices run against the normal.
    """
    n_slices, rows, columns = (int(size) for size in shape)
    vectors = [np.asarray(affine_lps[:3, axis], dtype=np.float64) for axis in range(3)]
    lengths = [_length(vector) for vector in vectors]
    row_direction, column_direction = vectors[0] / lengths[0], vectors[1] / lengths[1]
    if abs(float((row_direction * column_direction).sum())) > 1e-4:
        raise GeometryError("the axes of a slice are not at right angles; DICOM cannot hold such an image: resample it")
    normal = np.cross(row_direction, column_direction)
    if float((normal * vectors[2]).sum()) <= 0.0:
        raise GeometryError("slices run against the normal of rows and columns; give them in the opposite order")
    steps = np.arange(n_slices, dtype=np.float64)[:, None]
    return SliceGeometry(
        sop_instance_uids=tuple(derive_uid(info.series_uid, "instance", str(k)) for k in range(n_slices)),
        series_instance_uid=info.series_uid,
        study_instance_uid=info.study_uid,
        frame_of_reference_uid=info.frame_of_reference_uid,
        sop_class_uid=str(_STORAGE[info.modality]),
        rows=rows,
        columns=columns,
        positions_lps=np.asarray(affine_lps[:3, 3], dtype=np.float64) + steps * vectors[2],
        row_direction=row_direction,
        column_direction=column_direction,
        pixel_spacing_mm=(lengths[1], lengths[0]),
        paths=tuple(folder / f"IM{k + 1:04d}.dcm" for k in range(n_slices)),
        slice_thickness_mm=lengths[2],
    )


def _length(vector: NDArray[np.float64]) -> float:
    # not numpy's norm: its last bit depends on the machine
    x, y, z = vector.tolist()
    return float(np.sqrt(x * x + y * y + z * z))


def write_series(
    folder: Path,
    array: NDArray[Any],
    affine_lps: Affine,
    info: SeriesInfo,
    *,
    slope: float = 1.0,
    intercept: float = 0.0,
) -> SliceGeometry:
    """Write a volume as one CT or MR series of single-frame files.

    Files are not synchronised to disk one by one: write into ``files.whole_folder`` where that matters.

    Args:
        folder: Made if needed; files are IM0001.dcm and so on, in slice order.
        array: (K, rows, columns), real-world values; stored as 16-bit integers after the rescaling.
        affine_lps: (column, row, slice) index → LPS mm; may be sheared along the slice axis (tilted gantry).
        info: UIDs and attributes.
        slope: Real value = stored value × slope + intercept.
        intercept: See ``slope``.

    Returns:
        The slices as ingest would find them, in the order of ``array``.

    Raises:
        GeometryError: See ``series_geometry``; or values that do not fit 16 bits.
    """
    geometry = series_geometry(folder, array.shape, affine_lps, info)
    stored = np.rint((np.asarray(array, dtype=np.float64) - intercept) / slope)
    low, high = float(stored.min()), float(stored.max())
    dtype = np.dtype("<u2") if low >= 0 else np.dtype("<i2")
    limits = np.iinfo(dtype)
    if low < limits.min or high > limits.max:
        raise GeometryError(f"stored values {low:g} to {high:g} do not fit 16 bits; give a larger slope")
    folder.mkdir(parents=True, exist_ok=True)
    dataset = _shared_part(geometry, info)
    fill(dataset, info.attributes)
    fill_private(dataset, info.private)
    dataset.RescaleSlope, dataset.RescaleIntercept = decimal_text(slope), decimal_text(intercept)
    for k, path in enumerate(geometry.paths):
        dataset.SOPInstanceUID = geometry.sop_instance_uids[k]
        dataset.InstanceNumber = str(k + 1)
        dataset.ImagePositionPatient = [decimal_text(value) for value in geometry.positions_lps[k]]
        _fill_pixels(dataset, stored[k].astype(dtype))
        save(dataset, path)
    return geometry


def _shared_part(geometry: SliceGeometry, info: SeriesInfo) -> Dataset:
    dataset = Dataset()
    dataset.SOPClassUID = geometry.sop_class_uid
    dataset.StudyInstanceUID = info.study_uid
    dataset.SeriesInstanceUID = info.series_uid
    dataset.FrameOfReferenceUID = info.frame_of_reference_uid
    dataset.Modality = info.modality
    dataset.ImageType = ["ORIGINAL", "PRIMARY", "AXIAL"] if info.modality == "CT" else ["ORIGINAL", "PRIMARY", "OTHER"]
    directions = (*geometry.row_direction, *geometry.column_direction)
    dataset.ImageOrientationPatient = [decimal_text(value) for value in directions]
    dataset.PixelSpacing = [decimal_text(value) for value in geometry.pixel_spacing_mm]
    dataset.SliceThickness = decimal_text(geometry.slice_thickness_mm)
    return dataset


def _fill_pixels(dataset: Dataset, pixels: NDArray[Any]) -> None:
    dataset.Rows, dataset.Columns = pixels.shape
    dataset.SamplesPerPixel = 1
    dataset.PhotometricInterpretation = "MONOCHROME2"
    dataset.BitsAllocated = dataset.BitsStored = 16
    dataset.HighBit = 15
    dataset.PixelRepresentation = 1 if pixels.dtype.kind == "i" else 0
    dataset.add_new(0x7FE00010, "OW", pixels.tobytes())


def fill_private(dataset: Dataset, blocks: Sequence[PrivateBlock]) -> None:
    """Add private blocks."""
    for content in blocks:
        block = dataset.private_block(content.group, content.creator, create=True)
        for offset, (representation, value) in content.elements.items():
            block.add_new(offset, representation, value)
