"""Series that are no volume: refused by name, with the numbers."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from series_kinds import Expected, Kinds, Refusal
from series_writer import SC_CLASS, SeriesWriter, numbers_text
from world_fields import AXIAL, CORONAL, FEET_FIRST, OBLIQUE, SAGITTAL, plane

NO_VOLUME = Kinds()
ct, mr = NO_VOLUME.ct, NO_VOLUME.mr
_SCOUT = {"ImageType": ["ORIGINAL", "PRIMARY", "LOCALIZER"]}
_TEN = AXIAL.with_slices(10)
_TILTED = replace(AXIAL.with_slices(10), **{**plane((1, 0, 0), (0, 0.94, 0.342)), "step": (0.0, 0.0, 2.5)})


@ct(Refusal(("localizer",), numbers=(2,)))
def scout_alone(w: SeriesWriter) -> None:
    w.add(SAGITTAL.with_slices(1), tags=_SCOUT)
    w.add(CORONAL.with_slices(1), tags=_SCOUT)


@mr(*(Refusal(("localizer",), numbers=((3, 9),), optional=number > 0) for number in range(3)))
def localizer_in_three_planes(w: SeriesWriter) -> None:
    for part, grid in enumerate((AXIAL, CORONAL, SAGITTAL)):
        w.add(grid.with_slices(3), part, tags=_SCOUT)


@mr(Refusal(("localizer", "non_parallel"), numbers=(90,), word="degree"))
def localizer_that_does_not_say_so(w: SeriesWriter) -> None:
    for part, grid in enumerate((AXIAL, CORONAL, SAGITTAL)):
        w.add(grid.with_slices(1), part)


@ct(Refusal(("secondary_capture",)))
def secondary_capture(w: SeriesWriter) -> None:
    w.add(AXIAL, tags={"SOPClassUID": SC_CLASS, "Modality": "OT"})


@ct(Refusal(("secondary_capture",)))
def secondary_capture_of_a_screen(w: SeriesWriter) -> None:
    """As a workstation makes it: no place in the world at all."""
    nowhere = dict.fromkeys(
        ("ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing", "FrameOfReferenceUID", "SliceThickness")
    )
    w.add(AXIAL.with_slices(1), tags={"SOPClassUID": SC_CLASS, "ConversionType": "WSD", **nowhere})


@mr(Refusal(("mosaic",)))
def mosaic(w: SeriesWriter) -> None:
    w.add(replace(AXIAL, shape=(2, 12, 12)), tags={"ImageType": ["ORIGINAL", "PRIMARY", "M", "ND", "MOSAIC"]})


@ct(Refusal(("missing_slice",), numbers=(5.0, 2.5, 1)))
def second_slice_missing(w: SeriesWriter) -> None:
    w.add(_TEN, slices=[0, *range(2, 10)])


@ct(Refusal(("missing_slice",), numbers=(5.0, 2.5, 4)))
def slice_missing_in_the_middle(w: SeriesWriter) -> None:
    w.add(_TEN, slices=[0, 1, 2, 3, *range(5, 10)])


@ct(Refusal(("missing_slice",), numbers=(5.0, 2.5, 4)))
def first_slice_of_an_acquisition_missing(w: SeriesWriter) -> None:
    """Blocks of four that continue each other are one scan, also where a slice was lost between two of them."""
    w.add(AXIAL.with_slices(12), slices=[0, 1, 2, 3, *range(5, 12)], tags=lambda k: {"AcquisitionNumber": k // 4 + 1})


@ct(Refusal(("missing_slice",), numbers=(7.5, 2.5, 6)))
def two_gaps_of_different_widths(w: SeriesWriter) -> None:
    w.add(AXIAL.with_slices(14), slices=[0, 1, 3, 4, 5, 6, 9, 10, 11, 12, 13])


@ct(Refusal(("missing_slice",), numbers=(5.0, 2.5)))
def last_but_one_missing_feet_first(w: SeriesWriter) -> None:
    w.add(FEET_FIRST.with_slices(10), slices=[*range(8), 9])


@mr(Refusal(("missing_slice",), numbers=(5.0, 2.5, 4)))
def slice_missing_in_an_oblique_series(w: SeriesWriter) -> None:
    w.add(OBLIQUE.with_slices(10), slices=[0, 1, 2, 3, *range(5, 10)])


@ct(Refusal(("missing_slice",), numbers=((4.70, 5.00), 4)))
def slice_missing_in_a_tilted_series(w: SeriesWriter) -> None:
    w.add(_TILTED, slices=[0, 1, 2, 3, *range(5, 10)])


@ct(Refusal(("irregular_spacing",), numbers=((3.5, 1.0), (4, 5))))
def one_slice_off_its_place(w: SeriesWriter) -> None:
    _displace(w, (0.0, 0.0, 1.0))


@ct(Refusal(("irregular_spacing",), numbers=(5.0, (4, 5))))
def one_slice_off_sideways(w: SeriesWriter) -> None:
    _displace(w, (5.0, 0.0, 0.0))


def _displace(w: SeriesWriter, shift: tuple[float, float, float]) -> None:
    """The fifth slice."""
    w.add(AXIAL, slices=[0, 1, 2, 3, 5, 6, 7])
    w.add(AXIAL.moved(*shift), slices=[4])


@ct(Refusal(("irregular_spacing", "missing_slice"), numbers=(2.5, 5.0)))
def half_thin_half_thick(w: SeriesWriter) -> None:
    """A head: thin slices at the base, thick ones above."""
    w.add(AXIAL, slices=range(6))
    w.add(replace(AXIAL.moved(0, 0, 12.5), step=(0, 0, 5.0)), slices=range(1, 6))


@mr(Refusal(("irregular_spacing",), numbers=((0.6, 0.61, 2.55, 3.15),)))
def steps_that_grow(w: SeriesWriter) -> None:
    w.add(AXIAL, tags=lambda k: {"ImagePositionPatient": numbers_text((-10, -20, 30 + 2.5 * k + 0.05 * k * k))})


@mr(Refusal(("non_parallel",), numbers=(3.5,), word="degree"))
def fan_of_half_degrees(w: SeriesWriter) -> None:
    for k in range(8):
        angle = np.deg2rad(0.5 * k)
        w.add(replace(AXIAL, **plane((1, 0, 0), (0, np.cos(angle), np.sin(angle)))), slices=[k])


@mr(Refusal(("non_parallel",), numbers=(90,), word="degree"))
def radial_slices(w: SeriesWriter) -> None:
    for k in range(6):
        angle = np.deg2rad(30 * k)
        w.add(replace(CORONAL, **plane((np.cos(angle), np.sin(angle), 0), (0, 0, -1))), k, slices=[0])


@ct(Refusal(("non_parallel",), numbers=(5.0,), word="degree"), Expected(AXIAL.with_slices(7), optional=True))
def one_slice_turned(w: SeriesWriter) -> None:
    """The others are complete without it, so they may go on; the turned one is named."""
    w.add(AXIAL, slices=range(7))
    w.add(AXIAL, slices=[7], tags={"ImageOrientationPatient": numbers_text((1, 0, 0, 0, 0.9962, 0.0872))})


@mr(Refusal(("duplicate_position",), numbers=((8, 16),)))
def repeats_that_nothing_tells_apart(w: SeriesWriter) -> None:
    w.add(AXIAL, 0)
    w.add(AXIAL, 1)


@ct(Refusal(("duplicate_position",), numbers=((1, 2),)))
def one_position_taken_twice(w: SeriesWriter) -> None:
    w.add(AXIAL, 0)
    w.add(AXIAL, 1, slices=[3])


@ct(Refusal(("conflicting_instance",), numbers=(2,)))
def instance_identifiers_used_twice(w: SeriesWriter) -> None:
    w.add(AXIAL)
    for k in (2, 5):
        w.add(AXIAL, 1, slices=[k], under="other", tags={"SOPInstanceUID": f"{w.series}.{k + 1}"})


@ct(Refusal(("mixed_geometry",)), Expected(AXIAL.with_slices(7), optional=True))
def one_slice_of_another_size(w: SeriesWriter) -> None:
    w.add(AXIAL, slices=range(7))
    w.add(replace(AXIAL, shape=(8, 9, 9)), slices=[7])


@ct(Refusal(("mixed_study",)))
def two_patients(w: SeriesWriter) -> None:
    w.add(AXIAL, slices=range(4))
    w.add(AXIAL, slices=range(4, 8), tags={"PatientID": "CANARY-OTHER"})


@ct(Refusal(("missing_geometry",)))
def positions_removed(w: SeriesWriter) -> None:
    w.add(AXIAL, tags={"ImagePositionPatient": None})
