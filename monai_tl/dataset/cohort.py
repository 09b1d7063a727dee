"""Two synthetic hospitals: which studies they have and how each was scanned."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from monai_tl.dataset.anatomy import IntegerDraws, Part, build_anatomy
from monai_tl.dataset.phantom import Scan

HospitalName = Literal["a", "b"]
LabelKind = Literal["rtstruct", "seg"]
Dirt = Literal["localizer", "no_dicom", "duplicate", "gap"]
"""What real folders hold beside good series: a localizer, a foreign file, a file twice, a slice missing."""

_FIELD_OF_VIEW_MM = 362.0
_HEIGHT_MM = 172.0
# directions of rows and columns in LPS; head or feet first decides which way the slices run
_POSITIONS = {
    "HFS": ((1, 0, 0), (0, 1, 0), 1),
    "FFS": ((-1, 0, 0), (0, 1, 0), -1),
    "HFP": ((-1, 0, 0), (0, -1, 0), 1),
    "FFP": ((1, 0, 0), (0, -1, 0), -1),
}
_TILT = (143, 24, 145)
"""A Pythagorean triple: cosine 143/145 and sine 24/145, 9.5 degrees, without a cosine."""
TILT_DEGREES = 9.527


@dataclass(frozen=True)
class Hospital:
    """One hospital's scanner and habits.

    Attributes:
        name: ``a`` is the source domain (organs, many labels), ``b`` the target (tumour and organ, few labels).
        number: Part of the key of all its random draws.
        pixel_mm, slice_mm: Spacings in use.
        has_tumours: Whether its patients have them.
    """

    name: HospitalName
    number: int
    manufacturer: str
    model: str
    kernel: Literal["soft", "sharp"]
    kernel_name: str
    pixel_mm: tuple[float, ...]
    slice_mm: tuple[float, ...]
    positions: tuple[str, ...]
    noise_hu: tuple[int, int]
    offset_hu: int
    intercept: int
    has_tumours: bool


HOSPITALS = {
    "a": Hospital(
        "a", 1, "Nordlicht Medical", "Aurora 16", "soft", "B30s", (4.5, 4.8, 5.0, 5.2), (5.0, 6.0),
        ("HFS", "HFS", "FFS", "HFS", "HFP"), (11, 15), 0, -1024, has_tumours=False,
    ),
    "b": Hospital(
        "b", 2, "Meridian Imaging", "Zenith 64", "sharp", "FC52", (5.0, 5.4, 5.6), (4.0, 5.0, 6.5, 8.0),
        ("HFS", "FFS", "HFS", "HFP", "HFS", "FFP"), (14, 19), 14, -1000, has_tumours=True,
    ),
}  # fmt: skip


@dataclass(frozen=True)
class StudyPlan:
    """One study before it is rendered.

    Attributes:
        index: Of the study in its hospital, from 0.
        patient: Of the patient; every eighth study is a second one of the patient before.
        label: How its label is written; None for a study without.
        position: DICOM patient position.
        is_tilted: Gantry tilt of TILT_DEGREES.
        dirt: What else the study brings.
    """

    hospital: Hospital
    index: int
    patient: int
    label: LabelKind | None
    position: str
    is_tilted: bool
    dirt: frozenset[Dirt]
    scan: Scan
    anatomy: tuple[Part, ...]


def plan_studies(name: HospitalName, seed: int, n_studies: int, coarse: int = 1) -> tuple[StudyPlan, ...]:
    """All studies of a hospital.

    Hospital B has one study more than asked for, with a slice missing; of those asked for, its last one has no label.
    The study with index 2 has a tilted gantry in both.

    Args:
        name: Which hospital.
        seed: Same seed, same studies; a study does not depend on how many there are.
        n_studies: At least 1.
        coarse: Voxels this many times larger along each axis, for quick tests.
    """
    hospital = HOSPITALS[name]
    n_all = n_studies + (name == "b")
    return tuple(_plan(hospital, seed, index, n_studies, coarse) for index in range(n_all))


def _plan(hospital: Hospital, seed: int, index: int, n_studies: int, coarse: int) -> StudyPlan:
    patient = index - 1 if index % 8 == 7 else index
    body = IntegerDraws(seed, hospital.number, 1, patient)
    n_tumours = (2 if body.between(0, 3) == 0 else 1) if hospital.has_tumours else 0
    unlabelled = hospital.name == "b" and index == n_studies - 1 and n_studies > 1
    label: LabelKind = "rtstruct" if index % 2 else "seg"
    position = hospital.positions[index % len(hospital.positions)]
    is_tilted = index == 2
    draws = IntegerDraws(seed, hospital.number, 2, index)
    return StudyPlan(
        hospital=hospital,
        index=index,
        patient=patient,
        label=None if unlabelled else label,
        position=position,
        is_tilted=is_tilted,
        dirt=_dirt(index, n_studies) if hospital.name == "b" else frozenset(),
        scan=_scan(hospital, draws, position, is_tilted, coarse),
        anatomy=build_anatomy(body, n_tumours),
    )


def _dirt(index: int, n_studies: int) -> frozenset[Dirt]:
    places: dict[Dirt, int] = {"localizer": 0, "no_dicom": 0, "duplicate": min(1, n_studies - 1), "gap": n_studies}
    return frozenset(kind for kind, place in places.items() if place == index)


def _scan(hospital: Hospital, draws: IntegerDraws, position: str, is_tilted: bool, coarse: int) -> Scan:
    pixel = hospital.pixel_mm[draws.between(0, len(hospital.pixel_mm) - 1)] * coarse
    thickness = hospital.slice_mm[draws.between(0, len(hospital.slice_mm) - 1)] * coarse
    size = int(_FIELD_OF_VIEW_MM // (2 * pixel)) * 2 + 2
    n_slices = int(_HEIGHT_MM // thickness)
    row, column, along = _POSITIONS[position]
    affine = np.eye(4)
    for axis in range(3):
        affine[axis, 0], affine[axis, 1] = row[axis] * pixel, column[axis] * pixel
    affine[2, 2] = along * thickness
    if is_tilted:
        cosine, sine, whole = _TILT
        affine[1, 1] = column[1] * pixel * cosine / whole
        affine[2, 1] = pixel * sine / whole
    centre = (float(draws.between(-3, 3)), float(draws.between(-6, 6)), float(draws.between(-4, 12)))
    middle = ((size - 1) / 2.0, (size - 1) / 2.0, (n_slices - 1) / 2.0)
    for axis in range(3):
        start = centre[axis]
        for voxel in range(3):
            start = start - float(affine[axis, voxel]) * middle[voxel]
        affine[axis, 3] = start
    noise = draws.between(*hospital.noise_hu)
    return Scan(size, size, n_slices, affine, hospital.kernel, noise, hospital.offset_hu, prone=position[2] == "P")
