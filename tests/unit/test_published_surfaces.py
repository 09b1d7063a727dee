"""Pairs of masks whose numbers others have published: DeepMind's package, MONAI and MetricsReloaded.

The table of six pairs was made with surface-distance 0.1, MONAI 1.6.1 and MetricsReloaded, and printed to four digits.
MetricsReloaded counts boundary voxels, all alike, where DeepMind and this package weigh a surface by its area. So its
numbers are checked twice: where both agree (HD95, HD100, Dice, IoU) this package must give them; where they do not
(surface Dice, mean distance) its definition, written out here, must give them on the same masks, which shows that the
difference is one of definition and not of the masks.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest
from scipy import ndimage

from monai_tl.geometry import Spacing
from monai_tl.metrics.distances import measure_distances
from monai_tl.metrics.overlap import dice, iou_from_dice
from monai_tl.metrics.surface import score_surfaces

THIN, THICK = (3.0, 0.7, 0.7), (5.0, 1.0, 1.0)


@dataclass(frozen=True)
class Published:
    """A row of the table.

    Attributes:
        surface_dice: DeepMind's, at 1 and at 3 mm.
        surface_dice_voxels: MetricsReloaded's.
        mean_mm: The mean of DeepMind's two directions.
        mean_mm_voxels: MetricsReloaded's MASD: the mean of the two directions over boundary voxels.
    """

    hd95_mm: float
    surface_dice: tuple[float, float]
    surface_dice_voxels: tuple[float, float]
    mean_mm: float
    mean_mm_voxels: float


def sphere(shape: tuple[int, int, int], centre: tuple[int, int, int]) -> np.ndarray:
    """Of 12 mm, around a voxel."""
    steps = np.indices(shape) - np.reshape(centre, (3, 1, 1, 1))
    return ((steps * np.reshape(THIN, (3, 1, 1, 1))) ** 2).sum(axis=0) <= 12.0**2


def filled(shape: tuple[int, int, int], *box: tuple[int, int]) -> np.ndarray:
    mask = np.zeros(shape, dtype=bool)
    mask[tuple(slice(*ends) for ends in box)] = True
    return mask


def shifted_sphere() -> tuple[np.ndarray, np.ndarray, Spacing]:
    return sphere((14, 44, 44), (7, 22, 20)), sphere((14, 44, 44), (7, 22, 22)), THIN


def far_island() -> tuple[np.ndarray, np.ndarray, Spacing]:
    """Eight voxels, 18 planes, 22 rows and 22 columns before the centre."""
    reference = sphere((26, 44, 44), (20, 24, 24))
    prediction = reference | filled((26, 44, 44), (2, 4), (2, 4), (2, 4))
    return reference, prediction, THIN


def single_voxels() -> tuple[np.ndarray, np.ndarray, Spacing]:
    shape = (5, 5, 9)
    return filled(shape, (2, 3), (2, 3), (2, 3)), filled(shape, (2, 3), (2, 3), (5, 6)), THIN


def plates() -> tuple[np.ndarray, np.ndarray, Spacing]:
    shape = (8, 20, 20)
    return filled(shape, (3, 4), (4, 16), (4, 16)), filled(shape, (4, 5), (4, 16), (4, 16)), THIN


def touching_the_border() -> tuple[np.ndarray, np.ndarray, Spacing]:
    shape = (14, 24, 24)
    return filled(shape, (0, 12), (0, 20), (0, 20)), filled(shape, (0, 12), (0, 20), (0, 21)), THIN


PAIRS = {
    shifted_sphere: Published(1.4, (0.9282, 1.0), (0.9193, 1.0), 0.3242, 0.3209),
    far_island: Published(0.0, (0.9937, 0.9937), (0.9978, 0.9978), 0.2755, 0.0988),
    single_voxels: Published(2.1, (0.0, 1.0), (0.0, 1.0), 1.75, 2.1),
    plates: Published(3.0, (0.5, 1.0), (0.0, 1.0), 1.5, 3.0),
    touching_the_border: Published(0.7, (1.0, 1.0), (1.0, 1.0), 0.1402, 0.0922),
}


def boundary_distances(mask: np.ndarray, other: np.ndarray, spacing_mm: Spacing) -> np.ndarray:
    """From each boundary voxel to the other's nearest, as MetricsReloaded and MONAI take them."""
    edges = [one & ~ndimage.binary_erosion(one) for one in (mask, other)]
    return ndimage.distance_transform_edt(~edges[1], sampling=spacing_mm)[edges[0]]


