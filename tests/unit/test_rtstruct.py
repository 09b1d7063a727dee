"""RTSTRUCT to labels: planes, holes, classes, tilt, and refusals by name."""

from __future__ import annotations

import numpy as np
import pydicom
import pytest
from dicom_files import SERIES, write_ct, write_rtstruct

from monai_tl.dicom.deidentify import Pseudonyms
from monai_tl.dicom.index import index_folder
from monai_tl.dicom.rtstruct import read_rtstruct
from monai_tl.dicom.volume import read_volume
from monai_tl.errors import LabelError
from monai_tl.labels import ClassSpec, LabelScheme

SCHEME = LabelScheme(
    classes=(ClassSpec(name="liver"), ClassSpec(name="tumour", structures=("GTV", "gtv 2")), ClassSpec(name="cyst"))
)
ORIGIN = np.array([-10.0, -20.0, 30.0])
AXIAL = np.eye(3)


@pytest.fixture
def geometry(tmp_path):
    return series(tmp_path)


def series(tmp_path, step=(0.0, 0.0, 2.5), axes=AXIAL):
    write_ct(
        tmp_path / "ct",
        np.zeros((8, 30, 40), np.uint16),
        origin=ORIGIN,
        step=step,
        ImageOrientationPatient=[*axes[0], *axes[1]],
    )
    (found,) = index_folder(tmp_path / "ct", Pseudonyms(bytes(32))).series
    return read_volume(found).geometry


def box(c0, r0, c1, r1, k, geometry, off_mm=0.0):
    """(4, 3) outline around pixels columns c0..c1 and rows r0..r1 of slice k, along the pixel edges."""
    corners = [(c0 - 0.5, r0 - 0.5), (c1 + 0.5, r0 - 0.5), (c1 + 0.5, r1 + 0.5), (c0 - 0.5, r1 + 0.5)]
    points = np.array([geometry.affine_lps[:3] @ [c, r, k, 1] for c, r in corners])
    return points + off_mm * geometry.normal


def read(tmp_path, geometry, structures, **more):
    path = write_rtstruct(tmp_path / "rs.dcm", structures, **more)
    return read_rtstruct(path, geometry, SCHEME)


def refusal(tmp_path, geometry, structures, **more):
    with pytest.raises(LabelError) as caught:
        read(tmp_path, geometry, structures, **more)
    assert "CANARY" not in str(caught.value)
    return caught.value.code


@pytest.mark.parametrize("tilt", [0.0, 0.8])
@pytest.mark.parametrize("oblique", [False, True])
def test_a_box_fills_its_pixels_on_any_grid(tmp_path, tilt, oblique):
    axes = AXIAL
    if oblique:
        axes = np.linalg.qr(np.random.default_rng(3).normal(size=(3, 3)))[0]
        axes[2] = np.cross(axes[0], axes[1])
    geometry = series(tmp_path, step=2.5 * axes[2] + tilt * axes[1], axes=axes)
    label, notes = read(tmp_path, geometry, {"GTV": [box(5, 7, 11, 9, 2, geometry), box(6, 8, 6, 8, 3, geometry)]})
    expected = np.zeros((8, 30, 40), np.uint8)
    expected[2, 7:10, 5:12] = 2
    expected[3, 8, 6] = 2
    assert np.array_equal(label, expected)
    assert notes == ()


def test_a_hole_is_a_hole_and_a_second_island_is_no_hole(tmp_path, geometry):
    outlines = [box(5, 5, 15, 15, 4, geometry), box(8, 8, 10, 10, 4, geometry), box(20, 20, 22, 22, 4, geometry)]
    label, _ = read(tmp_path, geometry, {"GTV": outlines})
    assert (label[4] == 2).sum() == 11 * 11 - 9 + 9
    assert label[4, 9, 9] == 0
    assert label[4, 21, 21] == 2


