"""Surface metrics against DeepMind's package on random anisotropic masks, and laws that hold for any masks."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from scipy import ndimage

from monai_tl.geometry import Spacing
from monai_tl.metrics.surface import SLACK_MM, score_surfaces

Masks = tuple[np.ndarray, np.ndarray]
steps_mm = st.floats(0.3, 6.0)
spacings = st.tuples(steps_mm, steps_mm, steps_mm)


@st.composite
def masks(draw: st.DrawFn) -> Masks:
    """Two masks on one grid, each in a part of it: they overlap, touch, or lie far apart."""
    shape = draw(st.tuples(st.integers(2, 40), st.integers(2, 10), st.integers(2, 10)))
    axes = draw(st.permutations(range(3)))
    generator = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    smoothness = draw(st.sampled_from([0.0, 0.8, 1.6]))
    found = []
    for _ in range(2):
        noise = ndimage.gaussian_filter(generator.standard_normal(shape), smoothness)
        mask = np.zeros(shape, dtype=bool)
        low = [draw(st.integers(0, size - 1)) for size in shape]
        high = [draw(st.integers(start + 1, size)) for start, size in zip(low, shape, strict=True)]
        part = tuple(slice(a, b) for a, b in zip(low, high, strict=True))
        mask[part] = noise[part] >= np.quantile(noise[part], draw(st.sampled_from([0.0, 0.3, 0.8])))
        found.append(mask.transpose(axes))
    return found[0], found[1]


def measure_as_deepmind(reference: np.ndarray, prediction: np.ndarray, spacing: Spacing) -> tuple[Any, dict[str, Any]]:
    package = pytest.importorskip("surface_distance")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        return package, package.compute_surface_distances(reference, prediction, spacing)


@settings(max_examples=200, deadline=None)
@given(masks(), spacings, st.floats(0.05, 20.0))
def test_metrics_are_those_of_deepmind(pair: Masks, spacing: Spacing, tolerance: float) -> None:
    package, theirs = measure_as_deepmind(*pair, spacing)
    distances = np.concatenate([theirs["distances_gt_to_pred"], theirs["distances_pred_to_gt"]])
    # on the tolerance itself rounding decides there and the slack here
    assume(not np.any(np.abs(distances - tolerance) <= 2 * SLACK_MM))
    ours = score_surfaces(*pair, spacing, tolerance)
    assert ours.surface_dice == pytest.approx(package.compute_surface_dice_at_tolerance(theirs, tolerance), abs=1e-9)
    assert ours.hd100_mm == pytest.approx(distances.max(), abs=1e-9)
    # where exactly 95 % of the area is reached, rounding decides there between two neighbouring distances
    low, high = (package.compute_robust_hausdorff(theirs, percent) for percent in (95 - 1e-7, 95 + 1e-7))
    assert low - 1e-9 <= ours.hd95_mm <= high + 1e-9
    areas = [theirs["surfel_areas_gt"].sum(), theirs["surfel_areas_pred"].sum()]
    mean = np.average(package.compute_average_surface_distance(theirs), weights=areas)
    assert ours.mean_surface_distance_mm == pytest.approx(mean, abs=1e-9)


@settings(max_examples=60, deadline=None)
@given(masks(), spacings)
def test_metrics_do_not_know_which_is_the_reference(pair: Masks, spacing: Spacing) -> None:
    there, back = score_surfaces(*pair, spacing, 1.0), score_surfaces(pair[1], pair[0], spacing, 1.0)
    assert (there.hd95_mm, there.hd100_mm) == (back.hd95_mm, back.hd100_mm)
    assert there.surface_dice == pytest.approx(back.surface_dice, abs=1e-12)
    assert there.mean_surface_distance_mm == pytest.approx(back.mean_surface_distance_mm, abs=1e-12)
    assert 0.0 <= there.mean_surface_distance_mm <= there.hd100_mm
    assert there.hd95_mm <= there.hd100_mm


@settings(max_examples=60, deadline=None)
@given(masks(), spacings, st.floats(0.1, 10.0))
def test_distances_grow_with_the_spacing(pair: Masks, spacing: Spacing, factor: float) -> None:
    one = score_surfaces(*pair, spacing, 1.0)
    other = score_surfaces(*pair, (factor * spacing[0], factor * spacing[1], factor * spacing[2]), 1.0)
    assert other.hd100_mm == pytest.approx(factor * one.hd100_mm, rel=1e-9)
    assert other.mean_surface_distance_mm == pytest.approx(factor * one.mean_surface_distance_mm, rel=1e-9, abs=1e-12)
