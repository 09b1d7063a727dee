"""RTSTRUCT that speaks of several series, volumes or frames of reference, or of none; and one that means harm."""

from __future__ import annotations

import time

import numpy as np
import pydicom
import pytest
from dicom_files import write_ct, write_rtstruct
from outlines import FRAME, SERIES, circle, in_world, slices
from pydicom.dataelem import RawDataElement
from pydicom.dataset import Dataset

from monai_tl.dicom import contours, rtstruct
from monai_tl.dicom.deidentify import Pseudonyms
from monai_tl.dicom.index import index_folder
from monai_tl.dicom.rtstruct import read_rtstruct
from monai_tl.errors import DicomError, LabelError
from monai_tl.labels import ClassSpec, LabelScheme

SCHEME = LabelScheme(classes=(ClassSpec(name="liver"), ClassSpec(name="tumour")))
GEOMETRY = slices(8, 40, 50)


def disc(k, x=20.3, y=18.4, radius=7.2):
    return in_world(circle(x, y, radius), k, GEOMETRY)


def written(tmp_path, change=None, **structures):
    path = write_rtstruct(tmp_path / "rs.dcm", structures or {"liver": [disc(3)]})
    if change is not None:
        dataset = pydicom.dcmread(path)
        change(dataset)
        dataset.save_as(path)
    return path


def refusal(path):
    with pytest.raises((LabelError, DicomError)) as caught:
        read_rtstruct(path, GEOMETRY, SCHEME)
    assert "CANARY" not in str(caught.value)
    return caught.value.code


def name_images(dataset, roi, uids):
    for contour, uid in zip(dataset.ROIContourSequence[roi].ContourSequence, uids, strict=True):
        image = Dataset()
        image.ReferencedSOPClassUID, image.ReferencedSOPInstanceUID = "1.2.840.10008.5.1.4.1.1.2", uid
        contour.ContourImageSequence = [image]


def list_series(dataset, instances):
    """The series an RTSTRUCT refers to, with their instances."""
    items = []
    for uid, images in instances.items():
        item = Dataset()
        item.SeriesInstanceUID = uid
        item.ContourImageSequence = []
        for image in images:
            one = Dataset()
            one.ReferencedSOPInstanceUID = image
            item.ContourImageSequence.append(one)
        items.append(item)
    dataset.ReferencedFrameOfReferenceSequence[0].RTReferencedStudySequence[0].RTReferencedSeriesSequence = items


def test_structures_in_another_frame_of_reference_are_left_out_and_the_others_kept(tmp_path):
    def change(dataset):
        dataset.StructureSetROISequence[1].ReferencedFrameOfReferenceUID = "9.9"

    path = written(tmp_path, change, liver=[disc(3)], tumour=[disc(4)])
    label, notes = read_rtstruct(path, GEOMETRY, SCHEME)
    assert set(np.unique(label)) == {0, 1}
    assert np.array_equal(label, read_rtstruct(written(tmp_path), GEOMETRY, SCHEME)[0])
    assert notes == ("RTSTRUCT: 1 structures are drawn in another frame of reference and were left out",)


def test_refused_where_no_structure_is_left(tmp_path):
    def each(dataset):
        for roi in dataset.StructureSetROISequence:
            roi.ReferencedFrameOfReferenceUID = "9.9"

    def listed_alone(dataset):
        for roi in dataset.StructureSetROISequence:
            del roi.ReferencedFrameOfReferenceUID
        dataset.ReferencedFrameOfReferenceSequence[0].FrameOfReferenceUID = "9.9"

    assert refusal(written(tmp_path, each, liver=[disc(3)], tumour=[disc(4)])) == "frame_of_reference"
    assert refusal(written(tmp_path, listed_alone)) == "frame_of_reference"


def test_a_foreign_frame_with_points_elsewhere_is_refused_though_it_names_the_images(tmp_path):
    def change(dataset):
        for roi in dataset.StructureSetROISequence:
            roi.ReferencedFrameOfReferenceUID = "9.9"
        name_images(dataset, 0, [f"{SERIES}.4"])

    assert read_rtstruct(written(tmp_path, change), GEOMETRY, SCHEME)[0].any()
    moved = written(tmp_path, change, liver=[disc(3) + 7.5 * GEOMETRY.normal])
    assert refusal(moved) == "frame_of_reference"


