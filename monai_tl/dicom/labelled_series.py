"""An image series together with the label that its SEG and RTSTRUCT objects draw on it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from monai_tl.dicom.geometry import SliceGeometry
from monai_tl.dicom.index import ImageSeries
from monai_tl.dicom.label_object import LabelObject
from monai_tl.dicom.rtstruct import read_rtstruct
from monai_tl.dicom.segmentation import read_segmentation
from monai_tl.dicom.volume import DicomVolume, labels_to_ras, read_volume
from monai_tl.errors import DicomError, LabelError
from monai_tl.geometry import Volume
from monai_tl.labels import LabelScheme


@dataclass(frozen=True)
class RefusedLabel:
    """A label object that could not be used, and why."""

    label: LabelObject
    code: str
    reason: str


@dataclass(frozen=True)
class LabelledSeries:
    """One case as read.

    Attributes:
        volume: The image.
        label: (I, J, K) uint8 on the grid of ``to_ras(volume)``; None when no label object could be used.
        used: The label objects in it.
        refused: The others.
        notes: Of the image, then of the labels.
    """

    volume: DicomVolume
    label: Volume | None
    used: tuple[LabelObject, ...]
    refused: tuple[RefusedLabel, ...]
    notes: tuple[str, ...]
    scheme: LabelScheme | None = None


def read_labelled_series(
    series: ImageSeries,
    scheme: LabelScheme | None,
    min_slices: int,
    *,
    keep_shear: bool = False,
    in_parallel: bool = False,
) -> LabelledSeries:
    """Read a series and its labels. A bad label never costs the image.

    Several label objects are joined, the later class over the earlier. Where two of them draw the same class
    differently, and it shows in the result, none is taken: which reader to believe is not for this pipeline to guess.

    Raises:
        DicomError: The image series is refused.
    """
    volume = read_volume(series, min_slices, keep_shear=keep_shear, in_parallel=in_parallel)
    drawn: list[tuple[LabelObject, NDArray[np.uint8]]] = []
    refused: list[RefusedLabel] = []
    notes: list[str] = list(volume.notes)
    for label in series.labels:
        if scheme is None:
            break
        try:
            slices, remarks = _read_label(label, volume.geometry, scheme)
        except (LabelError, DicomError) as error:
            refused.append(RefusedLabel(label, error.code, str(error)))
            continue
        drawn.append((label, slices))
        notes += remarks
    if scheme is None:
        return LabelledSeries(volume, None, (), (), volume.notes)
    joined = np.maximum.reduce([slices for _, slices in drawn]) if drawn else None
    contested = [] if joined is None else _contested(drawn, joined, scheme)
    if contested:
        reason = f"label objects of one series draw {', '.join(contested)} differently; keep one of them"
        refused += [RefusedLabel(label, "contested_class", reason) for label, _ in drawn]
    if joined is None or contested:
        return LabelledSeries(volume, None, (), tuple(refused), volume.notes)
    used = tuple(label for label, _ in drawn)
    return LabelledSeries(volume, labels_to_ras(joined, volume), used, tuple(refused), tuple(notes), scheme)


def _read_label(
    label: LabelObject, geometry: SliceGeometry, scheme: LabelScheme
) -> tuple[NDArray[np.uint8], tuple[str, ...]]:
    reader = read_rtstruct if label.kind == "RTSTRUCT" else read_segmentation
    return reader(label.path, geometry, scheme)


def _contested(
    drawn: list[tuple[LabelObject, NDArray[np.uint8]]], joined: NDArray[np.uint8], scheme: LabelScheme
) -> list[str]:
    """Names of classes that two label objects draw differently where no later class of any of them lies over it.

    One reader's liver includes the tumour that another drew, or leaves it out: both say the same of the liver.
    """
    if len(drawn) < 2:
        return []
    names: list[str] = []
    for value, name in enumerate(scheme.names, start=1):
        masks = [mask & (joined == value) for _, slices in drawn if (mask := slices == value).any()]
        if any(not np.array_equal(masks[0], mask) for mask in masks[1:]):
            names.append(name)
    return names
