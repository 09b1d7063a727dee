"""Lesions in closed form, pairing against every pairing there is, and panoptic quality against panoptica's numbers."""

from __future__ import annotations

import math

import numpy as np
import pytest
from lesion_masks import CASES, mask_pair
from panoptica_reference import PANOPTICA
from scipy import ndimage

from monai_tl.errors import GeometryError
from monai_tl.metrics.lesions import DETECTION_IOU, no_prediction, pooled_sensitivity, score_lesions

SHAPE = (16, 16, 16)


def boxes(*corners: tuple[tuple[int, int, int], tuple[int, int, int]]) -> np.ndarray:
    mask = np.zeros(SHAPE, dtype=bool)
    for low, high in corners:
        mask[tuple(slice(a, b) for a, b in zip(low, high, strict=True))] = True
    return mask


def test_found_missed_and_false_in_closed_form() -> None:
    """Lesion 1: 4·4·4, found shifted by one (IoU 48/80 = 0.6). Lesion 2 missed. One false positive."""
    reference = boxes(((0, 0, 0), (4, 4, 4)), ((10, 10, 10), (12, 12, 12)))
    prediction = boxes(((1, 0, 0), (5, 4, 4)), ((0, 10, 10), (3, 13, 13)))
    score = score_lesions(reference, prediction)
    assert (score.n_reference, score.n_prediction, score.n_found, score.n_matched) == (2, 2, 1, 1)
    assert score.matched_iou == pytest.approx(0.6)
    assert score.lesion_sensitivity == 0.5
    assert score.lesion_false_positives == 1.0
    assert score.lesion_f1 == 0.5
    assert score.panoptic_quality == pytest.approx(0.6 / (1 + 0.5 + 0.5))


def test_a_lesion_found_roughly_is_found_but_does_not_match() -> None:
    """IoU 32/96 = 1/3: above a tenth, not above a half."""
    score = score_lesions(boxes(((0, 0, 0), (4, 4, 4))), boxes(((2, 0, 0), (6, 4, 4))))
    assert (score.n_found, score.n_matched) == (1, 0)
    assert (score.lesion_sensitivity, score.panoptic_quality) == (1.0, 0.0)


def test_an_iou_of_exactly_one_half_does_not_match_and_of_a_tenth_is_found() -> None:
    assert score_lesions(boxes(((0, 0, 0), (2, 2, 2))), boxes(((0, 0, 0), (2, 2, 4)))).n_matched == 0
    assert score_lesions(boxes(((0, 0, 0), (1, 1, 1))), boxes(((0, 0, 0), (1, 1, 10)))).n_found == 1
    assert score_lesions(boxes(((0, 0, 0), (1, 1, 1))), boxes(((0, 0, 0), (1, 1, 11)))).n_found == 0


def test_voxels_that_touch_at_a_corner_are_one_lesion() -> None:
    touching = boxes(((0, 0, 0), (1, 1, 1)), ((1, 1, 1), (2, 2, 2)))
    assert score_lesions(touching, touching).n_reference == 1
    apart = boxes(((0, 0, 0), (1, 1, 1)), ((2, 0, 0), (3, 1, 1)))
    assert score_lesions(apart, apart).n_reference == 2


def test_a_blob_over_two_lesions_finds_one_and_two_fragments_are_a_hit_and_a_false_positive() -> None:
    two, blob = boxes(((0, 0, 0), (3, 3, 3)), ((4, 0, 0), (7, 3, 3))), boxes(((0, 0, 0), (7, 3, 3)))
    merged = score_lesions(two, blob)
    assert (merged.n_found, merged.lesion_sensitivity, merged.lesion_false_positives) == (1, 0.5, 0.0)
    split = score_lesions(blob, two)
    assert (split.n_found, split.lesion_sensitivity, split.lesion_false_positives) == (1, 1.0, 1.0)


def test_empty_reference_empty_prediction_both_and_none() -> None:
    nothing, one = boxes(), boxes(((0, 0, 0), (2, 2, 2)))
    both = score_lesions(nothing, nothing)
    assert math.isnan(both.lesion_sensitivity)
    assert math.isnan(both.lesion_f1)
    assert math.isnan(both.panoptic_quality)
    assert both.lesion_false_positives == 0.0
    false = score_lesions(nothing, one)
    assert math.isnan(false.lesion_sensitivity)
    assert (false.lesion_false_positives, false.lesion_f1, false.panoptic_quality) == (1.0, 0.0, 0.0)
    missed = score_lesions(one, nothing)
    assert (missed.lesion_sensitivity, missed.lesion_false_positives, missed.panoptic_quality) == (0.0, 0.0, 0.0)
    for reference in (nothing, one):
        failed = no_prediction(reference)
        assert (failed.lesion_sensitivity, failed.lesion_f1, failed.panoptic_quality) == (0.0, 0.0, 0.0)
        assert math.isnan(failed.lesion_false_positives)


def test_other_shapes_are_refused() -> None:
    with pytest.raises(GeometryError):
        score_lesions(np.zeros((2, 2, 2), dtype=bool), np.zeros((2, 2, 3), dtype=bool))


def test_pooled_sensitivity_weighs_lesions() -> None:
    many = score_lesions(boxes(*(((4 * k, 0, 0), (4 * k + 2, 2, 2)) for k in range(4))), boxes())
    one = score_lesions(boxes(((0, 0, 0), (2, 2, 2))), boxes(((0, 0, 0), (2, 2, 2))))
    assert pooled_sensitivity([many, one]) == pytest.approx(0.2)
    assert math.isnan(pooled_sensitivity([]))


def best_pairing(reference: np.ndarray, prediction: np.ndarray) -> int:
    """The most one-to-one pairs, by trying all."""
    first, n_first = ndimage.label(reference, np.ones((3, 3, 3)))
    second, n_second = ndimage.label(prediction, np.ones((3, 3, 3)))
    allowed = {
        (a, b)
        for a in range(1, n_first + 1)
        for b in range(1, n_second + 1)
        if np.sum((first == a) & (second == b)) / np.sum((first == a) | (second == b)) >= DETECTION_IOU
    }

    def most(row: int, taken: frozenset[int]) -> int:
        if row > n_first:
            return 0
        free = [b for b in range(1, n_second + 1) if (row, b) in allowed and b not in taken]
        return max([most(row + 1, taken), *(1 + most(row + 1, taken | {b}) for b in free)])

    return most(1, frozenset())


@pytest.mark.parametrize("seed", range(12))
def test_as_many_pairs_as_any_pairing_has(seed: int) -> None:
    generator = np.random.default_rng(seed)
    masks = []
    for _ in range(2):
        noise = ndimage.gaussian_filter(generator.standard_normal(SHAPE), 2.0)
        masks.append(noise > np.quantile(noise, 0.8))
    masks[1] |= np.roll(masks[0], 1, axis=0) & (generator.random(SHAPE) < 0.7)
    masks[1] = ndimage.binary_opening(masks[1])
    assert score_lesions(*masks).n_found == best_pairing(*masks)


@pytest.mark.parametrize("seed", CASES)
def test_panoptic_quality_is_that_of_panoptica(seed: int) -> None:
    score, expected = score_lesions(*mask_pair(seed)), PANOPTICA[seed]
    assert (score.n_reference, score.n_prediction, score.n_matched) == (
        expected["n_reference"], expected["n_prediction"], expected["tp"],
    )  # fmt: skip
    assert score.panoptic_quality == pytest.approx(expected["pq"], abs=1e-9)
