"""A DICOM SEG is made of its input alone: exact places, keyed UIDs, no clock, no machine, no library."""

from __future__ import annotations

import math
import os
import platform
import socket
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import hypothesis.strategies as st
import numpy as np
import pydicom
import pytest
from hypothesis import given
from pydicom.uid import UID
from seg_series import ALGORITHM, IDENTITY, SCHEME, SHAPE, make_series, random_labels, write
from seg_sources import frames_of, geometries_of, write_two_echoes

from monai_tl.dicom.deidentify import Pseudonyms, seeded_key
from monai_tl.dicom.segmentation import exact_text, read_segmentation
from monai_tl.dicom.write import FIXED_DATE, FIXED_TIME

ROOT = Path(__file__).parents[2]


def elements(dataset):
    """Every element, those in sequences too."""
    for element in dataset:
        yield element
        if element.VR == "SQ":
            for item in element.value:
                yield from elements(item)


def texts(element) -> list[str]:
    value = element.value
    return [str(part) for part in value] if element.VM > 1 else [str(value)]


@given(st.floats(min_value=-1e6, max_value=1e6, allow_nan=False))
def test_a_number_is_written_as_near_as_16_characters_allow(value):
    text = exact_text(value)
    assert len(text) <= 16
    assert pydicom.valuerep.is_valid_ds(text)
    # millimetres: a sign, up to 6 digits, a point and 8 digits; or less than 1 and at least 9 digits
    assert math.isclose(float(text), value, rel_tol=1e-9, abs_tol=1e-12)


@given(st.decimals(min_value=-99999, max_value=99999, places=8))
def test_a_decimal_string_comes_back_as_the_same_number(decimal):
    """What a scanner wrote is what a viewer reads from the SEG."""
    text = str(decimal)
    assert len(text) <= 16
    assert float(exact_text(float(text))) == float(text)


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.0, "0"), (-0.0, "0"), (2.5, "2.5"), (-3.0, "-3"), (1 / 3, "0.33333333333333"), (-1e-7 / 3, "-3.333333333e-08")],
)
def test_short_numbers_stay_short(value, text):
    assert exact_text(value) == text


def test_frames_lie_exactly_where_the_files_of_their_slices_say(tmp_path):
    write_two_echoes(tmp_path / "source")
    geometry = geometries_of(tmp_path / "source")[0]
    labels = np.ones((geometry.n_slices, geometry.rows, geometry.columns), np.uint8)
    path = write(tmp_path / "seg.dcm", labels, geometry)
    said = {}
    for one in (tmp_path / "source").iterdir():
        dataset = pydicom.dcmread(one)
        said[str(dataset.SOPInstanceUID)] = [float(value) for value in dataset.ImagePositionPatient]
    frames = frames_of(path)
    assert len(frames) == geometry.n_slices
    for frame in frames:
        assert [float(value) for value in frame.position] == said[frame.source[1]]
    shared = pydicom.dcmread(path).SharedFunctionalGroupsSequence[0]
    assert [float(value) for value in shared.PlaneOrientationSequence[0].ImageOrientationPatient] == [
        float(value) for value in dataset.ImageOrientationPatient
    ]
    assert [float(value) for value in shared.PixelMeasuresSequence[0].PixelSpacing] == [0.75, 0.5]
    assert float(shared.PixelMeasuresSequence[0].SpacingBetweenSlices) == pytest.approx(10 / 3, abs=1e-8)


def standard_or_given(reference, derived: set[str]) -> set[str]:
    given_ones = {reference.study_instance_uid, reference.series_instance_uid, reference.frame_of_reference_uid}
    return {*given_ones, *reference.sop_instance_uids, *derived}


@pytest.mark.parametrize("identity", ["pseudonymous", "source"])
def test_all_that_it_says_comes_from_the_input(tmp_path, identity):
    reference = make_series(tmp_path)
    path = write(tmp_path / "seg.dcm", random_labels(), reference, identity)
    dataset = pydicom.dcmread(path)
    derived = {
        str(dataset.SOPInstanceUID),
        str(dataset.SeriesInstanceUID),
        str(dataset.DimensionOrganizationSequence[0]["DimensionOrganizationUID"].value),
    }
    assert len(derived) == 3
    n_dates = 0
    for element in elements(dataset):
        if element.VR == "UI":
            for uid in texts(element):
                # a UID of the standard has a name
                assert uid in standard_or_given(reference, derived) or UID(uid).name != uid
        if element.VR in ("DA", "TM", "DT"):
            n_dates += 1
            own = {IDENTITY[word] for word in ("PatientBirthDate", "StudyDate", "StudyTime")}
            assert element.value in {FIXED_DATE, FIXED_TIME, ""} | (own if identity == "source" else set())
    assert n_dates >= 4
    content = path.read_bytes()
    machine = [socket.gethostname(), os.environ.get("USER", "root"), platform.python_version(), str(tmp_path)]
    libraries = [metadata.version(name) for name in ("pydicom", "highdicom", "numpy")]
    for word in ("pydicom", "highdicom", *machine, *libraries):
        assert word.encode() not in content


