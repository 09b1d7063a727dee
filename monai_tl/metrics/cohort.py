"""An arm's cases taken together: the summary of each metric, over all classes and class by class."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from monai_tl.metrics.case import METRIC_NAMES, ClassScore
from monai_tl.metrics.summary import MetricSummary, summarise

MetricSummaries = dict[str, MetricSummary]
"""By the names of METRIC_NAMES."""


@dataclass(frozen=True)
class CaseResult:
    """One arm's scores in one case.

    Attributes:
        patient_key: Pseudonym; groups cases in the bootstrap.
        scores: One a class.
        failed: There is no prediction; the scores are the worst there are.
    """

    case_id: str
    patient_key: str
    scores: tuple[ClassScore, ...]
    failed: bool = False

    def mean(self, metric: str) -> float:
        """Mean of a metric over the classes with a defined value; NaN when there is none."""
        values = [getattr(score, metric) for score in self.scores]
        defined = [value for value in values if not math.isnan(value)]
        return float(np.mean(defined)) if defined else math.nan


@dataclass(frozen=True)
class ArmResult:
    """What became of one arm.

    Attributes:
        cases: In the order of case ids.
        overall: Over each case's mean over classes.
        classes: Class name → its own summaries.
    """

    arm: str
    cases: tuple[CaseResult, ...]
    overall: MetricSummaries
    classes: dict[str, MetricSummaries]


@dataclass(frozen=True)
class BootstrapRule:
    """How intervals are drawn: number of samples, confidence, seed."""

    n_bootstrap: int
    confidence: float
    seed: int


def summarise_arm(
    arm: str, cases: Sequence[CaseResult], class_names: Sequence[str], bootstrap: BootstrapRule
) -> ArmResult:
    """Summarise an arm's cases.

    Args:
        arm: Its name.
        cases: Each case once.
        class_names: In the order of each case's scores.
        bootstrap: How intervals are drawn.
    """
    ordered = tuple(sorted(cases, key=lambda case: case.case_id))
    classes = {
        name: _summaries(ordered, bootstrap, lambda case, metric, k=k: getattr(case.scores[k], metric))  # type: ignore[misc]
        for k, name in enumerate(class_names)
    }
    return ArmResult(arm, ordered, _summaries(ordered, bootstrap, CaseResult.mean), classes)


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
