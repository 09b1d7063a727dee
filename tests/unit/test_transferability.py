"""Transferability scores against closed forms, brute force and scipy."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.linalg import sqrtm
from scipy.optimize import minimize
from scipy.stats import multivariate_normal, wasserstein_distance, wishart

from monai_tl.transfer.transferability import (
    CaseFeatures,
    class_consistency,
    class_consistency_feature_variety,
    feature_variety,
    gaussian_bhattacharyya,
    gaussian_wasserstein,
    hyperspherical_energy,
    log_maximum_evidence,
    maximise_evidence,
)


def marginal(features: np.ndarray, target: np.ndarray, alpha: float, beta: float) -> float:
    """log p(y | F) with the weights integrated out: y is normal with covariance I / beta + F Fᵀ / alpha."""
    covariance = np.eye(len(target)) / beta + features @ features.T / alpha
    return float(multivariate_normal.logpdf(target, np.zeros(len(target)), covariance))


def brute_force(features: np.ndarray, target: np.ndarray) -> float:
    """Largest log evidence per sample over a grid of starts, refined."""

    def loss(logs: np.ndarray) -> float:
        alpha, beta = np.exp(np.clip(logs, -12, 12))
        return -marginal(features, target, alpha, beta)

    starts = [(a, b) for a in (-4.0, 0.0, 4.0) for b in (-2.0, 1.0, 4.0)]
    return -min(minimize(loss, start, method="Nelder-Mead").fun for start in starts) / len(target)


@pytest.mark.parametrize(("n", "d", "noise"), [(40, 3, 0.3), (40, 3, 3.0), (30, 12, 0.5), (15, 40, 0.5)])
def test_evidence_is_the_largest_marginal_likelihood(n, d, noise):
    rng = np.random.default_rng(n + d)
    features = rng.normal(size=(n, d)) * rng.uniform(0.2, 3.0, d)
    target = features @ rng.normal(size=d) + noise * rng.normal(size=n)
    found = maximise_evidence(features, target)
    # more channels than voxels included, where the unused directions must cancel
    assert found.per_sample * n == pytest.approx(marginal(features, target, found.alpha, found.beta), abs=1e-6)
    assert found.per_sample == pytest.approx(brute_force(features, target), abs=1e-4)


def test_logme_is_the_mean_over_classes_of_brute_force():
    rng = np.random.default_rng(3)
    labels = np.repeat([0, 1, 2], 15)
    features = rng.normal(size=(45, 4)) + np.eye(4)[labels] * 2.0
    expected = np.mean([brute_force(features, (labels == value).astype(float)) for value in range(3)])
    assert log_maximum_evidence(features, labels) == pytest.approx(expected, abs=1e-4)


def test_logme_falls_to_the_evidence_of_no_features_at_all():
    """Columns orthogonal to the target explain nothing: what is left is a normal distribution around zero."""
    target = np.array([1.0, 1.0, 0.0, 0.0, 1.0, 1.0])
    features = np.array([[1.0, -1.0, 0.0, 0.0, 0.0, 0.0], [0.0, 0.0, 0.0, 0.0, 1.0, -1.0]]).T
    beta = len(target) / np.sum(target**2)
    bare = 0.5 * math.log(beta / (2 * math.pi)) - 0.5
    assert maximise_evidence(features, target).per_sample == pytest.approx(bare, abs=1e-6)


def test_logme_knows_no_scale_and_no_rotation_and_prefers_what_separates():
    rng = np.random.default_rng(4)
    labels = np.repeat([0, 1], 100)
    useless = rng.normal(size=(200, 6))
    useful = useless + 2.0 * labels[:, None] * np.eye(6)[0]
    rotation = np.linalg.qr(rng.normal(size=(6, 6)))[0]
    score = log_maximum_evidence(useful, labels)
    assert log_maximum_evidence(useful @ rotation * 1e3, labels) == pytest.approx(score, abs=1e-6)
    assert score > log_maximum_evidence(useless, labels) + 0.1
    assert math.isnan(log_maximum_evidence(useful, np.zeros(200, dtype=int)))


def test_features_that_determine_the_class_or_are_dead_give_numbers():
    labels = np.repeat([0, 1], 20)
    perfect = np.stack([labels, 1.0 - labels], axis=1)
    assert math.isfinite(log_maximum_evidence(perfect, labels))
    dead = np.zeros((40, 3))
    assert math.isfinite(log_maximum_evidence(dead, labels))
    assert log_maximum_evidence(perfect, labels) > log_maximum_evidence(dead, labels)
    assert math.isfinite(gaussian_bhattacharyya(dead, labels))


def test_wasserstein_against_the_textbook_formula():
    rng = np.random.default_rng(5)
    first = rng.multivariate_normal([0, 1, 2], wishart.rvs(6, np.eye(3), random_state=1), 50)
    second = rng.multivariate_normal([1, 1, 0], wishart.rvs(6, np.eye(3), random_state=2), 70)
    s1, s2 = np.cov(first.T), np.cov(second.T)
    root = sqrtm(s1)
    trace = np.trace(s1 + s2 - 2 * np.real(sqrtm(root @ s2 @ root)))
    expected = math.sqrt(np.sum((first.mean(0) - second.mean(0)) ** 2) + trace)
    assert gaussian_wasserstein(first, second) == pytest.approx(expected, rel=1e-8)
    # fewer voxels than channels: covariances are singular
    wide = rng.normal(size=(6, 20)), rng.normal(size=(9, 20)) + 1.0
    s1, s2 = (np.cov(sample.T) for sample in wide)
    values = np.linalg.eigvals(s1 @ s2)
    trace = np.trace(s1) + np.trace(s2) - 2 * np.sum(np.sqrt(np.maximum(np.real(values), 0)))
    expected = math.sqrt(np.sum((wide[0].mean(0) - wide[1].mean(0)) ** 2) + trace)
    assert gaussian_wasserstein(*wide) == pytest.approx(expected, rel=1e-5)


def test_wasserstein_of_samples_that_are_shifts_and_stretches_of_another():
    rng = np.random.default_rng(6)
    sample = rng.normal(size=(80, 5))
    assert gaussian_wasserstein(sample, sample) == pytest.approx(0.0, abs=1e-6)
    shift = np.array([3.0, 0.0, 4.0, 0.0, 0.0])
    # for a shift the optimal map is the shift, whatever the distribution
    assert gaussian_wasserstein(sample, sample + shift) == pytest.approx(5.0)
    line = rng.normal(size=(400, 1))
    one = wasserstein_distance(line[:, 0], line[:, 0] + 2.0)
    assert gaussian_wasserstein(line, line + 2.0) == pytest.approx(one)
    # in one dimension W2 of sorted samples; a stretch keeps the order
    other = 1.0 + 3.0 * line
    sorted_samples = math.sqrt(np.mean((np.sort(line[:, 0]) - np.sort(other[:, 0])) ** 2))
    assert gaussian_wasserstein(line, other) == pytest.approx(sorted_samples, rel=2e-3)


def test_energy_of_known_points_on_the_sphere():
    assert hyperspherical_energy(np.array([[5.0, 0.0], [-0.1, 0.0]])) == pytest.approx(0.5)
    # octahedron: 12 edges of length √2, 3 diagonals of 2; lengths do not matter
    octahedron = np.concatenate([np.eye(3), -3.0 * np.eye(3)])
    assert hyperspherical_energy(octahedron) == pytest.approx((12 / math.sqrt(2) + 3 / 2) / 15)
    tetrahedron = np.array([[1, 1, 1], [1, -1, -1], [-1, 1, -1], [-1, -1, 1]], dtype=float)
    assert hyperspherical_energy(tetrahedron) == pytest.approx(math.sqrt(3 / 8))
    crowded = octahedron + 10.0
    assert hyperspherical_energy(crowded) > hyperspherical_energy(octahedron)
    assert math.isnan(hyperspherical_energy(np.zeros((4, 3))))
    assert hyperspherical_energy(np.ones((3, 2))) == pytest.approx(1e3)


def two_cases(shift: float, scale: float = 1.0) -> list[CaseFeatures]:
    """Corners of a square of side 2 as foreground, the same in both cases but for a shift; background far away."""
    square = np.array([[1.0, 1.0], [1.0, -1.0], [-1.0, 1.0], [-1.0, -1.0]])
    moved = square + np.array([shift, 0.0])
    background = square + np.array([0.0, 10.0])
    everywhere = np.array([[1.0, 0.0], [-1.0, 0.0]])
    return [
        CaseFeatures({0: scale * background, 1: scale * square}, scale * everywhere),
        CaseFeatures({0: scale * background, 1: scale * moved}, scale * everywhere),
    ]


def test_ccfv_by_hand():
    cases = two_cases(shift=4.0)
    # foreground lies around (2, 0), background around (0, 10): the centre of both is (1, 5)
    foreground = np.mean([(x - 1) ** 2 + (y - 5) ** 2 for x in (1, -1, 5, 3) for y in (1, -1)])
    background = np.mean([(x - 1) ** 2 + (y - 5) ** 2 for x in (1, -1) for y in (11, 9)])
    spread = math.sqrt((foreground + background) / 2)
    assert class_consistency(cases) == pytest.approx(4.0 / spread)
    assert feature_variety(cases) == pytest.approx(2.0)
    expected = math.log(2.0 / (4.0 / spread))
    assert class_consistency_feature_variety([cases]) == pytest.approx(expected)
    closer = two_cases(shift=1.0)
    both = class_consistency_feature_variety([cases, closer])
    assert both == pytest.approx((expected + class_consistency_feature_variety([closer])) / 2)
    assert class_consistency_feature_variety([closer]) > expected


def test_ccfv_knows_no_scale_and_admits_what_it_cannot_say():
    scores = [class_consistency_feature_variety([two_cases(2.0, scale)]) for scale in (1.0, 1e-3, 1e4)]
    assert scores == pytest.approx([scores[0]] * 3)
    assert math.isnan(class_consistency(two_cases(2.0)[:1]))
    dead = [CaseFeatures({1: np.zeros((4, 2))}, np.zeros((4, 2)))] * 2
    assert math.isnan(class_consistency_feature_variety([dead]))
    assert math.isnan(class_consistency_feature_variety([]))


def test_bhattacharyya_in_closed_form():
    """Two classes with the same spread s² at distance D: the coefficient is exp(−D² / 8s²), counted both ways."""
    square = np.array([[1.0, 1.0], [1.0, -1.0], [-1.0, 1.0], [-1.0, -1.0]])
    labels = np.repeat([0, 1], 4)
    features = np.concatenate([square, square + np.array([3.0, 4.0])])
    assert gaussian_bhattacharyya(features, labels) == pytest.approx(-2 * math.exp(-25 / 8))
    # concentric classes, one k times as wide: (2k / (1 + k²)) ^ (d/2)
    features = np.concatenate([square, 3.0 * square])
    assert gaussian_bhattacharyya(features, labels) == pytest.approx(-2 * (2 * 3 / (1 + 9)))
    assert gaussian_bhattacharyya(np.concatenate([square, square + 1e3]), labels) == pytest.approx(0.0)
    assert math.isnan(gaussian_bhattacharyya(square, np.zeros(4, dtype=int)))
