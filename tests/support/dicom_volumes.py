"""The one place where tests of geometry touch the reader's functions."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from monai_tl.dicom.deidentify import Pseudonyms
from monai_tl.dicom.index import index_folder
from monai_tl.dicom.volume import DicomVolume, labels_to_ras, labels_to_source, read_volume, to_ras


def read_only_volume(folder: Path) -> DicomVolume:
    index = index_folder(folder, Pseudonyms(bytes(32)))
    assert [one.code for one in index.rejected] == []
    (series,) = index.series
    return read_volume(series, 1)


def in_ras(volume: DicomVolume) -> tuple[np.ndarray, np.ndarray]:
    """Values and affine of the file that would be written."""
    return to_ras(volume)


def there_and_back(slices: np.ndarray, volume: DicomVolume) -> np.ndarray:
    """(K, rows, columns) labels to the file's grid and to the slices again."""
    return labels_to_source(labels_to_ras(slices, volume), volume)
