"""Preparation and its way back: world positions, exactness, round trips, closed forms."""

from __future__ import annotations

import numpy as np
import pytest

from monai_tl.config import IntensityConfig, NetworkConfig, PreprocessConfig
from monai_tl.dataset.resampling import antialias_sigma_vox, axis_matrix, resample_label, resampled_axis
from monai_tl.dataset.transforms import prepare_case, prepare_image, restore_probabilities
from monai_tl.errors import DataError, GeometryError
from monai_tl.geometry import orientation_of, spacing_of
from monai_tl.labels import ClassSpec, LabelScheme
from monai_tl.records import Plan, PreparedCase

SCHEME = LabelScheme(classes=(ClassSpec(name="liver"), ClassSpec(name="tumour")))
WINDOW = IntensityConfig(rule="window", low=-1000.0, high=1000.0)
NO_MARGIN = PreprocessConfig(crop_margin_mm=0.0)


def make_plan(spacing=(1.0, 1.0, 1.0), orientation="RAS", intensity=WINDOW, **more):
    return Plan(
        modality="CT",
        n_channels=more.pop("n_channels", 1),
        scheme=SCHEME,
        orientation=orientation,
        spacing_mm=spacing,
        intensity=intensity,
        patch_size_vox=(16, 16, 16),
        network=NetworkConfig(name="unet"),
        source=None,
        **more,
    )


def oblique_affine(spacing=(0.8, 0.9, 2.5), degrees=11.0):
    turn = np.deg2rad(degrees)
    rotation = np.array([[np.cos(turn), -np.sin(turn), 0], [np.sin(turn), np.cos(turn), 0], [0, 0, 1]])
    tilt = np.array([[1, 0, 0], [0, np.cos(0.1), -np.sin(0.1)], [0, np.sin(0.1), np.cos(0.1)]])
    affine = np.eye(4)
    affine[:3, :3] = rotation @ tilt @ np.diag(spacing)
    affine[:3, 3] = [-31.0, 17.0, 402.5]
    return affine


def world_grid(affine, shape):
    index = np.stack(np.meshgrid(*(np.arange(n, dtype=float) for n in shape), indexing="ij"), axis=-1)
    return index @ np.asarray(affine)[:3, :3].T + np.asarray(affine)[:3, 3]


def smooth_shapes(affine, shape):
    """Two nested ellipsoids in the world, as a label map."""
    points = world_grid(affine, shape)
    centre = points.reshape(-1, 3).mean(axis=0)
    extent = np.array(shape) * np.array(spacing_of(affine))
    radius = (((points - centre) / (0.38 * extent)) ** 2).sum(axis=-1)
    label = (radius < 1).astype(np.uint8)
    label[(((points - centre - 0.05 * extent) / (0.2 * extent)) ** 2).sum(axis=-1) < 1] = 2
    return label


def dice(first, second):
    return 2 * (first & second).sum() / (first.sum() + second.sum())


@pytest.mark.parametrize("orientation", ["RAS", "LIA", "PSR", "ILP"])
def test_world_positions_survive_any_orientation_and_spacing(orientation):
    """A linear function of the world is reproduced by linear interpolation, so each stored voxel tells where it is."""
    affine, shape = oblique_affine(), (40, 36, 14)
    slope = np.array([2.0, -3.0, 1.5])
    image = world_grid(affine, shape) @ slope
    # the window makes the scaling known; a Gaussian leaves a linear function alone too
    plan = make_plan((0.5, 2.0, 0.7) if orientation in ("LIA", "PSR") else (0.7, 0.8, 1.9), orientation)
    low, high = float(image.min()), float(image.max())
    plan = plan.model_copy(update={"intensity": IntensityConfig(rule="window", low=low, high=high)})
    prepared, _, record = prepare_case(image.astype(np.float32), affine, plan, NO_MARGIN)
    stored = np.array(record.affine)
    assert orientation_of(stored) == orientation
    assert spacing_of(stored) == pytest.approx(plan.spacing_mm, abs=1e-9)
    assert prepared.shape == (1, *record.spatial_shape)
    expected = world_grid(stored, record.spatial_shape) @ slope
    inner = tuple(slice(4, -4) for _ in range(3))
    tolerance = 1e-3 * (high - low)
    np.testing.assert_allclose(prepared[0][inner] * (high - low) + low, expected[inner], atol=tolerance)


