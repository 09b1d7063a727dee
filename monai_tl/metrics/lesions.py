"""Lesion by lesion: which were found, what was found besides, and how well each is outlined.

A lesion is a 26-connected component. Predicted and reference lesions are paired one to one, so a blob over two lesions
finds one of them and two fragments of a lesion are one hit and one false positive. A pair counts for detection
(sensitivity, false positives, F1) from an IoU of 0.1, and for panoptic quality above an IoU of 0.5, its definition.
Among all pairings that are allowed the one with the most pairs is taken, and of these the one with the largest sum of
IoU, so the result does not depend on the order of lesions.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from scipy.optimize import linear_sum_assignment

from monai_tl.geometry import BoolVolume
from monai_tl.metrics.overlap import check_same_shape

DETECTION_IOU = 0.1
"""Least IoU of a found lesion: small lesions are outlined differently by two readers, and are found all the same."""
PANOPTIC_IOU = 0.5
"""A pair must exceed it (Kirillov et al.); above one half no lesion can have two partners."""
LESION_METRICS = ("lesion_sensitivity", "lesion_false_positives", "lesion_f1", "panoptic_quality")
"""In the order of tables; false positives are better when few."""
_NEIGHBOURS = np.ones((3, 3, 3), dtype=bool)


@dataclass(frozen=True)
class LesionScore:
    """Lesions of one class in one case; ratios are NaN where they are 0 / 0.

    Attributes:
        n_reference, n_prediction: Lesions.
        n_found: Pairs with an IoU of at least DETECTION_IOU.
        n_matched: Pairs with an IoU above PANOPTIC_IOU.
        matched_iou: Sum of their IoU.
        failed: There is no prediction.
    """

    n_reference: int
    n_prediction: int
    n_found: int
    n_matched: int
    matched_iou: float
    failed: bool = False

    @property
    def lesion_sensitivity(self) -> float:
        """Found over reference lesions; NaN without a reference lesion, 0 without a prediction."""
        return self._of(self.n_found, self.n_reference)

    @property
    def lesion_false_positives(self) -> float:
        """Predicted lesions that are no pair; NaN without a prediction: there is no worst number to give."""
        return math.nan if self.failed else float(self.n_prediction - self.n_found)

    @property
    def lesion_f1(self) -> float:
        """Twice the found over the sum of both numbers; NaN when there is no lesion in either."""
        return self._of(2 * self.n_found, self.n_reference + self.n_prediction)

    @property
    def panoptic_quality(self) -> float:
        """Sum of the matched IoU over matched and half of all others; NaN when there is no lesion in either."""
        return self._of(2.0 * self.matched_iou, self.n_reference + self.n_prediction)

    def _of(self, part: float, whole: int) -> float:
        if self.failed:
            return 0.0
        return part / whole if whole else math.nan


def score_lesions(reference: BoolVolume, prediction: BoolVolume) -> LesionScore:
    """Pair the lesions of a class and count.

    Args:
        reference: (I, J, K) bool.
        prediction: (I, J, K) bool, same grid as ``reference``.

    Raises:
        GeometryError: The shapes differ.

    References:
        Kirillov et al. 2019, doi:10.1109/CVPR.2019.00963 (panoptic quality).
        Maier-Hein et al. 2024, doi:10.1038/s41592-023-02151-z (one-to-one assignment, stated criterion).
    """
    check_same_shape(reference, prediction)
    first, n_first = ndimage.label(reference, structure=_NEIGHBOURS)
    second, n_second = ndimage.label(prediction, structure=_NEIGHBOURS)
    rows, columns, iou = _overlapping(first, second, n_first, n_second)
    found = _assign(rows, columns, iou, iou >= DETECTION_IOU)
    # unique above one half, so nothing is to be chosen
    matched = iou[iou > PANOPTIC_IOU]
    return LesionScore(n_first, n_second, len(found), len(matched), math.fsum(matched))


def no_prediction(reference: BoolVolume) -> LesionScore:
    """The score of a case without a prediction: the worst there is, also where the reference has no lesion."""
    return LesionScore(ndimage.label(reference, structure=_NEIGHBOURS)[1], 0, 0, 0, 0.0, failed=True)


def pooled_sensitivity(scores: Sequence[LesionScore]) -> float:
    """Found over reference lesions of all cases together; NaN without any. Cases with many lesions weigh more."""
    total = sum(score.n_reference for score in scores)
    return sum(score.n_found for score in scores) / total if total else math.nan


def _overlapping(
    first: NDArray[np.int32], second: NDArray[np.int32], n_first: int, n_second: int
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float64]]:
    """Lesion of each side, from 0, and the IoU of all pairs that share a voxel."""
    both = (first > 0) & (second > 0)
    pairs, shared = np.unique(first[both].astype(np.int64) * (n_second + 1) + second[both], return_counts=True)
    rows, columns = pairs // (n_second + 1), pairs % (n_second + 1)
    size_first = np.bincount(first.ravel(), minlength=n_first + 1)
    size_second = np.bincount(second.ravel(), minlength=n_second + 1)
    iou = shared / (size_first[rows] + size_second[columns] - shared)
    return rows - 1, columns - 1, iou


def _assign(
    rows: NDArray[np.int64], columns: NDArray[np.int64], iou: NDArray[np.float64], allowed: NDArray[np.bool_]
) -> list[tuple[int, int]]:
    """The most pairs, then the largest sum of IoU."""
    rows, columns, iou = rows[allowed], columns[allowed], iou[allowed]
    if not len(rows):
        return []
    names_first, left = np.unique(rows, return_inverse=True)
    names_second, right = np.unique(columns, return_inverse=True)
    gain = np.zeros((len(names_first), len(names_second)))
    # one more pair outweighs any sum of IoU
    gain[left, right] = iou + min(gain.shape)
    chosen = zip(*linear_sum_assignment(gain, maximize=True), strict=True)
    return [(int(names_first[a]), int(names_second[b])) for a, b in chosen if gain[a, b] > 0]
