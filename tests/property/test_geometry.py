"""Laws of grids: reorientation keeps world positions, and undoes exactly."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from monai_tl.errors import GeometryError
from monai_tl.geometry import (
    affine_lps_to_ras,
    check_affine,
    orientation_of,
    reorient_to_ras,
    resample_to_grid,
    same_grid,
    spacing_of,
    undo_reorient,
)


@st.composite
def affines(draw):
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    rotation, _ = np.linalg.qr(rng.normal(size=(3, 3)))
    affine = np.eye(4)
    affine[:3, :3] = rotation * rng.uniform(0.4, 6.0, size=3)
    affine[:3, 3] = rng.uniform(-300, 300, size=3)
    return affine


@settings(max_examples=60, deadline=None)
@given(affines(), st.tuples(*[st.integers(2, 6)] * 3))
def test_reorientation_keeps_world_positions_and_undoes(affine, shape):
    array = np.arange(np.prod(shape)).reshape(shape)
    turned, turned_affine = reorient_to_ras(array, affine)
    assert orientation_of(turned_affine) == "RAS"
    assert np.allclose(sorted(spacing_of(affine)), sorted(spacing_of(turned_affine)))
    for index in np.ndindex(*shape):
        there = np.argwhere(turned == array[index])[0]
        assert np.allclose(turned_affine @ [*there, 1], affine @ [*index, 1], atol=1e-9)
    assert np.array_equal(undo_reorient(turned, affine), array)


@given(affines())
def test_lps_and_ras_are_each_others_inverse(affine):
    assert np.array_equal(affine_lps_to_ras(affine_lps_to_ras(affine)), affine)


def test_channels_first_arrays_reorient_like_their_channels():
    affine = np.diag([-2.0, 1.0, -3.0, 1.0])[[1, 0, 2, 3]]
    array = np.random.default_rng(0).normal(size=(2, 3, 4, 5))
    turned, turned_affine = reorient_to_ras(array, affine)
    for channel in range(2):
        single, single_affine = reorient_to_ras(array[channel], affine)
        assert np.array_equal(turned[channel], single)
        assert np.array_equal(turned_affine, single_affine)


def test_linear_resampling_reproduces_a_linear_field():
    affine = np.diag([2.0, 3.0, 4.0, 1.0])
    i, j, k = np.meshgrid(*[np.arange(8)] * 3, indexing="ij")
    field = 0.5 * i * 2 - 0.25 * j * 3 + 2.0 * k * 4
    target = np.diag([1.5, 1.5, 1.5, 1.0])
    target[:3, 3] = 3.0
    result = resample_to_grid(field, affine, target, (5, 5, 5), order=1)
    x, y, z = (np.arange(5) * 1.5 + 3.0 for _ in range(3))
    expected = 0.5 * x[:, None, None] - 0.25 * y[None, :, None] + 2.0 * z[None, None, :]
    assert np.allclose(result, expected, atol=1e-4)


def test_same_grid_sees_a_shift_of_a_tenth_of_a_millimetre():
    first = np.diag([1.0, 1.0, 1.0, 1.0])
    second = first.copy()
    assert same_grid(first, (3, 3, 3), second, (3, 3, 3))
    second[0, 3] = 0.1
    assert not same_grid(first, (3, 3, 3), second, (3, 3, 3))
    assert not same_grid(first, (3, 3, 3), first, (3, 3, 4))


@pytest.mark.parametrize(
    "affine",
    [
        np.full((4, 4), np.nan),
        np.diag([1.0, 1.0, 0.0, 1.0]),
        np.diag([1.0, 1.0, 1000.0, 1.0]),
        np.array([[1, 1, 0, 0], [1, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]], dtype=float),
        np.eye(3),
    ],
)
def test_bad_affines_are_refused(affine):
    with pytest.raises(GeometryError):
        check_affine(affine, "case-x")
