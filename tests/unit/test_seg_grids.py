"""SEG on another grid of the same frame of reference: a ball in closed form, and SimpleITK as the second resampler."""

from __future__ import annotations

from dataclasses import replace

import highdicom
import numpy as np
import pytest
from foreign_seg import edited, foreign_seg
from outlines import rotation
from pydicom.pixels import pack_bits
from seg_series import make_series

from monai_tl.dicom.segmentation_reading import read_segmentation
from monai_tl.errors import DicomError, LabelError
from monai_tl.labels import ClassSpec, LabelScheme

SCHEME = LabelScheme(classes=(ClassSpec(name="liver"),))
BALL = np.array([5.0, 12.0, 9.0])
"""Centre, LPS mm: in the middle of the reference's 20 x 20 x 20 mm."""
RADIUS = 7.3
KEPT = (0, 1, 4, 6, 7, 11)


def reference_on(folder, shear=0.0):
    """20 slices of 20 x 25 pixels, 1.0 x 0.8 x 1.0 mm, around the ball; the files are those of another small series."""
    base = make_series(folder)
    step = np.array([0.0, shear, 1.0])
    return replace(
        base,
        rows=20,
        columns=25,
        pixel_spacing_mm=(1.0, 0.8),
        positions_lps=np.array([-5.0, 2.0 - 10 * shear, -1.0]) + np.arange(20)[:, None] * step,
        sop_instance_uids=tuple(f"1.2.{k}" for k in range(20)),
    )


def grid(axes=None, spacing=(1.0, 1.0, 1.0), size=(24, 24, 24), centre=BALL):
    """(rows, columns, slices) directions, spacing, size and first position of a grid around a centre."""
    axes = np.eye(3) if axes is None else axes
    extent = [(n - 1) * step for n, step in zip(size, spacing, strict=True)]
    # a hair off, so that no pixel lies exactly between two voxels
    first = (
        np.array([0.013, 0.021, 0.017])
        + centre
        - extent[1] / 2 * axes[0]
        - extent[0] / 2 * axes[1]
        - extent[2] / 2 * axes[2]
    )
    return axes, spacing, size, first


GRIDS = {
    "finer": grid(spacing=(0.45, 0.55, 0.4), size=(50, 50, 56)),
    "coarser": grid(spacing=(2.1, 1.7, 2.9), size=(12, 13, 9)),
    "shifted": grid(centre=BALL + np.array([0.3, 0.4, 0.45])),
    "flipped rows": grid(np.diag([1.0, -1.0, -1.0])),
    "flipped columns": grid(np.diag([-1.0, 1.0, -1.0])),
    "quarter turn": grid(np.array([[0.0, 1, 0], [-1, 0, 0], [0, 0, 1]]), spacing=(0.7, 0.9, 1.1)),
    "turned in the plane": grid(np.array([[0.8, 0.6, 0], [-0.6, 0.8, 0], [0, 0, 1]]), size=(40, 40, 24)),
    "oblique": grid(rotation(4), spacing=(0.9, 0.8, 0.7), size=(44, 46, 52)),
    "coronal": grid(np.array([[1.0, 0, 0], [0, 0, 1], [0, -1, 0]]), spacing=(0.9, 0.8, 1.3), size=(30, 34, 20)),
    "part of the field of view": grid(size=(24, 24, 6), centre=BALL + np.array([0, 6, 2])),
}


def centres(axes, spacing, size, first):
    """(slices, rows, columns, 3) LPS mm."""
    k, r, c = np.meshgrid(np.arange(size[2]), np.arange(size[0]), np.arange(size[1]), indexing="ij")
    return (
        first
        + c[..., None] * spacing[1] * axes[0]
        + r[..., None] * spacing[0] * axes[1]
        + k[..., None] * spacing[2] * axes[2]
    )


def ball_on(path, where, reference, **options):
    axes, spacing, size, first = where
    mask = np.linalg.norm(centres(*where) - BALL, axis=-1) < RADIUS
    foreign_seg(
        path, mask.astype(np.uint8), reference, labels=("liver",),
        pixel_measures=highdicom.PixelMeasuresSequence(spacing[:2], 1.0, spacing[2]),
        plane_orientation=highdicom.PlaneOrientationSequence("PATIENT", [*axes[0], *axes[1]]),
        plane_positions=[
            highdicom.PlanePositionSequence("PATIENT", first + k * spacing[2] * axes[2]) for k in range(size[2])
        ],
        **options,
    )  # fmt: skip
    return mask


def pixels_of(reference):
    r, c = np.meshgrid(np.arange(reference.rows), np.arange(reference.columns), indexing="ij")
    in_plane = (
        c[..., None] * reference.pixel_spacing_mm[1] * reference.row_direction
        + r[..., None] * reference.pixel_spacing_mm[0] * reference.column_direction
    )
    return reference.positions_lps[:, None, None] + in_plane


