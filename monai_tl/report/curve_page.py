"""A curve as files: metrics, the tables that DVC draws, and a page that needs nothing else."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Mapping
from html import escape
from typing import Any

from monai_tl.transfer.curve_summary import CurveFindings, Line
from monai_tl.transfer.label_efficiency import Saving

_STYLE = """
body{font:15px/1.5 system-ui,sans-serif;max-width:46rem;margin:2rem auto;padding:0 1rem;color:#1a1f26;background:#fff}
h1{font-size:1.5rem}h2{font-size:1.15rem;margin-top:2rem}svg{width:100%;height:auto}
table{border-collapse:collapse;font-variant-numeric:tabular-nums}
td,th{padding:.25rem .9rem .25rem 0;text-align:right;border-bottom:1px solid #d9dee3}
td:first-child,th:first-child{text-align:left}.muted{color:#59636e}
"""


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
        "dice": _six(saving.dice),
        "scratch": _six(saving.needed),
        "factor": _six(saving.factor),
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
    """``curve.html``: both plots, the savings, and how to read them."""
    seeds = (
        "One seed was trained, so the intervals say how other patients would differ, not how other trainings would."
        if findings.n_seeds == 1
        else f"Intervals are over patients and the {findings.n_seeds} seeds, the same draws for all points."
    )
    missing = f" {findings.n_failed} predictions are missing and count as 0." if findings.n_failed else ""
    parts = [
        f"<!doctype html><html lang='en'><meta charset='utf-8'><title>Curve</title><style>{_STYLE}</style>",
        "<h1>Dice against labels and steps</h1>",
        f"<p class='muted'>{findings.n_cases} test cases of {findings.n_patients} patients, in no training. {seeds}"
        f"{missing}{_untaught(findings)}</p>",
        _inline(labels_svg),
        _labels_table(findings),
        _inline(steps_svg),
        _steps_table(findings),
        "<p class='muted'>Scratch's curve is made never falling, and read between its points on a logarithmic axis. "
        "“More than” and “at most” mark where the curve ends before it answers.</p></html>",
    ]
    return "\n".join(part for part in parts if part) + "\n"


def _untaught(findings: CurveFindings) -> str:
    if not findings.n_untaught:
        return ""
    return (
        f" In {findings.n_untaught} of {findings.n_points} trainings a class is in none of the labels that were "
        "trained on, so nothing but the start could know it; point.json names it."
    )


def _inline(svg: bytes) -> str:
    text = svg.decode("utf-8")
    # names that both figures have; those of clip paths and glyphs are hashes of what they hold
    return re.sub(r' id="[a-zA-Z0-9]+_\d+"', "", text[text.index("<svg") :])


def _labels_table(findings: CurveFindings) -> str:
    rows = [
        f"<tr><td>{escape(name)}</td><td>{one.budget:.0f}</td><td>{one.dice:.3f}</td>"
        f"<td>{_word(one)}{one.needed:.0f}</td><td>{_factor(one)}</td></tr>"
        for name, savings in findings.labels_saved.items()
        for one in savings
    ]
    head = "<tr><th>strategy</th><th>labels</th><th>Dice</th><th>labels from scratch</th><th>factor</th></tr>"
    return f"<h2>Labels saved</h2><table>{head}{''.join(rows)}</table>" if rows else ""


def _steps_table(findings: CurveFindings) -> str:
    rows = [
        f"<tr><td>{escape(name)}</td><td>{one.dice:.3f}</td><td>{_steps_needed(one)}</td>"
        f"<td>{one.needed:.0f}</td><td>{_factor(one)}</td></tr>"
        for name, one in findings.steps_saved.items()
    ]
    head = "<tr><th>strategy</th><th>Dice</th><th>steps</th><th>steps from scratch</th><th>factor</th></tr>"
    return f"<h2>Steps saved</h2><table>{head}{''.join(rows)}</table>" if rows else ""


def _word(saving: Saving) -> str:
    return {"measured": "", "at least": "more than ", "at most": "at most "}[saving.bound]


def _steps_needed(saving: Saving) -> str:
    return {"measured": "", "at least": "at most ", "at most": "more than "}[saving.bound] + f"{saving.budget:.0f}"


def _factor(saving: Saving) -> str:
    low = "" if saving.low is None else f"{saving.low:.2g}"
    high = "" if saving.high is None else f"{saving.high:.2g}"
    interval = f"{low} to {high}" if low and high else f"{low} or more" if low else f"up to {high}" if high else "open"
    return f"{_word(saving)}{saving.factor:.2g} ({interval})"