def test_both_grids_share_the_centre_of_the_field_of_view():
    affine, shape = oblique_affine(), (31, 20, 9)
    _, _, record = prepare_case(np.zeros(shape), affine, make_plan((1.7, 1.7, 1.7)), NO_MARGIN)
    centres = [
        np.asarray(a) @ np.array([*((np.array(s) - 1) / 2), 1.0])
        for a, s in ((affine, shape), (record.affine, record.spatial_shape))
    ]
    np.testing.assert_allclose(centres[0], centres[1], atol=1e-9)


@pytest.mark.parametrize("orientation", ["RAS", "LPS", "SAR", "LIA"])
def test_without_resampling_everything_is_exact(orientation):
    rng = np.random.default_rng(3)
    shape = (13, 9, 7)
    spacing = np.array([1.0004, 1.0, 0.9996])
    affine = np.diag([*spacing, 1.0])
    image = rng.integers(-900, 900, shape).astype(np.int16)
    label = rng.integers(0, 3, shape).astype(np.uint8)
    prepared, new_label, record = prepare_case(image, affine, make_plan(orientation=orientation), NO_MARGIN, label)
    assert sorted(record.spatial_shape) == sorted(shape)
    assert spacing_of(np.array(record.affine)) != (1.0, 1.0, 1.0)
    one_hot = np.stack([new_label == value for value in range(3)]).astype(np.float32)
    np.testing.assert_array_equal(restore_probabilities(one_hot, record), label)
    # the values are those of the same world positions
    points = world_grid(np.array(record.affine), record.spatial_shape)
    index = np.rint(points / spacing).astype(int)
    np.testing.assert_allclose(prepared[0], (image[tuple(index.transpose(3, 0, 1, 2))] + 1000.0) / 2000.0, rtol=1e-6)
    assert record.class_voxels == (int((label == 1).sum()), int((label == 2).sum()))


@pytest.mark.parametrize(
    ("native", "target"),
    [((0.8, 0.9, 2.5), (1.5, 1.5, 2.0)), ((2.0, 2.0, 5.0), (1.0, 1.0, 1.0)), ((1.0, 1.0, 1.0), (2.0, 2.0, 2.0))],
)
@pytest.mark.parametrize("orientation", ["RAS", "PIL"])
def test_a_smooth_shape_survives_the_round_trip(native, target, orientation):
    affine = oblique_affine(native)
    shape = tuple(round(90 / step) for step in native)
    label = smooth_shapes(affine, shape)
    image = np.where(label > 0, 50, -1000).astype(np.int16)
    plan = make_plan(target, orientation, foreground="above", foreground_threshold=-500.0)
    _, new_label, record = prepare_case(image, affine, plan, PreprocessConfig(crop_margin_mm=5.0), label)
    one_hot = np.stack([new_label == value for value in range(3)]).astype(np.float32)
    restored = restore_probabilities(one_hot, record)
    assert restored.shape == shape
    assert dice(restored > 0, label > 0) > 0.97
    # the inner one is smaller, so the same shift of its border costs more
    assert dice(restored == 2, label == 2) > 0.94


def test_restoring_soft_probabilities_is_better_than_a_voxel():
    """A border known to a fraction of a coarse voxel comes back as such on the fine grid."""
    affine = np.eye(4)
    shape = (60, 8, 8)
    plan = make_plan((4.0, 1.0, 1.0))
    _, _, record = prepare_case(np.zeros(shape), affine, plan, NO_MARGIN)
    x = np.array(record.affine)[0, 3] + 4.0 * np.arange(record.spatial_shape[0])
    soft = np.broadcast_to(np.clip((x - 29.4) / 4.0 + 0.5, 0, 1)[:, None, None], record.spatial_shape).astype(
        np.float32
    )
    restored = restore_probabilities(np.stack([1 - soft, soft]), record)
    assert np.flatnonzero(restored[:, 4, 4])[0] == 30


def test_equal_probabilities_give_the_lower_class():
    _, _, record = prepare_case(np.zeros((6, 5, 4)), np.eye(4), make_plan(), NO_MARGIN)
    tie = np.full((3, *record.spatial_shape), 1 / 3, dtype=np.float32)
    assert not restore_probabilities(tie, record).any()
    tie[0] = 0.2
    assert (restore_probabilities(tie, record) == 1).all()


