"""What the DICOM benchmark relies on: many patients in its cohort, faults seen in outputs, all processes watched."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

import nibabel
import numpy as np
import pydicom
import pytest

from benchmarks.cohort import make_cohort, series_of
from benchmarks.dicom_outputs import compare, describe
from benchmarks.processes import Command, watch

RNG = np.random.default_rng(3)
VALUES = RNG.integers(-1000, 1000, (7, 6, 5)).astype(np.int16)
AFFINE = np.array([[0.7, 0, 0, -3], [0, 0.8, 0.1, 5], [0, -0.1, 2.5, 9], [0, 0, 0, 1.0]])


def save(folder: Path, values: np.ndarray, affine: np.ndarray = AFFINE, name: str = "a.nii.gz") -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    nibabel.save(nibabel.Nifti1Image(values, affine), folder / name)
    return folder / name


def test_description_agrees_with_a_sum_over_voxels(tmp_path: Path) -> None:
    found = describe(save(tmp_path, VALUES))
    index = np.argwhere(np.ones(VALUES.shape, dtype=bool))
    weights = (VALUES - float(VALUES.min())).reshape(-1)
    places = index @ AFFINE[:3, :3].T + AFFINE[:3, 3]
    centre = (places * weights[:, None]).sum(axis=0) / weights.sum()
    assert found.n_voxels == 210
    assert found.mean == pytest.approx(float(VALUES.astype(float).mean()), abs=1e-9)
    assert found.centre_mm == pytest.approx(tuple(centre), abs=1e-3)


def test_other_orientation_and_number_type_are_the_same_image(tmp_path: Path) -> None:
    flipped = AFFINE.copy()
    flipped[:3, 3] += 6 * AFFINE[:3, 0]
    flipped[:3, 0] *= -1
    save(tmp_path / "one", VALUES)
    save(tmp_path / "two", VALUES[::-1].astype(np.float32), flipped)
    text = compare({"one": tmp_path / "one", "two": tmp_path / "two"}, {"one", "two"})
    assert "same centre of mass" in text
    assert "Unlike" not in text


@pytest.mark.parametrize("fault", ["mirrored", "moved", "cropped", "darker", "fewer", "absent"])
def test_a_wrong_image_is_named(tmp_path: Path, fault: str) -> None:
    save(tmp_path / "one", VALUES)
    save(tmp_path / "one", VALUES + np.int16(5), name="b.nii.gz")
    (tmp_path / "two").mkdir()
    values, affine = VALUES, AFFINE.copy()
    if fault == "mirrored":
        values = VALUES[::-1]
    elif fault == "moved":
        affine[0, 3] += 0.3
    elif fault == "cropped":
        values = VALUES[:-1]
    elif fault == "darker":
        values = VALUES - np.int16(1)
    if fault != "absent":
        save(tmp_path / "two", values, affine)
    if fault not in ("fewer", "absent"):
        save(tmp_path / "two", VALUES + np.int16(5), name="b.nii.gz")
    text = compare({"one": tmp_path / "one", "two": tmp_path / "two"}, {"one", "two"})
    assert "**Unlike those of one: two (" in text


def test_cohort_is_of_different_patients_and_images(tmp_path: Path) -> None:
    make_cohort(tmp_path / "cohort", 6, 3, 32, 2, 2)()
    sorts: dict[str, set[str]] = {}
    pixels = []
    for paths in series_of(tmp_path / "cohort"):
        assert len(paths) == 3
        datasets = [pydicom.dcmread(path) for path in paths]
        assert len({one.SeriesInstanceUID for one in datasets}) == 1
        assert all(one.file_meta.MediaStorageSOPInstanceUID == one.SOPInstanceUID for one in datasets)
        for one in datasets:
            sorts.setdefault("PatientID", set()).add(one.PatientID)
            for keyword in ("SeriesInstanceUID", "StudyInstanceUID", "FrameOfReferenceUID", "SOPInstanceUID"):
                assert one[keyword].value.is_valid
                sorts.setdefault(keyword, set()).add(one[keyword].value)
        pixels.append(np.stack([one.pixel_array for one in datasets]))
    assert {keyword: len(values) for keyword, values in sorts.items()} == {
        "SeriesInstanceUID": 6, "StudyInstanceUID": 6, "FrameOfReferenceUID": 6, "SOPInstanceUID": 18, "PatientID": 6,
    }  # fmt: skip
    assert len({values.tobytes() for values in pixels}) == 6
    assert sorted(path.name for path in (tmp_path / "cohort").iterdir()) == ["part-0", "part-1"]


def test_memory_of_a_grandchild_is_seen_and_that_of_a_failure_is_told() -> None:
    # the grandchild waits, or the watch might not look before it has ended
    grandchild = "import time; held = bytearray(150_000_000); held[::4096] = b'x' * len(held[::4096]); time.sleep(0.3)"
    child = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {grandchild!r}], check=True)"
    seen = watch([[sys.executable, "-c", child]], os.environ)
    assert len(seen.peaks) == 2
    assert 150_000_000 < seen.peaks[0] < 200_000_000
    assert seen.peaks[1] < 50_000_000
    assert seen.wall_s > 0.3
    with pytest.raises(RuntimeError, match="no such luck"):
        watch([[sys.executable, "-c", "raise SystemExit('no such luck')"]], os.environ)


def test_a_part_of_the_cohort_is_scaled_with_start_up_shared(tmp_path: Path) -> None:
    says = "import time; time.sleep(0.4); print('{\"work_s\": 0.2}')"
    command = Command(
        lambda _source, _out: [[sys.executable, "-c", says]], tmp_path, tmp_path / "out", n_done=2, n_all=20,
        volume_bytes=1, environment=os.environ,
    )  # fmt: skip
    started = time.perf_counter()
    seconds = command.turn()
    wall_s = time.perf_counter() - started
    # 0.2 s for two series, and the rest (at least 0.2 s more) over twenty
    assert 0.1 + 0.2 / 20 <= seconds <= 0.1 + (wall_s - 0.2) / 20
    assert "2 of 20 series" in command.remark
