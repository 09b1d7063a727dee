"""Volumes that lie half a step apart, or that a slip in the headers seems to tear apart: one file a volume."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
from dicom_files import save as save_file
from dicom_files import slice_dataset

from monai_tl.commands import convert
from monai_tl.dicom.deidentify import create_key

MR = {"Modality": "MR", "SOPClassUID": "1.2.840.10008.5.1.4.1.1.4", "RescaleSlope": None, "RescaleIntercept": None}
PET = {"Modality": "PT", "SOPClassUID": "1.2.840.10008.5.1.4.1.1.128"}
N = 8


@pytest.fixture(autouse=True)
def one_process(monkeypatch):
    monkeypatch.setenv("MONAI_TL_EXECUTOR", "sequential")


def write(folder: Path, slices: list[tuple[float, int, dict[str, Any]]]) -> None:
    """One series of (z, stored value, tags) in one order of files; the value is constant in a slice."""
    for number, (z, value, tags) in enumerate(slices, start=1):
        pixels = np.full((5, 7), value, dtype=np.uint16)
        save_file(slice_dataset(pixels, (-10.0, -20.0, z), number, **tags), folder / f"{(number * 7) % 101:03d}.dcm")


def converted(tmp_path: Path) -> list[tuple[dict[str, Any], np.ndarray]]:
    """(entry of the index, value of each slice from the feet upwards)."""
    create_key(tmp_path / "secret.key", seed=0)
    convert.run(tmp_path / "in", tmp_path / "out", key_file=tmp_path / "secret.key")
    volumes = json.loads((tmp_path / "out/index.json").read_text())["volumes"]
    arrays = [np.asanyarray(nibabel.load(tmp_path / "out" / one["file"]).dataobj) for one in volumes]
    return [(one, array[3, 2]) for one, array in zip(volumes, arrays, strict=True)]


@pytest.mark.parametrize(
    ("shared", "first", "second"),
    [
        ({}, {"ConvolutionKernel": "B30f"}, {"ConvolutionKernel": "B70f"}),
        ({}, {"KVP": "80"}, {"KVP": "140"}),
        ({}, {"ContentTime": "101500"}, {"ContentTime": "101530"}),
        (MR, {"DiffusionBValue": 0.0}, {"DiffusionBValue": 1000.0}),
        (MR, {"TemporalPositionIdentifier": "1"}, {"TemporalPositionIdentifier": "2"}),
        (PET, {"AcquisitionNumber": "1"}, {"AcquisitionNumber": "2"}),
        (PET, {"FrameReferenceTime": "1000"}, {"FrameReferenceTime": "61000"}),
    ],
)
def test_two_volumes_half_a_step_apart_are_not_one(tmp_path, shared, first, second):
    one = [(10.0 + 5.0 * k, 100 + k, {**shared, **first}) for k in range(N)]
    other = [(12.5 + 5.0 * k, 200 + k, {**shared, **second}) for k in range(N)]
    write(tmp_path / "in", [*one, *other])
    found = converted(tmp_path)
    intercept = 0 if shared == MR else -1024
    assert sorted(tuple(values - intercept) for _, values in found) == [
        tuple(100 + k for k in range(N)), tuple(200 + k for k in range(N))
    ]  # fmt: skip
    assert all(entry["part"] for entry, _ in found)
    assert {entry["spacing_mm"][2] for entry, _ in found} == {5.0}


def test_phases_whose_slices_have_each_their_own_time_are_not_one(tmp_path):
    one = [(10.0 + 5.0 * k, 100 + k, {"AcquisitionTime": f"1015{k / 2:04.1f}"}) for k in range(N)]
    other = [(12.5 + 5.0 * k, 200 + k, {"AcquisitionTime": f"1016{k / 2:04.1f}"}) for k in range(N)]
    write(tmp_path / "in", [*one, *other])
    assert sorted(len(values) for _, values in converted(tmp_path)) == [N, N]


@pytest.mark.parametrize(
    "tags",
    [
        # an empty last value of ImageType in every other slice
        lambda k: {"ImageType": ["ORIGINAL", "PRIMARY", "AXIAL", ""][: 4 - k % 2]},
        # times of one spiral, rounded differently
        lambda k: {"AcquisitionNumber": "1", "AcquisitionTime": f"100000.{1 + k % 2}"},
        # echo times as measured, slice by slice
        lambda k: {**MR, "EchoTime": f"4.60{k % 3}"},
        # a word left out of one slice
        lambda k: {"ImageType": ["ORIGINAL", "PRIMARY", "AXIAL"] + ["HELIX"] * (k != 4)},
        # a frame of reference blanked in one slice
        lambda k: {"FrameOfReferenceUID": None} if k == 3 else {},
        # slices that MR shoots in turns
        lambda k: {**MR, "AcquisitionNumber": str(1 + k % 2), "TriggerTime": str(10 * (k % 2))},
    ],
)
def test_a_slip_in_the_headers_does_not_tear_a_volume(tmp_path, tags):
    write(tmp_path / "in", [(10.0 + 2.5 * k, 1024 + k, tags(k)) for k in range(12)])
    ((entry, values),) = converted(tmp_path)
    assert entry["part"] == {}
    assert list(np.diff(values)) == [1] * 11
    assert entry["spacing_mm"][2] == 2.5


def test_slices_in_a_frame_of_reference_each_are_refused(tmp_path):
    write(tmp_path / "in", [(10.0 + 2.5 * k, k, {"FrameOfReferenceUID": f"1.2.9.{k}"}) for k in range(6)])
    with pytest.raises(convert.DataError):
        converted(tmp_path)
    (refused,) = json.loads((tmp_path / "out/rejected.json").read_text())["rejected"]
    assert refused["code"] == "mixed_geometry"
    assert "6 frames of reference" in refused["reason"]


def test_acquisitions_that_overlap_by_a_few_slices_are_two(tmp_path):
    chest = [(10.0 + 5.0 * k, 100 + k, {"AcquisitionNumber": "1"}) for k in range(16)]
    abdomen = [(75.0 + 5.0 * k, 200 + k, {"AcquisitionNumber": "2"}) for k in range(19)]
    write(tmp_path / "in", [*chest, *abdomen])
    assert sorted(len(values) for _, values in converted(tmp_path)) == [16, 19]


def test_names_that_repeat_never_overwrite(tmp_path):
    for series, numbers in ((1, (0, 0)), (2, (0, 0)), (3, (2, 3))):
        for echo in (4, 8):
            for number in sorted(set(numbers)):
                tags = {**MR, "SeriesInstanceUID": f"1.2.3.{series}", "FrameOfReferenceUID": f"1.2.{series}"}
                if number:
                    tags["AcquisitionNumber"] = str(number)
                tags["EchoTime"] = str(echo)
                for k in range(4):
                    pixels = np.full((5, 7), 100 * series + 10 * echo + number, np.uint16)
                    ds = slice_dataset(pixels, (0, 0, 3.0 * k), k, **tags)
                    uid = f"1.2.3.{series}.{echo}.{number}.{k + 1}"
                    ds.SOPInstanceUID = ds.file_meta.MediaStorageSOPInstanceUID = uid
                    save_file(ds, tmp_path / f"in/{series}-{echo}-{number}-{k}.dcm")
    create_key(tmp_path / "secret.key", seed=0)
    convert.run(tmp_path / "in", tmp_path / "out", key_file=tmp_path / "secret.key", names="{part}")
    volumes = json.loads((tmp_path / "out/index.json").read_text())["volumes"]
    files = sorted(one["file"] for one in volumes)
    assert len(files) == 8
    assert files == sorted(path.name for path in (tmp_path / "out").glob("*.nii.gz"))
    means = {float(np.asanyarray(nibabel.load(tmp_path / "out" / name).dataobj).mean()) for name in files}
    assert means == {140.0, 180.0, 240.0, 280.0, 342.0, 343.0, 382.0, 383.0}


def test_a_three_plane_localizer_is_refused_by_name_whatever_its_image_type(tmp_path):
    planes = ([1, 0, 0, 0, 1, 0], [1, 0, 0, 0, 0, -1], [0, 1, 0, 0, 0, -1])
    for plane, directions in enumerate(planes):
        normal = np.cross(directions[:3], directions[3:])
        for k in range(3):
            tags = {**MR, "ImageOrientationPatient": directions, "ImageType": ["ORIGINAL", "PRIMARY", "M", "NORM"]}
            tags["SeriesDescription"] = "AAHead Localizer"
            ds = slice_dataset(np.zeros((5, 7), np.uint16), 10.0 * k * normal, 3 * plane + k, **tags)
            save_file(ds, tmp_path / f"in/{plane}{k}.dcm")
    with pytest.raises(convert.DataError):
        converted(tmp_path)
    (refused,) = json.loads((tmp_path / "out/rejected.json").read_text())["rejected"]
    assert (refused["code"], refused["n_files"]) == ("localizer", 9)
