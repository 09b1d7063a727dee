"""``index.json`` of ``monai-tl convert``: which volume became which file."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from monai_tl.records import IntTriple, Matrix, Record, Triple


class ConvertedVolume(Record):
    """One file that ``monai-tl convert`` wrote.

    Attributes:
        file, label_file: Names below the output folder; no label: None.
        case_id, patient_key, study, series: Pseudonyms.
        part: What tells this volume from others of its series; empty when the series is one volume.
        n_files: DICOM files of the image.
        affine: Voxel → RAS mm of the file.
        native_affine: (column, row, slice) of the slices as they are → RAS mm; sheared when the gantry was tilted.
        tilt_deg: Between the line of the slices' first pixels and their normal.
        scaling: How values were made of stored ones.
        photometric: As read.
        label_classes: Value in the label → class.
    """

    file: str
    label_file: str | None = None
    case_id: str
    patient_key: str
    study: str
    series: str
    part: dict[str, str] = Field(default_factory=dict)
    modality: str
    n_slices: int
    n_files: int
    spatial_shape: IntTriple
    spacing_mm: Triple
    affine: Matrix
    native_affine: Matrix
    tilt_deg: float = 0.0
    scaling: str
    photometric: str
    label_classes: dict[str, str] = Field(default_factory=dict)
    scanner: dict[str, str] = Field(default_factory=dict)
    notes: tuple[str, ...] = ()


class ConvertedIndex(Record):
    """``index.json`` of ``monai-tl convert``."""

    schema_version: Literal[1] = 1
    key_id: str
    volumes: tuple[ConvertedVolume, ...] = ()
