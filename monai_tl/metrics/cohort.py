"""An arm's cases taken together: the summary of each metric, over all classes and class by class."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from monai_tl.metrics.case import METRIC_NAMES, PERFECT, ClassScore
from monai_tl.metrics.lesions import LesionScore
from monai_tl.metrics.summary import MetricSummary, summarise

MetricSummaries = dict[str, MetricSummary]
"""By the names of METRIC_NAMES."""


@dataclass(frozen=True)
class CaseResult:
    """One arm's scores in one case: of one seed, or the mean over the seeds.

    Attributes:
        patient_key: Pseudonym; groups cases in the bootstrap.
        scores: One a class.
        failed: There is no prediction of one seed or more; its scores are the worst there are.
        lesions: Class from 0 → its lesions, of the classes counted so; empty in a mean over seeds.
    """

    case_id: str
    patient_key: str
    scores: tuple[ClassScore, ...]
    failed: bool = False
    lesions: Mapping[int, LesionScore] = field(default_factory=dict)

    def mean(self, metric: str) -> float:
        """Mean of a metric over the classes with a defined value; NaN when there is none."""
        values = [getattr(score, metric) for score in self.scores]
        defined = [value for value in values if not math.isnan(value)]
        return float(np.mean(defined)) if defined else math.nan


@dataclass(frozen=True)
class ArmResult:
    """What became of one arm.

    Attributes:
        cases: In the order of case ids; the mean over the seeds.
        overall: Over each case's mean over classes.
        classes: Class name → its own summaries.
        by_seed: Seed → its own results, in the order of ``cases``.
    """

    arm: str
    cases: tuple[CaseResult, ...]
    overall: MetricSummaries
    classes: dict[str, MetricSummaries]
    by_seed: dict[int, tuple[CaseResult, ...]]

    def seed_means(self, metric: str) -> dict[int, float]:
        """Seed → mean over its cases with a defined value; NaN when there is none."""
        means = {}
        for seed, cases in self.by_seed.items():
            values = [case.mean(metric) for case in cases]
            defined = [value for value in values if not math.isnan(value)]
            means[seed] = float(np.mean(defined)) if defined else math.nan
        return means

    def seed_sd(self, metric: str) -> float:
        """Standard deviation (n − 1) of the seeds' means; NaN with one seed."""
        means = [mean for mean in self.seed_means(metric).values() if not math.isnan(mean)]
        return float(np.std(means, ddof=1)) if len(means) > 1 else math.nan


@dataclass(frozen=True)
class BootstrapRule:
    """How intervals are drawn: number of samples, confidence, seed."""

    n_bootstrap: int
    confidence: float
    seed: int


def summarise_without_worst(
    values: Sequence[float], patients: Sequence[str], failed: Sequence[bool], bootstrap: BootstrapRule
) -> MetricSummary:
    """Of a number that has no worst value: a failed case without one is counted as failed alone, and not as empty.

    Args:
        values: One a case; NaN is undefined.
        patients: Patient of each case.
        failed: Whether the case has no prediction.
        bootstrap: How intervals are drawn.
    """
    rule = bootstrap
    summary = summarise(values, patients, failed, rule.n_bootstrap, rule.confidence, rule.seed)
    n_empty = sum(math.isnan(value) and not is_failed for value, is_failed in zip(values, failed, strict=True))
    return replace(summary, n_empty=n_empty)


def mean_over_seeds(results: Sequence[CaseResult]) -> CaseResult:
    """One case's scores, class by class and metric by metric the mean over the seeds.

    A class that neither the reference nor a seed's prediction holds has no score. Where another seed predicts it
    wrongly, the right one counts as perfect (1, 1, 0 mm), so that one false positive does not stand for all seeds.

    Args:
        results: The same case of each seed.
    """
    if len(results) == 1:
        return results[0]
    scores = tuple(
        ClassScore(**{name: _mean_score(name, [getattr(score, name) for score in same]) for name in _PERFECT})
        for same in zip(*(result.scores for result in results), strict=True)
    )
    return CaseResult(results[0].case_id, results[0].patient_key, scores, any(result.failed for result in results))


_PERFECT = {**PERFECT, "reference_ml": math.nan, "prediction_ml": math.nan}


def _mean_score(name: str, values: Sequence[float]) -> float:
    if all(math.isnan(value) for value in values):
        return math.nan
    return float(np.mean([_PERFECT[name] if math.isnan(value) else value for value in values]))


def summarise_arm(
    arm: str, by_seed: Mapping[int, Sequence[CaseResult]], class_names: Sequence[str], bootstrap: BootstrapRule
) -> ArmResult:
    """Summarise an arm's cases.

    Args:
        arm: Its name.
        by_seed: Seed → each case once; the same cases for each seed.
        class_names: In the order of each case's scores.
        bootstrap: How intervals are drawn; they are over patients, of the mean over the seeds.
    """
    seeds = {seed: tuple(sorted(cases, key=lambda case: case.case_id)) for seed, cases in by_seed.items()}
    ordered = tuple(mean_over_seeds(same) for same in zip(*seeds.values(), strict=True))
    classes = {
        name: _summaries(ordered, bootstrap, lambda case, metric, k=k: getattr(case.scores[k], metric))  # type: ignore[misc]
        for k, name in enumerate(class_names)
    }
    return ArmResult(arm, ordered, _summaries(ordered, bootstrap, CaseResult.mean), classes, seeds)


def _summaries(
    cases: Sequence[CaseResult], bootstrap: BootstrapRule, value: Callable[[CaseResult, str], float]
) -> MetricSummaries:
    patients, failed = [case.patient_key for case in cases], [case.failed for case in cases]
    return {
        metric: summarise(
            [value(case, metric) for case in cases],
            patients,
            failed,
            bootstrap.n_bootstrap,
            bootstrap.confidence,
            bootstrap.seed,
        )
        for metric in METRIC_NAMES
    }


def perfect_score(metric: str) -> float:
    """What a metric is when a prediction is right in every voxel; where it is 0, less is better.

    Args:
        metric: One of METRIC_NAMES.
    """
    return _PERFECT[metric]
