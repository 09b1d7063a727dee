"""Series that hold several volumes: each has to come out alone, and the index has to say which it is."""

from __future__ import annotations

from dataclasses import replace

from series_kinds import Expected, Kinds, Refusal
from series_writer import SC_CLASS, SeriesWriter, numbers_text
from world_fields import AXIAL, CORONAL, OBLIQUE, plane

SEVERAL_VOLUMES = Kinds()
ct, mr = SEVERAL_VOLUMES.ct, SEVERAL_VOLUMES.mr
_HALFWAY = AXIAL.moved(0, 0, 1.25)
_LATER = AXIAL.moved(0, 0, 0.8)
_WIDE = replace(AXIAL, shape=(8, 6, 9))
_COARSE = replace(AXIAL, pixel=(1.4, 1.6))
_DIRECTIONS = [
    (1, 0, 0), (0, 1, 0), (0, 0, 1), (0.6, 0.8, 0), (0.6, 0, 0.8), (0, 0.6, 0.8), (-0.6, 0.8, 0), (0.8, 0, 0.6),
    (0, -0.8, 0.6),
]  # fmt: skip
_LOW = AXIAL.with_slices(4)
_DISCS = [replace(AXIAL.with_slices(4).moved(0, 0, 30 * n), **plane((1, 0, 0), (0, 1, 0.15 * n))) for n in range(3)]


@mr(Expected(AXIAL, 0, ("echo_time_ms", "4.6")), Expected(AXIAL, 1, ("echo_time_ms", "9.2")))
def two_echoes(w: SeriesWriter) -> None:
    for echo in range(2):
        w.add(AXIAL, echo, tags={"EchoTime": 4.6 * (echo + 1), "EchoNumbers": echo + 1})


@mr(Expected(AXIAL, 0, ("", "1")), Expected(AXIAL, 1, ("", "2")), Expected(AXIAL, 2, ("", "3")))
def echoes_told_by_number_alone(w: SeriesWriter) -> None:
    for echo in range(3):
        w.add(AXIAL, echo, tags={"EchoTime": None, "EchoNumbers": echo + 1})


@mr(Expected(AXIAL, 0), Expected(AXIAL, 1))
def magnitude_and_phase(w: SeriesWriter) -> None:
    for part, letter in enumerate("MP"):
        w.add(AXIAL, part, tags={"ImageType": ["ORIGINAL", "PRIMARY", letter, "ND"]})


@mr(*(Expected(AXIAL, part) for part in range(4)))
def magnitude_phase_real_imaginary(w: SeriesWriter) -> None:
    for k in range(8):
        for part, letter in enumerate("MPRI"):
            w.add(AXIAL, part, slices=[k], tags={"ImageType": ["ORIGINAL", "PRIMARY", letter, "ND"]})


@mr(Expected(AXIAL, 0, ("", "MAGNITUDE")), Expected(AXIAL, 1, ("", "PHASE")))
def component_told_by_its_own_attribute(w: SeriesWriter) -> None:
    for part, word in enumerate(("MAGNITUDE", "PHASE")):
        w.add(AXIAL, part, tags={"ImageType": ["ORIGINAL", "PRIMARY"], "ComplexImageComponent": word})


@mr(*(Expected(AXIAL, part) for part in range(4)))
def echoes_and_phases(w: SeriesWriter) -> None:
    for part in range(4):
        echo, letter = part // 2, "MP"[part % 2]
        w.add(AXIAL, part, tags={"EchoTime": 4.6 * (echo + 1), "ImageType": ["ORIGINAL", "PRIMARY", letter, "ND"]})


@mr(*(Expected(AXIAL, part, ("", str(part + 1))) for part in range(3)))
def repeated_acquisitions(w: SeriesWriter) -> None:
    for k in range(8):
        for part in range(3):
            w.add(AXIAL, part, slices=[k], tags={"AcquisitionNumber": part + 1})


