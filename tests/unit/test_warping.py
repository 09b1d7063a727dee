from __future__ import annotations

import numpy as np
import pytest
from scipy import ndimage
from scipy.interpolate import NdBSpline

from monai_tl.dataset.augmentation import rotation_matrix
from monai_tl.dataset.warping import CONTROL_VOX, draw_points, warped_grid

SIZE, SPACING = (20, 28, 10), (1.0, 1.25, 3.0)
STILL, NOWHERE = np.zeros((3, 3)), np.zeros(3)


def _warped(matrix: np.ndarray, offset: np.ndarray, deviation: float, generator: np.random.Generator) -> np.ndarray:
    return warped_grid(SIZE, SPACING, matrix, offset, draw_points(SIZE, SPACING, deviation, generator))


def test_without_displacement_it_is_the_affine_map() -> None:
    matrix, offset = rotation_matrix(np.deg2rad([10.0, -5.0, 7.0])) * 1.1, np.array([3.0, -2.0, 0.5])
    image = ndimage.gaussian_filter(np.random.default_rng(0).normal(size=(30, 30, 30)), 1.0)
    places = _warped(matrix, offset, 0.0, np.random.default_rng(1))
    expected = ndimage.affine_transform(image, matrix, offset, SIZE, order=1, mode="nearest")
    found = ndimage.map_coordinates(image, places, order=1, mode="nearest")
    assert np.abs(found - expected).max() < 1e-5


def test_the_displacement_is_the_spline_through_its_control_points() -> None:
    places = _warped(STILL, NOWHERE, 2.0, np.random.default_rng(3))
    steps = [spacing / CONTROL_VOX for spacing in SPACING]
    n_points = [int(np.ceil((length - 1) * step)) + 4 for length, step in zip(SIZE, steps, strict=True)]
    points = np.random.default_rng(3).standard_normal((3, *n_points), dtype=np.float32)
    knots = tuple(np.arange(-3.0, n + 1) for n in n_points)
    at = np.stack(
        np.meshgrid(*(np.arange(n) * step for n, step in zip(SIZE, steps, strict=True)), indexing="ij"), axis=-1
    )
    for axis in range(3):
        spline = NdBSpline(knots, points[axis].astype(float), 3)(at)
        # in voxels of this axis, of which thick ones are fewer
        expected = spline * 2.0 / (151 / 315) ** 1.5 / SPACING[axis]
        assert np.abs(places[axis] - expected).max() < 1e-5


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_its_deviation_is_the_one_asked_for_in_millimetres(axis: int) -> None:
    generator = np.random.default_rng(0)
    moved = [_warped(STILL, NOWHERE, 1.5, generator)[axis] for _ in range(400)]
    assert np.std(moved) * SPACING[axis] == pytest.approx(1.5, rel=0.05)
    assert abs(np.mean(moved)) * SPACING[axis] < 0.1
