"""Labels through ``monai-tl convert``: the whole way from DICOM to a label beside its image."""

from __future__ import annotations

import nibabel
import numpy as np
import pydicom
import pytest
from convert_run import run_convert
from dicom_files import write_ct, write_rtstruct
from foreign_seg import edited, foreign_seg
from outlines import circle, in_world, inside, slices

from monai_tl.dicom.deidentify import Pseudonyms
from monai_tl.dicom.index import index_folder
from monai_tl.dicom.stacking import stack

ROWS, COLUMNS, N_SLICES = 40, 50, 8
# what highdicom asks of its source images
PATIENT = dict.fromkeys(("PatientBirthDate", "PatientSex", "AccessionNumber", "StudyID", "StudyDate", "StudyTime"), "")


@pytest.fixture
def source(tmp_path):
    image = np.arange(N_SLICES * ROWS * COLUMNS).reshape(N_SLICES, ROWS, COLUMNS) % 4000
    write_ct(tmp_path / "in", image.astype(np.uint16), **PATIENT)
    return tmp_path / "in"


GEOMETRY = slices(N_SLICES, ROWS, COLUMNS)


def discs(radius, places=(2, 3, 4), x=24.3, y=19.4):
    return [in_world(circle(x, y, radius), k, GEOMETRY) for k in places]


def mask(radius, places=(2, 3, 4), x=24.3, y=19.4):
    found = np.zeros((N_SLICES, ROWS, COLUMNS), dtype=bool)
    found[list(places)] = inside(circle(x, y, radius), ROWS, COLUMNS)
    return found


def ras(slices_of_label):
    """(slice, row, column) of an axial LPS series as (I, J, K) towards R, A, S."""
    return slices_of_label.transpose(2, 1, 0)[::-1, ::-1]


def seg_geometry(source):
    (series,) = index_folder(source, Pseudonyms(bytes(32))).series
    return stack(series.headers, 1)[1]


def test_without_a_map_each_structure_is_a_class_and_the_smaller_lies_on_top(tmp_path, source):
    """By name the tumour comes before its organ; in value too; yet it is on top, and so is the core within it."""
    structures = {"GTV": discs(8), "core": discs(3), "Liver": discs(14), "CANARY HOSPITAL note": discs(2, x=44.1)}
    write_rtstruct(source / "rs.dcm", structures)
    result = run_convert(source, tmp_path / "out")
    (entry,) = result.volumes
    assert entry["label_classes"] == {"1": "core", "2": "GTV", "3": "Liver", "4": "structure-1"}
    expected = np.zeros((N_SLICES, ROWS, COLUMNS), dtype=np.uint8)
    for value, radius in ((3, 14), (2, 8), (1, 3)):
        expected[mask(radius)] = value
    expected[mask(2, x=44.1)] = 4
    assert np.array_equal(result.label(entry), ras(expected))
    assert np.allclose(nibabel.load(result.out / entry["label_file"]).affine, entry["affine"], atol=1e-5)


def test_with_a_map_the_later_class_lies_on_top(tmp_path, source):
    write_rtstruct(source / "rs.dcm", {"GTV": discs(8), "Liver": discs(14), "note": discs(2)})
    (tmp_path / "map.yaml").write_text("tumour: GTV\norgan: [liver]\n")
    result = run_convert(source, tmp_path / "out", labels=tmp_path / "map.yaml")
    (entry,) = result.volumes
    assert entry["label_classes"] == {"1": "tumour", "2": "organ"}
    assert np.array_equal(result.label(entry), ras(2 * mask(14).astype(np.uint8)))


def test_a_seg_and_an_rtstruct_of_one_series_join(tmp_path, source):
    write_rtstruct(source / "rs.dcm", {"Liver": discs(14)})
    foreign_seg(source / "seg.dcm", mask(8).astype(np.uint8), seg_geometry(source), labels=("tumour",))
    result = run_convert(source, tmp_path / "out")
    (entry,) = result.volumes
    assert entry["label_classes"] == {"1": "Liver", "2": "tumour"}
    assert np.array_equal(result.label(entry), ras(np.where(mask(8), 2, mask(14)).astype(np.uint8)))