@pytest.mark.parametrize("shear", [0.0, 0.3])
@pytest.mark.parametrize("name", GRIDS)
def test_a_ball_is_a_ball_on_any_grid(tmp_path, name, shear):
    reference = reference_on(tmp_path, shear)
    axes, spacing, size, first = GRIDS[name]
    ball_on(tmp_path / "seg.dcm", GRIDS[name], reference)
    label, notes = read_segmentation(tmp_path / "seg.dcm", reference, SCHEME)
    assert "the SEG lies on another grid; resampled to the nearest neighbour" in notes
    points = pixels_of(reference)
    local = (points - first) @ axes.T / [spacing[1], spacing[0], spacing[2]]
    ends = np.array([size[1], size[0], size[2]]) - 0.5
    in_view = ((local > -0.5) & (local < ends)).all(axis=-1)
    distance = np.linalg.norm(points - BALL, axis=-1) - RADIUS
    # the nearest centre lies at most half a voxel's diagonal away
    clear = np.abs(distance) > np.linalg.norm(spacing) / 2
    assert np.array_equal(label[clear] == 1, ((distance < 0) & in_view)[clear])
    assert not label[~in_view].any()
    assert label.any()


@pytest.mark.parametrize("name", ["finer", "coarser", "quarter turn", "oblique", "part of the field of view"])
def test_simpleitk_takes_the_same_voxels(tmp_path, name):
    sitk = pytest.importorskip("SimpleITK")
    reference = reference_on(tmp_path)
    axes, spacing, _, first = GRIDS[name]
    mask = ball_on(tmp_path / "seg.dcm", GRIDS[name], reference)
    image = sitk.GetImageFromArray(mask.astype(np.uint8))
    image.SetSpacing((spacing[1], spacing[0], spacing[2]))
    image.SetDirection(axes.T.ravel().tolist())
    image.SetOrigin(first.tolist())
    target = sitk.Image(reference.columns, reference.rows, reference.n_slices, sitk.sitkUInt8)
    target.SetSpacing((0.8, 1.0, 1.0))
    target.SetOrigin(reference.positions_lps[0].tolist())
    theirs = sitk.GetArrayFromImage(sitk.Resample(image, target, sitk.Transform(), sitk.sitkNearestNeighbor, 0))
    label, _ = read_segmentation(tmp_path / "seg.dcm", reference, SCHEME)
    assert label.any()
    assert np.array_equal(label, theirs)


@pytest.mark.parametrize("declared", ["right", "absent", "wrong"])
def test_missing_frames_leave_gaps_whatever_the_spacing_says(tmp_path, declared):
    reference = reference_on(tmp_path)
    where = grid(spacing=(0.9, 0.8, 2.0), size=(30, 34, 12))
    ball_on(tmp_path / "seg.dcm", where, reference, omit_empty_frames=False)
    whole, _ = read_segmentation(tmp_path / "seg.dcm", reference, SCHEME)

    def change(dataset):
        frames, pixels = dataset.PerFrameFunctionalGroupsSequence, dataset.pixel_array
        depths = [float(frame.PlanePositionSequence[0].ImagePositionPatient[2]) for frame in frames]
        keep = [index for index, depth in enumerate(depths) if round((depth - where[3][2]) / 2.0) in KEPT]
        dataset.PixelData = pack_bits(pixels[keep].astype(np.uint8).ravel())
        dataset.PerFrameFunctionalGroupsSequence = [frames[k] for k in keep]
        dataset.NumberOfFrames = len(keep)
        measures = dataset.SharedFunctionalGroupsSequence[0].PixelMeasuresSequence[0]
        if declared == "absent":
            del measures.SpacingBetweenSlices
        if declared == "wrong":
            measures.SpacingBetweenSlices = 1.3

    found, _ = read_segmentation(edited(tmp_path / "seg.dcm", change), reference, SCHEME)
    slot = np.floor((reference.positions_lps[:, 2] - where[3][2]) / 2.0 + 0.5)
    kept = np.isin(slot, KEPT)
    assert np.array_equal(found[kept], whole[kept])
    assert not found[~kept].any()
    assert found.any()


def test_a_grid_without_end_is_refused_before_it_is_made(tmp_path):
    reference = reference_on(tmp_path)
    ball_on(tmp_path / "seg.dcm", GRIDS["coarser"], reference)

    def change(dataset):
        dataset.SharedFunctionalGroupsSequence[0].PixelMeasuresSequence[0].SpacingBetweenSlices = 1e-7

    with pytest.raises(DicomError) as caught:
        read_segmentation(edited(tmp_path / "seg.dcm", change), reference, SCHEME)
    assert caught.value.code == "too_large"


def test_shifted_frames_and_mixed_pixels_are_refused(tmp_path):
    reference = reference_on(tmp_path)

    def shift(dataset):
        position = dataset.PerFrameFunctionalGroupsSequence[2].PlanePositionSequence[0].ImagePositionPatient
        position[0] = float(position[0]) + 3

    ball_on(tmp_path / "seg.dcm", GRIDS["coarser"], reference)
    with pytest.raises(LabelError, match="shifted") as caught:
        read_segmentation(edited(tmp_path / "seg.dcm", shift), reference, SCHEME)
    assert caught.value.code == "frame_position"