def test_outlines_of_another_series_it_names_are_left_out(tmp_path):
    def change(dataset):
        list_series(dataset, {SERIES: GEOMETRY.sop_instance_uids, "5.5": ["5.5.1", "5.5.2"]})
        name_images(dataset, 0, [f"{SERIES}.4", "5.5.1"])

    path = written(tmp_path, change, liver=[disc(3), disc(5)])
    label, notes = read_rtstruct(path, GEOMETRY, SCHEME)
    assert np.array_equal(np.flatnonzero(label.any(axis=(1, 2))), [3])
    assert notes == ("RTSTRUCT: 1 outlines name images of another volume and were left out",)


def test_an_image_missing_from_the_series_itself_is_no_other_volume(tmp_path):
    def change(dataset):
        list_series(dataset, {SERIES: (*GEOMETRY.sop_instance_uids, f"{SERIES}.99")})
        name_images(dataset, 0, [f"{SERIES}.4", f"{SERIES}.99"])

    path = written(tmp_path, change, liver=[disc(3), disc(5)])
    assert refusal(path) == "missing_instance"
    only_elsewhere = written(tmp_path, lambda ds: name_images(ds, 0, ["7.7"]))
    with pytest.raises(LabelError) as caught:
        rtstruct.RtstructDrawing(only_elsewhere, GEOMETRY, elsewhere=frozenset(["7.7"])).draw({1: 1})
    assert caught.value.code == "missing_instance"


def two_echoes(folder):
    """One series of two echoes at the same places; instances 1 to 6 and 11 to 16."""
    pixels = np.zeros((6, 40, 50), np.uint16)
    for n, echo in enumerate(("4.6", "9.2")):
        for k in range(6):
            write_ct(
                folder / f"echo{n}", pixels[k : k + 1], origin=(-10, -20, 30 + 2.5 * k), Modality="MR", EchoTime=echo,
                SOPInstanceUID=f"{SERIES}.{10 * n + k + 1}", InstanceNumber=10 * n + k,
                SOPClassUID="1.2.840.10008.5.1.4.1.1.4", names=[f"{k}.dcm"],
            )  # fmt: skip


def index(folder):
    return index_folder(folder, Pseudonyms(bytes(32)))


@pytest.mark.parametrize(
    ("named", "expected"), [([11, 12], [0, 1]), ([2, 3], [1, 0]), ([2, 13], [1, 1]), (None, [1, 1])]
)
def test_of_a_series_of_two_volumes_a_label_goes_to_those_it_is_drawn_on(tmp_path, named, expected):
    two_echoes(tmp_path)

    def change(dataset):
        if named is not None:
            name_images(dataset, 0, [f"{SERIES}.{number}" for number in named])

    written(tmp_path, change, liver=[disc(1), disc(2)])
    found = index(tmp_path)
    assert [dict(one.part)["echo_time_ms"] for one in found.series] == ["4.6", "9.2"]
    assert [len(one.labels) for one in found.series] == expected
    assert found.rejected == ()


def test_outlines_on_both_volumes_are_shared_out(tmp_path):
    two_echoes(tmp_path)
    written(
        tmp_path, lambda ds: name_images(ds, 0, [f"{SERIES}.2", f"{SERIES}.13"]), liver=[disc(1), disc(2, radius=3)]
    )
    drawn = []
    for one in index(tmp_path).series:
        (label,) = one.labels
        geometry = slices(6, 40, 50, sop_instance_uids=tuple(header.sop_instance_uid for header in one.headers))
        drawing = rtstruct.RtstructDrawing(label.path, geometry, label.elsewhere)
        drawn.append(np.flatnonzero(drawing.draw({1: 1})[0].any(axis=(1, 2))))
    assert [found.tolist() for found in drawn] == [[1], [2]]


