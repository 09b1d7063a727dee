"""The findings as files for machines: metrics.json and the tables behind DVC's plots."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from monai_tl.metrics.case import METRIC_NAMES, ClassScore
from monai_tl.metrics.cohort import ArmResult, MetricSummaries
from monai_tl.metrics.lesion_summary import LesionSummary
from monai_tl.metrics.subgroups import subgroup_record
from monai_tl.report.background import background_record, rules_record
from monai_tl.report.certainty import calibration_record, uncertainty_record
from monai_tl.report.findings import Findings, TrainedModel
from monai_tl.report.provenance import provenance_record
from monai_tl.report.tables import plain_numbers, rejection_counts


def metrics_record(findings: Findings) -> dict[str, Any]:
    """``metrics.json``: DVC's metrics; undefined numbers are null."""
    return {
        "schema_version": 1,
        "evaluated_on": findings.set_name,
        "rules": rules_record(findings),
        "n_test_cases": findings.n_cases,
        "n_test_patients": findings.n_patients,
        "seeds": list(findings.seeds),
        "arms": {
            arm.arm: {
                **_summaries_record(arm.overall),
                "classes": {name: _summaries_record(summaries) for name, summaries in arm.classes.items()},
                "seeds": _seeds_record(arm),
                "lesions": {name: _lesions_record(found) for name, found in findings.lesions.get(arm.arm, {}).items()},
            }
            for arm in findings.arms
        },
        "verdict": plain_numbers(findings.verdict.model_dump(mode="json")) if findings.verdict else None,
        "subgroups": {arm: [subgroup_record(row, "dice") for row in rows] for arm, rows in findings.subgroups.items()},
        "test_set_look": findings.look.model_dump(mode="json", exclude={"models"}) if findings.look else None,
        "models": findings.weights,
        "forgetting": _forgetting_record(findings),
        "calibration": calibration_record(findings),
        "uncertainty": uncertainty_record(findings),
        "provenance": provenance_record(findings),
        "rejected": rejection_counts(findings.rejections),
        **background_record(findings),
    }


def _forgetting_record(findings: Findings) -> dict[str, Any] | None:
    if findings.forgetting is None:
        return None
    record = findings.forgetting.model_dump(mode="json")
    return {**record, "changes": [plain_numbers(change) for change in record["changes"]]}


def _summaries_record(summaries: MetricSummaries) -> dict[str, Any]:
    return {metric: plain_numbers(asdict(summary)) for metric, summary in summaries.items()}


def _lesions_record(found: LesionSummary) -> dict[str, Any]:
    pooled = {"pooled_sensitivity": found.pooled_sensitivity, "n_reference_lesions": found.n_reference}
    return {**_summaries_record(found.metrics), **plain_numbers(pooled)}


def _seeds_record(arm: ArmResult) -> dict[str, Any]:
    """Each metric's mean by seed, and the standard deviation of these means; null with one seed."""
    means = {metric: arm.seed_means(metric) for metric in METRIC_NAMES}
    return {
        "means": {str(seed): plain_numbers({metric: means[metric][seed] for metric in means}) for seed in arm.by_seed},
        "sd": plain_numbers({metric: arm.seed_sd(metric) for metric in METRIC_NAMES}),
    }


def format_cases(arms: Sequence[ArmResult], class_names: Sequence[str], tolerances_mm: Sequence[float]) -> str:
    """``cases.csv``: each arm, seed, case and class; an empty cell where a metric is undefined.

    Patients are numbered: cases of one patient belong together in ``monai-tl compare``, and no pseudonym goes out.
    """
    patients = dict.fromkeys(case.patient_key for arm in arms for case in arm.cases)
    numbers = {patient: number for number, patient in enumerate(patients, start=1)}
    rows = [
        [
            *(arm.arm, seed, case.case_id, name),
            *(_cell(value) for value in asdict(score).values()),
            *(numbers[case.patient_key], int(case.failed), f"{tolerance:g}"),
        ]
        for arm in arms
        for seed, cases in arm.by_seed.items()
        for case in cases
        for name, score, tolerance in zip(class_names, case.scores, tolerances_mm, strict=True)
    ]
    return _csv(
        ["arm", "seed", "case_id", "class", *ClassScore.__dataclass_fields__, "patient", "failed", "tolerance_mm"], rows
    )


def format_history(models: Sequence[TrainedModel]) -> str:
    """``history.csv``: the learning curves of all trainings; an empty cell where a number was not measured."""
    rows = [
        [model.arm, model.fold, model.seed, point.step, _cell(point.val_dice), _cell(point.train_loss)]
        for model in models
        for point in model.history
    ]
    return _csv(["arm", "fold", "seed", "step", "val_dice", "train_loss"], rows)


def _cell(value: float | None) -> str:
    return "" if value is None or math.isnan(value) else f"{value:.6f}"


def _csv(header: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(header)
    writer.writerows(rows)
    return text.getvalue()
