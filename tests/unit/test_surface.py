"""Surface metrics against closed forms, published numbers and MONAI as a second implementation."""

from __future__ import annotations

import math
import warnings

import numpy as np
import pytest
from scipy import ndimage

from monai_tl.errors import GeometryError, LabelError
from monai_tl.geometry import Spacing
from monai_tl.metrics.case import METRIC_NAMES, PERFECT, Extent, class_volumes_ml, score_case, worst_scores
from monai_tl.metrics.overlap import dice, iou_from_dice
from monai_tl.metrics.surface import diagonal_mm, hd95_mm, score_surfaces, surface_dice
from monai_tl.metrics.surfels import neighbour_codes, surfel_areas
from monai_tl.metrics.volume import volume_error, worst_volume_error

SHAPE = (24, 20, 16)


def box(low: tuple[int, int, int], high: tuple[int, int, int], shape: tuple[int, int, int] = SHAPE) -> np.ndarray:
    mask = np.zeros(shape, dtype=bool)
    mask[tuple(slice(a, b) for a, b in zip(low, high, strict=True))] = True
    return mask


def blob(seed: int, shape: tuple[int, int, int] = SHAPE) -> np.ndarray:
    noise = ndimage.gaussian_filter(np.random.default_rng(seed).standard_normal(shape), 1.6)
    return noise > np.quantile(noise, 0.75)


def ball(radius_mm: float, spacing_mm: Spacing, shape: tuple[int, int, int], shift_mm: float = 0.0) -> np.ndarray:
    centre = [(size - 1) / 2 * step for size, step in zip(shape, spacing_mm, strict=True)]
    grid = np.indices(shape)
    i, j, k = (grid[axis] * spacing_mm[axis] - centre[axis] for axis in range(3))
    return (i - shift_mm) ** 2 + j**2 + k**2 <= radius_mm**2


def test_area_of_a_plate_of_surface_is_its_area() -> None:
    """A flat face far from its edges has the area of the voxel faces it covers."""
    spacing = (0.7, 1.3, 3.0)
    areas = surfel_areas(spacing)[neighbour_codes(box((0, 0, 0), (10, 20, 16)))]
    assert areas[10, 5:15, 5:11].sum() == pytest.approx(60 * 1.3 * 3.0)
    areas = surfel_areas(spacing)[neighbour_codes(box((0, 0, 0), (24, 20, 8)))]
    assert areas[5:15, 5:15, 8].sum() == pytest.approx(100 * 0.7 * 1.3)


def test_area_of_a_ball_comes_near_the_sphere() -> None:
    mask = ball(12.0, (1.0, 1.0, 1.0), (31, 31, 31))
    area = surfel_areas((1.0, 1.0, 1.0))[neighbour_codes(mask)].sum()
    assert area == pytest.approx(4 * math.pi * 12.0**2, rel=0.10)


def test_area_table_is_that_of_deepmind() -> None:
    utils = pytest.importorskip("monai.metrics.utils")
    for spacing in ((1.0, 1.0, 1.0), (0.7, 0.8, 5.0), (3.0, 0.7, 0.7)):
        table, _ = utils.create_table_neighbour_code_to_surface_area(spacing)
        np.testing.assert_allclose(surfel_areas(spacing), np.asarray(table), rtol=1e-6)


def test_shifted_cube_has_the_closed_form_distance() -> None:
    spacing = (2.0, 1.0, 3.0)
    first, second = box((4, 4, 4), (12, 14, 12)), box((7, 4, 4), (15, 14, 12))
    assert hd95_mm(first, second, spacing) == pytest.approx(6.0)
    assert surface_dice(first, first, spacing, 0.5) == 1.0
    assert surface_dice(first, second, spacing, 6.0) == 1.0
    assert surface_dice(first, second, spacing, 5.9) < 1.0


def test_spheres_differ_by_their_radii() -> None:
    spacing = (1.0, 1.0, 1.5)
    first, second = ball(8.0, spacing, (30, 30, 20)), ball(11.0, spacing, (30, 30, 20))
    assert hd95_mm(first, second, spacing) == pytest.approx(3.0, abs=0.75)
    assert surface_dice(first, second, spacing, 4.5) == 1.0
    assert surface_dice(first, second, spacing, 1.2) == 0.0


