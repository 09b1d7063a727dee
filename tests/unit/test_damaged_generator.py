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
from dicom_bytes import EXPLICIT, IMPLICIT, file_bytes, new_series, rectangle_label, rtstruct, segmentation


def test_there_are_at_least_63_kinds():
    assert len(KINDS) >= 63


def test_a_seed_gives_the_same_bytes_always(tmp_path):
    found = []
    for run, seed in enumerate((7, 7, 8)):
        for name in KINDS:
            damaged.make(name, tmp_path / str(run) / name, seed)
        make_readable(tmp_path / str(run))
        found.append({entry: (facts[1], facts[3]) for entry, facts in tree(tmp_path / str(run)).items()})
    assert found[0] == found[1]
    assert found[0] != found[2]


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
        start = content.index(elements[0x00080016][1], 400) - 8
        assert again.getvalue().endswith(content[start:])


def test_labels_that_damage_begins_from_are_sound():
    series = new_series(np.random.default_rng(3))
    seg = pydicom.dcmread(io.BytesIO(file_bytes(segmentation(series))))
    assert np.array_equal(seg.pixel_array, rectangle_label(series)[2:4])
    assert [frame.PlanePositionSequence[0].ImagePositionPatient[2] for frame in seg.PerFrameFunctionalGroupsSequence] == [
        35.0, 37.5,
    ]  # fmt: skip
    drawn = pydicom.dcmread(io.BytesIO(file_bytes(rtstruct(series))))
    (contour, _) = drawn.ROIContourSequence[0].ContourSequence
    points = np.reshape([float(value) for value in contour.ContourData], (4, 3))
    # columns 3.5 to 7.5 of 0.8 mm, rows 2.5 to 5.5 of 0.7 mm from (-10, -20)
    assert points.min(axis=0) == pytest.approx([-7.2, -18.25, 35.0])
    assert points.max(axis=0) == pytest.approx([-4.0, -16.15, 35.0])
