"""Slices that cannot be placed, or do not make one volume together."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
from damage import Outcome, damaged, one_file, refused, setting, spoil_all, spoil_one, whole_series
from dicom_bytes import (
    CANARY,
    PIXELS,
    TOKEN,
    Elements,
    Series,
    decimal,
    file_bytes,
    new_series,
    save,
    short,
    text,
    uid,
    write_series,
)

POSITION, ORIENTATION, SPACING = 0x00200032, 0x00200037, 0x00280030


def _one(name: str, says: str, codes: str, **values: tuple[str, bytes] | None) -> None:
    """A kind in which one slice has a wrong value."""

    def make(folder: Path, rng: np.random.Generator) -> list[Outcome]:
        spoil_one(folder, rng, setting(**values))
        return list(one_file(codes, says))

    make.__name__ = name
    damaged(make)


def _all(name: str, says: str, codes: str, **values: tuple[str, bytes] | None) -> None:
    """A kind in which all slices have the same wrong value."""

    def make(folder: Path, rng: np.random.Generator) -> list[Outcome]:
        spoil_all(folder, rng, setting(**values))
        return list(whole_series(codes, says))

    make.__name__ = name
    damaged(make)


AXES = "ImageOrientationPatient|unit vector|perpendicular|orientation"
_one("position_missing_in_one", "ImagePositionPatient", "missing_geometry", x00200032=None)
_all("position_missing", "ImagePositionPatient", "missing_geometry", x00200032=None)
_all("position_empty", "ImagePositionPatient", "missing_geometry damaged", x00200032=("DS", b""))
_one(
    "position_of_text", "ImagePositionPatient|pars", "damaged missing_geometry", x00200032=("DS", text("CANARY", 0, 1))
)
_one("position_of_nan", "ImagePositionPatient", "damaged missing_geometry", x00200032=("DS", text("nan", 0, 1)))
_one("position_of_inf", "ImagePositionPatient", "damaged missing_geometry", x00200032=("DS", text("-inf", 0, 1)))
_one("position_of_two_numbers", "ImagePositionPatient", "damaged missing_geometry", x00200032=("DS", text(0, 1)))
_one("position_of_four_numbers", "ImagePositionPatient", "damaged missing_geometry", x00200032=("DS", text(0, 1, 2, 3)))
_one(
    "position_at_1e300", "ImagePositionPatient|gap|line", "damaged missing_geometry missing_slice irregular_spacing",
    x00200032=("DS", text("1e300", 0, "1e300")),
)  # fmt: skip
_all("orientation_missing", "ImageOrientationPatient", "missing_geometry", x00200037=None)
_one("orientation_missing_in_one", "ImageOrientationPatient", "missing_geometry", x00200037=None)
_all("orientation_of_zeros", AXES, "non_orthonormal", x00200037=("DS", text(0, 0, 0, 0, 0, 0)))
_all("orientation_row_is_column", AXES, "non_orthonormal", x00200037=("DS", text(1, 0, 0, 1, 0, 0)))
_all("orientation_not_perpendicular", AXES, "non_orthonormal", x00200037=("DS", text(1, 0, 0, 0.2, 0.979796, 0)))
_all("orientation_of_length_two", AXES, "non_orthonormal", x00200037=("DS", text(2, 0, 0, 0, 2, 0)))
_all("orientation_of_nan", "ImageOrientationPatient", "damaged", x00200037=("DS", text(1, 0, "nan", 0, 1, 0)))
_all("orientation_at_1e300", AXES, "non_orthonormal damaged", x00200037=("DS", text("1e300", 0, 0, 0, "1e300", 0)))
_all("orientation_of_five_numbers", "ImageOrientationPatient", "damaged", x00200037=("DS", text(1, 0, 0, 0, 1)))
_all("spacing_missing", "PixelSpacing", "missing_geometry", x00280030=None)
_one("spacing_missing_in_one", "PixelSpacing", "missing_geometry", x00280030=None)
_all("spacing_zero", "PixelSpacing", "missing_geometry damaged", x00280030=("DS", text(0, 0)))
_all("spacing_negative", "PixelSpacing", "missing_geometry damaged", x00280030=("DS", text(-0.7, 0.8)))
_all("spacing_one_number", "PixelSpacing", "missing_geometry damaged", x00280030=("DS", text(0.7)))
_all("spacing_at_1e300", "PixelSpacing", "missing_geometry damaged", x00280030=("DS", text("1e300", "1e300")))
_all("spacing_of_text", "PixelSpacing|pars", "missing_geometry damaged", x00280030=("DS", text("CANARY", 1)))
_all("spacing_with_commas", "PixelSpacing|pars", "missing_geometry damaged", x00280030=("DS", text("0,7", "0,8")))


@damaged
def whole_numbers_with_decimals(folder, rng):
    """InstanceNumber and the like are not needed: nothing is wrong with the volume."""
    change = setting(x00200013=("IS", text("3.75")), x00200011=("IS", text("1.5")), x00200012=("IS", text("2.0")))
    return [(spoil_all(folder, rng, change).grid(),)]


@damaged
def numbers_of_text_that_are_not_needed(folder, rng):
    change = setting(
        x00200013=("IS", text(CANARY[:12])), x00180050=("DS", text("thick")), x00180060=("DS", text("many")),
        x00180081=("DS", text("late")),
    )  # fmt: skip
    return [
        (spoil_all(folder, rng, change).grid(),),
        *whole_series("damaged", "pars|number|SliceThickness|KVP|EchoTime"),
    ]


def _written_without(folder: Path, rng: np.random.Generator, absent: tuple[int, ...], n_slices: int = 9) -> None:
    series = new_series(rng, n_slices)
    write_series(folder, [one for k, one in enumerate(series.slices) if k not in absent])


@damaged
def slice_missing(folder, rng):
    _written_without(folder, rng, (4,))
    return [(refused("series", "missing_slice", r"5\.00 mm.*2\.50 mm"),)]


@damaged
def two_slices_missing_in_a_row(folder, rng):
    _written_without(folder, rng, (4, 5))
    return [(refused("series", "missing_slice", r"7\.50 mm.*2\.50 mm.*\b2\b"),)]


@damaged
def slices_missing_here_and_there(folder, rng):
    _written_without(folder, rng, (3, 6))
    return [(refused("series", "missing_slice", r"5\.00 mm.*\b2 such"),)]


@damaged
def every_other_slice_missing_in_one_half(folder, rng):
    """As many wide steps as usual ones: which is the true one is not to be guessed."""
    _written_without(folder, rng, (5, 7, 9), n_slices=11)
    return [(refused("series", "missing_slice irregular_spacing", r"5\.00"),)]


@damaged
def irregular_spacing(folder, rng):
    series = new_series(rng)
    slices = series.slices
    slices[3][POSITION] = ("DS", decimal(*(series.position(3) + np.array([0, 0, 0.6]))))
    write_series(folder, slices)
    return [(refused("series", "irregular_spacing", r"mm"),)]


@damaged
def spacing_that_grows(folder, rng):
    series = new_series(rng)
    slices = series.slices
    for k in range(6):
        slices[k][POSITION] = ("DS", decimal(-10, -20, 30 + 2.5 * k + 0.15 * k * k))
    write_series(folder, slices)
    return [(refused("series", "irregular_spacing", r"mm"),)]


@damaged
def slices_that_wander_sideways(folder, rng):
    """Equal steps along the normal, but not on one line."""
    series = new_series(rng)
    slices = series.slices
    for k in range(6):
        slices[k][POSITION] = ("DS", decimal(-10 + 4 * (k % 2), -20, 30 + 2.5 * k))
    write_series(folder, slices)
    return [(refused("series", "irregular_spacing", r"line|mm"),)]


@damaged
def one_slice_not_parallel(folder, rng):
    spoil_one(folder, rng, setting(x00200037=("DS", text(1, 0, 0, 0, 0.965926, 0.258819))))
    return [(refused("series", "non_parallel", "parallel"),)]


@damaged
def slices_of_a_fan(folder, rng):
    """A radial acquisition: each slice 10 degrees on."""
    series = new_series(rng)
    slices = series.slices
    for k, angle in enumerate(np.radians(10.0 * np.arange(6))):
        slices[k][ORIENTATION] = ("DS", decimal(np.cos(angle), np.sin(angle), 0, 0, 0, -1))
    write_series(folder, slices)
    return [(refused("series", "non_parallel", "parallel"),)]


@damaged
def mixed_sizes(folder, rng):
    def shrink(elements: Elements) -> None:
        elements[0x00280010] = ("US", short(6))
        elements[PIXELS] = ("OW", elements[PIXELS][1][:168])

    spoil_one(folder, rng, shrink)
    return [(refused("series", "mixed_geometry", r"12 x 14|sizes"),)]


@damaged
def mixed_spacing(folder, rng):
    spoil_one(folder, rng, setting(x00280030=("DS", text(0.9, 0.9))))
    return [(refused("series", "mixed_geometry", r"0\.9|spacing"),)]


@damaged
def mixed_frames_of_reference(folder, rng):
    """One slice that claims another frame of reference, where it would fit."""
    series = spoil_one(folder, rng, setting(x00200052=("UI", uid(f"1.2.826.0.1.{TOKEN}.99"))))
    alone = series.grid(slices=[2])
    return [
        (refused("series", "mixed_geometry", "frames? of reference"),),
        (refused("series", "missing_slice", r"gap of 5\.00.*of its series"), alone),
        (
            refused("series", "missing_slice", r"gap of 5\.00"),
            refused("series", "too_few_slices mixed_geometry", "slice|frame"),
        ),
    ]


@damaged
def mixed_modality(folder, rng):
    series = spoil_one(
        folder, rng, setting(x00080060=("CS", text("MR")), x00080016=("UI", uid("1.2.840.10008.5.1.4.1.1.4")))
    )
    alone = series.grid(slices=[2])
    return [
        (refused("series", "mixed_kind", "kinds? of image|modalit"),),
        (refused("series", "missing_slice", r"gap of 5\.00.*of its series"), alone),
    ]


@damaged
def mixed_patients(folder, rng):
    spoil_one(folder, rng, setting(x00100020=("LO", text(f"{CANARY}-other"))))
    return [(refused("series", "mixed_study", "2 patients"),)]


@damaged
def mixed_studies(folder, rng):
    spoil_one(folder, rng, setting(x0020000D=("UI", uid(f"1.2.826.0.1.{TOKEN}.98"))))
    return [(refused("series", "mixed_study", "2 studies"),)]


@damaged
def one_localizer_among_the_slices(folder, rng):
    series = new_series(rng, 7)
    slices = series.slices
    slices[6][0x00080008] = ("CS", text("ORIGINAL", "PRIMARY", "LOCALIZER"))
    slices[6][ORIENTATION] = ("DS", text(1, 0, 0, 0, 0, -1))
    write_series(folder, slices)
    return [
        (refused("series", "localizer", "localizer"), series.grid(slices=range(6))),
        (refused("file", "localizer", "localizer"), series.grid(slices=range(6))),
        (refused("series", "localizer", "localizer"),),
    ]


@damaged
def identical_duplicates_in_a_subfolder(folder, rng):
    series = new_series(rng)
    write_series(folder, series.slices)
    write_series(folder / "copy" / f"{CANARY} again", series.slices)
    return [(series.grid(),)]


@damaged
def duplicates_of_other_content(folder, rng):
    """One instance identifier, two contents: the pixels differ in one value."""
    series = new_series(rng)
    write_series(folder, series.slices)
    other = series.elements(2)
    other[PIXELS] = ("OW", b"\7\0" + other[PIXELS][1][2:])
    save(folder / "other" / "a.dcm", file_bytes(other))
    return [(refused("series", "conflicting_instance", "different content|contradict"),)]


@damaged
def duplicates_truncated(folder, rng):
    """A whole slice and the stump of an earlier transfer of it."""
    series = new_series(rng)
    write_series(folder, series.slices)
    save(folder / "partial" / "a.dcm", file_bytes(series.elements(2))[:-100])
    return [
        (refused("series", "conflicting_instance", "different content"),),
        (refused("file", "truncated_pixels damaged conflicting_instance", "pixel|cut|content"), series.grid()),
    ]


@damaged
def same_position_other_instance(folder, rng):
    series = new_series(rng)
    extra = series.elements(2)
    extra[0x00080018] = ("UI", uid(series.instance(99)))
    extra[PIXELS] = ("OW", b"\7\0" + extra[PIXELS][1][2:])
    write_series(folder, [*series.slices, extra])
    return [(refused("series", "duplicate_position", r"\b1\b.*(slices?|position)"),)]


def _second_volume(series: Series, rng: np.random.Generator, shift_mm: float) -> list[Elements]:
    again = replace(series, stored=rng.integers(0, 2000, series.stored.shape).astype(np.uint16))
    slices = again.slices
    for k, one in enumerate(slices):
        one[0x00080018] = ("UI", uid(series.instance(50 + k)))
        one[POSITION] = ("DS", decimal(*(series.position(k) + np.array([0, 0, shift_mm]))))
    return slices


@damaged
def two_volumes_in_one_series(folder, rng):
    """The same positions twice, and nothing tells the two apart."""
    series = new_series(rng)
    write_series(folder, [*series.slices, *_second_volume(series, rng, 0.0)])
    return [(refused("series", "duplicate_position", r"\b6\b"),)]


@damaged
def two_volumes_interleaved(folder, rng):
    """The second lies 0.9 mm on: steps of 0.9 and 1.6 mm in turn."""
    series = new_series(rng)
    write_series(folder, [*series.slices, *_second_volume(series, rng, 0.9)])
    return [(refused("series", "irregular_spacing missing_slice", r"\d mm"),)]


@damaged
def two_volumes_apart(folder, rng):
    series = new_series(rng)
    write_series(folder, [*series.slices, *_second_volume(series, rng, 100.0)])
    return [(refused("series", "missing_slice irregular_spacing", r"gap of 87\.50"),)]


@damaged
def all_slices_at_one_place(folder, rng):
    spoil_all(folder, rng, setting(x00200032=("DS", text(0, 0, 0))))
    return [(refused("series", "duplicate_position", "slice|position"),)]


@damaged
def far_from_the_rest(folder, rng):
    """One slice a metre away: the gap is named, not the memory that a volume of that height would take."""
    spoil_one(folder, rng, setting(x00200032=("DS", text(-10, -20, 1000000))), k=5)
    return [(refused("series", "missing_slice irregular_spacing", r"gap of \d+"),)]
