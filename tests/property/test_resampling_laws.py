"""Resampling against products of dense matrices: any order in memory, any classes, any spacing."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from monai_tl.dataset import resampling
from monai_tl.dataset.resampling import antialias_sigma_vox, axis_matrix, resample_axis, resample_label, resampled_axis

FACTORS = (None, 0.5, 0.7, 1.3, 2.0, 3.1)


@st.composite
def grids(draw: st.DrawFn) -> tuple[tuple[int, ...], list[Any]]:
    shape = tuple(draw(st.integers(1, 14)) for _ in range(3))
    matrices = []
    for size in shape:
        factor = draw(st.sampled_from(FACTORS))
        positions = None if factor is None else resampled_axis(size, 1.0, factor)[1]
        matrices.append(None if positions is None else axis_matrix(positions, size, antialias_sigma_vox(factor)))
    return shape, matrices


def laid_out(array: NDArray[Any], order: str) -> NDArray[Any]:
    """The same values in another order of memory."""
    if order == "turned":
        return np.ascontiguousarray(array.transpose(1, 2, 0)).transpose(2, 0, 1)
    if order == "backwards":
        return np.ascontiguousarray(array[::-1, :, ::-1])[::-1, :, ::-1]
    return np.array(array, order=order)


def densely(array: NDArray[Any], matrices: list[Any]) -> NDArray[np.float64]:
    for axis, matrix in enumerate(matrices):
        if matrix is not None:
            array = np.moveaxis(np.tensordot(matrix.toarray().astype(np.float64), array, (1, axis)), 0, axis)
    return array


orders = st.sampled_from(["C", "F", "turned", "backwards"])


@settings(max_examples=60, deadline=None)
@given(grids(), orders, st.integers(0, 2**32 - 1))
def test_an_axis_is_a_product_whatever_lies_where(grid: Any, order: str, seed: int) -> None:
    shape, matrices = grid
    image = np.random.default_rng(seed).normal(size=shape).astype(np.float32)
    for axis, matrix in enumerate(matrices):
        found = resample_axis(laid_out(image, order), axis, matrix)
        alone = [matrix if one == axis else None for one in range(3)]
        np.testing.assert_allclose(found, densely(image, alone), atol=1e-5)
        assert np.array_equal(found, resample_axis(image, axis, matrix))


def test_more_lines_than_are_turned_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    image = np.random.default_rng(0).normal(size=(7, 9, 11)).astype(np.float32)
    matrix = axis_matrix(resampled_axis(11, 1.0, 1.7)[1], 11, antialias_sigma_vox(1.7))
    whole = resample_axis(image, 2, matrix)
    monkeypatch.setattr(resampling, "_LINES", 10)
    assert np.array_equal(resample_axis(image, 2, matrix), whole)
    np.testing.assert_allclose(whole, densely(image, [None, None, matrix]), atol=1e-5)


@settings(max_examples=120, deadline=None)
@given(grids(), orders, st.integers(0, 2**32 - 1), st.lists(st.integers(0, 255), min_size=1, max_size=4), st.booleans())
def test_a_label_is_the_class_of_the_largest_share(
    grid: Any, order: str, seed: int, values: list[int], is_blocky: bool
) -> None:
    """Shares are compared in double precision; where two are as good as equal, either may be the label."""
    shape, matrices = grid
    drawn = np.random.default_rng(seed).choice(values, size=[-(-size // 4) for size in shape] if is_blocky else shape)
    label = drawn.astype(np.uint8)
    if is_blocky:
        label = np.kron(label, np.ones((4, 4, 4), dtype=np.uint8))[tuple(map(slice, shape))]
    found = resample_label(laid_out(label, order), matrices)
    shares = {value: densely((label == value).astype(np.float64), matrices) for value in np.unique(label)}
    largest = np.max(list(shares.values()), axis=0)
    own = sum(np.where(found == value, share, 0.0) for value, share in shares.items())
    assert found.dtype == np.uint8
    assert found.shape == largest.shape
    assert np.all(own >= largest - 1e-5)
    assert np.array_equal(found, resample_label(label, matrices))
