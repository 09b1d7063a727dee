"""Enhanced and Legacy Converted multi-frame objects: one file and many frames, in any order, of one or more volumes."""

from __future__ import annotations

import time

import highdicom
import numpy as np
import pydicom
import pytest
from conversion import assert_holds, assert_volumes, convert_folder, holds, world_values, write_map
from dicom_files import FRAME, SERIES, save, slice_dataset, write_rtstruct
from enhanced import KINDS, PLACING, SCALING, SOP_INSTANCE, frames_of, shuffled, write_enhanced
from highdicom.legacy import (
    LegacyConvertedEnhancedCTImage,
    LegacyConvertedEnhancedMRImage,
    LegacyConvertedEnhancedPETImage,
)
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence
from pydicom.sr.codedict import codes
from transfer_syntaxes import OBLIQUE, SPACING, Bits, Place, oblique_place, pattern, shape_of

pytestmark = pytest.mark.filterwarnings("error::UserWarning")
PLACE = oblique_place()
CT = 1024
N = len(PLACE.positions)
# another plane of the same patient
CROSSING = (0.8, 0.6, 0.0, 0.48, -0.64, 0.6)


def convert(tmp_path, frames, name="one.dcm", **options):
    write_enhanced(tmp_path / "in" / name, frames, **options)
    return convert_folder(tmp_path / "in", tmp_path)


def other(offset):
    """Another volume's stored values."""
    return (pattern(12) + offset) % 4096


# ---- one volume in one object


@pytest.mark.parametrize("kind", KINDS)
def test_frames_are_sorted_by_position(tmp_path, kind):
    found = convert(tmp_path, shuffled(frames_of(pattern(12), PLACE)), kind=kind)
    assert (found.volume["n_slices"], found.volume["n_files"]) == (N, 1)
    assert found.volume["modality"] == KINDS[kind][1]
    assert found.volume["part"] == {}
    assert_holds(found.image(), PLACE, pattern(12) - CT)


@pytest.mark.parametrize(
    "shared",
    [
        (),
        ("PlaneOrientationSequence",),
        ("PixelMeasuresSequence", SCALING),
        ("PlaneOrientationSequence", "PixelMeasuresSequence", SCALING),
    ],
)
def test_geometry_and_scale_shared_or_with_each_frame(tmp_path, shared):
    found = convert(tmp_path, shuffled(frames_of(pattern(12), PLACE)), shared=shared)
    assert_holds(found.image(), PLACE, pattern(12) - CT)


@pytest.mark.parametrize("kind", ["enhanced CT", "enhanced MR", "legacy converted PET"])
def test_each_frame_has_its_own_scale(tmp_path, kind):
    slopes, intercepts = np.array([0.25, 1.5, 3.0, 0.0625]), np.array([-10.0, 0.0, 7.5, 100.0])
    frames = [
        frame.with_group(SCALING, RescaleSlope=float(slopes[k]), RescaleIntercept=float(intercepts[k]))
        for k, frame in enumerate(frames_of(pattern(12), PLACE))
    ]
    found = convert(tmp_path, shuffled(frames), kind=kind, shared=("PixelMeasuresSequence",))
    expected = pattern(12) * slopes[:, None, None] + intercepts[:, None, None]
    assert_holds(found.image(), PLACE, expected, relative=1e-6)


def test_mr_without_a_scale_keeps_stored_values(tmp_path):
    found = convert(tmp_path, shuffled(frames_of(pattern(12), PLACE, slope=None)), kind="enhanced MR")
    assert_holds(found.image(), PLACE, pattern(12))


def test_signed_frames_with_rubbish_above_them(tmp_path):
    stored = pattern(12) - 2048
    frames = shuffled(frames_of(stored, PLACE, intercept=0))
    assert_holds(convert(tmp_path, frames, bits=Bits(signed=True, above=0b0110)).image(), PLACE, stored)


def test_padding_around_the_frames(tmp_path):
    stored = 100 + pattern(12) % 2901
    stored[:, :2] = -2000
    frames = shuffled(frames_of(stored, PLACE))
    found = convert(tmp_path, frames, bits=Bits(stored=16, signed=True), PixelPaddingValue=-2000)
    assert_holds(found.image(), PLACE, stored - CT)
    assert any("padding" in note and "-3024" in note for note in found.volume["notes"])


