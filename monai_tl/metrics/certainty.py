"""Is an arm as right as it says, and does it know where it is wrong? From what predict kept of each case."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from monai_tl.certainty_records import CaseCertainty, Reliability, RunCertainty
from monai_tl.errors import DataError
from monai_tl.metrics.calibration import ReliabilityCounts
from monai_tl.metrics.cohort import ArmResult, BootstrapRule, summarise_without_worst
from monai_tl.metrics.counting import reliability_counts
from monai_tl.metrics.summary import MetricSummary
from monai_tl.metrics.uncertainty import CurveIntervals, RiskCoverage, bootstrap_curve, risk_coverage

Measure = Literal["disagreement", "entropy"]


@dataclass(frozen=True)
class Reading:
    """Confidence against accuracy, before or after the temperature.

    Attributes:
        counts: Voxels of all cases and seeds together.
        of_cases: ECE of each case by itself (the mean over its seeds), with its interval over patients: what one case
            is off, where the errors of several cannot cancel.
    """

    counts: ReliabilityCounts
    of_cases: MetricSummary


@dataclass(frozen=True)
class Calibration:
    """Of one arm.

    Attributes:
        temperatures: Seed → temperature; None where there is none.
        n_validation_cases: The temperature of a seed was fitted on, at least.
        before: As the network says it.
        after: With the temperature; None unless each seed has one.
    """

    temperatures: Mapping[int, float | None]
    n_validation_cases: int
    before: Reading
    after: Reading | None


@dataclass(frozen=True)
class Uncertainty:
    """Of one arm: whether the cases it is unsure of are those it is wrong in.

    Attributes:
        measure: The number that orders the cases.
        source: What it was taken from, in words.
        curve: Against 1 − mean foreground Dice.
        intervals: Of its area and its excess.
        n_patients: Behind the cases of the curve.
    """

    measure: Measure
    source: str
    curve: RiskCoverage
    intervals: CurveIntervals
    n_patients: int


def judge_calibration(runs: Sequence[RunCertainty], arm: ArmResult, bootstrap: BootstrapRule) -> Calibration | None:
    """Calibration of an arm; None where predict counted nothing.

    Args:
        runs: Of this arm, one a seed.
        arm: Its scored cases.
        bootstrap: How intervals are drawn.
    """
    before = _reading([{name: case.reliability for name, case in run.cases.items()} for run in runs], arm, bootstrap)
    if before is None:
        return None
    all_have = all(run.temperature is not None for run in runs)
    scaled = [{name: case.scaled for name, case in run.cases.items()} for run in runs]
    return Calibration(
        temperatures={run.seed: run.temperature for run in runs},
        n_validation_cases=min(run.n_validation_cases for run in runs),
        before=before,
        after=_reading(scaled, arm, bootstrap) if all_have else None,
    )


def judge_uncertainty(runs: Sequence[RunCertainty], arm: ArmResult, bootstrap: BootstrapRule) -> Uncertainty | None:
    """Whether an arm's uncertainty tells where its error is; None where no case has both.

    The members' disagreement where there are members, else the entropy.

    Args:
        runs: Of this arm, one a seed.
        arm: Its scored cases.
        bootstrap: How intervals are drawn.
    """
    has_members = bool(runs) and all(run.members is not None for run in runs)
    measure: Measure = "disagreement" if has_members else "entropy"
    values = [_mean([_value(run.cases.get(case.case_id), measure) for run in runs]) for case in arm.cases]
    # a case without a prediction has an error, and nothing that could have told of it
    errors = [1.0 - case.mean("dice") for case in arm.cases]
    try:
        curve = risk_coverage(values, errors)
    except DataError:
        return None
    rule = bootstrap
    patients, generator = [case.patient_key for case in arm.cases], np.random.default_rng(rule.seed)
    intervals = bootstrap_curve(values, errors, patients, rule.n_bootstrap, rule.confidence, generator)
    counted = {
        case.patient_key
        for case, value, error in zip(arm.cases, values, errors, strict=True)
        if math.isfinite(error) and math.isfinite(value)
    }
    source = "one prediction of each case"
    if has_members:
        kinds = {"models": "the models of {} folds", "mirrored passes": "{} mirrored passes of one model"}
        source = kinds[runs[0].members or "models"].format(runs[0].n_members)
    return Uncertainty(measure, source, curve, intervals, len(counted))


def _reading(
    runs: Sequence[Mapping[str, Reliability | None]], arm: ArmResult, bootstrap: BootstrapRule
) -> Reading | None:
    total = ReliabilityCounts.nothing()
    errors = []
    for case in arm.cases:
        own = []
        for run in runs:
            found = run.get(case.case_id)
            if found is not None:
                counts = reliability_counts(found)
                total += counts
                own.append(counts.expected_error)
        errors.append(_mean([error for error in own if not math.isnan(error)]))
    if not total.n.any():
        return None
    patients, failed = [case.patient_key for case in arm.cases], [case.failed for case in arm.cases]
    return Reading(total, summarise_without_worst(errors, patients, failed, bootstrap))


def _value(case: CaseCertainty | None, measure: Measure) -> float:
    found = None if case is None else getattr(case, measure)
    return math.nan if found is None else float(found)


def _mean(values: Sequence[float]) -> float:
    """Over the seeds; NaN where one lacks it, as its score is the worst there is."""
    return float(np.mean(values)) if values else math.nan
