"""Writes the slices of one series with plain pydicom: file names and instance numbers say nothing about the order."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from dicom_files import save, slice_dataset
from world_fields import Grid, field

MR_CLASS = "1.2.840.10008.5.1.4.1.1.4"
SC_CLASS = "1.2.840.10008.5.1.4.1.1.7"
CT = {"BitsStored": 16, "HighBit": 15, "AcquisitionNumber": 1}
MR = {
    "SOPClassUID": MR_CLASS,
    "Modality": "MR",
    "ImageType": ["ORIGINAL", "PRIMARY", "M", "ND"],
    "BitsStored": 16,
    "HighBit": 15,
    "RescaleSlope": None,
    "RescaleIntercept": None,
    "ConvolutionKernel": None,
    "EchoTime": 4.6,
    "RepetitionTime": 500.0,
    "AcquisitionNumber": 1,
}
Tags = Mapping[str, Any] | Callable[[int], Mapping[str, Any]]


def numbers_text(values: Iterable[float]) -> list[str]:
    """As decimal strings of at most 16 characters."""
    return [f"{value:.10g}" for value in values]


class SeriesWriter:
    """One series of its own study, patient and frame of reference.

    Args:
        folder: Where the files go.
        number: Makes its identifiers.
        base: ``CT`` or ``MR``.
    """

    def __init__(self, folder: Path, number: int = 1, base: Mapping[str, Any] = CT) -> None:
        self.folder = folder
        self.series = f"1.2.3.{number}.5"
        self.frame = f"1.2.3.{number}.9"
        self.base = {
            **base,
            "SeriesInstanceUID": self.series,
            "StudyInstanceUID": f"1.2.3.{number}.1",
            "FrameOfReferenceUID": self.frame,
            "PatientID": f"CANARY-{number}",
        }
        self.count = 0

    def tag(self, **tags: Any) -> None:
        """For all slices from now on."""
        self.base.update(tags)

    def add(
        self,
        grid: Grid,
        part: int = 0,
        *,
        slices: Iterable[int] | None = None,
        under: str = "",
        tags: Tags | None = None,
    ) -> list[Path]:
        """Slices of a grid that hold the values of a part; ``tags`` may be a function of the slice."""
        values = field(grid.points_lps(), part)
        paths = []
        for k in range(grid.shape[0]) if slices is None else slices:
            more = tags(k) if callable(tags) else (tags or {})
            paths.append(self.add_slice(grid, values[k], k, under=under, **more))
        return paths

    def add_slice(self, grid: Grid, values: np.ndarray, k: int, *, under: str = "", **tags: Any) -> Path:
        """One slice of values (after rescale) at place ``k`` of a grid."""
        self.count += 1
        draw = hashlib.sha256(f"{self.series}|{self.count}".encode()).digest()
        every = {
            "SOPInstanceUID": f"{self.series}.{self.count}",
            "InstanceNumber": int.from_bytes(draw[:2], "big") % 9000 + 1,
            "ImageOrientationPatient": numbers_text((*grid.row, *grid.column)),
            "PixelSpacing": numbers_text(grid.pixel),
            "ImagePositionPatient": numbers_text(grid.position(k)),
            **self.base,
            **tags,
        }
        is_ct = every.get("RescaleIntercept", 0) is not None
        stored = np.rint(values + (1024 if is_ct else 0)).astype(np.uint16)
        ds = slice_dataset(stored, (0, 0, 0), 0, **every)
        return save(ds, self.folder / under / f"{draw[2:8].hex()}.dcm")
