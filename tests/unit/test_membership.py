"""Strength of a membership attack: closed forms, other implementations, and what few patients cannot show."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy.special import ndtr
from scipy.stats import mannwhitneyu, norm

from monai_tl.metrics.case_loss import CaseLoss
from monai_tl.metrics.cohort import BootstrapRule
from monai_tl.metrics.membership import (
    auc_of,
    by_patient,
    judge_attack,
    likelihood_ratio,
    rate_at,
    scaled_confidence,
)
from monai_tl.training.losses import SegmentationLoss

RULE = BootstrapRule(400, 0.95, 0)


def test_auc_is_mann_and_whitneys_statistic() -> None:
    generator = np.random.default_rng(0)
    members, others = generator.integers(0, 9, 31).astype(float), generator.integers(0, 8, 17).astype(float)
    expected = mannwhitneyu(members, others).statistic / (31 * 17)
    assert auc_of(members, others) == pytest.approx(expected, abs=1e-12)


def test_rate_counts_false_alarms_and_never_a_tie() -> None:
    others = np.arange(100.0)
    members = np.array([98.0, 98.5, 99.0, 99.5])
    # one of a hundred may be wrong: the threshold is the second highest
    assert rate_at(members, others, 0.01) == 0.75
    assert rate_at(members, others, 0.0) == 0.25
    assert rate_at(members, np.full(10, 5.0), 0.5) == 1.0
    assert rate_at(np.full(4, 5.0), np.full(10, 5.0), 0.5) == 0.0


def test_normal_scores_give_the_auc_of_their_distance() -> None:
    generator = np.random.default_rng(1)
    members, others = generator.normal(1.0, 1.0, 1000), generator.normal(0.0, 1.0, 1000)
    found = judge_attack(members, others, BootstrapRule(50, 0.95, 0), 0.01)
    assert found.auc == pytest.approx(float(ndtr(1.0 / math.sqrt(2.0))), abs=0.02)
    assert found.true_positive_rate == pytest.approx(float(norm.sf(norm.isf(0.01) - 1.0)), abs=0.04)
    assert found.is_resolved


def test_intervals_hold_the_truth_about_as_often_as_they_say() -> None:
    generator = np.random.default_rng(2)
    rule, truth, n_held = BootstrapRule(150, 0.9, 0), float(ndtr(0.5 / math.sqrt(2.0))), 0
    for _ in range(120):
        interval = judge_attack(generator.normal(0.5, 1, 30), generator.normal(0, 1, 20), rule).auc_interval
        n_held += interval.low <= truth <= interval.high
    # binomial with p = 0.9: below 96 or above 118 of 120 happens once in a thousand
    assert 96 <= n_held <= 118


def test_perfect_separation_is_not_told_as_certainty() -> None:
    found = judge_attack(np.arange(10.0) + 100, np.arange(8.0), RULE)
    assert found.auc == found.auc_interval.high == 1.0
    # a run without an exception says at most that exceptions are rarer than about 3 in n
    assert 0.5 < found.auc_interval.low < 0.95
    # ten of ten found: the share that would be found may be as low as 0.025^(1/10)
    assert found.rate_interval.low == pytest.approx(0.025 ** (1 / 10))
    small = judge_attack([5.0, 6.0], [1.0, 2.0], RULE)
    assert small.auc_interval.low < found.auc_interval.low


def test_few_others_cannot_show_a_rate_of_one_percent() -> None:
    found = judge_attack(np.arange(30.0), np.arange(20.0), RULE, 0.01)
    assert not found.is_resolved
    assert found.finest_rate == 0.05
    # none seen of 20: the true rate may be up to 1 - 0.05^(1/20)
    assert found.rate_bound == pytest.approx(1.0 - 0.05 ** (1 / 20), abs=1e-9)
    alone = judge_attack([1.0], [2.0], RULE)
    assert math.isnan(alone.auc_interval.low)
    assert math.isnan(judge_attack([], [2.0], RULE).auc)


def test_a_patient_is_one_score() -> None:
    assert by_patient({"a": 1.0, "b": 3.0, "c": 5.0}, {"a": "p", "b": "p", "c": "q"}) == {"p": 2.0, "q": 5.0}


def test_scaled_confidence_is_the_log_odds() -> None:
    for loss in (0.01, 0.7, 4.0):
        probability = math.exp(-loss)
        assert scaled_confidence(loss) == pytest.approx(math.log(probability / (1.0 - probability)))
    assert math.isfinite(scaled_confidence(0.0))


def _world(effect: float, n_references: int) -> tuple[dict, dict, dict, set[str]]:
    """Cases of very different difficulty; being trained on moves the scaled confidence by ``effect``."""
    generator = np.random.default_rng(3)
    names = [f"c{index}" for index in range(160)]
    difficulty = dict(zip(names, generator.normal(0, 5, len(names)), strict=True))
    members = set(names[:80])

    def see(name: str, is_member: bool) -> float:
        return float(difficulty[name] + effect * is_member + generator.normal())

    target = {name: see(name, name in members) for name in names}
    inside = {name: [see(name, True) for _ in range(n_references)] for name in names}
    outside = {name: [see(name, False) for _ in range(n_references)] for name in names}
    return target, inside, outside, members


def _auc(scores: dict[str, float], members: set[str]) -> float:
    return auc_of(
        np.array([score for name, score in scores.items() if name in members]),
        np.array([score for name, score in scores.items() if name not in members]),
    )


def test_the_ratio_sees_what_the_loss_alone_cannot() -> None:
    target, inside, outside, members = _world(2.0, 16)
    # difficulty hides the effect: the two populations differ by 2 with a spread of √(25 + 1)
    assert _auc(target, members) == pytest.approx(float(ndtr(2.0 / math.sqrt(2 * 26))), abs=0.09)
    best = float(ndtr(2.0 / math.sqrt(2.0)))
    assert _auc(likelihood_ratio(target, inside, outside), members) == pytest.approx(best, abs=0.06)
    assert _auc(likelihood_ratio(target, {}, outside), members) == pytest.approx(best, abs=0.06)
    assert _auc(likelihood_ratio(target, inside, outside), members) > 0.85


def test_the_ratio_is_that_of_two_normal_distributions() -> None:
    target = {"a": 0.3, "b": -1.0}
    inside, outside = {"a": [1.0, 2.0], "b": [0.0, 3.0]}, {"a": [0.0, -1.0], "b": [-2.0, 0.0]}
    spread_in, spread_out = math.sqrt(0.5 * (0.5 + 4.5)), math.sqrt(0.5 * (0.5 + 2.0))
    scores = likelihood_ratio(target, inside, outside)
    for name, value in target.items():
        expected = norm.logpdf(value, np.mean(inside[name]), spread_in) - norm.logpdf(
            value, np.mean(outside[name]), spread_out
        )
        assert scores[name] == pytest.approx(expected)
    assert likelihood_ratio(target, {}, {"a": [0.1]}) == {"a": pytest.approx(0.2)}


def test_the_loss_of_a_case_is_the_one_trained_with() -> None:
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn((1, 3, 6, 5, 4), generator=generator) * 3
    label = torch.randint(0, 2, (1, 6, 5, 4), generator=generator)
    expected = float(SegmentationLoss(3)(logits, label))
    probabilities = logits.softmax(dim=1)[0].numpy()
    loss = CaseLoss(label[0].numpy().astype(np.uint8), 3)
    for start, stop in ((0, 2), (2, 4), (4, 5)):
        loss.add(1, start, probabilities[:, :, start:stop])
    assert loss.finish() == pytest.approx(expected, rel=1e-5)
