"""Outlines of one plane as an area: what overlaps, touches, repeats, cancels and gets lost."""

from __future__ import annotations

import numpy as np
import pytest
from outlines import circle, inside, star

from monai_tl.dicom.areas import Remarks, fill_area
from monai_tl.dicom.polygons import fill_polygon

ROWS, COLUMNS = 60, 70


def area_of(polygons, is_xor=False):
    remarks = Remarks()
    return fill_area([np.asarray(one, dtype=float) for one in polygons], ROWS, COLUMNS, is_xor, remarks), remarks


def rectangle(left, top, right, bottom):
    return [[left, top], [right, top], [right, bottom], [left, bottom]]


def test_overlapping_outlines_join_and_exclusive_ones_cancel():
    one, two = circle(25, 30, 14), circle(40, 30, 14)
    first, second = inside(one, ROWS, COLUMNS), inside(two, ROWS, COLUMNS)
    assert (first & second).any()
    assert np.array_equal(area_of([one, two])[0], first | second)
    assert np.array_equal(area_of([one, two], is_xor=True)[0], first ^ second)


def test_hole_island_and_hole_again():
    rings = [circle(35, 30, radius) for radius in (27, 21, 14, 6)]
    masks = [inside(ring, ROWS, COLUMNS) for ring in rings]
    expected = (masks[0] & ~masks[1]) | (masks[2] & ~masks[3])
    for order in ([0, 1, 2, 3], [3, 1, 0, 2]):
        for is_xor in (False, True):
            assert np.array_equal(area_of([rings[k] for k in order], is_xor)[0], expected)


def test_a_hole_that_touches_its_rim_stays_a_hole():
    """Rounding lets the hole's edge pass the rim by a pixel."""
    outer, hole = rectangle(9.5, 9.5, 39.5, 39.5), rectangle(20.5, 19.5, 40.5, 29.5)
    area, _ = area_of([outer, hole])
    assert area[10:40, 10:40].sum() == 30 * 30 - 19 * 10
    assert not area[20:30, 21:40].any()


def test_the_same_outline_twice_counts_once():
    outline = star(5, (33, 28), 8, 22)
    alone, _ = area_of([outline])
    for again in (outline, outline[::-1], np.roll(outline, 7, axis=0), np.concatenate([outline, outline[:1]])):
        for is_xor in (False, True):
            area, remarks = area_of([outline, again], is_xor)
            assert np.array_equal(area, alone)
            assert remarks.repeated == 1
    assert np.array_equal(alone, inside(outline, ROWS, COLUMNS))


def test_neighbours_with_corners_on_pixel_centres_share_nothing_and_leave_nothing():
    """Four areas that meet along lines through centres: each centre belongs to the area right of and below the line."""
    xs, ys = (4, 20, 51), (7, 33, 48)
    parts = [area_of([rectangle(xs[i], ys[j], xs[i + 1], ys[j + 1])])[0] for i in (0, 1) for j in (0, 1)]
    expected = np.zeros((ROWS, COLUMNS), dtype=int)
    expected[7:48, 4:51] = 1
    assert np.array_equal(np.sum(parts, axis=0), expected)


def test_float_noise_does_not_decide_about_a_centre():
    rng = np.random.default_rng(0)
    exact = np.array(rectangle(4, 7, 51, 48), dtype=float)
    expected, _ = area_of([exact])
    for _ in range(20):
        assert np.array_equal(area_of([exact + rng.uniform(-1e-9, 1e-9, exact.shape)])[0], expected)


@pytest.mark.parametrize("width", [0.0, 0.01, 0.04])
@pytest.mark.parametrize("turned", [False, True])
def test_a_keyholes_channel_along_pixel_centres_cuts_no_slit(width, turned):
    """The channel's two sides enclose the centres of row (or column) 30; the square ring is its own mirror image."""
    low, high = 30 - width / 2, 30 + width / 2
    keyhole = np.array(
        [[10.5, 10.5], [50.5, 10.5], [50.5, low], [40.5, low], [40.5, 20.5], [20.5, 20.5], [20.5, 40.5], [40.5, 40.5],
         [40.5, high], [50.5, high], [50.5, 50.5], [10.5, 50.5]]
    )  # fmt: skip
    expected = np.zeros((ROWS, COLUMNS), dtype=bool)
    expected[11:51, 11:51] = True
    expected[21:41, 21:41] = False
    area, _ = area_of([keyhole[:, ::-1] if turned else keyhole])
    assert np.array_equal(area, expected)


def test_a_real_gap_is_not_closed():
    """Two arms half a pixel apart, with a row of centres between them, are no channel."""
    gap = np.array(
        [[10.5, 10.5], [50.5, 10.5], [50.5, 29.75], [20.5, 29.75], [20.5, 30.25], [50.5, 30.25], [50.5, 50.5],
         [10.5, 50.5]]
    )  # fmt: skip
    area, _ = area_of([gap])
    assert not area[30, 21:51].any()
    assert area[29, 11:51].all()
    assert area[31, 11:51].all()


def test_what_holds_no_centre_is_counted_and_what_lies_outside_is_cut():
    tiny = circle(20.5, 20.5, 0.3)
    area, remarks = area_of([tiny, circle(40, 30, 5)])
    assert remarks.lost == 1
    assert np.array_equal(area, inside(circle(40, 30, 5), ROWS, COLUMNS))
    flat = [[10, 10], [30, 10], [30, 10], [10, 10]]
    assert area_of([flat])[1].lost == 1
    outside, remarks = area_of([circle(-500, 1e5, 30)])
    assert not outside.any()
    assert remarks.lost == 0
    around, _ = area_of([rectangle(-1e6, -1e6, 1e6, 1e6)])
    assert around.all()


def test_a_hundred_thousand_points_are_no_matter():
    outline = circle(35.2, 29.7, 25.3, n=100_000)
    area, _ = area_of([outline])
    x, y = np.meshgrid(np.arange(COLUMNS), np.arange(ROWS))
    assert np.array_equal(area, (x - 35.2) ** 2 + (y - 29.7) ** 2 < 25.3**2)


def test_edges_are_filled_in_pieces_without_a_seam():
    """A zigzag of two million crossings, more than one piece: the closed form of a comb."""
    n = 20_000
    x = np.linspace(5.25, 55.25, 2 * n + 1)
    teeth = np.stack([x, np.where(np.arange(2 * n + 1) % 2 == 0, 0.5, 55.5)], axis=1)
    base = [[55.25, 58.5], [5.25, 58.5]]
    region = fill_polygon(np.concatenate([teeth, base]), ROWS, COLUMNS)
    mask = np.zeros((ROWS, COLUMNS), dtype=bool)
    region.within(mask)[...] = region.mask
    assert mask[56:59, 6:56].all()
    assert not mask[:, :6].any()
    assert not mask[:, 56:].any()
    # the share of a row below the teeth grows evenly from 0 at their tips; here each tooth is finer than a pixel
    phase = (np.arange(6, 56)[None, :] - 5.25) / 50 * n % 1.0
    height = 55 * (1 - np.abs(2 * phase - 1)) + 0.5
    rows = np.arange(ROWS)[:, None]
    clear = np.abs(rows - height) > 0.5
    assert np.array_equal(mask[:56, 6:56][clear[:56]], (rows > height)[:56][clear[:56]])
