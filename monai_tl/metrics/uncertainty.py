"""One number a case that says how unsure a prediction is, and whether it tells where the prediction is wrong.

Several predictions of a case are compared: of folds, of seeds, or of mirrored copies of the image. The maps are given
one after another and only running sums are kept.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

from monai_tl.errors import DataError, GeometryError
from monai_tl.metrics.overlap import dice_from_counts

Probabilities = NDArray[np.floating]
"""(C, I, J, K), channel 0 background, sums of 1."""
FLIPS: tuple[tuple[int, ...], ...] = tuple(
    axes for count in range(4) for axes in combinations((0, 1, 2), count)
)  # fmt: skip
"""The image itself and its seven mirrored copies: axes turned round."""


@dataclass(frozen=True)
class CaseUncertainty:
    """How unsure several predictions of a case are; higher is less sure.

    Attributes:
        disagreement: 1 − mean Dice of the foreground of each pair of predictions; 0 where none predicts any.
        entropy: Of the mean prediction, nats, mean over the voxels that any prediction calls foreground; 0 without any.
        information: The part of the entropy that the predictions' own does not explain (mutual information), likewise:
            what more training data would mend.
        volume_variation: Standard deviation over mean of the predicted foreground's volume; 0 without any.
    """

    disagreement: float
    entropy: float
    information: float
    volume_variation: float


def flipped_predictions(
    predict: Callable[[NDArray[np.floating]], Probabilities],
    image: NDArray[np.floating],
    flips: Sequence[tuple[int, ...]] = FLIPS,
) -> Iterator[Probabilities]:
    """Predictions of an image and its mirrored copies, each turned back, one after another.

    A network with classes that a side tells apart (left and right kidney) must not be mirrored along that axis.

    Args:
        predict: (C', I, J, K) image → (C, I, J, K) probabilities.
        image: (C', I, J, K).
        flips: Axes of I, J, K to mirror in each copy.
    """
    for axes in flips:
        behind = tuple(axis + 1 for axis in axes)
        yield np.flip(predict(np.ascontiguousarray(np.flip(image, behind))), behind)


def case_uncertainty(predictions: Iterable[Probabilities]) -> CaseUncertainty:
    """Compare the predictions of one case.

    Args:
        predictions: Two or more on one grid; from folds, seeds or ``flipped_predictions``.

    Raises:
        DataError: There are fewer than two.
        GeometryError: Their shapes differ.

    References:
        Roy et al. 2019, doi:10.1016/j.neuroimage.2019.03.042 (agreement of samples, variation of volume).
        Gal 2016, Uncertainty in Deep Learning, 3.3 (mutual information).
    """
    total: NDArray[np.float64] | None = None
    own: NDArray[np.float64] | None = None
    masks: list[NDArray[np.uint8]] = []
    shape: tuple[int, ...] = ()
    for one in predictions:
        values = one.astype(np.float64)
        if total is None or own is None:
            total, own, shape = values, _entropy(values), values.shape
        elif values.shape != shape:
            raise GeometryError(f"predictions of shapes {shape} and {values.shape} are of one case; predict again")
        else:
            total += values
            own += _entropy(values)
        # a bit a voxel: all of them are needed for the pairs
        masks.append(np.packbits(one.argmax(axis=0) > 0))
    if total is None or own is None or len(masks) < 2:
        raise DataError("uncertainty needs two predictions or more; train several folds or seeds, or mirror the image")
    volumes = np.array([int(np.bitwise_count(mask).sum()) for mask in masks], dtype=np.float64)
    anywhere = np.bitwise_or.reduce(masks)
    inside = np.unpackbits(anywhere, count=own.size).view(np.bool_).reshape(own.shape)
    whole, single = _entropy(total / len(masks))[inside], (own / len(masks))[inside]
    return CaseUncertainty(
        disagreement=_disagreement(masks, volumes),
        entropy=float(whole.mean()) if whole.size else 0.0,
        information=max(0.0, float((whole - single).mean())) if whole.size else 0.0,
        volume_variation=float(volumes.std() / volumes.mean()) if volumes.any() else 0.0,
    )


@dataclass(frozen=True)
class RiskCoverage:
    """What is left of the error when the least sure cases are handed to a person.

    Attributes:
        coverage: (n,) share of cases kept, 1/n to 1, the surest first.
        risk: (n,) mean error of the kept ones; cases of equal uncertainty count as in any order, on the mean.
        area: Mean of ``risk``.
        best_area: Of the order by the error itself: none can be lower.
        random_area: Of no order at all: the mean error.
        excess: (area − best_area) / (random_area − best_area): 0 is perfect, 1 says nothing, above 1 misleads; NaN
            where all errors are the same.
        n_undefined: Cases left out, without an error or an uncertainty.
    """

    coverage: NDArray[np.float64]
    risk: NDArray[np.float64]
    area: float
    best_area: float
    random_area: float
    excess: float
    n_undefined: int


def risk_coverage(uncertainty: Sequence[float], error: Sequence[float]) -> RiskCoverage:
    """Whether uncertainty predicts error.

    Args:
        uncertainty: One a case; higher is less sure. NaN is left out and counted.
        error: E.g. 1 − Dice. NaN likewise.

    Raises:
        DataError: No case has both.

    References:
        Geifman & El-Yaniv 2017, arXiv:1705.08500; Geifman et al. 2019, arXiv:1805.08206 (the area above the best).
    """
    unsure, wrong = np.asarray(uncertainty, dtype=np.float64), np.asarray(error, dtype=np.float64)
    defined = np.isfinite(unsure) & np.isfinite(wrong)
    unsure, wrong = unsure[defined], wrong[defined]
    n = len(wrong)
    if not n:
        raise DataError("no case has both an uncertainty and an error; evaluate the predictions first")
    risk = _risk(_tied_means(unsure, wrong))
    best = float(_risk(np.sort(wrong)).mean())
    area, mean = float(risk.mean()), float(wrong.mean())
    room = mean - best
    return RiskCoverage(
        coverage=np.arange(1, n + 1) / n,
        risk=risk,
        area=area,
        best_area=best,
        random_area=mean,
        excess=(area - best) / room if room > 1e-12 else math.nan,
        n_undefined=int((~defined).sum()),
    )


def _risk(ordered: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.asarray(np.cumsum(ordered) / np.arange(1, len(ordered) + 1))


def _tied_means(unsure: NDArray[np.float64], wrong: NDArray[np.float64]) -> NDArray[np.float64]:
    """Errors from the surest case on; each of equal uncertainty has their mean, which is the mean over all orders."""
    _, group = np.unique(unsure, return_inverse=True)
    means = np.bincount(group, weights=wrong) / np.bincount(group)
    return np.asarray(means[np.sort(group)])


def _entropy(probabilities: NDArray[np.float64]) -> NDArray[np.float64]:
    positive = np.where(probabilities > 0.0, probabilities, 1.0)
    return np.asarray(-(positive * np.log(positive)).sum(axis=0))


def _disagreement(masks: Sequence[NDArray[np.uint8]], volumes: NDArray[np.float64]) -> float:
    scores = [
        dice_from_counts(int(volumes[a]), int(volumes[b]), int(np.bitwise_count(masks[a] & masks[b]).sum()))
        for a, b in combinations(range(len(masks)), 2)
    ]
    # two that both predict nothing agree
    return 1.0 - float(np.mean([1.0 if math.isnan(score) else score for score in scores]))