@pytest.mark.parametrize("n_slices", [1, 2])
def test_few_frames(tmp_path, n_slices):
    place = oblique_place(n_slices)
    found = convert(tmp_path, frames_of(pattern(12, n_slices=n_slices), place))
    assert_holds(found.image(), place, pattern(12, n_slices=n_slices) - CT)


def test_many_frames_take_little_time(tmp_path):
    """300 frames; what reads the whole object again for each of them takes far longer."""
    place = oblique_place(300)
    stored = np.random.default_rng(0).integers(0, 4096, (300, 64, 64))
    write_enhanced(tmp_path / "in/one.dcm", shuffled(frames_of(stored, place)))
    start = time.process_time()
    found = convert_folder(tmp_path / "in", tmp_path)
    assert time.process_time() - start < 5.0
    assert_holds(found.image(), place, stored - CT)


# ---- encodings

SYNTAXES = ("implicit little", "explicit big", "deflated", "rle", "jpeg lossless sv1", "jpeg-ls", "jpeg 2000 lossless",
            "htj2k lossless")  # fmt: skip


@pytest.mark.parametrize("syntax", SYNTAXES)
def test_frames_in_every_syntax(tmp_path, syntax):
    stored = pattern(12, shape_of(syntax))
    # streams of HTJ2K were written in order of position
    frames = frames_of(stored, PLACE)
    found = convert(tmp_path, frames if "htj2k" in syntax else shuffled(frames), syntax=syntax)
    assert_holds(found.image(), PLACE, stored - CT)


@pytest.mark.parametrize("syntax", ["jpeg 2000 lossless", "jpeg-ls", "jpeg lossless sv1"])
@pytest.mark.parametrize("fragments", [2, 3])
def test_frames_in_fragments_with_a_table(tmp_path, syntax, fragments):
    """The fragments of a frame are told from the next frame's by the table alone."""
    stored = pattern(12, shape_of(syntax))
    layout = {"fragments": fragments, "table": "basic"}
    found = convert(tmp_path, shuffled(frames_of(stored, PLACE)), syntax=syntax, layout=layout)
    assert_holds(found.image(), PLACE, stored - CT)


@pytest.mark.parametrize("syntax", ["rle", "jpeg 2000 lossless", "jpeg-ls"])
@pytest.mark.parametrize("table", ["none", "extended"])
def test_one_fragment_a_frame_without_a_basic_table(tmp_path, syntax, table):
    stored = pattern(12, shape_of(syntax))
    found = convert(tmp_path, shuffled(frames_of(stored, PLACE)), syntax=syntax, layout={"table": table})
    assert_holds(found.image(), PLACE, stored - CT)


@pytest.mark.parametrize("syntax", ["jpeg 2000 lossless", "jpeg lossless sv1"])
def test_frames_in_fragments_without_any_table(tmp_path, syntax):
    """Right by the ends of the streams, or refused: never frames made of parts of two."""
    stored = pattern(12, shape_of(syntax))
    layout = {"fragments": 2, "table": "none"}
    found = convert(tmp_path, shuffled(frames_of(stored, PLACE)), syntax=syntax, layout=layout)
    if found.volumes:
        assert_holds(found.image(), PLACE, stored - CT)
    else:
        assert found.refusal["code"] in ("undecodable_pixels", "truncated_pixels")


@pytest.mark.parametrize("shape", [(13, 10), (13, 9), (5, 7)])
def test_eight_bit_frames_that_do_not_fill_words(tmp_path, shape):
    stored = pattern(8, shape)
    found = convert(tmp_path, shuffled(frames_of(stored, PLACE)), bits=Bits(8, 8))
    assert_holds(found.image(), PLACE, stored - CT)


@pytest.mark.parametrize("shape", [(13, 10), (13, 9), (5, 7)])
def test_eight_bit_frames_as_big_endian_words(tmp_path, shape):
    """A word may hold the last pixel of a frame and the first of the next."""
    stored = pattern(8, shape)
    path = write_enhanced(
        tmp_path / "in/one.dcm", shuffled(frames_of(stored, PLACE)), bits=Bits(8, 8), syntax="explicit big"
    )
    ds = pydicom.dcmread(path)
    ds.PixelData = np.frombuffer(ds.PixelData, "u2").byteswap().tobytes()
    ds["PixelData"].VR = "OW"
    ds.save_as(path)
    assert_holds(convert_folder(tmp_path / "in", tmp_path).image(), PLACE, stored - CT)


# ---- several volumes


