"""A curve as files: metrics, the tables that DVC draws, and a page that needs nothing else."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

import monai_tl
from monai_tl.transfer.curve_summary import CurveFindings, Line
from monai_tl.transfer.label_efficiency import Bound, Saving

TEMPLATE = "curve.html.j2"
_WORDS: dict[Bound, str] = {"measured": "", "at least": "more than ", "at most": "at most "}


def curve_record(findings: CurveFindings) -> dict[str, Any]:
    """``curve.json``: DVC's metrics."""
    return {
        "schema_version": 1,
        "n_test_cases": findings.n_cases,
        "n_test_patients": findings.n_patients,
        "n_seeds": findings.n_seeds,
        "n_points": findings.n_points,
        "n_untaught": findings.n_untaught,
        "n_failed": findings.n_failed,
        "confidence": findings.confidence,
        "labels": {
            "sentence": findings.labels_sentence,
            "steps": findings.full_steps,
            "dice": {name: _line_record(line) for name, line in findings.by_labels.items()},
            "saved": {
                name: {f"{saving.budget:.0f}": _saving_record(saving) for saving in savings}
                for name, savings in findings.labels_saved.items()
            },
        },
        "steps": {
            "sentence": findings.steps_sentence,
            "labels": findings.n_labels_of_steps,
            "dice": {name: _line_record(line) for name, line in findings.by_steps.items()},
            "saved": {name: _saving_record(saving) for name, saving in findings.steps_saved.items()},
        },
    }


def _line_record(line: Line) -> dict[str, Any]:
    rows = zip(line.budgets, line.dice, line.low, line.high, strict=True)
    return {str(budget): {"mean": _six(mean), "low": _six(low), "high": _six(high)} for budget, mean, low, high in rows}


def _saving_record(saving: Saving) -> dict[str, Any]:
    return {
        "budget": _six(saving.budget),
        "budget_bound": saving.budget_bound,
        "dice": _six(saving.dice),
        "scratch": _six(saving.needed),
        "scratch_bound": saving.needed_bound,
        "factor": None if saving.is_open else _six(saving.factor),
        "bound": saving.bound,
        "low": None if saving.low is None else _six(saving.low),
        "high": None if saving.high is None else _six(saving.high),
    }


def _six(value: float) -> float:
    return round(float(value), 6)


def format_lines(lines: Mapping[str, Line], axis: str) -> str:
    """``labels.csv`` or ``steps.csv``: one row a strategy and budget."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow([axis, "strategy", "dice", "low", "high"])
    for name, line in lines.items():
        for budget, *numbers in zip(line.budgets, line.dice, line.low, line.high, strict=True):
            writer.writerow([budget, name, *(f"{number:.6f}" for number in numbers)])
    return text.getvalue()


def render_curve_page(findings: CurveFindings, labels_svg: bytes, steps_svg: bytes) -> str:
    """``curve.html``: both plots, the savings, and how to read them; in the dress of the report."""
    intervals = (
        "One seed was trained, so the intervals say how other patients would differ, not how other trainings would."
        if findings.n_seeds == 1
        else f"Intervals are over patients and the {findings.n_seeds} seeds, the same draws for all points."
    )
    environment = Environment(
        loader=PackageLoader("monai_tl", "report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    sentence = findings.labels_sentence
    return environment.get_template(TEMPLATE).render(
        findings=findings,
        title=f"{sentence[0].upper()}{sentence[1:]}.",
        intervals=intervals,
        untaught=_untaught(findings),
        parts=(
            _Part(
                "labels", "Dice against labels", _inline(labels_svg), "Labels saved",
                ("Strategy", "Labels", "Dice", "Labels from scratch", "Factor"), _labels_rows(findings),
            ),
            _Part(
                "steps", "Dice against steps", _inline(steps_svg), "Steps saved",
                ("Strategy", "Dice", "Steps", "Steps from scratch", "Factor"), _steps_rows(findings),
            ),
        ),
        version=monai_tl.__version__,
    )  # fmt: skip


@dataclass(frozen=True)
class _Part:
    """A section of the page: a plot, and the table of what is saved."""

    id: str
    title: str
    figure: str
    saved: str
    columns: tuple[str, ...]
    rows: list[tuple[str, ...]]


def _untaught(findings: CurveFindings) -> str:
    if not findings.n_untaught:
        return ""
    return (
        f"In {findings.n_untaught} of {findings.n_points} trainings a class is in none of the labels that were "
        "trained on, so nothing but the start could know it; point.json names it."
    )


def _inline(svg: bytes) -> str:
    text = svg.decode("utf-8")
    # names that both figures have; those of clip paths and glyphs are hashes of what they hold
    return re.sub(r' id="[a-zA-Z0-9]+_\d+"', "", text[text.index("<svg") :])


def _labels_rows(findings: CurveFindings) -> list[tuple[str, ...]]:
    return [
        (name, f"{one.budget:.0f}", f"{one.dice:.3f}", f"{_WORDS[one.needed_bound]}{one.needed:.0f}", _factor(one))
        for name, savings in findings.labels_saved.items()
        for one in savings
    ]


def _steps_rows(findings: CurveFindings) -> list[tuple[str, ...]]:
    return [(name, f"{one.dice:.3f}", *_both_needs(one), _factor(one)) for name, one in findings.steps_saved.items()]


def _both_needs(saving: Saving) -> tuple[str, str]:
    return (
        f"{_WORDS[saving.budget_bound]}{saving.budget:.0f}",
        f"{_WORDS[saving.needed_bound]}{saving.needed:.0f}",
    )


def _factor(saving: Saving) -> str:
    if saving.is_open:
        return "open"
    low = "" if saving.low is None else f"{saving.low:.2g}"
    high = "" if saving.high is None else f"{saving.high:.2g}"
    interval = f"{low} to {high}" if low and high else f"{low} or more" if low else f"up to {high}" if high else "open"
    return f"{_WORDS[saving.bound]}{saving.factor:.2g} ({interval})"