def test_one_slice_plates_share_the_face_between_them() -> None:
    """Two plates of one voxel on each other: surface Dice says about a half where counting boundary voxels says 0."""
    first, second = box((4, 4, 5), (16, 16, 6)), box((4, 4, 6), (16, 16, 7))
    spacing = (1.0, 1.0, 3.0)
    # the lower face of one lies on the upper face of the other; the rest is a slice away or more
    assert 0.4 < surface_dice(first, second, spacing, 1.0) < 0.6
    assert hd95_mm(first, second, spacing) == pytest.approx(3.0)


def test_far_island_is_not_seen_by_hd95_but_by_surface_dice() -> None:
    reference = ball(9.0, (1.0, 1.0, 1.0), (40, 30, 30))
    prediction = reference.copy()
    prediction[38:40, 0:2, 0:2] = True
    assert hd95_mm(reference, prediction, (1.0, 1.0, 1.0)) == 0.0
    assert surface_dice(reference, prediction, (1.0, 1.0, 1.0), 3.0) < 1.0


def test_spacing_from_a_float32_header_counts_as_what_it_means() -> None:
    first, second = box((4, 4, 4), (12, 14, 12)), box((5, 4, 4), (13, 14, 12))
    wobbly = (float(np.float32(2.0000001)) + 2e-7, 1.0, 1.0)
    assert surface_dice(first, second, wobbly, 2.0) == 1.0


def test_empty_rules() -> None:
    empty, full = np.zeros(SHAPE, dtype=bool), box((4, 4, 4), (12, 14, 12))
    spacing = (1.0, 2.0, 2.0)
    assert math.isnan(surface_dice(empty, empty, spacing, 1.0))
    assert math.isnan(hd95_mm(empty, empty, spacing))
    assert surface_dice(empty, full, spacing, 1.0) == surface_dice(full, empty, spacing, 1.0) == 0.0
    diagonal = math.sqrt(24**2 + 40**2 + 32**2)
    assert diagonal_mm(SHAPE, spacing) == pytest.approx(diagonal)
    assert hd95_mm(empty, full, spacing) == hd95_mm(full, empty, spacing) == pytest.approx(diagonal)
    assert hd95_mm(empty, full, spacing, penalty_mm=99.0) == 99.0


def test_other_grid_is_refused() -> None:
    full = box((4, 4, 4), (12, 14, 12))
    with pytest.raises(GeometryError):
        hd95_mm(full, full[:-1], (1.0, 1.0, 1.0))
    with pytest.raises(GeometryError):
        surface_dice(full, full[:-1], (1.0, 1.0, 1.0), 1.0)


@pytest.mark.parametrize("spacing", [(1.0, 1.0, 1.0), (0.71, 0.83, 5.0), (3.1, 0.7, 0.7)])
@pytest.mark.parametrize("seed", range(4))
def test_random_masks_agree_with_monai(spacing: Spacing, seed: int) -> None:
    """MONAI's distances count boundary voxels; its surface Dice with subvoxels has the surface used here."""
    torch = pytest.importorskip("torch")
    metrics = pytest.importorskip("monai.metrics")
    torch.set_num_threads(1)
    first, second = blob(seed), blob(seed) ^ (blob(seed + 100) & blob(seed + 200))
    reference, prediction = (torch.from_numpy(mask[None, None].astype(np.float32)) for mask in (first, second))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        theirs = metrics.compute_dice(prediction, reference).item()
        assert dice(first, second) == pytest.approx(theirs, abs=1e-6)
        for tolerance in (0.65, 1.95, 4.05):
            theirs = metrics.compute_surface_dice(
                prediction, reference, [tolerance], include_background=True, spacing=spacing, use_subvoxels=True
            ).item()
            assert surface_dice(first, second, spacing, tolerance) == pytest.approx(theirs, abs=1e-4)


@pytest.mark.parametrize("spacing", [(1.0, 1.0, 1.0), (0.71, 0.83, 5.0), (3.1, 0.7, 0.7)])
@pytest.mark.parametrize("seed", range(4))
def test_random_masks_agree_with_deepmind(spacing: Spacing, seed: int) -> None:
    package = pytest.importorskip("surface_distance")
    first, second = blob(seed), blob(seed) ^ (blob(seed + 100) & blob(seed + 200))
    # a far island leaves the search near each element and is left to the tree
    second[22:, :2, :2] = seed % 2
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        theirs = package.compute_surface_distances(first, second, spacing)
    for tolerance in (0.65, 1.95, 4.05):
        expected = package.compute_surface_dice_at_tolerance(theirs, tolerance)
        assert surface_dice(first, second, spacing, tolerance) == pytest.approx(expected, abs=1e-4)
    assert hd95_mm(first, second, spacing) == pytest.approx(package.compute_robust_hausdorff(theirs, 95), abs=1e-4)


