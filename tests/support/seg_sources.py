"""Sources of a DICOM SEG, written by pydicom alone and found again by the library; and a SEG read by pydicom alone."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pydicom
from pydicom.dataset import Dataset, FileMetaDataset
from seg_series import HASHER, IDENTITY

from monai_tl.dicom.deidentify import Pseudonyms
from monai_tl.dicom.geometry import SliceGeometry
from monai_tl.dicom.index import index_folder
from monai_tl.dicom.stacking import stack
from monai_tl.dicom.write import derive_uid

ENHANCED_MR, MR = "1.2.840.10008.5.1.4.1.1.4.1", "1.2.840.10008.5.1.4.1.1.4"
ROWS, COLUMNS, N_SLICES = 6, 10, 5
TURN = np.array([0.48, 0.64, 0.6, -0.8, 0.6, 0.0])
"""Row and column direction, oblique to all axes; exact in decimals."""
NORMAL = np.cross(TURN[:3], TURN[3:])
ORIGIN = np.array([-101.37, 22.125, 873.0625])
STEP = 10 / 3


def position_texts(k: int) -> list[str]:
    """As a scanner writes them: more digits than single precision, fewer than 16 characters."""
    return [f"{value:.9f}"[:16] for value in ORIGIN + k * STEP * NORMAL]


def _item(**attributes: object) -> Dataset:
    dataset = Dataset()
    for keyword, value in attributes.items():
        setattr(dataset, keyword, [value] if isinstance(value, Dataset) else value)
    return dataset


def _save(dataset: Dataset, path: Path, n_frames: int) -> None:
    dataset.Rows, dataset.Columns = ROWS, COLUMNS
    dataset.SamplesPerPixel, dataset.PhotometricInterpretation = 1, "MONOCHROME2"
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit, dataset.PixelRepresentation = 16, 12, 11, 0
    dataset.PixelData = np.arange(n_frames * ROWS * COLUMNS, dtype="<u2").tobytes()
    dataset.BurnedInAnnotation = "NO"
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = pydicom.uid.ExplicitVRLittleEndian
    dataset.file_meta.MediaStorageSOPClassUID = dataset.SOPClassUID
    dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
    path.parent.mkdir(parents=True, exist_ok=True)
    dataset.save_as(path, enforce_file_format=True)


def _base(sop_class: str, uid: str) -> Dataset:
    dataset = Dataset()
    for keyword, value in IDENTITY.items():
        setattr(dataset, keyword, value if not isinstance(value, list) else [_item(**one) for one in value])
    dataset.SOPClassUID, dataset.SOPInstanceUID, dataset.Modality = sop_class, uid, "MR"
    dataset.StudyInstanceUID, dataset.SeriesInstanceUID = derive_uid("mr study"), derive_uid("mr series")
    dataset.FrameOfReferenceUID, dataset.SeriesNumber = derive_uid("mr frame"), 4
    dataset.ImageType = ["ORIGINAL", "PRIMARY", "M", "SE"]
    return dataset


ECHOES = (4.6, 9.2)


def frame_order() -> list[tuple[float, int]]:
    """(echo time, slice) of each frame of the multi-frame file, in an order that no rule guesses."""
    frames = [(echo, k) for k in range(N_SLICES) for echo in ECHOES]
    return [frames[index] for index in np.random.default_rng(5).permutation(len(frames))]


def write_multiframe(path: Path) -> list[tuple[float, int]]:
    """One Enhanced MR object of two echoes on the same slices; returns what each of its frames is."""
    dataset = _base(ENHANCED_MR, derive_uid("multi-frame"))
    frames = frame_order()
    dataset.NumberOfFrames = len(frames)
    dataset.SharedFunctionalGroupsSequence = [
        _item(
            PixelMeasuresSequence=_item(PixelSpacing=["0.75", "0.5"], SliceThickness="3"),
            PlaneOrientationSequence=_item(ImageOrientationPatient=[f"{value:g}" for value in TURN]),
        )
    ]
    dataset.PerFrameFunctionalGroupsSequence = [
        _item(
            PlanePositionSequence=_item(ImagePositionPatient=position_texts(k)),
            MREchoSequence=_item(EffectiveEchoTime=echo),
            FrameContentSequence=_item(DimensionIndexValues=[k + 1]),
        )
        for echo, k in frames
    ]
    _save(dataset, path, len(frames))
    return frames


def write_two_echoes(folder: Path) -> dict[tuple[float, int], str]:
    """The same as single-frame files of one series; returns the SOPInstanceUID of each."""
    found = {}
    for number, (echo, k) in enumerate(frame_order()):
        dataset = _base(MR, derive_uid("single", str(echo), str(k)))
        dataset.ImagePositionPatient, dataset.InstanceNumber = position_texts(k), number
        dataset.ImageOrientationPatient = [f"{value:g}" for value in TURN]
        dataset.PixelSpacing, dataset.SliceThickness, dataset.EchoTime = ["0.75", "0.5"], "3", str(echo)
        _save(dataset, folder / f"{number}.dcm", 1)
        found[echo, k] = str(dataset.SOPInstanceUID)
    return found


def geometries_of(folder: Path, hasher: Pseudonyms = HASHER) -> list[SliceGeometry]:
    """Each volume in a folder, in the order of the index."""
    return [stack(one.headers, 1)[1] for one in index_folder(folder, hasher).series]


@dataclass(frozen=True)
class Frame:
    """One frame of a SEG as it stands in the file; texts are not parsed."""

    segment: int
    position: tuple[str, ...]
    source: tuple[str, str]
    source_frame: int | None
    mask: np.ndarray


def frames_of(path: Path) -> list[Frame]:
    """Bits are unpacked here and not by a library: frames follow each other without gaps, lowest bit first."""
    dataset = pydicom.dcmread(path)
    shape = (int(dataset.NumberOfFrames), dataset.Rows, dataset.Columns)
    bits = np.unpackbits(np.frombuffer(dataset.PixelData, np.uint8), bitorder="little")
    assert not bits[np.prod(shape) :].any()
    found = []
    masks = bits[: np.prod(shape)].reshape(shape)
    for item, mask in zip(dataset.PerFrameFunctionalGroupsSequence, masks, strict=True):
        (derivation,) = item.DerivationImageSequence
        (source,) = derivation.SourceImageSequence
        found.append(
            Frame(
                segment=item.SegmentIdentificationSequence[0].ReferencedSegmentNumber,
                position=tuple(str(value) for value in item.PlanePositionSequence[0].ImagePositionPatient),
                source=(str(source.ReferencedSOPClassUID), str(source.ReferencedSOPInstanceUID)),
                source_frame=source.get("ReferencedFrameNumber"),
                mask=mask.astype(bool),
            )
        )
    return found
