"""The generator of damaged inputs: seeded, of many kinds, and damaged only where it means to be."""

from __future__ import annotations

import io

import damaged
import numpy as np
import pydicom
import pytest
from conversion_outcome import tree
from damage import KINDS
from damaged_folders import make_readable
from dicom_bytes import (
    EXPLICIT,
    IMPLICIT,
    body,
    file_bytes,
    implicit_body,
    new_series,
    rectangle_label,
    rtstruct,
    segmentation,
)


def test_there_are_at_least_63_kinds():
    assert len(KINDS) >= 63


def written(folder, names, seed):
    for name in names:
        damaged.make(name, folder / name, seed)
    make_readable(folder)
    return {entry: (facts[1], facts[3]) for entry, facts in tree(folder).items()}


@pytest.mark.slow
def test_a_seed_gives_the_same_bytes_always(tmp_path):
    assert written(tmp_path / "once", KINDS, 7) == written(tmp_path / "again", KINDS, 7)


def test_another_seed_gives_other_bytes(tmp_path):
    names = ["slice_missing", "j2k_truncated", "random_bytes"]
    once, other = written(tmp_path / "once", names, 7), written(tmp_path / "other", names, 8)
    assert once.keys() == other.keys()
    assert all(once[name][1] != other[name][1] for name in once if once[name][1] is not None)


@pytest.mark.parametrize("syntax", [EXPLICIT, IMPLICIT])
def test_what_damage_begins_from_is_sound(syntax):
    """As a strict reading by pydicom has it, and as pydicom itself would write it."""
    series = new_series(np.random.default_rng(3))
    for k, elements in enumerate(series.slices):
        content = file_bytes(elements, syntax)
        ds = pydicom.dcmread(io.BytesIO(content))
        assert np.array_equal(ds.pixel_array, series.stored[k])
        assert ds.ImagePositionPatient == pytest.approx(list(series.position(k)))
        assert ds.file_meta.TransferSyntaxUID == syntax
        again = io.BytesIO()
        ds.save_as(again, enforce_file_format=True)
        size = len(implicit_body(elements) if syntax == IMPLICIT else body(elements))
        assert again.getvalue()[-size:] == content[-size:]


def test_labels_that_damage_begins_from_are_sound():
    series = new_series(np.random.default_rng(3))
    seg = pydicom.dcmread(io.BytesIO(file_bytes(segmentation(series))))
    assert np.array_equal(seg.pixel_array, rectangle_label(series)[2:4])
    frames = seg.PerFrameFunctionalGroupsSequence
    assert [frame.PlanePositionSequence[0].ImagePositionPatient[2] for frame in frames] == [35.0, 37.5]
    drawn = pydicom.dcmread(io.BytesIO(file_bytes(rtstruct(series))))
    (contour, _) = drawn.ROIContourSequence[0].ContourSequence
    points = np.reshape([float(value) for value in contour.ContourData], (4, 3))
    # columns 3.5 to 7.5 of 0.8 mm, rows 2.5 to 5.5 of 0.7 mm from (-10, -20)
    assert points.min(axis=0) == pytest.approx([-7.2, -18.25, 35.0])
    assert points.max(axis=0) == pytest.approx([-4.0, -16.15, 35.0])