def test_later_classes_win_whatever_the_order_in_the_file(tmp_path, geometry):
    liver, tumour = [box(2, 2, 20, 20, 4, geometry)], [box(5, 5, 8, 8, 4, geometry)]
    for structures in ({"Liver": liver, "GTV": tumour}, {"GTV": tumour, "Liver": liver}):
        label, _ = read(tmp_path, geometry, structures)
        assert (label[4] == 2).sum() == 16
        assert (label[4] == 1).sum() == 19 * 19 - 16


def test_two_structures_of_one_class_join(tmp_path, geometry):
    both = {"GTV": [box(2, 2, 6, 6, 4, geometry)], " GTV 2 ": [box(5, 5, 8, 8, 4, geometry)]}
    label, _ = read(tmp_path, geometry, both)
    assert (label[4] == 2).sum() == 25 + 16 - 4


def test_structures_that_nobody_asked_for_are_left_alone(tmp_path, geometry):
    label, _ = read(
        tmp_path, geometry, {"spine": [box(2, 2, 6, 6, 4, geometry)], "GTV": [box(9, 9, 9, 9, 3, geometry)]}
    )
    assert label.sum() == 2


def test_outlines_between_slices_go_to_the_nearest(tmp_path, geometry):
    label, notes = read(tmp_path, geometry, {"GTV": [box(2, 2, 6, 6, 4, geometry, off_mm=1.1)]})
    assert (label[4] == 2).sum() == 25
    assert notes == ()


def test_two_planes_on_one_slice_do_not_cut_each_other(tmp_path, geometry):
    outlines = [box(2, 2, 6, 6, 4, geometry, off_mm=-1.0), box(2, 2, 7, 7, 4, geometry, off_mm=0.4)]
    label, notes = read(tmp_path, geometry, {"GTV": outlines})
    assert (label[4] == 2).sum() == 36
    assert "1 outline planes fell on a slice" in notes[0]


def test_slices_without_outlines_between_others_are_noted(tmp_path, geometry):
    _, notes = read(tmp_path, geometry, {"GTV": [box(2, 2, 6, 6, 1, geometry), box(2, 2, 6, 6, 4, geometry)]})
    assert notes == ("RTSTRUCT: 2 slices between the outlines have none; they stay empty",)


def test_points_are_no_areas(tmp_path, geometry):
    outline = {"GTV": [box(2, 2, 6, 6, 4, geometry)]}
    assert refusal(tmp_path, geometry, outline, geometric_type="OPEN_PLANAR") == "no_outline"
    line = box(2, 2, 6, 6, 4, geometry)[:2]
    label, notes = read(tmp_path, geometry, {"GTV": [line, box(2, 2, 6, 6, 5, geometry)]})
    assert (label.any(axis=(1, 2)) == (np.arange(8) == 5)).all()
    assert "1 points or open lines" in notes[0]


@pytest.mark.parametrize("how", ["empty list", "no list", "no ROI contour item"])
def test_an_unfinished_rtstruct_is_no_label(tmp_path, geometry, how):
    path = write_rtstruct(tmp_path / "rs.dcm", {"Liver": [], "GTV": [], "spine": [box(2, 2, 6, 6, 4, geometry)]})
    dataset = pydicom.dcmread(path)
    for roi in dataset.ROIContourSequence[:2] if how == "no list" else []:
        del roi.ContourSequence
    if how == "no ROI contour item":
        dataset.ROIContourSequence = dataset.ROIContourSequence[2:]
    dataset.save_as(path)
    with pytest.raises(LabelError, match="none of the 2 structures") as caught:
        read_rtstruct(path, geometry, SCHEME)
    assert caught.value.code == "no_outline"


def test_a_class_without_outline_is_noted_by_its_own_name(tmp_path, geometry):
    structures = {"Liver": [box(2, 2, 6, 6, 4, geometry)], "GTV": [], "gtv 2": []}
    label, notes = read(tmp_path, geometry, structures)
    assert (label == 1).sum() == 25
    assert notes == ("RTSTRUCT: 2 of the structures of class tumour have no outline",)