def test_the_crop_is_the_box_of_the_foreground_and_its_margin():
    image = np.full((20, 20, 20), -1000, dtype=np.int16)
    image[5:9, 10:12, 3:4] = 100
    plan = make_plan((1.0, 1.0, 1.0), foreground="above", foreground_threshold=-500.0)
    _, _, record = prepare_case(image, np.eye(4), plan, PreprocessConfig(crop_margin_mm=2.5))
    assert record.crop_start == (2, 7, 0)
    assert record.crop_stop == (12, 15, 7)
    np.testing.assert_array_equal(np.array(record.affine)[:3, 3], [2, 7, 0])
    _, _, empty = prepare_case(np.full((5, 5, 5), -1000), np.eye(4), plan, NO_MARGIN)
    assert (empty.crop_start, empty.crop_stop) == ((0, 0, 0), (5, 5, 5))


def test_outside_the_crop_all_is_background():
    image = np.full((12, 12, 12), -1000, dtype=np.int16)
    image[4:8, 4:8, 4:8] = 0
    plan = make_plan(foreground="above", foreground_threshold=-500.0)
    _, _, record = prepare_case(image, np.eye(4), plan, NO_MARGIN)
    ones = np.stack([np.zeros(record.spatial_shape), np.ones(record.spatial_shape)]).astype(np.float32)
    restored = restore_probabilities(ones, record)
    assert restored.sum() == 4**3
    assert restored[4:8, 4:8, 4:8].all()


def test_downsampling_does_not_alias():
    """A stripe finer than the new grid can show becomes its mean instead of a false coarse stripe."""
    image = np.broadcast_to(np.where(np.arange(60) % 3 == 0, 900.0, 0.0)[:, None, None], (60, 6, 6))
    prepared, _ = prepare_image(image, np.eye(4), make_plan((4.0, 1.0, 1.0)), NO_MARGIN)
    inner = prepared[0, 2:-2, 3, 3] * 2000 - 1000
    assert np.ptp(inner) < 30
    assert inner.mean() == pytest.approx(300, abs=10)


def test_the_filter_matches_the_published_width():
    # full width at half maximum of the remaining blur: sqrt(4^2 - 1) voxels for a factor of 4
    assert 2 * np.sqrt(2 * np.log(2)) * antialias_sigma_vox(4.0) == pytest.approx(np.sqrt(15.0))
    assert antialias_sigma_vox(1.0) == antialias_sigma_vox(0.3) == 0.0


@pytest.mark.parametrize(("n_in", "factor"), [(1, 3.0), (2, 0.4), (17, 2.7), (17, 0.3), (5, 9.0)])
def test_matrices_keep_constants_and_agree_with_scipy(n_in, factor):
    from scipy import ndimage

    n_out, positions = resampled_axis(n_in, 1.0, factor)
    sigma = antialias_sigma_vox(factor)
    matrix = axis_matrix(positions, n_in, sigma)
    np.testing.assert_allclose(np.asarray(matrix.sum(axis=1)).ravel(), 1.0, rtol=1e-6)
    values = np.random.default_rng(0).normal(size=n_in)
    filtered = ndimage.gaussian_filter1d(values, sigma, mode="nearest", truncate=4.0) if sigma else values
    expected = ndimage.map_coordinates(filtered, positions[None], order=1, mode="nearest")
    # gaussian_filter1d rounds its radius where ours is rounded up: the tails beyond four sigma differ by 1e-4
    np.testing.assert_allclose(matrix @ values, expected, atol=5e-4)
    assert len(expected) == n_out


def test_labels_follow_the_larger_share_and_ties_the_lower_value():
    label = np.zeros((8, 1, 1), dtype=np.uint8)
    label[3:] = 7
    n_out, positions = resampled_axis(8, 1.0, 2.0)
    matrix = axis_matrix(positions, 8, 0.0)
    assert n_out == 4
    # pairs 00 07 77 77; the second is a tie
    np.testing.assert_array_equal(resample_label(label, [matrix, None, None]).ravel(), [0, 0, 7, 7])