@pytest.mark.parametrize("pair", PAIRS, ids=lambda pair: pair.__name__)
def test_surfaces_are_deepminds_to_the_printed_digits(pair) -> None:
    reference, prediction, spacing_mm = pair()
    published = PAIRS[pair]
    for tolerance_mm, expected in zip((1.0, 3.0), published.surface_dice, strict=True):
        score = score_surfaces(reference, prediction, spacing_mm, tolerance_mm)
        assert score.surface_dice == pytest.approx(expected, abs=5e-5)
        assert score.hd95_mm == pytest.approx(published.hd95_mm, abs=5e-5)
    ways = measure_distances(reference, prediction, spacing_mm)
    means = [np.average(way.mm, weights=way.areas_mm2) for way in ways]
    assert np.mean(means) == pytest.approx(published.mean_mm, abs=5e-5)
    # this package's one number: both surfaces together
    both = np.average(means, weights=[way.areas_mm2.sum() for way in ways])
    assert score.mean_surface_distance_mm == pytest.approx(both)


@pytest.mark.parametrize("pair", PAIRS, ids=lambda pair: pair.__name__)
def test_metricsreloaded_gives_its_own_numbers_on_these_masks_and_the_same_hd95(pair) -> None:
    reference, prediction, spacing_mm = pair()
    published = PAIRS[pair]
    ways = [boundary_distances(*masks, spacing_mm) for masks in ((reference, prediction), (prediction, reference))]
    together = np.concatenate(ways)
    for tolerance_mm, expected in zip((1.0, 3.0), published.surface_dice_voxels, strict=True):
        assert np.mean(together <= tolerance_mm + 1e-9) == pytest.approx(expected, abs=5e-5)
    assert np.mean([way.mean() for way in ways]) == pytest.approx(published.mean_mm_voxels, abs=5e-5)
    hd95_mm = max(np.percentile(way, 95) for way in ways)
    assert hd95_mm == pytest.approx(published.hd95_mm, abs=5e-5)


def test_the_island_is_seen_by_hd100_alone() -> None:
    assert score_surfaces(*far_island(), 1.0).hd100_mm == pytest.approx(47.1, abs=0.05)


# ---- from the tests of MetricsReloaded itself (test_pairwise_measures.py), after figures of the pitfalls paper ----


def drawn(shape: tuple[int, int], *boxes: tuple[tuple[int, int], tuple[int, int]]) -> np.ndarray:
    """A plane of boxes, as a volume of one slice."""
    mask = np.zeros((*shape, 1), dtype=bool)
    for rows, columns in boxes:
        mask[slice(*rows), slice(*columns)] = True
    return mask


def test_a_square_with_a_cross_has_metricsreloadeds_overlap() -> None:
    reference = drawn((11, 11), ((3, 8), (3, 8)))
    prediction = drawn((11, 11), ((3, 8), (3, 8)), ((5, 6), (1, 10)), ((1, 10), (5, 6)))
    assert dice(reference, prediction) == pytest.approx(0.862, abs=0.001)
    assert iou_from_dice(dice(reference, prediction)) == pytest.approx(0.76, abs=0.01)


def test_a_square_without_its_far_voxel_has_metricsreloadeds_hausdorff_distance() -> None:
    reference = drawn((14, 14), ((1, 2), (1, 2)), ((9, 12), (9, 12)))
    prediction = drawn((14, 14), ((9, 12), (9, 12)))
    score = score_surfaces(reference, prediction, (1.0, 1.0, 1.0), 1.0)
    assert score.hd100_mm == pytest.approx(11.31, abs=0.01)
