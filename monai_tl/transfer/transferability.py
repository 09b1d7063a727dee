"""Scores that guess, before any training, how well a source's features suit the target; higher is better in each.

They are functions of sampled voxel features alone. None is reliable by itself (Chaves et al. 2023, arXiv:2308.07444):
``monai_tl.transfer.rank`` holds them against a probe.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import cast

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.distance import pdist

Features = NDArray[np.float64]
"""(n, d): n sampled voxels, d channels."""

_MAX_ITERATIONS = 1000
_TOLERANCE = 1e-8
_RATIO_RANGE = 1e12
"""The fixed point runs off to zero where features explain all and to infinity where they explain nothing."""
_LEAST_DISTANCE = 1e-3
"""On the unit sphere; two voxels with the same features would have infinite energy."""


@dataclass(frozen=True)
class Evidence:
    """The largest evidence of a Bayesian linear regression of one target on features.

    Attributes:
        alpha: Precision of the weights' prior.
        beta: Precision of the noise.
        per_sample: Log evidence over the number of samples.
    """

    alpha: float
    beta: float
    per_sample: float


@dataclass(frozen=True)
class _Projection:
    """What the evidence needs of features and target.

    Attributes:
        variances: Squared singular values of the features that are not zero, (k,).
        shares: Squared projections of the target on the left singular vectors, (k,).
        rest: Squared length of the target outside the features' span.
    """

    n: int
    variances: Features
    shares: Features
    rest: float

    def residuals(self, ratio: float) -> tuple[float, float, float]:
        """Effective number of parameters, squared length of the weights, squared residual at alpha / beta."""
        used = self.variances / (self.variances + ratio)
        weights = float(np.sum(self.variances * self.shares / (self.variances + ratio) ** 2))
        return float(used.sum()), weights, float(np.sum(self.shares * (1.0 - used) ** 2)) + self.rest

    def evidence(self, alpha: float, beta: float) -> float:
        """Log evidence; singular values of zero add nothing and are left out."""
        _, weights, residual = self.residuals(alpha / beta)
        fit = len(self.variances) * math.log(alpha) + self.n * math.log(beta / (2.0 * math.pi))
        fit -= float(np.sum(np.log(alpha + beta * self.variances)))
        return 0.5 * (fit - beta * residual - alpha * weights)


def maximise_evidence(features: Features, target: NDArray[np.floating]) -> Evidence:
    """Fit prior and noise by MacKay's fixed point: y = F w + e, w ~ N(0, I / alpha), e ~ N(0, I / beta).

    Args:
        features: (n, d).
        target: (n,), not all zero.

    Returns:
        The maximum; where features explain the target fully, or not at all, the value at the end of the range.

    References:
        You et al. 2021, arXiv:2102.11005; You et al. 2022, JMLR 23(209), algorithm 3.
    """
    left, singular, _ = np.linalg.svd(np.asarray(features, dtype=np.float64), full_matrices=False)
    return _maximise(left, singular, np.asarray(target, dtype=np.float64))


def _maximise(left: Features, singular: Features, target: NDArray[np.float64]) -> Evidence:
    size = float(target @ target)
    kept = singular > 1e-10 * max(float(singular.max(initial=0.0)), 1e-300)
    shares = (left[:, kept].T @ target) ** 2
    # a rounding error below zero would make a perfect fit more than perfect
    data = _Projection(len(target), singular[kept] ** 2, shares, max(0.0, size - float(shares.sum())))
    scale = float(data.variances.mean()) if kept.any() else 1.0
    low, high, ratio = scale / _RATIO_RANGE, scale * _RATIO_RANGE, scale
    for _ in range(_MAX_ITERATIONS):
        used, weights, residual = data.residuals(ratio)
        noise = max(residual, 1e-12 * size) / max(data.n - used, 1e-9)
        new = min(max(used / max(weights, 1e-300) * noise, low), high)
        converged = abs(math.log(new / ratio)) <= _TOLERANCE
        ratio = new
        if converged:
            break
    # beta is known in closed form for a given ratio, so both precisions belong to one point
    _, weights, residual = data.residuals(ratio)
    beta = data.n / max(residual + ratio * weights, 1e-12 * size)
    return Evidence(ratio * beta, beta, data.evidence(ratio * beta, beta) / data.n)


def log_maximum_evidence(features: Features, labels: NDArray[np.integer]) -> float:
    """LogME: mean over classes of the largest log evidence per voxel of the one-hot label given the features.

    Does not change when all features are scaled or rotated. There is no intercept, as in the paper.

    Args:
        features: (n, d).
        labels: (n,) class values; sampled with each class alike, or the rare ones count for little.

    Returns:
        Higher is better; NaN when fewer than two classes occur.

    References:
        You et al. 2021, arXiv:2102.11005.
    """
    values = np.unique(labels)
    if len(values) < 2:
        return math.nan
    left, singular, _ = np.linalg.svd(np.asarray(features, dtype=np.float64), full_matrices=False)
    found = [_maximise(left, singular, (labels == value).astype(np.float64)) for value in values]
    return float(np.mean([item.per_sample for item in found]))


def gaussian_wasserstein(first: Features, second: Features) -> float:
    """2-Wasserstein distance between the normal distributions of two samples.

    W² = ‖m₁ − m₂‖² + tr S₁ + tr S₂ − 2 tr (S₁ S₂)^½, and the last trace is the sum of the singular values of A₁ A₂ᵀ
    for any S = AᵀA, so no square root of a singular matrix is needed.

    Args:
        first: (n, d), n ≥ 2.
        second: (m, d), m ≥ 2.

    Returns:
        ≥ 0.
    """
    factors = [_factor(sample) for sample in (first, second)]
    shift = float(np.sum((first.mean(axis=0) - second.mean(axis=0)) ** 2))
    spreads = sum(float(np.sum(factor**2)) for factor in factors)
    overlap = float(np.linalg.svd(factors[0] @ factors[1].T, compute_uv=False).sum())
    return math.sqrt(max(0.0, shift + spreads - 2.0 * overlap))


def _factor(sample: Features) -> Features:
    """A with AᵀA the sample's covariance, of no more rows than columns."""
    centred = (sample - sample.mean(axis=0)) / math.sqrt(len(sample) - 1)
    if len(centred) > centred.shape[1]:
        centred = cast("Features", np.linalg.qr(centred, mode="r"))
    return cast("Features", centred)


