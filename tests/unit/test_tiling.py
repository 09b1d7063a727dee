"""Where windows lie: those of MONAI in exact mode, few large ones within a budget in fast mode."""

from __future__ import annotations

import math
from itertools import pairwise

import numpy as np
import pytest
from monai.data.utils import dense_patch_slices

from monai_tl.networks.tiling import FAST_OVERLAP, Tiling, exact_tiling, fast_tiling
from monai_tl.records import SizeRule

SHAPES = [(40, 33, 17), (16, 16, 16), (9, 70, 16), (61, 12, 47), (17, 31, 64)]


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("overlap", [0.0, 0.25, 0.5, 0.9])
def test_exact_windows_are_those_of_monai(shape: tuple[int, int, int], overlap: float) -> None:
    window = (16, 12, 8)
    tiling = exact_tiling(shape, window, overlap)
    padded = [max(pair) for pair in zip(shape, window, strict=True)]
    # as its inferer does: a step of the window where window and image are of one size
    steps = [w if w == size else max(1, int(w * (1 - overlap))) for w, size in zip(window, padded, strict=True)]
    expected = {tuple(one.start for one in place) for place in dense_patch_slices(padded, window, steps)}
    found = {(i, j, k) for i in tiling.starts[0] for j in tiling.starts[1] for k in tiling.starts[2]}
    assert found == expected
    assert tiling.n_windows == len(expected)


def _covers(tiling: Tiling) -> bool:
    seen = np.zeros(tiling.padded, dtype=bool)
    for i in tiling.starts[0]:
        for j in tiling.starts[1]:
            for k in tiling.starts[2]:
                place = tuple(slice(low, low + size) for low, size in zip((i, j, k), tiling.window, strict=True))
                assert seen[place].shape == tiling.window
                seen[place] = True
    return bool(seen.all())


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("is_local", [True, False])
@pytest.mark.parametrize("budget", [1e4, 2e6, 1e9])
def test_fast_windows_cover_the_case_and_fit_the_rule(
    shape: tuple[int, int, int], is_local: bool, budget: float
) -> None:
    rule, patch = SizeRule(divisor=4, min_vox=(8, 8, 8)), (16, 12, 8)
    tiling = fast_tiling(shape, patch, rule, is_local, 3, 100.0, budget)
    assert rule.accepts(tiling.window)
    assert _covers(tiling)
    for size, length, least, starts in zip(shape, tiling.window, patch, tiling.starts, strict=True):
        assert length == least or (is_local and least < length <= math.ceil(size / 4) * 4)
        # neighbours share at least the overlap, give or take the rounding of even places
        overlap = FAST_OVERLAP * least
        assert all(b - a <= length - overlap + 1 for a, b in pairwise(starts))


def test_a_case_within_the_budget_is_one_window_and_no_larger_than_the_rule_asks() -> None:
    tiling = fast_tiling((61, 47, 33), (16, 16, 16), SizeRule(divisor=8), True, 3, 100.0, 1e9)
    assert tiling.n_windows == 1
    assert tiling.window == (64, 48, 40)


def test_a_smaller_budget_never_takes_more_memory_nor_less_work() -> None:
    shape, rule = (96, 96, 96), SizeRule(divisor=8)
    work, size = [], []
    for budget in (1e9, 4e7, 1e7, 1e6):
        tiling = fast_tiling(shape, (16, 16, 16), rule, True, 5, 100.0, budget)
        size.append(math.prod(tiling.window))
        work.append(tiling.n_windows * math.prod(tiling.window))
        if budget > 1e6:
            assert 100.0 * size[-1] <= budget
    assert size == sorted(size, reverse=True)
    assert work == sorted(work)


def test_a_network_of_one_size_sees_no_other_window() -> None:
    rule = SizeRule(divisor=16, min_vox=(16, 16, 16), fixed=True)
    tiling = fast_tiling((40, 40, 12), (16, 16, 16), rule, True, 3, 100.0, 1e9)
    assert tiling.window == (16, 16, 16)
    assert _covers(tiling)


def test_sums_are_carried_along_the_longest_axis() -> None:
    assert exact_tiling((32, 32, 96), (16, 16, 16), 0.5).axis == 2
    assert exact_tiling((96, 32, 32), (16, 16, 16), 0.5).axis == 0