def test_uids_are_keyed(tmp_path):
    """Another key, other UIDs; what is referred to stays."""
    reference = make_series(tmp_path)
    files = [
        write(tmp_path / f"{seed}.dcm", random_labels(), reference, uid_key=Pseudonyms(seeded_key(seed)).uid)
        for seed in (0, 1)
    ]
    found = [
        [str(element.value) for element in elements(pydicom.dcmread(path)) if element.VR == "UI"] for path in files
    ]
    differing = {(one, other) for one, other in zip(*found, strict=True) if one != other}
    assert len(differing) == 3
    assert {one for one, _ in differing}.isdisjoint(other for _, other in differing)
    # 128 bits of a hash, in the range of UIDs anyone may make
    assert all(uid.startswith("2.25.") and 2**100 < int(uid[5:]) < 2**128 for pair in differing for uid in pair)


@pytest.mark.parametrize(
    "settings",
    [
        {"PYTHONHASHSEED": "1", "TZ": "Asia/Tokyo", "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"},
        {"PYTHONHASHSEED": "2", "TZ": "America/Lima", "OMP_NUM_THREADS": "4", "LC_ALL": "C", "PYTHONUTF8": "0"},
    ],
)
def test_same_bytes_whatever_the_process(tmp_path, settings):
    path = write(tmp_path / "here.dcm", random_labels(), make_series(tmp_path, "tilted"), "source")
    program = (
        "import sys, time, datetime\n"
        "from pathlib import Path\n"
        "class Later(datetime.datetime):\n"
        "    @classmethod\n"
        "    def now(cls, tz=None): return cls(2031, 5, 6, 7, 8, 9, 123456, tz)\n"
        "datetime.datetime = Later\n"
        "from seg_series import make_series, random_labels, write\n"
        "folder = Path(sys.argv[1])\n"
        "write(folder / 'there.dcm', random_labels(), make_series(folder / 'there', 'tilted'), 'source')\n"
    )
    environment = {"PYTHONPATH": f"{ROOT}:{ROOT / 'tests/support'}", "PATH": "", **settings}
    subprocess.run([sys.executable, "-c", program, str(tmp_path)], check=True, env=environment)
    assert (tmp_path / "there.dcm").read_bytes() == path.read_bytes()


def test_an_empty_label_map_is_one_empty_frame(tmp_path):
    """Not all frames of all segments: 15 MB of nothing for a usual CT."""
    reference = make_series(tmp_path)
    path = write(tmp_path / "seg.dcm", np.zeros(SHAPE, np.uint8), reference, read_back=True)
    (frame,) = frames_of(path)
    assert not frame.mask.any()
    dataset = pydicom.dcmread(path)
    assert len(dataset.SegmentSequence) == len(SCHEME.classes)
    assert len(dataset.ReferencedSeriesSequence[0].ReferencedInstanceSequence) == reference.n_slices
    assert not read_segmentation(path, reference, SCHEME)[0].any()


def test_pixels_are_packed_one_bit_each_and_padded_with_zeros(tmp_path):
    reference = make_series(tmp_path)
    labels = np.zeros(SHAPE, np.uint8)
    for k in range(3):
        labels[k, 6, 8] = 1 + k % 2
    dataset = pydicom.dcmread(write(tmp_path / "seg.dcm", labels, reference))
    assert (dataset.SegmentationType, dataset.BitsAllocated, dataset.NumberOfFrames) == ("BINARY", 1, 3)
    # 3 frames of 63 bits are 24 bytes; the last bit of each frame is set
    assert dataset.PixelData == (1 << 62 | 1 << 125 | 1 << 188).to_bytes(24, "little")
    two = np.where(labels == 1, labels, 0)
    two[2] = 0
    dataset = pydicom.dcmread(write(tmp_path / "seg.dcm", two, reference))
    assert dataset.PixelData == (1 << 62).to_bytes(8, "little")


def test_an_odd_number_of_bytes_is_padded_with_zero(tmp_path):
    reference = make_series(tmp_path)
    labels = np.zeros(SHAPE, np.uint8)
    labels[:, 0, 0] = 1
    labels[:3, 0, 1] = 2
    dataset = pydicom.dcmread(write(tmp_path / "seg.dcm", labels, reference))
    # 9 frames of 63 bits are 71 bytes
    assert len(dataset.PixelData) == 72
    assert dataset.PixelData[71:] == b"\0"
    assert dataset.PixelData[:8] != b"\0" * 8


def test_long_names_of_a_model_are_cut_to_what_dicom_holds(tmp_path):
    algorithm = type(ALGORITHM)("monai_tl " + "n" * 64, "1." + "2" * 70, "ab" * 32)
    path = write(tmp_path / "seg.dcm", random_labels(), make_series(tmp_path), algorithm=algorithm)
    segment = pydicom.dcmread(path).SegmentSequence[0]
    (found,) = segment.SegmentationAlgorithmIdentificationSequence
    assert found.AlgorithmName == segment.SegmentAlgorithmName == "monai_tl " + "n" * 55
    assert found.AlgorithmVersion == "1." + "2" * 62
