"""A result on the orthogonal grid of a tilted series goes back to the slices as they were scanned, exactly."""

from __future__ import annotations

import numpy as np
import pydicom
import pytest
from seg_series import HASHER, SCHEME, write
from seg_sources import frames_of

from monai_tl.dicom.index import index_folder
from monai_tl.dicom.segmentation import read_segmentation
from monai_tl.dicom.volume import labels_to_ras, labels_to_source, read_volume, to_ras
from monai_tl.dicom.write import SeriesInfo, derive_uid, write_series

SHAPE = (9, 24, 20)
SPACING = (0.9, 0.8, 3.0)


def affine(angle_deg: float, flip: bool) -> np.ndarray:
    """(column, row, slice) → LPS mm of a gantry tilted about the row direction."""
    angle = np.radians(angle_deg)
    result = np.eye(4)
    result[:3, 0] = [-SPACING[0] if flip else SPACING[0], 0, 0]
    result[:3, 1] = np.array([0, np.cos(angle), np.sin(angle)]) * SPACING[1]
    result[:3, 2] = [0, 0, -SPACING[2] if flip else SPACING[2]]
    result[:3, 3] = [-7.5, 20.25, 100.125]
    return result


@pytest.fixture(params=[(0.0, False), (12.0, False), (-17.0, False), (20.0, True)], ids=str)
def volume(tmp_path, request):
    info = SeriesInfo("CT", derive_uid("study"), derive_uid("tilted"), derive_uid("frame"), {"PatientID": "x"})
    write_series(tmp_path / "source", np.indices(SHAPE).sum(axis=0), affine(*request.param), info)
    (series,) = index_folder(tmp_path / "source", HASHER).series
    volume = read_volume(series)
    assert (volume.shear is None) == (request.param[0] == 0.0)
    return volume


def test_labels_on_the_slices_survive_the_way_to_the_grid_and_back(tmp_path, volume):
    k, r, c = np.indices(SHAPE)
    labels = ((k + 2 * r + 3 * c) % 4).astype(np.uint8)
    labels[4] = 0
    label_map = labels_to_ras(labels, volume)
    path = write(tmp_path / "seg.dcm", labels_to_source(label_map, volume), volume.geometry, read_back=True)
    assert np.array_equal(read_segmentation(path, volume.geometry, SCHEME)[0], labels)
    slots = {uid: k for k, uid in enumerate(volume.sop_instance_uids)}
    drawn = np.zeros_like(labels)
    for frame in frames_of(path):
        k = slots[frame.source[1]]
        drawn[k][frame.mask] = frame.segment
        source = pydicom.dcmread(volume.geometry.paths[k])
        assert [float(text) for text in frame.position] == [float(value) for value in source.ImagePositionPatient]
    assert np.array_equal(drawn, labels)


def test_a_ball_in_the_world_is_that_ball_in_the_seg(tmp_path, volume):
    """Drawn on the grid a network works on; read from the file's own places alone."""
    image, to_world = to_ras(volume)
    grid = np.stack(np.meshgrid(*(np.arange(size) for size in image.shape), indexing="ij"), axis=-1)
    ras = grid @ to_world[:3, :3].T + to_world[:3, 3]
    geometry = volume.geometry
    middle = (geometry.affine_lps @ [SHAPE[2] / 2, SHAPE[1] / 2, SHAPE[0] / 2, 1.0])[:3]
    radius = 6.0
    ball = np.linalg.norm(ras * [-1, -1, 1] - middle, axis=-1) <= radius
    path = write(tmp_path / "seg.dcm", labels_to_source(ball.astype(np.uint8), volume), geometry)
    dataset = pydicom.dcmread(path)
    shared = dataset.SharedFunctionalGroupsSequence[0]
    directions = np.array(shared.PlaneOrientationSequence[0].ImageOrientationPatient, dtype=float)
    rows, columns = (float(value) for value in shared.PixelMeasuresSequence[0].PixelSpacing)
    r, c = np.mgrid[: dataset.Rows, : dataset.Columns]
    plane = r[..., None] * rows * directions[3:] + c[..., None] * columns * directions[:3]
    # a voxel is moved in its slice's plane, by half a pixel at most in each direction
    slack = 0.5 * np.hypot(rows, columns) + 1e-6
    n_inside = 0
    for frame in frames_of(path):
        assert frame.segment == 1
        distance = np.linalg.norm(plane + [float(text) for text in frame.position] - middle, axis=-1)
        assert frame.mask[distance <= radius - slack].all()
        assert not frame.mask[distance > radius + slack].any()
        n_inside += int((distance <= radius - slack).sum())
    assert n_inside > 100
    # slices of which a part must be inside are all there
    depths = np.abs((geometry.positions_lps - middle) @ geometry.normal)
    named = {frame.source[1] for frame in frames_of(path)}
    assert {uid for uid, depth in zip(volume.sop_instance_uids, depths, strict=True) if depth < radius - 2} <= named
