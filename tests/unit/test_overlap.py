"""Dice against closed forms."""

from __future__ import annotations

import math

import numpy as np
import pytest

from monai_tl.errors import GeometryError
from monai_tl.metrics.overlap import dice, dice_from_counts


def cube(shift: int) -> np.ndarray:
    mask = np.zeros((20, 12, 12), dtype=bool)
    mask[2 + shift : 12 + shift, 2:10, 3:9] = True
    return mask


@pytest.mark.parametrize("shift", range(9))
def test_shifted_cubes_share_what_is_left(shift: int) -> None:
    expected = max(0, 10 - shift) / 10
    assert dice(cube(0), cube(shift)) == pytest.approx(expected, abs=1e-15)


def test_empty_rules() -> None:
    empty = np.zeros((20, 12, 12), dtype=bool)
    assert math.isnan(dice(empty, empty))
    assert dice(empty, cube(0)) == 0.0
    assert dice(cube(0), empty) == 0.0
    assert math.isnan(dice_from_counts(0, 0, 0))


def test_other_grid_is_refused() -> None:
    with pytest.raises(GeometryError, match="grid of the case's image"):
        dice(cube(0), cube(0)[:-1])
