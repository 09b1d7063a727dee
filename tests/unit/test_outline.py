"""Masks to outlines and back, with matplotlib as the second implementation."""

import numpy as np
import pytest
from matplotlib.path import Path as Polygon

from monai_tl.dicom.outline import mask_to_outlines
from monai_tl.dicom.polygons import fill_polygons


def drawn(text):
    return np.array([[letter == "#" for letter in row] for row in text.split()])


def area_of(outline):
    rows, columns = outline.T
    return abs(np.sum(columns * np.roll(rows, -1) - rows * np.roll(columns, -1))) / 2


def test_square_has_four_corners_half_a_pixel_out():
    (outline,) = mask_to_outlines(drawn("..... .###. .###. ....."))
    assert {tuple(point) for point in outline.tolist()} == {(0.5, 0.5), (0.5, 3.5), (2.5, 3.5), (2.5, 0.5)}
    assert len(outline) == 4


def test_empty_and_full_slices():
    assert mask_to_outlines(np.zeros((3, 4), dtype=bool)) == []
    (outline,) = mask_to_outlines(np.ones((3, 4), dtype=bool))
    assert area_of(outline) == 12


@pytest.mark.parametrize(
    ("text", "n_outlines"),
    [
        ("#..# .... #..#", 4),  # four islands
        ("#. .#", 2),  # pixels that touch at a corner
        ("#### #..# ####", 1),  # a hole
        ("##### #.#.# #####", 1),  # two holes
        ("####### #.....# #.###.# #.#.#.# #.###.# #.....# #######", 2),  # an island with a hole in a hole
        (".##. #..# .##.", 4),  # a ring closed by corners only
    ],
)
def test_each_reader_fills_the_same_pixels(text, n_outlines):
    mask = drawn(text)
    outlines = mask_to_outlines(mask)
    assert len(outlines) == n_outlines
    assert sum(area_of(outline) for outline in outlines) == mask.sum()
    # readers that know holes (even-odd over all outlines) and readers that unite filled outlines agree
    together = fill_polygons([outline[:, ::-1] for outline in outlines], *mask.shape)
    united = np.zeros_like(mask)
    for outline in outlines:
        united |= fill_polygons([outline[:, ::-1]], *mask.shape)
    assert np.array_equal(together, mask)
    assert np.array_equal(united, mask)


def test_random_masks_round_trip():
    rng = np.random.default_rng(0)
    for _ in range(150):
        mask = rng.random(rng.integers(1, 14, size=2)) < rng.random()
        outlines = mask_to_outlines(mask)
        assert np.array_equal(fill_polygons([outline[:, ::-1] for outline in outlines], *mask.shape), mask)
        assert sum(area_of(outline) for outline in outlines) == mask.sum()


def test_matplotlib_finds_the_same_pixels_inside_a_blob():
    rows, columns = np.mgrid[:20, :24]
    mask = (rows - 9.3) ** 2 / 40 + (columns - 11.2) ** 2 / 90 < 1
    (outline,) = mask_to_outlines(mask)
    inside = Polygon(outline).contains_points(np.c_[rows.ravel(), columns.ravel()])
    assert np.array_equal(inside.reshape(mask.shape), mask)