def test_two_voxels_have_closed_form_distances() -> None:
    """Each voxel's surface is its 8 corners, of equal area: 4 lie two steps from the other's, 4 lie three."""
    first, second = box((3, 4, 5), (4, 5, 6)), box((3, 7, 5), (3 + 1, 8, 6))
    score = score_surfaces(first, second, (3.0, 0.7, 0.7), 1.4)
    assert score.surface_dice == pytest.approx(0.5)
    assert score.hd95_mm == score.hd100_mm == pytest.approx(2.1)
    assert score.mean_surface_distance_mm == pytest.approx(1.75)


@pytest.mark.parametrize("spacing", [(1.0, 1.0, 1.0), (0.5, 2.0, 4.0)])
def test_far_voxel_has_the_distance_of_its_corner(spacing: Spacing) -> None:
    """Pythagoras, far past the steps tried one by one; 60, 25 and 12 corners away."""
    first = box((0, 0, 0), (1, 1, 1), (62, 27, 14))
    second = box((61, 26, 13), (62, 27, 14), (62, 27, 14))
    expected = math.sqrt(sum((n * step) ** 2 for n, step in zip((61, 26, 13), spacing, strict=True)))
    assert score_surfaces(first, second, spacing, 1.0).hd100_mm == pytest.approx(expected, rel=1e-12)


def test_largest_distance_sees_the_island_that_hd95_does_not() -> None:
    reference = ball(9.0, (1.0, 1.0, 1.0), (40, 30, 30))
    prediction = reference.copy()
    prediction[38, 14, 14] = True
    score = score_surfaces(reference, prediction, (1.0, 1.0, 1.0), 3.0)
    # the ball's last corner along I is 29, the island's 39
    assert (score.hd95_mm, score.hd100_mm) == (0.0, pytest.approx(10.0, abs=0.5))


def test_mean_distance_of_concentric_balls_is_that_of_their_radii() -> None:
    """To within a voxel: the nearest element of a stepped surface is nearer than the sphere it stands for."""
    spacing = (0.5, 0.5, 0.6)
    first, second = (ball(radius, spacing, (64, 64, 54)) for radius in (8.0, 14.0))
    score = score_surfaces(first, second, spacing, 1.0)
    assert score.mean_surface_distance_mm == pytest.approx(6.0, abs=0.5)


def test_distance_within_which_exactly_95_percent_lies() -> None:
    """40 voxels in a row, two of them moved: 95 % of the equal areas lie at 0 and rounding does not matter."""
    first = np.zeros((400, 9, 9), dtype=bool)
    first[2:400:10, 2, 2] = True
    second = first.copy()
    second[[2, 12], 2, 2] = False
    second[[2, 12], 7, 7] = True
    score = score_surfaces(first, second, (0.1, 0.1, 0.1), 0.05)
    assert score.surface_dice == pytest.approx(0.95)
    assert score.hd95_mm == 0.0
    assert score.hd100_mm == pytest.approx(0.1 * math.sqrt(50))


def test_order_in_memory_does_not_matter() -> None:
    reference, prediction = (np.where(blob(seed), 1 + seed, 0).astype(np.uint8) for seed in (0, 1))
    spacing = (0.8, 0.9, 2.5)
    turned = score_case(np.asfortranarray(reference), np.asfortranarray(prediction), 2, spacing, 2.0)
    assert turned == score_case(reference, prediction, 2, spacing, 2.0)


def test_iou_is_the_share_of_the_union() -> None:
    first, second = blob(0), blob(1)
    assert iou_from_dice(dice(first, second)) == pytest.approx((first & second).sum() / (first | second).sum())


def test_volume_errors() -> None:
    assert volume_error(20.0, 15.0).absolute_ml == volume_error(15.0, 20.0).absolute_ml == 5.0
    assert volume_error(20.0, 15.0).relative == 0.25
    assert (
        volume_error(20.0, 55.0).relative == volume_error(0.0, 3.0).relative == volume_error(3.0, 0.0).relative == 1.0
    )
    assert (volume_error(0.0, 3.0).absolute_ml, volume_error(3.0, 0.0).absolute_ml) == (3.0, 3.0)
    assert math.isnan(volume_error(0.0, 0.0).absolute_ml)
    assert math.isnan(volume_error(0.0, 0.0).relative)
    missing = worst_volume_error(20.0, 100.0)
    assert (missing.absolute_ml, missing.relative) == (80.0, 1.0)
    assert worst_volume_error(0.0, 100.0).absolute_ml == 100.0