@mr(*(Expected(AXIAL, part) for part in range(4)))
def repeated_acquisitions_of_two_echoes(w: SeriesWriter) -> None:
    for part in range(4):
        w.add(AXIAL, part, tags={"AcquisitionNumber": part // 2 + 1, "EchoTime": 4.6 * (part % 2 + 1)})


@mr(Expected(AXIAL, 0), Expected(AXIAL.with_slices(5), 1))
def second_repeat_cut_short(w: SeriesWriter) -> None:
    w.add(AXIAL, 0)
    w.add(AXIAL, 1, slices=range(5), tags={"AcquisitionNumber": 2})


@mr(*(Expected(AXIAL, part, ("", str(part + 1))) for part in range(3)))
def temporal_positions(w: SeriesWriter) -> None:
    for part in range(3):
        w.add(AXIAL, part, tags={"TemporalPositionIdentifier": part + 1, "NumberOfTemporalPositions": 3})


@mr(*(Expected(AXIAL, part) for part in range(3)))
def heart_phases(w: SeriesWriter) -> None:
    for part in range(3):
        w.add(AXIAL, part, tags={"TriggerTime": 310.5 * part})


@mr(*(Expected(_LOW, part) for part in range(10)))
def diffusion_directions(w: SeriesWriter) -> None:
    w.add(_LOW, 0, tags={"DiffusionBValue": 0.0})
    for part, direction in enumerate(_DIRECTIONS, start=1):
        tags = {"DiffusionBValue": 1000.0, "DiffusionGradientOrientation": [float(value) for value in direction]}
        w.add(_LOW, part, tags=tags)


@mr(Expected(_LOW, 0, ("", "0")), Expected(_LOW, 1, ("", "50")), Expected(_LOW, 2, ("", "800")))
def diffusion_weights(w: SeriesWriter) -> None:
    for part, weight in enumerate((0.0, 50.0, 800.0)):
        w.add(_LOW, part, tags={"DiffusionBValue": weight})


@mr(*(Expected(_LOW, part) for part in range(4)))
def diffusion_with_repeats(w: SeriesWriter) -> None:
    """Two weights, each taken twice: neither the weight nor a single other attribute tells all four apart."""
    for part in range(4):
        w.add(_LOW, part, tags={"DiffusionBValue": 400.0 * (part % 2), "AcquisitionNumber": part // 2 + 1})


@ct(Expected(AXIAL, 0), Expected(AXIAL, 1), Expected(AXIAL, 2))
def contrast_phases_told_by_acquisition(w: SeriesWriter) -> None:
    """dcm2niix interleaves them (#721)."""
    for k in range(8):
        for part in range(3):
            w.add(AXIAL, part, slices=[k], tags={"AcquisitionNumber": part + 2, "AcquisitionTime": f"10{15 + part}30"})


@ct(Expected(AXIAL, 0), Expected(AXIAL, 1))
def contrast_phases_told_by_time(w: SeriesWriter) -> None:
    for part in range(2):
        w.add(AXIAL, part, tags={"AcquisitionNumber": None, "AcquisitionTime": f"1015{part * 4}0.5"})


@ct(Expected(AXIAL, 0), Expected(_LATER, 1))
def contrast_phases_at_other_table_positions(w: SeriesWriter) -> None:
    w.add(AXIAL, 0)
    w.add(_LATER, 1, tags={"AcquisitionNumber": 2, "AcquisitionTime": "101600"})


@ct(Expected(AXIAL, 0), Expected(_HALFWAY, 1))
def contrast_phases_halfway_between_each_other(w: SeriesWriter) -> None:
    """Stacked they would look like one regular volume of 1.25 mm."""
    w.add(AXIAL, 0)
    w.add(_HALFWAY, 1, tags={"AcquisitionNumber": 2})


@ct(Expected(AXIAL, 0), Expected(_HALFWAY, 1))
def contrast_phases_halfway_told_by_time_alone(w: SeriesWriter) -> None:
    w.add(AXIAL, 0, tags={"AcquisitionTime": "101500"})
    w.add(_HALFWAY, 1, tags={"AcquisitionTime": "101600"})


@ct(Expected(AXIAL, 0, ("", "80")), Expected(AXIAL, 1, ("", "140")))
def two_tube_voltages(w: SeriesWriter) -> None:
    for part, voltage in enumerate((80, 140)):
        w.add(AXIAL, part, tags={"KVP": voltage})


@ct(Expected(AXIAL, 0), Expected(AXIAL, 1))
def two_kernels(w: SeriesWriter) -> None:
    for part, kernel in enumerate(("B30f", "B70f")):
        w.add(AXIAL, part, tags={"ConvolutionKernel": kernel})


@mr(*(Expected(AXIAL, part, ("", str(time))) for part, time in enumerate((50, 400, 1100))))
def inversion_times(w: SeriesWriter) -> None:
    for part, time in enumerate((50, 400, 1100)):
        w.add(AXIAL, part, tags={"InversionTime": time})


@ct(Expected(AXIAL.with_slices(5), 0), Expected(AXIAL.with_slices(5).moved(0, 0, 10), 1))
def acquisitions_that_share_one_position(w: SeriesWriter) -> None:
    w.add(AXIAL.with_slices(5), 0)
    w.add(AXIAL.with_slices(5).moved(0, 0, 10), 1, tags={"AcquisitionNumber": 2})


@ct(Expected(AXIAL, 0), Expected(AXIAL, 1))
def frames_of_reference_at_equal_positions(w: SeriesWriter) -> None:
    w.add(AXIAL, 0)
    w.add(AXIAL, 1, tags={"FrameOfReferenceUID": f"{w.frame}.2"})


@ct(Expected(AXIAL.with_slices(4), 0), Expected(AXIAL.with_slices(4).moved(0, 0, 10), 1))
def frames_of_reference_that_continue(w: SeriesWriter) -> None:
    """Numbers that continue across frames of reference mean nothing: the patient was moved in between."""
    w.add(AXIAL.with_slices(4), 0)
    w.add(AXIAL.with_slices(4).moved(0, 0, 10), 1, tags={"FrameOfReferenceUID": f"{w.frame}.2"})


@ct(Expected(AXIAL, 0), Expected(CORONAL, 1))
def axial_and_coronal(w: SeriesWriter) -> None:
    w.add(AXIAL, 0)
    w.add(CORONAL, 1)


@ct(Expected(AXIAL, 0), Expected(CORONAL, 1), Expected(OBLIQUE, 2))
def three_orientations_slice_by_slice(w: SeriesWriter) -> None:
    for k in range(8):
        for part, grid in enumerate((AXIAL, CORONAL, OBLIQUE)):
            w.add(grid, part, slices=[k])


@mr(*(Expected(grid, part) for part, grid in enumerate(_DISCS)))
def spine_discs_at_three_angles(w: SeriesWriter) -> None:
    for part, grid in enumerate(_DISCS):
        w.add(grid, part)


@ct(Expected(AXIAL, 0, ("", "ORIGINAL")), Expected(AXIAL, 1, ("", "MIP")))
def original_and_projection(w: SeriesWriter) -> None:
    w.add(AXIAL, 0)
    w.add(AXIAL, 1, tags={"ImageType": ["DERIVED", "SECONDARY", "AXIAL", "MIP"]})


@ct(Expected(AXIAL.with_slices(4), 0), Expected(AXIAL.with_slices(4).moved(0, 0, 10), 1, ("", "DERIVED")))
def original_and_reformatted_that_continue(w: SeriesWriter) -> None:
    w.add(AXIAL.with_slices(4), 0)
    w.add(AXIAL.with_slices(4).moved(0, 0, 10), 1, tags={"ImageType": ["DERIVED", "SECONDARY", "REFORMATTED"]})


@mr(*(Expected(AXIAL, part, ("", word)) for part, word in enumerate(("WATER", "FAT", "IN_PHASE", "OUT_PHASE"))))
def dixon(w: SeriesWriter) -> None:
    for part, word in enumerate(("WATER", "FAT", "IN_PHASE", "OUT_PHASE")):
        w.add(AXIAL, part, tags={"ImageType": ["DERIVED", "PRIMARY", "M", word]})


@ct(Expected(AXIAL, 0), Expected(_WIDE, 1))
def two_matrices(w: SeriesWriter) -> None:
    w.add(AXIAL, 0)
    w.add(_WIDE, 1)


@ct(Expected(AXIAL, 0), Expected(_COARSE, 1))
def two_pixel_spacings(w: SeriesWriter) -> None:
    w.add(AXIAL, 0)
    w.add(_COARSE, 1)


@mr(
    Expected(AXIAL, 0, ("echo_time_ms", "4.6")),
    Refusal(("missing_slice",), numbers=(5.0, 2.5, 3)),
)
def second_echo_lacks_a_slice(w: SeriesWriter) -> None:
    w.add(AXIAL, 0)
    w.add(AXIAL, 1, slices=[0, 1, 2, 4, 5, 6, 7], tags={"EchoTime": 9.2})


@ct(Expected(AXIAL), Refusal(("localizer",)))
def scout_inside(w: SeriesWriter) -> None:
    w.add(AXIAL)
    scout = replace(CORONAL, shape=(2, 11, 12))
    w.add(scout, 3, tags={"ImageType": ["ORIGINAL", "PRIMARY", "LOCALIZER"], "AcquisitionNumber": None})


@ct(Expected(AXIAL), Refusal(("localizer",)))
def scout_of_another_frame_of_reference_inside(w: SeriesWriter) -> None:
    w.add(AXIAL)
    tags = {"ImageType": ["ORIGINAL", "PRIMARY", "LOCALIZER"], "FrameOfReferenceUID": f"{w.frame}.2"}
    w.add(CORONAL.with_slices(1), 3, tags=tags)


@mr(*(Expected(AXIAL, part) for part in range(2)))
def repeats_told_by_a_time_that_also_has_orientation_noise(w: SeriesWriter) -> None:
    """Orientations of repeats differ in their last digit: that alone makes no group."""
    for part in range(2):
        cosines = numbers_text((1, 1e-5 * part, 0, -1e-5 * part, 1, 0))
        tags = {"AcquisitionNumber": None, "ContentTime": f"10153{part}", "ImageOrientationPatient": cosines}
        w.add(AXIAL, part, tags=tags)


@ct(
    Expected(AXIAL, 0, optional=True),
    Expected(AXIAL, 1, optional=True),
    Refusal(("duplicate_position",), numbers=((8, 16),), optional=True),
)
def contrast_phases_whose_times_run_with_the_slices(w: SeriesWriter) -> None:
    """No value of any attribute is shared by the slices of a phase; only the order of the times tells."""
    for part in range(2):
        for k in range(8):
            time = f"1015{part * 3}{k}"
            w.add(AXIAL, part, slices=[k], tags={"AcquisitionTime": time, "AcquisitionNumber": None})


@ct(
    Expected(AXIAL.with_slices(4), 0, optional=True),
    Expected(AXIAL.with_slices(4).moved(0, 0, 40), 1, optional=True),
    Refusal(("missing_slice",), numbers=(32.5, 2.5, 4), optional=True),
)
def neck_and_abdomen_with_nothing_between(w: SeriesWriter) -> None:
    w.add(AXIAL.with_slices(4), 0)
    w.add(AXIAL.with_slices(4).moved(0, 0, 40), 1, tags={"AcquisitionNumber": 2})


@ct(Expected(AXIAL, optional=True), Refusal(("secondary_capture",)))
def screen_shot_inside(w: SeriesWriter) -> None:
    w.add(AXIAL)
    nowhere = dict.fromkeys(("ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing"))
    w.add(AXIAL.with_slices(1), 3, tags={"SOPClassUID": SC_CLASS, "ImageType": ["DERIVED", "SECONDARY"], **nowhere})