def test_the_same_drawn_twice_is_taken_once_and_drawn_differently_not_at_all(tmp_path, source):
    write_rtstruct(source / "rs.dcm", {"liver": discs(14)})
    seg = source / "seg.dcm"
    foreign_seg(seg, mask(14).astype(np.uint8), seg_geometry(source), labels=("Liver",))
    (entry,) = run_convert(source, tmp_path / "same").volumes
    assert entry["label_classes"] == {"1": "Liver"}
    foreign_seg(seg, mask(13).astype(np.uint8), seg_geometry(source), labels=("Liver",))
    result = run_convert(source, tmp_path / "different")
    assert result.volumes[0]["label_file"] is None
    assert result.codes == ["contested_class", "contested_class"]


def test_a_label_that_does_not_match_is_refused_and_its_images_are_kept(tmp_path, source):
    alone = run_convert(source, tmp_path / "alone")
    write_rtstruct(source / "a.dcm", {"Liver": discs(14)}, frame="9.9")
    write_rtstruct(source / "b.dcm", {"Liver": discs(14)}, series="9.9")
    edited(source / "b.dcm", lambda dataset: setattr(dataset, "SOPInstanceUID", "1.2.3.78"))
    foreign_seg(source / "c.dcm", mask(8).astype(np.uint8), seg_geometry(source), labels=("Liver",))
    edited(source / "c.dcm", lambda dataset: setattr(dataset, "FrameOfReferenceUID", "9.9"))
    result = run_convert(source, tmp_path / "out")
    assert result.codes == ["frame_of_reference", "frame_of_reference", "missing_series"]
    assert {one["kind"] for one in result.rejected} == {"label"}
    (entry,) = result.volumes
    assert entry["label_file"] is None
    assert entry["label_classes"] == {}
    assert np.array_equal(result.values(entry), alone.values(alone.volumes[0]))


def test_one_bad_label_does_not_cost_a_good_one(tmp_path, source):
    write_rtstruct(source / "bad.dcm", {"spleen": [discs(5)[0].ravel()[:-1]]})
    foreign_seg(source / "seg.dcm", mask(8).astype(np.uint8), seg_geometry(source), labels=("Liver",))
    result = run_convert(source, tmp_path / "out")
    assert result.codes == ["damaged_contour"]
    (entry,) = result.volumes
    assert entry["label_classes"] == {"1": "Liver"}
    assert np.array_equal(result.label(entry), ras(mask(8).astype(np.uint8)))


def test_a_tilted_series_carries_its_labels_to_the_same_place_in_the_world(tmp_path):
    """A cylinder along the world's z axis stays one on the orthogonal grid, whatever the tilt."""
    step = (0.0, 0.9, 2.5)
    write_ct(tmp_path / "in", np.full((N_SLICES, ROWS, COLUMNS), 100, np.uint16), step=step, **PATIENT)
    centre, radius = np.array([8.1, -3.3]), 6.2
    angle = np.linspace(0, 2 * np.pi, 200, endpoint=False)
    ring = centre + radius * np.stack([np.cos(angle), np.sin(angle)], axis=1)
    outlines = [np.column_stack([ring, np.full(200, 30 + 2.5 * k)]) for k in range(N_SLICES)]
    write_rtstruct(tmp_path / "in" / "rs.dcm", {"tube": outlines})
    result = run_convert(tmp_path / "in", tmp_path / "out")
    (entry,) = result.volumes
    assert entry["tilt_deg"] == pytest.approx(np.degrees(np.arctan2(0.9, 2.5)), abs=0.01)
    affine, label = np.array(entry["affine"]), result.label(entry)
    grid = np.stack(np.meshgrid(*map(np.arange, label.shape), indexing="ij"), axis=-1)
    world = grid @ affine[:3, :3].T + affine[:3, 3]
    distance = np.linalg.norm(world[..., :2] * [-1, -1] - centre, axis=-1) - radius
    # nearest pixel of the tilted slice, then nearest pixel of the grid: half a pixel each
    clear = np.abs(distance) > 0.8
    assert np.array_equal(label[clear] == 1, distance[clear] < 0)


def test_people_named_in_the_label_alone_do_not_come_through(tmp_path, source):
    write_rtstruct(source / "rs.dcm", {"Liver Painter": discs(9)})

    def change(dataset):
        item = pydicom.Dataset()
        item.ObservationNumber = item.ReferencedROINumber = 1
        item.RTROIInterpretedType, item.ROIInterpreter = "ORGAN", "Painter^Carl"
        dataset.RTROIObservationsSequence = [item]

    edited(source / "rs.dcm", change)
    (entry,) = run_convert(source, tmp_path / "out").volumes
    assert entry["label_classes"] == {"1": "structure-1"}