def test_two_echoes(tmp_path):
    values = [pattern(12), other(1000)]
    frames = [
        frame.with_group("MREchoSequence", EffectiveEchoTime=echo)
        for stored, echo in zip(values, (4.6, 9.2), strict=True)
        for frame in frames_of(stored, PLACE, slope=None)
    ]
    found = convert(tmp_path, shuffled(frames), kind="enhanced MR")
    numbers = assert_volumes(found, [(PLACE, stored) for stored in values])
    echoes = [float(entry["part"]["echo_time_ms"]) for entry in found.volumes]
    assert [echoes[numbers.index(n)] for n in (0, 1)] == [4.6, 9.2]


@pytest.mark.parametrize("by", ["ComplexImageComponent", "FrameType"])
def test_magnitude_and_phase(tmp_path, by):
    values = [pattern(12), other(1000)]
    frames = []
    for stored, name in zip(values, ("MAGNITUDE", "PHASE"), strict=True):
        kind = {"FrameType": ["ORIGINAL", "PRIMARY", name[0], "NONE"], "PixelPresentation": "MONOCHROME"}
        if by == "ComplexImageComponent":
            kind |= {"FrameType": ["ORIGINAL", "PRIMARY", "OTHER", "NONE"], by: name}
        frames += [
            frame.with_group("MRImageFrameTypeSequence", **kind) for frame in frames_of(stored, PLACE, slope=None)
        ]
    found = convert(tmp_path, shuffled(frames), kind="enhanced MR", ImageType=["ORIGINAL", "PRIMARY", "MIXED", "NONE"])
    assert_volumes(found, [(PLACE, stored) for stored in values])
    assert found.volumes[0]["part"] != found.volumes[1]["part"]


@pytest.mark.parametrize(
    ("sequence", "attributes"),
    [
        ("FrameContentSequence", [{"TemporalPositionIndex": n + 1} for n in range(3)]),
        ("TemporalPositionSequence", [{"TemporalPositionTimeOffset": 2.5 * n} for n in range(3)]),
        ("FrameContentSequence", [{"FrameAcquisitionNumber": n + 1} for n in range(3)]),
        ("FrameContentSequence", [{"FrameAcquisitionDateTime": f"2020010112000{n}"} for n in range(3)]),
        ("CardiacSynchronizationSequence", [{"NominalCardiacTriggerDelayTime": 40.0 * n} for n in range(3)]),
        ("MRDiffusionSequence", [{"DiffusionBValue": b, "DiffusionDirectionality": "NONE"} for b in (0.0, 500.0, 9e2)]),
        ("ContrastBolusUsageSequence", [{"ContrastBolusAgentPhase": name} for name in ("PRE", "ARTERIAL", "VENOUS")]),
    ],
    ids=["temporal index", "time offset", "acquisition", "time", "trigger", "b-value", "contrast"],
)  # fmt: skip
def test_volumes_at_equal_positions(tmp_path, sequence, attributes):
    values = [pattern(12), other(1000), other(2000)]
    frames = [
        frame.with_group(sequence, **group)
        for stored, group in zip(values, attributes, strict=True)
        for frame in frames_of(stored, PLACE, slope=None)
    ]
    found = convert(tmp_path, shuffled(frames), kind="enhanced MR")
    assert_volumes(found, [(PLACE, stored) for stored in values])
    assert len({str(entry["part"]) for entry in found.volumes}) == 3
    assert {entry["n_files"] for entry in found.volumes} == {1}
    assert {entry["n_slices"] for entry in found.volumes} == {N}


