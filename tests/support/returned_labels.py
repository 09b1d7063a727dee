"""Labels of the tiny studies as they come back: drawn by hand, by a machine, or as outlines."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from inbox_world import N_PIXELS, N_SLICES, series_uid

from monai_tl.dicom.deidentify import Pseudonyms, seeded_key
from monai_tl.dicom.index import index_folder
from monai_tl.dicom.segmentation import Algorithm, write_segmentation
from monai_tl.dicom.volume import read_volume
from monai_tl.labels import ClassSpec, LabelScheme

SCHEME = LabelScheme(classes=(ClassSpec(name="Ball"),))
HASHER = Pseudonyms(seeded_key(5))


def write_seg(path: Path, study: Path, number: int, *, radius: float = 3.0, by_hand: bool = True) -> Path:
    """A SEG of a ball in the middle of a study's series."""
    (series,) = (one for one in index_folder(study, HASHER).series if one.uid == series_uid(number))
    volume = read_volume(series, 2)
    grid = np.indices((N_SLICES, N_PIXELS, N_PIXELS)).astype(float)
    centre = np.array((N_SLICES, N_PIXELS, N_PIXELS)) / 2
    distance = np.sqrt(sum((axis - c) ** 2 for axis, c in zip(grid, centre, strict=True)))
    path.parent.mkdir(parents=True, exist_ok=True)
    write_segmentation(
        path,
        (distance < radius).astype(np.uint8),
        volume.geometry,
        SCHEME,
        identity="source",
        pseudonym="x",
        uid_key=HASHER.uid,
        algorithm=None if by_hand else Algorithm("a network", "1", "ab" * 32),
    )
    return path
