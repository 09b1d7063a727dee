"""What ``monai-tl evaluate`` writes: a row a case and class, the summaries as JSON, and the tables in Markdown."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from typing import Any

from monai_tl.metrics.case import METRIC_NAMES, ClassScore
from monai_tl.metrics.cohort import ArmResult, BootstrapRule, MetricSummaries
from monai_tl.metrics.lesions import LESION_METRICS, LesionScore, pooled_sensitivity
from monai_tl.metrics.subgroups import Subgroup, subgroup_record
from monai_tl.metrics.summary import MetricSummary, summarise

CASES_FILE, METRICS_FILE, SUMMARY_FILE = "cases.csv", "metrics.json", "summary.md"
CASE_COLUMNS = ("case", "patient", "class", "failed")
_LESION_FIELDS = tuple(field.name for field in fields(LesionScore) if field.name != "failed")


@dataclass(frozen=True)
class Evaluation:
    """A folder of predictions against its references.

    Attributes:
        result: The predictions as one arm of one seed.
        lesions: Class name → its lesions in each case, in the order of ``result.cases``.
        subgroups: Of the mean foreground Dice.
        n_unused: Predictions that belong to no reference.
        notes: What the reader must know.
    """

    result: ArmResult
    class_names: tuple[str, ...]
    lesions: Mapping[str, tuple[LesionScore, ...]]
    subgroups: tuple[Subgroup, ...]
    bootstrap: BootstrapRule
    tolerance_mm: float
    n_unused: int
    notes: tuple[str, ...]


def lesion_summaries(evaluation: Evaluation, name: str) -> dict[str, MetricSummary]:
    """Each lesion metric of a class over the cases; a failed case that has no worst number is not empty."""
    scores, cases, rule = evaluation.lesions[name], evaluation.result.cases, evaluation.bootstrap
    patients, failed = [case.patient_key for case in cases], [case.failed for case in cases]
    summaries = {}
    for metric in LESION_METRICS:
        values = [getattr(score, metric) for score in scores]
        summary = summarise(values, patients, failed, rule.n_bootstrap, rule.confidence, rule.seed)
        n_empty = sum(math.isnan(value) and not score.failed for value, score in zip(values, scores, strict=True))
        summaries[metric] = replace(summary, n_empty=n_empty)
    return summaries


def format_scores(evaluation: Evaluation) -> str:
    """``cases.csv``: a row a case and class; an empty cell where a metric is undefined."""
    measured = [field.name for field in fields(ClassScore)]
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow([*CASE_COLUMNS, *measured, *_LESION_FIELDS])
    for number, case in enumerate(evaluation.result.cases):
        for name, score in zip(evaluation.class_names, case.scores, strict=True):
            lesions = evaluation.lesions.get(name)
            counts = [getattr(lesions[number], field) for field in _LESION_FIELDS] if lesions else [""] * 5
            values = [getattr(score, field) for field in measured]
            writer.writerow(
                [case.case_id, case.patient_key, name, int(case.failed), *map(_cell, values), *map(_cell, counts)]
            )
    return text.getvalue()


def evaluation_record(evaluation: Evaluation) -> dict[str, Any]:
    """``metrics.json``; undefined numbers are null. No case is named in it."""
    result, rule = evaluation.result, evaluation.bootstrap
    return {
        "schema_version": 1,
        "n_cases": len(result.cases),
        "n_patients": len({case.patient_key for case in result.cases}),
        "n_failed": sum(case.failed for case in result.cases),
        "n_predictions_without_reference": evaluation.n_unused,
        "rules": {
            "surface_tolerance_mm": evaluation.tolerance_mm,
            "n_bootstrap": rule.n_bootstrap,
            "confidence": rule.confidence,
            "seed": rule.seed,
        },
        "overall": _summaries(result.overall),
        "classes": {name: _summaries(summaries) for name, summaries in result.classes.items()},
        "lesions": {
            name: {
                **_summaries(lesion_summaries(evaluation, name)),
                "pooled_sensitivity": _plain(pooled_sensitivity(scores)),
                "n_reference_lesions": sum(score.n_reference for score in scores),
            }
            for name, scores in evaluation.lesions.items()
        },
        "subgroups": [subgroup_record(row, "dice") for row in evaluation.subgroups],
        "notes": list(evaluation.notes),
    }


def format_summary(evaluation: Evaluation) -> str:
    """``summary.md``: every mean with its interval, and n, n_empty and n_failed beside it."""
    result, percent = evaluation.result, f"{100 * evaluation.bootstrap.confidence:g} %"
    lines = [
        f"# {len(result.cases)} cases of {len({case.patient_key for case in result.cases})} patients",
        "",
        f"Mean and {percent} interval over patients; n cases, of which `failed` have no prediction and score worst; "
        "`empty` have nothing to score (neither reference nor prediction) and are left out.",
        "",
        "| class | metric | mean | interval | n | empty | failed |",
        "|---|---|---|---|---|---|---|",
    ]
    groups = [("mean over classes", result.overall), *result.classes.items()]
    for name, summaries in groups:
        lines += [f"| {name} | {metric} | {_row(summaries[metric])} |" for metric in METRIC_NAMES]
    for name, scores in evaluation.lesions.items():
        lines += [f"| {name} | {metric} | {_row(one)} |" for metric, one in lesion_summaries(evaluation, name).items()]
        total, found = sum(one.n_reference for one in scores), sum(one.n_found for one in scores)
        lines.append(f"| {name} | lesions of all cases together | {found} of {total} found | | | | |")
    if evaluation.subgroups:
        lines += ["", "| group | | mean Dice | interval | n | empty | failed | |", "|---|---|---|---|---|---|---|---|"]
        lines += [
            f"| {row.attribute} | {row.group} | {_row(row.summary)} | {row.warning} |" for row in evaluation.subgroups
        ]
    if evaluation.notes:
        lines += ["", *(f"- {note}" for note in evaluation.notes)]
    return "\n".join(lines) + "\n"


def _row(summary: MetricSummary) -> str:
    mean = "–" if math.isnan(summary.mean) else f"{summary.mean:.3f}"
    interval = "–" if math.isnan(summary.low) else f"{summary.low:.3f} to {summary.high:.3f}"
    return f"{mean} | {interval} | {summary.n} | {summary.n_empty} | {summary.n_failed}"


def _summaries(summaries: MetricSummaries) -> dict[str, Any]:
    return {metric: _record(summary) for metric, summary in summaries.items()}


def _record(summary: MetricSummary) -> dict[str, Any]:
    return {name: _plain(value) for name, value in asdict(summary).items()}


def _plain(value: float) -> float | None:
    if type(value) is int:
        return value
    return None if math.isnan(value) else round(value, 6)


def _cell(value: float | str) -> str:
    if isinstance(value, float):
        return "" if math.isnan(value) else f"{value:.6f}"
    return str(value)