def test_a_label_is_never_attached_to_nothing_without_a_word(tmp_path):
    two_echoes(tmp_path)
    written(tmp_path)
    write_rtstruct(tmp_path / "rs.dcm", {"liver": [disc(1)]}, frame="9.9")
    found = index(tmp_path)
    assert sum(len(one.labels) for one in found.series) == 1
    write_rtstruct(tmp_path / "rs.dcm", {"liver": [disc(1)]}, series="9.9")
    found = index(tmp_path)
    assert [len(one.labels) for one in found.series] == [0, 0]
    assert [one.code for one in found.rejected] == ["missing_series"]
    # none named: the frame of reference tells the series, and all its volumes lie in it
    write_rtstruct(tmp_path / "rs.dcm", {"liver": [disc(1)]}, series=None, frame=FRAME)
    assert [len(one.labels) for one in index(tmp_path).series] == [1, 1]


def set_data(value):
    """ContourData as these bytes; pydicom would check decimal text."""

    def change(dataset):
        contour = dataset.ROIContourSequence[0].ContourSequence[0]
        tag = contour["ContourData"].tag
        contour[tag] = RawDataElement(tag, "UN", len(value), value, 0, False, True)

    return change


@pytest.mark.parametrize(
    "data",
    [
        b"CANARY\\1\\2\\3\\4\\5\\6\\7\\8 ",
        b"1\\2\\3\\4\\5\\6\\7\\8",
        b"nan\\2\\3\\4\\5\\6\\7\\8\\9 ",
        b"1e999\\2\\3\\4\\5\\6\\7\\8\\9 ",
        b"1e30\\2\\30\\4\\5\\30\\7\\8\\30",
        b"1\\\\3\\4\\5\\6\\7\\8\\9 ",
        b"\xff\xfe\\2\\3\\4\\5\\6\\7\\8\\9 ",
    ],
)
def test_outlines_of_anything_but_coordinates_are_refused(tmp_path, data):
    assert refusal(written(tmp_path, set_data(data))) == "damaged_contour"


def test_an_outline_cut_off_in_the_file_is_refused(tmp_path):
    """Fewer points than it says: a 16-bit length that ran over, for one."""

    def change(dataset):
        contour = dataset.ROIContourSequence[0].ContourSequence[0]
        contour.ContourData = list(contour.ContourData)[: 3 * 120]

    assert refusal(written(tmp_path, change)) == "damaged_contour"


def test_blanks_around_numbers_are_no_fault(tmp_path):
    spaced = "\\".join(f" {value:.4f} " for value in disc(3).ravel()).encode()
    label, _ = read_rtstruct(written(tmp_path, set_data(spaced)), GEOMETRY, SCHEME)
    assert np.array_equal(label, read_rtstruct(written(tmp_path), GEOMETRY, SCHEME)[0])


def test_too_many_points_are_refused_before_they_are_read(tmp_path):
    """Twelve million points in one outline, a few bytes each."""
    data = (b"1\\2\\37.5\\" * 12_000_000)[:-1]
    path = written(tmp_path, set_data(data + b" " * (len(data) % 2)))
    start = time.process_time()
    assert refusal(path) == "too_large"
    assert time.process_time() - start < 5


def test_too_large_files_are_not_opened(tmp_path, monkeypatch):
    monkeypatch.setattr(rtstruct, "MAX_FILE_BYTES", 1000)
    assert refusal(written(tmp_path)) == "too_large"


def test_outlines_that_cross_every_row_all_the_time_are_refused(tmp_path):
    """A zigzag from edge to edge: few points, work without end."""
    geometry = slices(2, 40_000, 10, spacing=(0.01, 0.8, 2.5))
    n = 5000
    zigzag = np.stack([np.linspace(0, 9, 2 * n), np.where(np.arange(2 * n) % 2, 39_999.0, 0.0)], axis=1)
    path = write_rtstruct(tmp_path / "rs.dcm", {"liver": [in_world(zigzag, 1, geometry)]})
    start = time.process_time()
    with pytest.raises(LabelError) as caught:
        read_rtstruct(path, geometry, SCHEME)
    assert caught.value.code == "too_large"
    assert time.process_time() - start < 5


def test_the_point_budget_is_of_the_whole_file(tmp_path, monkeypatch):
    monkeypatch.setattr(contours, "MAX_POINTS", 500)
    monkeypatch.setattr(contours.Budget, "__init__", lambda self: setattr(self, "points", 500))
    assert refusal(written(tmp_path, liver=[disc(3), disc(4), disc(5)])) == "too_large"
    assert read_rtstruct(written(tmp_path, liver=[disc(3), disc(4)]), GEOMETRY, SCHEME)[0].any()
