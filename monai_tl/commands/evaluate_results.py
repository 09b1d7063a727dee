"""What ``monai-tl evaluate`` writes: a row a case and class, the summaries as JSON, and the tables in Markdown."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

from monai_tl.metrics.case import METRIC_NAMES, ClassScore
from monai_tl.metrics.cohort import ArmResult, BootstrapRule, MetricSummaries
from monai_tl.metrics.lesion_summary import LesionSummary
from monai_tl.metrics.lesions import LesionScore
from monai_tl.metrics.subgroups import Subgroup, subgroup_record
from monai_tl.metrics.summary import MetricSummary

CASES_FILE, METRICS_FILE, SUMMARY_FILE = "cases.csv", "metrics.json", "summary.md"
CASE_COLUMNS = ("case", "patient", "class", "failed", "tolerance_mm")
_LESION_FIELDS = tuple(field.name for field in fields(LesionScore) if field.name != "failed")


@dataclass(frozen=True)
class Evaluation:
    """A folder of predictions against its references.

    Attributes:
        result: The predictions as one arm of one seed.
        lesions: Class name → its lesions over all cases; ``result.cases`` hold those of each.
        subgroups: Of the mean foreground Dice.
        tolerances_mm: Of surface Dice, for each class.
        knows_patients: Somebody said whose the cases are.
        n_unused: Predictions that belong to no reference.
        notes: What the reader must know.
    """

    result: ArmResult
    class_names: tuple[str, ...]
    lesions: Mapping[str, LesionSummary]
    subgroups: tuple[Subgroup, ...]
    bootstrap: BootstrapRule
    tolerances_mm: tuple[float, ...]
    knows_patients: bool
    n_unused: int
    notes: tuple[str, ...]


def format_scores(evaluation: Evaluation) -> str:
    """``cases.csv``: a row a case and class; an empty cell where a metric is undefined or a patient unknown."""
    measured = [field.name for field in fields(ClassScore)]
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow([*CASE_COLUMNS, *measured, *_LESION_FIELDS])
    for case in evaluation.result.cases:
        for index, (name, score) in enumerate(zip(evaluation.class_names, case.scores, strict=True)):
            lesions = case.lesions.get(index)
            counts = [getattr(lesions, field) for field in _LESION_FIELDS] if lesions else [""] * 5
            values = [getattr(score, field) for field in measured]
            patient = case.patient_key if evaluation.knows_patients else ""
            head = [case.case_id, patient, name, int(case.failed), f"{evaluation.tolerances_mm[index]:g}"]
            writer.writerow([*head, *map(_cell, values), *map(_cell, counts)])
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
            "surface_tolerances_mm": dict(zip(evaluation.class_names, evaluation.tolerances_mm, strict=True)),
            "interval": "expanded percentile bootstrap over patients",
            "n_bootstrap": rule.n_bootstrap,
            "confidence": rule.confidence,
            "seed": rule.seed,
            "missing_prediction": "the worst score: Dice 0, distances the longest diagonal of all cases",
        },
        "overall": _summaries(result.overall),
        "classes": {name: _summaries(summaries) for name, summaries in result.classes.items()},
        "lesions": {
            name: {
                **_summaries(found.metrics),
                "pooled_sensitivity": _plain(found.pooled_sensitivity),
                "n_reference_lesions": found.n_reference,
            }
            for name, found in evaluation.lesions.items()
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
        f"Mean and {percent} interval (bootstrap over patients, expanded percentiles); n cases, of which `failed` have "
        "no prediction and score worst; "
        "`empty` have nothing to score (neither reference nor prediction) and are left out.",
        "",
        "| class | metric | mean | interval | n | empty | failed |",
        "|---|---|---|---|---|---|---|",
    ]
    groups = [("mean over classes", result.overall), *result.classes.items()]
    for name, summaries in groups:
        lines += [f"| {name} | {metric} | {_row(summaries[metric])} |" for metric in METRIC_NAMES]
    for name, found in evaluation.lesions.items():
        lines += [f"| {name} | {metric} | {_row(one)} |" for metric, one in found.metrics.items()]
        pooled = f"{found.n_found:g} of {found.n_reference} found"
        lines.append(f"| {name} | lesions of all cases together | {pooled} | | | | |")
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
