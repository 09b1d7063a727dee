"""Lesions of all cases of an arm: means over cases with their intervals, and all lesions together."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from monai_tl.metrics.cohort import ArmResult, BootstrapRule, summarise_without_worst
from monai_tl.metrics.lesions import LESION_METRICS, LesionScore, pooled_sensitivity
from monai_tl.metrics.summary import MetricSummary


@dataclass(frozen=True)
class LesionSummary:
    """Of one class.

    Attributes:
        metrics: By the names of LESION_METRICS, over cases.
        pooled_sensitivity: Found over reference lesions of all cases (and seeds) together; NaN without any.
        n_reference: Lesions in the references of all cases.
        n_found: Of them, found; the mean over the seeds.
    """

    metrics: dict[str, MetricSummary]
    pooled_sensitivity: float
    n_reference: int
    n_found: float


def summarise_lesions(arm: ArmResult, index: int, bootstrap: BootstrapRule) -> LesionSummary:
    """Lesions of one class.

    A case scores the mean over its seeds. Where a seed has a ratio of 0 / 0, because it rightly predicts nothing, and
    another has not, the right one counts as 1.

    Args:
        arm: Its cases hold the lesions of this class.
        index: Class from 0.
        bootstrap: How intervals are drawn.
    """
    by_seed = [[case.lesions[index] for case in cases] for cases in arm.by_seed.values()]
    by_case = list(zip(*by_seed, strict=True))
    patients, failed = [case.patient_key for case in arm.cases], [case.failed for case in arm.cases]
    metrics = {
        metric: summarise_without_worst([_mean(same, metric) for same in by_case], patients, failed, bootstrap)
        for metric in LESION_METRICS
    }
    together = [score for scores in by_seed for score in scores]
    return LesionSummary(
        metrics,
        pooled_sensitivity(together),
        sum(score.n_reference for score in by_seed[0]),
        sum(score.n_found for score in together) / len(by_seed),
    )


def _mean(scores: Sequence[LesionScore], metric: str) -> float:
    values = [getattr(score, metric) for score in scores]
    if all(math.isnan(value) for value in values):
        return math.nan
    if metric == "lesion_false_positives":
        # undefined without a prediction
        return float(np.nanmean(values))
    return float(np.mean([1.0 if math.isnan(value) else value for value in values]))