def with_codes(path, codes):
    """Identification codes by ROI number."""
    dataset = pydicom.dcmread(path)
    items = []
    for number, (scheme, value) in codes.items():
        item, code = pydicom.Dataset(), pydicom.Dataset()
        code.CodingSchemeDesignator, code.CodeValue, code.CodeMeaning = scheme, value, "CANARY"
        item.ObservationNumber, item.ReferencedROINumber = number, number
        item.RTROIIdentificationCodeSequence = [code]
        items.append(item)
    dataset.RTROIObservationsSequence = items
    dataset.save_as(path)


def test_structures_are_found_by_code(tmp_path, geometry):
    path = write_rtstruct(
        tmp_path / "rs.dcm", {"Hepar": [box(2, 2, 6, 6, 4, geometry)], "x": [box(9, 9, 9, 9, 3, geometry)]}
    )
    scheme = LabelScheme(classes=(ClassSpec(name="liver", structures=("sct|10200004",)), ClassSpec(name="tumour")))
    with pytest.raises(LabelError, match=r"SCHEME\|VALUE"):
        read_rtstruct(path, geometry, scheme)
    with_codes(path, {1: ("SCT", "10200004"), 2: ("SCT", "108369006")})
    label, notes = read_rtstruct(path, geometry, scheme)
    assert (label == 1).sum() == label.sum() == 25
    assert notes == ()
    both = LabelScheme(classes=(*scheme.classes[:1], ClassSpec(name="tumour", structures=("Hepar",))))
    with pytest.raises(LabelError, match="several classes"):
        read_rtstruct(path, geometry, both)


def test_an_outline_too_small_for_a_pixel_is_noted(tmp_path, geometry):
    tiny = box(4, 4, 4, 4, 2, geometry)
    tiny = tiny.mean(axis=0) + 0.2 * (tiny - tiny.mean(axis=0)) + [0.3, 0.3, 0]
    label, notes = read(tmp_path, geometry, {"GTV": [tiny]})
    assert not label.any()
    assert "so small" in notes[0]


def test_refusals_by_name(tmp_path, geometry):
    good = box(2, 2, 6, 6, 4, geometry)
    far = np.array([0, 0, 100.0])
    steep = np.array([[0, 0, 0], [0, 0, 9], [0, 0, 9], [0, 0, 0]])
    assert refusal(tmp_path, geometry, {"spine": [good]}) == "no_class"
    assert refusal(tmp_path, geometry, {"GTV": [good]}, frame="9.9") == "frame_of_reference"
    assert refusal(tmp_path, geometry, {"GTV": [good]}, series="9.9") == "missing_series"
    assert refusal(tmp_path, geometry, {"GTV": [good]}, instances={0: "9.9"}) == "missing_instance"
    assert refusal(tmp_path, geometry, {"GTV": [good + far]}) == "contour_position"
    assert refusal(tmp_path, geometry, {"GTV": [good + steep]}) == "contour_plane"
    assert refusal(tmp_path, geometry, {"GTV": [good.ravel()[:-1]]}) == "damaged_contour"


def test_a_foreign_frame_is_taken_when_the_instances_are_this_series(tmp_path, geometry):
    names = {0: f"{SERIES}.{8 - 4 + 1}"}
    label, notes = read(tmp_path, geometry, {"GTV": [box(2, 2, 6, 6, 4, geometry)]}, frame="9.9", instances=names)
    assert (label[4] == 2).sum() == 25
    assert "another frame of reference" in notes[0]


def test_position_wins_over_the_named_instance(tmp_path, geometry):
    names = {0: f"{SERIES}.2"}
    label, notes = read(tmp_path, geometry, {"GTV": [box(2, 2, 6, 6, 4, geometry)]}, instances=names)
    assert (label[4] == 2).sum() == 25
    assert "position was followed" in notes[0]
