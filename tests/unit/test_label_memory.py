"""Labels are read a frame or an outline at a time: what they take is bounded by the image, not by what they hold."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest
from dicom_files import write_ct, write_rtstruct
from foreign_seg import foreign_seg
from outlines import circle, in_world, slices

from monai_tl.dicom.deidentify import Pseudonyms
from monai_tl.dicom.index import index_folder
from monai_tl.dicom.joined_labels import join_labels
from monai_tl.dicom.label_object import read_label_object
from monai_tl.dicom.stacking import stack
from monai_tl.labels import ClassSpec, LabelScheme

N_SLICES, SIZE, N_STRUCTURES = 16, 512, 12
VOLUME_BYTES = N_SLICES * SIZE * SIZE * 2
GEOMETRY = slices(N_SLICES, SIZE, SIZE)
NAMES = [f"organ {n}" for n in range(N_STRUCTURES)]
SCHEME = LabelScheme(classes=tuple(ClassSpec(name=name) for name in NAMES))


def masks():
    rows, columns = np.mgrid[:SIZE, :SIZE]
    shown = [(rows - 200 - 8 * n) ** 2 + (columns - 250) ** 2 < (60 + 5 * n) ** 2 for n in range(N_STRUCTURES)]
    return np.broadcast_to(np.stack(shown, axis=-1).astype(np.uint8), (N_SLICES, SIZE, SIZE, N_STRUCTURES))


def as_rtstruct(path, _geometry):
    outlines = {
        name: [in_world(circle(250, 200 + 8 * n, 60 + 5 * n, n=500), k, GEOMETRY) for k in range(N_SLICES)]
        for n, name in enumerate(NAMES)
    }
    write_rtstruct(path, outlines)


def as_seg(path, geometry):
    foreign_seg(path, masks(), geometry, labels=NAMES, omit_empty_frames=False)


def as_fractional(path, geometry):
    foreign_seg(path, masks().astype(np.float32), geometry, "FRACTIONAL", labels=NAMES, omit_empty_frames=False)


@pytest.mark.parametrize("write", [as_rtstruct, as_seg, as_fractional])
def test_the_peak_stays_below_two_and_a_half_volumes(tmp_path, write):
    tags = ("PatientBirthDate", "PatientSex", "AccessionNumber", "StudyID", "StudyDate", "StudyTime")
    write_ct(tmp_path / "ct", np.zeros((N_SLICES, SIZE, SIZE), np.uint16), **dict.fromkeys(tags, ""))
    (series,) = index_folder(tmp_path / "ct", Pseudonyms(bytes(32))).series
    geometry = stack(series.headers, 1)[1]
    write(tmp_path / "label.dcm", geometry)
    label = read_label_object(tmp_path / "label.dcm")
    for scheme in (SCHEME, None):
        tracemalloc.start()
        found = join_labels([label], geometry, scheme, ())
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert found.refused == ()
        assert set(np.unique(found.slices)) <= set(range(N_STRUCTURES + 1))
        assert found.slices.any(axis=(1, 2)).all()
        assert peak < 2.5 * VOLUME_BYTES


def test_many_objects_take_no_more_than_two(tmp_path):
    """Eight readers of the same organ, all alike: each is drawn on its own, and compared by digest."""
    path = write_rtstruct(
        tmp_path / "rs.dcm", {"organ 0": [in_world(circle(250, 200, 60), k, GEOMETRY) for k in range(N_SLICES)]}
    )
    label = read_label_object(path)
    tracemalloc.start()
    found = join_labels([label] * 8, GEOMETRY, SCHEME, ())
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert len(found.used) == 8
    assert peak < 2.5 * VOLUME_BYTES
