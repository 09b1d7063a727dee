"""Filling outlines: closed forms, a second implementation, and laws."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from matplotlib.path import Path as Outline

from monai_tl.dicom.polygons import fill_polygons

ROWS, COLUMNS = 40, 50


def circle(x, y, radius, n=400):
    angle = np.linspace(0, 2 * np.pi, n, endpoint=False)
    return np.stack([x + radius * np.cos(angle), y + radius * np.sin(angle)], axis=1)


@given(st.integers(0, 10_000))
@settings(max_examples=60, deadline=None)
def test_agrees_with_matplotlib_on_random_outlines(seed):
    """Star-shaped outlines, partly outside; vertices off the centres, so that no tie decides."""
    rng = np.random.default_rng(seed)
    angle = np.sort(rng.uniform(0, 2 * np.pi, 12))
    radius = rng.uniform(2, 25, 12)
    centre = rng.uniform(-5, 50, 2)
    polygon = centre + np.stack([radius * np.cos(angle), radius * np.sin(angle)], axis=1)
    x, y = np.meshgrid(np.arange(COLUMNS), np.arange(ROWS))
    centres = np.stack([x.ravel(), y.ravel()], axis=1)
    closed = Outline(np.concatenate([polygon, polygon[:1]]), closed=True)
    expected = closed.contains_points(centres).reshape(ROWS, COLUMNS)
    found = fill_polygons([polygon], ROWS, COLUMNS)
    # the second implementation follows the winding rule: equal here, because the outline does not cross itself
    assert (found != expected).sum() <= (0 if _is_around(centre, angle) else found.size)


def _is_around(centre, angle):
    """Whether the outline goes once around its centre, without a gap that folds it."""
    gaps = np.diff(np.append(angle, angle[0] + 2 * np.pi))
    return bool(gaps.max() < np.pi)


@pytest.mark.parametrize("radius", [4.3, 9.0, 15.7])
def test_area_of_a_circle_is_unbiased(radius):
    """Mean over sub-pixel shifts against pi r squared."""
    rng = np.random.default_rng(0)
    areas = [fill_polygons([circle(*(20 + rng.uniform(0, 1, 2)), radius)], ROWS, COLUMNS).sum() for _ in range(200)]
    assert np.mean(areas) == pytest.approx(np.pi * radius**2, rel=0.005)


def test_an_outline_inside_another_is_a_hole():
    outer, inner = circle(20, 20, 15), circle(20, 20, 6)
    ring = fill_polygons([outer, inner], ROWS, COLUMNS)
    whole, hole = fill_polygons([outer], ROWS, COLUMNS), fill_polygons([inner], ROWS, COLUMNS)
    assert np.array_equal(ring, whole & ~hole)


def test_a_keyhole_is_a_hole():
    """Out along a line, around the hole, and back along the same line."""
    outer, inner = circle(20, 20, 15), circle(20, 20, 6)[::-1]
    keyhole = np.concatenate([outer, outer[:1], inner[-1:], inner, outer[:1]])
    assert np.array_equal(fill_polygons([keyhole], ROWS, COLUMNS), fill_polygons([outer, inner], ROWS, COLUMNS))


@given(st.integers(0, 1000), st.floats(3.0, 44.0))
@settings(max_examples=30, deadline=None)
def test_two_areas_that_share_an_edge_tile_the_grid(seed, cut):
    """Cut a rectangle along any line, also through pixel centres: each pixel belongs to exactly one part."""
    other = float(np.random.default_rng(seed).integers(3, 44))
    corners = np.array([[2, 2], [45, 2], [45, 36], [2, 36]], dtype=float)
    left = np.array([[2, 2], [cut, 2], [other, 36], [2, 36]], dtype=float)
    right = np.array([[cut, 2], [45, 2], [45, 36], [other, 36]], dtype=float)
    first, second = (fill_polygons([part], ROWS, COLUMNS) for part in (left, right))
    assert not (first & second).any()
    assert np.array_equal(first | second, fill_polygons([corners], ROWS, COLUMNS))


def test_direction_and_start_do_not_matter():
    polygon = circle(20.3, 18.1, 9.7, n=37)
    expected = fill_polygons([polygon], ROWS, COLUMNS)
    assert np.array_equal(fill_polygons([polygon[::-1]], ROWS, COLUMNS), expected)
    assert np.array_equal(fill_polygons([np.roll(polygon, 5, axis=0)], ROWS, COLUMNS), expected)


def test_what_lies_outside_is_cut_off():
    around = np.array([[-100, -100], [200, -100], [200, 200], [-100, 200]], dtype=float)
    assert fill_polygons([around], ROWS, COLUMNS).all()
    assert not fill_polygons([around + 1000], ROWS, COLUMNS).any()
    left = np.array([[-100, -100], [10.5, -100], [10.5, 200], [-100, 200]], dtype=float)
    found = fill_polygons([left], ROWS, COLUMNS)
    assert found[:, :11].all()
    assert not found[:, 11:].any()