def test_diffusion_directions_of_one_b_value(tmp_path):
    values = [pattern(12), other(700), other(1400), other(2100)]
    directions = [None, (1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (0.0, 0.6, 0.8)]
    frames = []
    for stored, direction in zip(values, directions, strict=True):
        group = {"DiffusionBValue": 1000.0 if direction else 0.0, "DiffusionDirectionality": "DIRECTIONAL"}
        if direction:
            group["DiffusionGradientDirectionSequence"] = {"DiffusionGradientOrientation": list(direction)}
        frames += [frame.with_group("MRDiffusionSequence", **group) for frame in frames_of(stored, PLACE, slope=None)]
    found = convert(tmp_path, shuffled(frames), kind="enhanced MR")
    assert_volumes(found, [(PLACE, stored) for stored in values])


def test_diffusion_directions_and_their_trace(tmp_path):
    """Scanners put the trace image of a b-value behind its directions: the same b-value without a direction."""
    values = [other(offset) for offset in (0, 700, 1400, 2100, 2800)]
    groups = [(0.0, "NONE", None), *((1000.0, "DIRECTIONAL", row) for row in np.eye(3).tolist())]
    groups.append((1000.0, "ISOTROPIC", None))
    frames = []
    for stored, (b_value, kind, direction) in zip(values, groups, strict=True):
        group = {"DiffusionBValue": b_value, "DiffusionDirectionality": kind}
        if direction:
            group["DiffusionGradientDirectionSequence"] = {"DiffusionGradientOrientation": direction}
        frames += [frame.with_group("MRDiffusionSequence", **group) for frame in frames_of(stored, PLACE, slope=None)]
    found = convert(tmp_path, shuffled(frames), kind="enhanced MR")
    assert_volumes(found, [(PLACE, stored) for stored in values])


@pytest.mark.parametrize(
    "attributes",
    [
        lambda k: {"FrameAcquisitionNumber": k + 1},
        lambda k: {"FrameAcquisitionDateTime": f"2020010112000{k}", "FrameReferenceDateTime": f"2020010112000{k}"},
        lambda k: {"FrameAcquisitionDuration": 10.0 + k, "FrameComments": f"slice {k}"},
        lambda k: {"DimensionIndexValues": [1, k + 1]},
    ],
)
def test_what_differs_from_slice_to_slice_splits_nothing(tmp_path, attributes):
    frames = frames_of(pattern(12), PLACE)
    frames = [frame.with_group("FrameContentSequence", **attributes(k)) for k, frame in enumerate(frames)]
    assert_holds(convert(tmp_path, shuffled(frames)).image(), PLACE, pattern(12) - CT)


def test_a_tilted_gantry_kept_as_it_is(tmp_path):
    """Each frame is shifted in its plane against the one before: 2.5 mm along the normal, 1 mm along the columns."""
    column = np.array(OBLIQUE[3:])
    place = Place(np.round(PLACE.positions + np.arange(N)[:, None] * column, 6))
    write_enhanced(tmp_path / "in/one.dcm", shuffled(frames_of(pattern(12), place)))
    found = convert_folder(tmp_path / "in", tmp_path, keep_shear=True)
    assert_holds(found.image(), place, pattern(12) - CT)
    assert found.volume["tilt_deg"] == pytest.approx(np.degrees(np.arctan2(1.0, 2.5)), abs=1e-3)


def test_two_stacks_of_other_orientations(tmp_path):
    crossing = oblique_place(orientation=CROSSING)
    values = [pattern(12), other(1000)]
    frames = frames_of(values[0], PLACE) + frames_of(values[1], crossing, stack="2")
    found = convert(tmp_path, shuffled(frames), shared=("PixelMeasuresSequence", SCALING))
    assert_volumes(found, [(PLACE, values[0] - CT), (crossing, values[1] - CT)])


def test_two_echoes_of_two_phases_with_a_scale_each(tmp_path):
    """Groups multiply: 2 x 2 volumes in one object."""
    values = [other(offset) for offset in (0, 700, 1400, 2100)]
    slopes = (1.0, 0.5, 2.0, 0.25)
    frames = []
    for n, stored in enumerate(values):
        for frame in frames_of(stored, PLACE, slope=slopes[n], intercept=n):
            echo = frame.with_group("MREchoSequence", EffectiveEchoTime=(4.6, 9.2)[n % 2])
            frames.append(echo.with_group("FrameContentSequence", TemporalPositionIndex=n // 2 + 1))
    found = convert(tmp_path, shuffled(frames), kind="enhanced MR", shared=PLACING[1:])
    expected = [(PLACE, stored * slopes[n] + n) for n, stored in enumerate(values)]
    assert_volumes(found, expected, relative=1e-6)


def test_frames_at_equal_positions_that_nothing_tells_apart(tmp_path):
    frames = frames_of(pattern(12), PLACE) + frames_of(other(1000), PLACE)
    found = convert(tmp_path, shuffled(frames))
    assert found.refusal["code"] == "duplicate_position"
    assert found.refusal["n_files"] == 1


# ---- several objects


def test_a_concatenation_is_one_volume(tmp_path):
    """PS3.3 C.7.6.16.2.2.4: one image cut into several objects."""
    place = oblique_place(8)
    stored = pattern(12, n_slices=8)
    frames = shuffled(frames_of(stored, place))
    for number, start in enumerate((0, 3, 6), start=1):
        write_enhanced(
            tmp_path / f"in/{9 - number}.dcm", frames[start : start + 3], instance=f"{SOP_INSTANCE}{number}",
            ConcatenationUID="1.2.3.4.99", InConcatenationNumber=number, InConcatenationTotalNumber=3,
            ConcatenationFrameOffsetNumber=start, SOPInstanceUIDOfConcatenationSource="1.2.3.4.98",
        )  # fmt: skip
    found = convert_folder(tmp_path / "in", tmp_path)
    assert (found.volume["n_slices"], found.volume["n_files"]) == (8, 3)
    assert_holds(found.image(), place, stored - CT)


def test_one_object_for_each_slice(tmp_path):
    for k, frame in enumerate(frames_of(pattern(12), PLACE)):
        write_enhanced(tmp_path / f"in/{9 - k}.dcm", [frame], instance=f"{SOP_INSTANCE}{k}", InstanceNumber=9 - k)
    found = convert_folder(tmp_path / "in", tmp_path)
    assert (found.volume["n_slices"], found.volume["n_files"]) == (N, N)
    assert_holds(found.image(), PLACE, pattern(12) - CT)


@pytest.mark.parametrize("in_frames", [True, False])
def test_one_object_for_each_point_in_time(tmp_path, in_frames):
    values = [pattern(12), other(1000), other(2000)]
    for n, stored in enumerate(values):
        frames = frames_of(stored, PLACE, slope=None)
        tags = {"AcquisitionNumber": n + 1, "ContentTime": f"12000{n}", "AcquisitionDateTime": f"2020010112000{n}"}
        if in_frames:
            frames = [frame.with_group("FrameContentSequence", TemporalPositionIndex=n + 1) for frame in frames]
            tags = {}
        write_enhanced(
            tmp_path / f"in/{n}.dcm", shuffled(frames), kind="enhanced MR", instance=f"{SOP_INSTANCE}{n}", **tags
        )
    found = convert_folder(tmp_path / "in", tmp_path)
    assert_volumes(found, [(PLACE, stored) for stored in values])
    assert {entry["n_files"] for entry in found.volumes} == {1}


def test_byte_identical_copies_of_an_object_are_dropped_and_noted(tmp_path):
    path = write_enhanced(tmp_path / "in/a/one.dcm", shuffled(frames_of(pattern(12), PLACE)))
    (tmp_path / "in/b").mkdir()
    (tmp_path / "in/b/two.dcm").write_bytes(path.read_bytes())
    found = convert_folder(tmp_path / "in", tmp_path)
    assert_holds(found.image(), PLACE, pattern(12) - CT)
    assert any("duplicate" in note for note in found.volume["notes"])


# ---- by another writer

BLANK = ("PatientBirthDate", "PatientSex", "AccessionNumber", "StudyID", "StudyDate", "StudyTime",
         "ReferringPhysicianName", "SeriesNumber", "SoftwareVersions")  # fmt: skip
LEGACY = {
    "CT": ("1.2.840.10008.5.1.4.1.1.2", LegacyConvertedEnhancedCTImage),
    "MR": ("1.2.840.10008.5.1.4.1.1.4", LegacyConvertedEnhancedMRImage),
    "PT": ("1.2.840.10008.5.1.4.1.1.128", LegacyConvertedEnhancedPETImage),
}


@pytest.mark.parametrize("modality", LEGACY)
def test_legacy_conversion_by_highdicom(tmp_path, modality):
    """highdicom makes the multi-frame object of the single slices; both give the same volume."""
    sop_class, converted = LEGACY[modality]
    blank = dict.fromkeys(BLANK, "")
    slices = []
    for k, stored in enumerate(pattern(12).astype(np.uint16)):
        slope = {"RescaleSlope": 0.5 + k} if modality == "PT" else {}
        ds = slice_dataset(
            stored, PLACE.positions[k], N - k, SOPClassUID=sop_class, Modality=modality, BitsStored=16, HighBit=15,
            ImageOrientationPatient=list(OBLIQUE), PixelSpacing=list(SPACING), **slope, **blank,
        )  # fmt: skip
        slices.append(ds)
    # in this order the frames run against the normal
    image = converted(slices[::-1], "1.2.3.5", 1, "1.2.3.5.1", 1, include_dimension_index=False)
    assert int(image.NumberOfFrames) == N
    save(image, tmp_path / "in/one.dcm")
    found = convert_folder(tmp_path / "in", tmp_path)
    slopes = (0.5 + np.arange(N))[:, None, None] if modality == "PT" else 1
    assert_holds(found.image(), PLACE, pattern(12) * slopes - CT, relative=1e-6)


@pytest.mark.parametrize("shared", [(), ("PixelMeasuresSequence", SCALING)])
def test_highdicom_reads_the_objects_of_these_tests(tmp_path, shared):
    """A second reader finds each frame where these tests mean it to be."""
    slopes = (1.0, 0.5, 2.0, 0.25)
    frames = [
        frame.with_group(SCALING, RescaleSlope=slopes[k], RescaleIntercept=-7.0) if not shared else frame
        for k, frame in enumerate(frames_of(pattern(12), PLACE))
    ]
    path = write_enhanced(tmp_path / "one.dcm", shuffled(frames), shared=shared)
    volume = highdicom.imread(path).get_volume()
    expected = pattern(12) * np.array(slopes)[:, None, None] - 7 if not shared else pattern(12) - CT
    index = np.rint(volume.map_reference_to_indices((PLACE.centres_ras(13, 10) * (-1, -1, 1)).reshape(-1, 3)))
    found = volume.array[tuple(index.astype(int).T)].reshape(expected.shape)
    assert volume.array.size == expected.size
    assert np.array_equal(found, expected)


# ---- refused by name


@pytest.mark.parametrize("sequence", PLACING)
def test_frames_that_cannot_be_placed(tmp_path, sequence):
    frames = [frame.without(sequence) for frame in frames_of(pattern(12), PLACE)]
    found = convert(tmp_path, frames, shared=())
    assert found.refusal["code"] == "missing_geometry"
    keyword = {"PlanePositionSequence": "ImagePosition", "PlaneOrientationSequence": "ImageOrientation"}
    assert keyword.get(sequence, "PixelSpacing") in found.refusal["reason"]


def test_one_frame_that_cannot_be_placed(tmp_path):
    frames = frames_of(pattern(12), PLACE)
    frames[2] = frames[2].without("PlanePositionSequence")
    assert convert(tmp_path, frames).refusal["code"] == "missing_geometry"


@pytest.mark.parametrize(
    ("sop_class", "modality"),
    [
        ("1.2.840.10008.5.1.4.1.1.20", "NM"),
        ("1.2.840.10008.5.1.4.1.1.3.1", "US"),
        ("1.2.840.10008.5.1.4.1.1.12.1", "XA"),
        ("1.2.840.10008.5.1.4.1.1.4", "MR"),
    ],
)
@pytest.mark.parametrize("at_the_top", [False, True])
def test_frames_without_functional_groups(tmp_path, sop_class, modality, at_the_top):
    """A film of one plane is no volume, also where the file gives that plane's position."""
    placed = {
        "ImagePositionPatient": [0, 0, 0], "ImageOrientationPatient": list(OBLIQUE), "PixelSpacing": list(SPACING),
    }  # fmt: skip
    found = convert(
        tmp_path, frames_of(pattern(12), PLACE), kind=sop_class, shared=None, Modality=modality,
        **(placed if at_the_top else {}),
    )  # fmt: skip
    assert found.refusal["code"] in ("multiframe", "missing_geometry")
    assert found.refusal["kind"] == "series"


def test_positions_in_the_transducer_alone_are_no_place_in_the_patient(tmp_path):
    """Enhanced US volumes are placed in their own frame of reference (PS3.3 C.8.24.2)."""
    frames = [
        frame.without("PlanePositionSequence").without("PlaneOrientationSequence")
        .with_group("PlanePositionVolumeSequence", ImagePositionVolume=PLACE.positions[k].tolist())
        .with_group("PlaneOrientationVolumeSequence", ImageOrientationVolume=list(OBLIQUE))
        for k, frame in enumerate(frames_of(pattern(12), PLACE))
    ]  # fmt: skip
    found = convert(tmp_path, frames, kind="1.2.840.10008.5.1.4.1.1.6.2", Modality="US")
    assert found.refusal["code"] == "missing_geometry"


def test_pixels_of_floating_point_numbers(tmp_path):
    """As parametric maps have: nothing is converted of bytes that are no whole numbers."""
    path = write_enhanced(
        tmp_path / "in/one.dcm", frames_of(pattern(12), PLACE), kind="1.2.840.10008.5.1.4.1.1.30", Modality="MR"
    )
    ds = pydicom.dcmread(path)
    del ds.PixelData, ds.BitsStored, ds.HighBit, ds.PixelRepresentation
    ds.BitsAllocated = 32
    ds.FloatPixelData = pattern(12).astype("<f4").tobytes()
    ds.save_as(path)
    found = convert_folder(tmp_path / "in", tmp_path)
    assert found.refusal["code"] == "no_pixels"


def test_a_frame_missing_in_the_middle(tmp_path):
    place = oblique_place(9)
    frames = frames_of(pattern(12, n_slices=9), place)
    del frames[4]
    found = convert(tmp_path, shuffled(frames))
    assert found.refusal["code"] == "missing_slice"
    assert "5.00 mm" in found.refusal["reason"]
    assert "2.50 mm" in found.refusal["reason"]


@pytest.mark.parametrize("n_groups", [0, 3, 5])
def test_another_number_of_functional_groups_than_of_frames(tmp_path, n_groups):
    path = write_enhanced(tmp_path / "in/one.dcm", frames_of(pattern(12), PLACE))
    ds = pydicom.dcmread(path)
    groups = list(ds.PerFrameFunctionalGroupsSequence)
    ds.PerFrameFunctionalGroupsSequence = Sequence((groups + groups)[:n_groups])
    ds.save_as(path)
    found = convert_folder(tmp_path / "in", tmp_path)
    assert found.volumes == []
    (refusal,) = found.rejected
    assert "frame" in refusal["reason"]


def test_pixels_of_fewer_frames_than_named(tmp_path):
    path = write_enhanced(tmp_path / "in/one.dcm", frames_of(pattern(12), PLACE))
    ds = pydicom.dcmread(path)
    ds.PixelData = ds.PixelData[:-200]
    ds.save_as(path)
    assert convert_folder(tmp_path / "in", tmp_path).refusal["code"] == "truncated_pixels"


def test_colour_frames(tmp_path):
    path = write_enhanced(tmp_path / "in/one.dcm", frames_of(pattern(8), PLACE), bits=Bits(8, 8))
    ds = pydicom.dcmread(path)
    ds.SamplesPerPixel, ds.PhotometricInterpretation, ds.PlanarConfiguration = 3, "RGB", 0
    ds.PixelData = ds.PixelData * 3
    ds.save_as(path)
    assert convert_folder(tmp_path / "in", tmp_path).refusal["code"] == "colour"


def test_a_bad_object_beside_a_good_one(tmp_path):
    write_enhanced(tmp_path / "in/good.dcm", shuffled(frames_of(pattern(12), PLACE)))
    bad = [frame.without("PlanePositionSequence") for frame in frames_of(pattern(12), PLACE)]
    write_enhanced(tmp_path / "in/bad.dcm", bad, instance="1.2.3.5.1", SeriesInstanceUID="1.2.3.5")
    found = convert_folder(tmp_path / "in", tmp_path)
    (volume,) = found.volumes
    assert_holds(found.image(volume), PLACE, pattern(12) - CT)
    assert [one["code"] for one in found.rejected] == ["missing_geometry"]


# ---- labels on multi-frame images


def drawn():
    """(K, rows, columns) without any symmetry, on the two inner slices."""
    mask = np.zeros((N, 13, 10), dtype=bool)
    mask[1, 2:6, 3:9] = True
    mask[2, 4:11, 1:3] = True
    return mask


def check_label(found, mask):
    (volume,) = found.volumes
    assert found.rejected == []
    (value,) = [int(value) for value, name in volume["label_classes"].items() if name == "organ"]
    assert_holds(found.image(volume), PLACE, pattern(12) - CT)
    label = world_values(found.label(volume), PLACE, 13, 10)
    assert np.array_equal(label, mask * value)


@pytest.mark.parametrize("omit_empty", [True, False])
def test_segmentation_of_a_multiframe_image(tmp_path, omit_empty):
    """highdicom refers to the image by its one instance and the numbers of its frames."""
    order = [2, 0, 3, 1]
    frames = frames_of(pattern(12), PLACE)
    path = write_enhanced(
        tmp_path / "in/image.dcm", [frames[k] for k in order], PatientBirthDate="", PatientSex="",
        AccessionNumber="", StudyID="", StudyDate="", StudyTime="", ReferringPhysicianName="",
    )  # fmt: skip
    source = pydicom.dcmread(path)
    description = highdicom.seg.SegmentDescription(
        1, "organ", codes.SCT.Organ, codes.SCT.Liver, highdicom.seg.SegmentAlgorithmTypeValues.MANUAL
    )
    label = highdicom.seg.Segmentation(
        [source], drawn()[order].astype(np.uint8), highdicom.seg.SegmentationTypeValues.BINARY, [description],
        "1.2.3.7", 1, "1.2.3.7.1", 1, "maker", "model", "1", "0", omit_empty_frames=omit_empty,
    )  # fmt: skip
    label.save_as(tmp_path / "in/label.dcm")
    check_label(convert_folder(tmp_path / "in", tmp_path, labels=write_map(tmp_path / "map", "organ")), drawn())


def outline(place: Place, k: int, rows: slice, columns: slice) -> np.ndarray:
    """The edge of a block of pixels, LPS mm."""
    corners = np.array([(columns.start, rows.start), (columns.stop, rows.start), (columns.stop, rows.stop),
                        (columns.start, rows.stop)]) - 0.5  # fmt: skip
    row, column = np.array(place.orientation[:3]), np.array(place.orientation[3:])
    return place.positions[k] + corners[:, :1] * place.spacing[1] * row + corners[:, 1:] * place.spacing[0] * column


@pytest.mark.parametrize("named", [True, False])
def test_structures_on_a_multiframe_image(tmp_path, named):
    """The contours name the one instance and a frame of it, or nothing at all."""
    order = [2, 0, 3, 1]
    frames = frames_of(pattern(12), PLACE)
    write_enhanced(tmp_path / "in/image.dcm", [frames[k] for k in order])
    outlines = [outline(PLACE, 1, slice(2, 6), slice(3, 9)), outline(PLACE, 2, slice(4, 11), slice(1, 3))]
    path = write_rtstruct(tmp_path / "in/label.dcm", {"organ": outlines}, series=SERIES, frame=FRAME)
    if named:
        ds = pydicom.dcmread(path)
        for contour, k in zip(ds.ROIContourSequence[0].ContourSequence, (1, 2), strict=True):
            image = Dataset()
            image.ReferencedSOPClassUID, image.ReferencedSOPInstanceUID = KINDS["enhanced CT"][0], SOP_INSTANCE
            image.ReferencedFrameNumber = order.index(k) + 1
            contour.ContourImageSequence = Sequence([image])
        ds.save_as(path)
    check_label(convert_folder(tmp_path / "in", tmp_path, labels=write_map(tmp_path / "map", "organ")), drawn())


def test_structures_without_a_map_are_classes_of_their_own(tmp_path):
    write_enhanced(tmp_path / "in/image.dcm", shuffled(frames_of(pattern(12), PLACE)))
    outlines = [outline(PLACE, 1, slice(2, 6), slice(3, 9)), outline(PLACE, 2, slice(4, 11), slice(1, 3))]
    write_rtstruct(tmp_path / "in/label.dcm", {"organ": outlines}, series=SERIES, frame=FRAME)
    check_label(convert_folder(tmp_path / "in", tmp_path), drawn())


def test_a_label_on_one_volume_of_two_in_one_object(tmp_path):
    """The segmentation names frames of the first echo; the second gets the same label or none, never another."""
    values = [pattern(12), other(1000)]
    frames = [
        frame.with_group("MREchoSequence", EffectiveEchoTime=echo)
        for stored, echo in zip(values, (4.6, 9.2), strict=True)
        for frame in frames_of(stored, PLACE, slope=None)
    ]
    write_enhanced(tmp_path / "in/image.dcm", frames, kind="enhanced MR")
    outlines = [outline(PLACE, 1, slice(2, 6), slice(3, 9)), outline(PLACE, 2, slice(4, 11), slice(1, 3))]
    path = write_rtstruct(tmp_path / "in/label.dcm", {"organ": outlines}, series=SERIES, frame=FRAME)
    ds = pydicom.dcmread(path)
    for contour, k in zip(ds.ROIContourSequence[0].ContourSequence, (1, 2), strict=True):
        image = Dataset()
        image.ReferencedSOPClassUID, image.ReferencedSOPInstanceUID = KINDS["enhanced MR"][0], SOP_INSTANCE
        image.ReferencedFrameNumber = k + 1
        contour.ContourImageSequence = Sequence([image])
    ds.save_as(path)
    found = convert_folder(tmp_path / "in", tmp_path, labels=write_map(tmp_path / "map", "organ"))
    assert len(found.volumes) == 2
    (first,) = [entry for entry in found.volumes if holds(found.image(entry), PLACE, values[0])]
    assert first["label_file"]
    for entry in found.volumes:
        if entry["label_file"]:
            assert np.array_equal(world_values(found.label(entry), PLACE, 13, 10) > 0, drawn())