def test_every_metric_follows_the_written_rule_for_empty_masks() -> None:
    """Class 1 is in neither, class 2 in the reference alone, class 3 in the prediction alone."""
    reference, prediction = (np.zeros((10, 10, 10), dtype=np.uint8) for _ in range(2))
    reference[:2], prediction[:, :, :3] = 2, 3
    neither, missed, invented = score_case(reference, prediction, 3, (1.0, 1.0, 2.0), 1.0)
    assert all(math.isnan(getattr(neither, metric)) for metric in METRIC_NAMES)
    for score, error_ml in ((missed, 0.4), (invented, 0.6)):
        assert (score.dice, score.iou, score.surface_dice, score.relative_volume_error) == (0.0, 0.0, 0.0, 1.0)
        distances = [score.hd95_mm, score.hd100_mm, score.mean_surface_distance_mm]
        assert distances == [pytest.approx(math.sqrt(600))] * 3
        assert score.volume_error_ml == pytest.approx(error_ml)


def test_same_masks_are_perfect_in_every_metric() -> None:
    volume = blob(3).astype(np.uint8)
    (score,) = score_case(volume, volume, 1, (0.8, 0.9, 2.5), 1.0)
    assert {metric: getattr(score, metric) for metric in METRIC_NAMES} == PERFECT


def test_no_score_is_worse_than_that_of_a_missing_prediction() -> None:
    reference = np.where(blob(5), 1, 0).astype(np.uint8)
    spacing = (0.8, 0.9, 2.5)
    (missing,) = worst_scores(class_volumes_ml(reference, 1, spacing), Extent.of_grid(reference.shape, spacing))
    empty, full, opposite = np.zeros_like(reference), np.ones_like(reference), 1 - reference
    for prediction in (empty, full, opposite):
        (score,) = score_case(reference, prediction, 1, (0.8, 0.9, 2.5), 1.0)
        for metric, best in PERFECT.items():
            assert abs(getattr(score, metric) - best) <= abs(getattr(missing, metric) - best) + 1e-12


def test_one_pass_over_classes_equals_class_by_class() -> None:
    spacing = (0.8, 0.9, 2.5)
    reference, prediction = (np.zeros((40, 30, 24), dtype=np.uint8) for _ in range(2))
    for value, seed in ((1, 0), (2, 1), (4, 3)):
        reference[4:28, 5:25, 4:20][blob(seed)] = value
        prediction[5:29, 5:25, 3:19][blob(seed)] = value
    prediction[prediction == 4] = 0
    scores = score_case(reference, prediction, 4, spacing, 2.0)
    for value, score in enumerate(scores, start=1):
        first, second = reference == value, prediction == value
        np.testing.assert_equal(score.dice, dice(first, second))
        np.testing.assert_equal(score.surface_dice, surface_dice(first, second, spacing, 2.0))
        np.testing.assert_equal(score.hd95_mm, hd95_mm(first, second, spacing))
        assert score.reference_ml == pytest.approx(first.sum() * 0.8 * 0.9 * 2.5 / 1000)
    assert math.isnan(scores[2].dice)
    assert scores[3].hd95_mm == diagonal_mm((40, 30, 24), spacing)


def test_unknown_label_value_is_refused() -> None:
    volume = np.full((4, 4, 4), 3, dtype=np.uint8)
    with pytest.raises(LabelError, match="value 3"):
        score_case(volume, np.zeros_like(volume), 2, (1.0, 1.0, 1.0), 1.0)


def test_missing_prediction_scores_worst_even_where_the_reference_is_empty() -> None:
    reference = np.zeros((10, 10, 10), dtype=np.uint8)
    reference[:5] = 1
    volumes = class_volumes_ml(reference, 2, (1.0, 1.0, 2.0))
    first, second = worst_scores(volumes, Extent.of_grid((10, 10, 10), (1.0, 1.0, 2.0)))
    assert (first.dice, first.surface_dice, first.reference_ml, first.prediction_ml) == (0.0, 0.0, 1.0, 0.0)
    assert second.dice == 0.0
    assert first.hd95_mm == second.hd95_mm == pytest.approx(math.sqrt(600))
