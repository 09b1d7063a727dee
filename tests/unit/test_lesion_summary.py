"""Lesions over cases and seeds, by hand."""

from __future__ import annotations

import math

import pytest
from test_report import RULE

from monai_tl.metrics.case import ClassScore
from monai_tl.metrics.cohort import ArmResult, CaseResult, summarise_arm
from monai_tl.metrics.lesion_summary import summarise_lesions
from monai_tl.metrics.lesions import LesionScore

SCORE = (ClassScore(0.9, 0.9, 1.0, 1.0, 1.0),)
FOUND = LesionScore(1, 1, 1, 1, 0.8)


def of_cases(*by_seed: list[LesionScore]) -> ArmResult:
    seeds = {
        seed: [
            CaseResult(f"case-{k}", f"patient-{k}", SCORE, score.failed, {0: score}) for k, score in enumerate(scores)
        ]
        for seed, scores in enumerate(by_seed)
    }
    return summarise_arm("transfer", seeds, ("tumour",), RULE)


def of_one_lesion() -> ArmResult:
    return of_cases([FOUND])


def test_means_are_over_cases_and_the_pool_over_lesions() -> None:
    found = summarise_lesions(of_cases([FOUND, LesionScore(3, 2, 0, 0, 0.0), LesionScore(0, 0, 0, 0, 0.0)]), 0, RULE)
    sensitivity = found.metrics["lesion_sensitivity"]
    assert (sensitivity.mean, sensitivity.n, sensitivity.n_empty) == (0.5, 2, 1)
    assert found.pooled_sensitivity == pytest.approx(0.25)
    assert (found.n_found, found.n_reference) == (1, 4)
    assert found.metrics["lesion_false_positives"].mean == pytest.approx(2 / 3)
    assert found.metrics["panoptic_quality"].mean == pytest.approx(0.4)


def test_a_failed_case_scores_worst_and_has_no_false_positives() -> None:
    found = summarise_lesions(of_cases([FOUND, LesionScore(1, 0, 0, 0, 0.0, failed=True)]), 0, RULE)
    assert found.metrics["lesion_sensitivity"].mean == pytest.approx(0.5)
    false = found.metrics["lesion_false_positives"]
    assert (false.mean, false.n, false.n_empty, false.n_failed) == (0.0, 1, 0, 1)


def test_a_seed_that_rightly_predicts_nothing_counts_as_perfect_beside_one_that_does_not() -> None:
    right, wrong = LesionScore(0, 0, 0, 0, 0.0), LesionScore(0, 2, 0, 0, 0.0)
    found = summarise_lesions(of_cases([right], [wrong]), 0, RULE)
    assert found.metrics["lesion_f1"].mean == pytest.approx(0.5)
    assert found.metrics["lesion_false_positives"].mean == pytest.approx(1.0)
    assert found.metrics["lesion_sensitivity"].n_empty == 1
    both = summarise_lesions(of_cases([right], [right]), 0, RULE)
    assert math.isnan(both.metrics["lesion_f1"].mean)
