"""Series that are one volume, whatever their headers make of it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from series_kinds import Expected, Kinds
from series_writer import SeriesWriter, numbers_text
from world_fields import AXIAL, CORONAL, FEET_FIRST, OBLIQUE, PRONE, SAGITTAL

ONE_VOLUME = Kinds()
ct, mr = ONE_VOLUME.ct, ONE_VOLUME.mr
_THIRDS = replace(AXIAL, step=(0.0, 0.0, 7 / 3))


@ct(Expected(AXIAL))
def random_names_and_numbers(w: SeriesWriter) -> None:
    w.add(AXIAL)


@ct(Expected(AXIAL))
def written_from_the_top(w: SeriesWriter) -> None:
    w.add(AXIAL, slices=reversed(range(8)))


@ct(Expected(AXIAL))
def instance_numbers_absent(w: SeriesWriter) -> None:
    w.add(AXIAL, tags={"InstanceNumber": None})


@ct(Expected(AXIAL))
def instance_numbers_all_equal(w: SeriesWriter) -> None:
    w.add(AXIAL, tags={"InstanceNumber": 1})


@ct(Expected(AXIAL))
def instance_numbers_downwards(w: SeriesWriter) -> None:
    w.add(AXIAL, tags=lambda k: {"InstanceNumber": 8 - k})


@ct(Expected(AXIAL))
def instance_numbers_even_slices_first(w: SeriesWriter) -> None:
    w.add(AXIAL, tags=lambda k: {"InstanceNumber": k // 2 + 1 + (4 if k % 2 else 0)})


@ct(Expected(AXIAL))
def slice_location_and_thickness_lie(w: SeriesWriter) -> None:
    w.add(AXIAL, tags=lambda k: {"SliceLocation": -k * 3.0, "SliceThickness": 5.0, "SpacingBetweenSlices": 1.0})


@ct(Expected(replace(AXIAL, step=(0.0, 0.0, 1.0))))
def overlapping_slices(w: SeriesWriter) -> None:
    w.add(replace(AXIAL, step=(0.0, 0.0, 1.0)), tags={"SliceThickness": 2.5})


@ct(Expected(AXIAL))
def spread_over_folders(w: SeriesWriter) -> None:
    w.add(AXIAL, slices=[0, 3, 6], under="DISK1/A")
    w.add(AXIAL, slices=[1, 4, 7], under="DISK1/B/C")
    w.add(AXIAL, slices=[2, 5], under="DISK2")


@ct(Expected(FEET_FIRST))
def feet_first(w: SeriesWriter) -> None:
    w.add(FEET_FIRST)


@ct(Expected(PRONE))
def prone(w: SeriesWriter) -> None:
    w.add(PRONE)


@ct(Expected(CORONAL))
def coronal(w: SeriesWriter) -> None:
    w.add(CORONAL)


@mr(Expected(SAGITTAL))
def sagittal(w: SeriesWriter) -> None:
    w.add(SAGITTAL)


@mr(Expected(OBLIQUE))
def oblique(w: SeriesWriter) -> None:
    w.add(OBLIQUE)


@mr(Expected(OBLIQUE))
def orientation_rounded_differently_in_each_slice(w: SeriesWriter) -> None:
    rng = np.random.default_rng(3)
    cosines = np.array([*OBLIQUE.row, *OBLIQUE.column])
    w.add(
        OBLIQUE,
        tags=lambda _: {"ImageOrientationPatient": numbers_text(np.round(cosines + rng.choice([0, 1e-4], 6), 4))},
    )


@ct(Expected(_THIRDS, tolerance_mm=0.01))
def positions_rounded_to_a_hundredth(w: SeriesWriter) -> None:
    w.add(_THIRDS, tags=lambda k: {"ImagePositionPatient": numbers_text(np.round(_THIRDS.position(k), 2))})


@ct(Expected(replace(AXIAL, pixel=(0.7035, 0.9765))))
def pixel_spacing_in_two_roundings(w: SeriesWriter) -> None:
    """0.00001 mm apart, on both sides of where a third digit is rounded."""
    grid = replace(AXIAL, pixel=(0.7035, 0.9765))
    w.add(grid, tags=lambda k: {"PixelSpacing": ["0.7035", "0.9765"] if k % 2 else ["0.70349", "0.97649"]})


@ct(Expected(AXIAL))
def exposure_and_voltage_vary(w: SeriesWriter) -> None:
    """Dose modulation: dcm2niix makes a file for each exposure (#887, #468)."""
    w.add(
        AXIAL,
        tags=lambda k: {
            "KVP": 120 if k < 5 else 100, "XRayTubeCurrent": 200 + 13 * k, "Exposure": 90 + k, "ExposureTime": 500 + k
        },
    )  # fmt: skip


@ct(Expected(AXIAL))
def acquisitions_continue_each_other(w: SeriesWriter) -> None:
    w.add(AXIAL, tags=lambda k: {"AcquisitionNumber": 1 if k < 4 else 2, "AcquisitionTime": f"10153{k // 4}"})


@ct(Expected(AXIAL))
def acquisition_for_each_pair_of_slices(w: SeriesWriter) -> None:
    """Step and shoot."""
    w.add(AXIAL, tags=lambda k: {"AcquisitionNumber": k // 2 + 1, "AcquisitionTime": f"10153{k // 2}"})


@ct(Expected(AXIAL))
def acquisition_for_each_slice(w: SeriesWriter) -> None:
    w.add(AXIAL, tags=lambda k: {"AcquisitionNumber": k + 1, "AcquisitionTime": f"10153{k}"})


@mr(Expected(AXIAL))
def concatenations(w: SeriesWriter) -> None:
    """Two passes through the body, one for the odd and one for the even slices."""
    w.add(AXIAL, tags=lambda k: {"AcquisitionNumber": k % 2 + 1, "AcquisitionTime": f"1015{k % 2}0"})


@mr(Expected(AXIAL))
def times_vary_with_the_slice(w: SeriesWriter) -> None:
    w.add(
        AXIAL,
        tags=lambda k: {
            "AcquisitionTime": f"1015{10 + 7 * k % 8}.25", "ContentTime": f"1016{10 + k}", "TriggerTime": 12.5 * k
        },
    )  # fmt: skip


@mr(Expected(AXIAL))
def echo_time_in_two_roundings(w: SeriesWriter) -> None:
    w.add(AXIAL, tags=lambda k: {"EchoTime": "4.6" if k % 2 else "4.5999999"})


@mr(Expected(AXIAL))
def said_to_be_the_only_time_and_echo(w: SeriesWriter) -> None:
    w.add(AXIAL, tags={"TemporalPositionIdentifier": 1, "NumberOfTemporalPositions": 1, "EchoNumbers": 1})


@ct(Expected(AXIAL))
def no_frame_of_reference(w: SeriesWriter) -> None:
    w.add(AXIAL, tags={"FrameOfReferenceUID": None})


@ct(Expected(AXIAL))
def series_identifier_removed(w: SeriesWriter) -> None:
    w.add(AXIAL, tags={"SeriesInstanceUID": None})


@ct(Expected(AXIAL))
def identifiers_blanked(w: SeriesWriter) -> None:
    blank = ("SeriesInstanceUID", "StudyInstanceUID", "FrameOfReferenceUID", "PatientID", "PatientName")
    w.add(AXIAL, tags=dict.fromkeys(blank, ""))


@ct(Expected(AXIAL, note="duplicate"))
def byte_copies_in_a_subfolder(w: SeriesWriter) -> None:
    for path in w.add(AXIAL)[:5]:
        copy = w.folder / "copy" / path.name
        copy.parent.mkdir(exist_ok=True)
        copy.write_bytes(path.read_bytes())