def test_intensity_rules_hold_on_the_stored_array():
    rng = np.random.default_rng(5)
    image = rng.gamma(2.0, 200.0, (24, 22, 20)).astype(np.float32)
    zscore = IntensityConfig(rule="zscore", low=1.0, high=99.0)
    prepared, _ = prepare_image(image, np.eye(4), make_plan((1.3, 1.3, 1.3), intensity=zscore), NO_MARGIN)
    assert prepared.mean(dtype=np.float64) == pytest.approx(0.0, abs=1e-5)
    assert prepared.std(dtype=np.float64) == pytest.approx(1.0, abs=1e-5)
    same, _ = prepare_image(image, np.eye(4), make_plan(intensity=zscore), NO_MARGIN)
    clipped = np.clip(image, *np.percentile(image, (1, 99)))
    np.testing.assert_allclose(same[0], (clipped - clipped.mean()) / clipped.std(), atol=1e-4)
    minmax, _ = prepare_image(image, np.eye(4), make_plan(intensity=IntensityConfig(rule="minmax")), NO_MARGIN)
    assert (minmax.min(), minmax.max()) == (0.0, 1.0)
    window, _ = prepare_image(
        image, np.eye(4), make_plan(intensity=IntensityConfig(rule="window", low=0, high=400)), NO_MARGIN
    )
    np.testing.assert_allclose(window[0], np.clip(image, 0, 400) / 400, atol=1e-6)


def test_channels_are_scaled_each_for_itself():
    rng = np.random.default_rng(6)
    image = rng.normal(size=(2, 8, 9, 10)) * np.array([1.0, 500.0])[:, None, None, None]
    plan = make_plan(n_channels=2, intensity=IntensityConfig(rule="zscore"))
    prepared, _ = prepare_image(image, np.eye(4), plan, PreprocessConfig(image_dtype="float16"))
    assert prepared.dtype == np.float16
    assert prepared.astype(np.float64).std(axis=(1, 2, 3)) == pytest.approx([1.0, 1.0], abs=1e-3)


def test_bad_input_is_refused():
    plan = make_plan()
    image = np.zeros((6, 6, 6), dtype=np.float32)
    with pytest.raises(GeometryError, match="label"):
        prepare_case(image, np.eye(4), plan, NO_MARGIN, np.zeros((6, 6, 5), dtype=np.uint8))
    with pytest.raises(DataError, match="channels"):
        prepare_image(np.zeros((2, 6, 6, 6)), np.eye(4), plan, NO_MARGIN)
    with pytest.raises(DataError, match="constant"):
        prepare_image(image, np.eye(4), make_plan(intensity=IntensityConfig(rule="minmax")), NO_MARGIN)
    with pytest.raises(GeometryError, match="orientation"):
        prepare_image(image, np.eye(4), make_plan(orientation="RAL"), NO_MARGIN)
    image[1, 2, 3] = np.nan
    with pytest.raises(DataError, match="finite"):
        prepare_image(image, np.eye(4), plan, NO_MARGIN)
    _, record = prepare_image(np.zeros((6, 6, 6)), np.eye(4), plan, NO_MARGIN)
    with pytest.raises(GeometryError, match="prepared as"):
        restore_probabilities(np.zeros((2, 5, 6, 6), dtype=np.float32), record)


def test_the_record_survives_the_disk(tmp_path):
    affine, shape = oblique_affine(), (24, 20, 9)
    label = smooth_shapes(affine, shape)
    plan = make_plan((1.1, 1.3, 3.1), "LIP")
    _, new_label, record = prepare_case(label * 100, affine, plan, NO_MARGIN, label, "case-000000000001")
    record.write(tmp_path / "meta.json")
    one_hot = np.stack([new_label == value for value in range(3)]).astype(np.float32)
    again = PreparedCase.read(tmp_path / "meta.json")
    assert again == record
    np.testing.assert_array_equal(restore_probabilities(one_hot, again), restore_probabilities(one_hot, record))


def test_slabs_do_not_change_the_result(monkeypatch):
    from monai_tl.dataset import restoring

    affine = np.diag([1.0, 1.0, 2.0, 1.0])
    plan = make_plan((1.7, 0.8, 1.1), "SPL")
    _, record = prepare_image(np.zeros((23, 11, 12)), affine, plan, NO_MARGIN)
    rng = np.random.default_rng(8)
    probabilities = rng.random((4, *record.spatial_shape), dtype=np.float32)
    whole = restore_probabilities(probabilities, record)
    monkeypatch.setattr(restoring, "_SLAB_VOXELS", 200)
    np.testing.assert_array_equal(restore_probabilities(probabilities, record), whole)