def hyperspherical_energy(features: Features) -> float:
    """Mean inverse distance between all pairs of features projected on the unit sphere (Riesz energy, s = 1).

    Args:
        features: (n, d), n ≥ 2; rows of zeros have no direction and are left out.

    Returns:
        Low when directions are spread evenly; NaN with fewer than two directions.

    References:
        Liu et al. 2018, arXiv:1805.09298.
    """
    lengths = np.linalg.norm(features, axis=1)
    directions = features[lengths > 0] / lengths[lengths > 0, np.newaxis]
    if len(directions) < 2:
        return math.nan
    return float(np.mean(1.0 / np.maximum(pdist(directions), _LEAST_DISTANCE)))


@dataclass(frozen=True)
class CaseFeatures:
    """Features of one layer at voxels sampled from one case.

    Attributes:
        by_class: Class value (0 background) → (n, d).
        anywhere: (n, d), from the whole image whatever the class.
    """

    by_class: Mapping[int, Features]
    anywhere: Features


def class_consistency(cases: Sequence[CaseFeatures]) -> float:
    """How differently the same class looks in different cases, in units of the features' own spread.

    Mean over foreground classes and pairs of cases of ``gaussian_wasserstein``. The paper compares networks of one
    architecture; here they differ in width and scale, so the distance is divided by the root of the total variance over
    all classes (background too, classes alike).

    Returns:
        ≥ 0, low is consistent; NaN when no class is in two cases or the features do not vary.
    """
    values = sorted({value for case in cases for value in case.by_class})
    distances = []
    for value in values:
        samples = [case.by_class[value] for case in cases if value > 0 and len(case.by_class.get(value, ())) > 1]
        pairs = [gaussian_wasserstein(first, second) for first, second in combinations(samples, 2)]
        distances += [float(np.mean(pairs))] if pairs else []
    spread = _spread([np.concatenate([case.by_class[v] for case in cases if v in case.by_class]) for v in values])
    return float(np.mean(distances)) / spread if distances and spread > 0 else math.nan


def _spread(classes: Sequence[Features]) -> float:
    """Root of the total variance when each class counts alike."""
    if not classes:
        return 0.0
    centre = np.mean([sample.mean(axis=0) for sample in classes], axis=0)
    return math.sqrt(float(np.mean([np.mean(np.sum((sample - centre) ** 2, axis=1)) for sample in classes])))


def feature_variety(cases: Sequence[CaseFeatures]) -> float:
    """Mean over cases of the inverse ``hyperspherical_energy`` of features from the whole image.

    Returns:
        High when features are spread out; NaN when no case has two directions.
    """
    energies = [hyperspherical_energy(case.anywhere) for case in cases if len(case.anywhere) > 1]
    inverse = [1.0 / energy for energy in energies if not math.isnan(energy)]
    return float(np.mean(inverse)) if inverse else math.nan


def class_consistency_feature_variety(layers: Sequence[Sequence[CaseFeatures]]) -> float:
    """CC-FV: mean over decoder layers of log(feature variety / class consistency).

    Args:
        layers: For each decoder layer, its features in each case.

    Returns:
        Higher is better; NaN when it is undefined in a layer, infinite when all cases look the same.

    References:
        Yang et al. 2023, arXiv:2307.11958.
    """
    scores = []
    for cases in layers:
        variety, consistency = feature_variety(cases), class_consistency(cases)
        scores.append(math.log(variety / consistency) if consistency != 0.0 else math.inf)
    return float(np.mean(scores)) if scores else math.nan


def gaussian_bhattacharyya(features: Features, labels: NDArray[np.integer]) -> float:
    """GBC: minus the overlap of the classes' normal distributions (spherical), summed over ordered pairs of classes.

    Args:
        features: (n, d).
        labels: (n,) class values.

    Returns:
        −K(K−1) to 0, higher is better: 0 when no two of K classes overlap. NaN with fewer than two classes.

    References:
        Pándy et al. 2022, arXiv:2111.12780.
    """
    samples = [features[labels == value] for value in np.unique(labels)]
    if len(samples) < 2:
        return math.nan
    means = [sample.mean(axis=0) for sample in samples]
    # a class that does not vary at all is a point; the floor keeps its distance to others finite
    floor = 1e-12 * max(float(features.var()), 1e-300)
    variances = [max(float(sample.var(axis=0).mean()), floor) for sample in samples]
    overlap = 0.0
    for one, two in combinations(range(len(samples)), 2):
        joint = 0.5 * (variances[one] + variances[two])
        distance = float(np.sum((means[one] - means[two]) ** 2)) / (8.0 * joint)
        distance += (
            0.5
            * features.shape[1]
            * (math.log(joint) - 0.5 * math.log(variances[one]) - 0.5 * math.log(variances[two]))
        )
        overlap += math.exp(-distance)
    return -2.0 * overlap
