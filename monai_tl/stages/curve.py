"""Stage curve: what the points say together, as metrics, tables, plots and a page."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product
from pathlib import Path

from monai_tl.config import Params
from monai_tl.errors import ConfigError
from monai_tl.files import whole_folder, write_bytes, write_json, write_text
from monai_tl.metrics.cohort import BootstrapRule
from monai_tl.progress import Progress
from monai_tl.report.curve_figures import draw_labels, draw_steps
from monai_tl.report.curve_page import curve_record, format_lines, render_curve_page
from monai_tl.transfer.curve_point import POINT_FILE, CurvePoint
from monai_tl.transfer.curve_summary import summarise_curve


def run(workspace: Path, params: Params) -> None:
    """Write ``reports/curve``: ``curve.json``, ``labels.csv``, ``steps.csv`` and ``html/``.

    Args:
        workspace: Holds ``artifacts/curve/labels`` and ``artifacts/curve/steps``.
        params: Sections ``curve`` and ``evaluate`` (its bootstrap).

    Raises:
        ConfigError: There is no section ``curve``.
        DataError: A point is missing, or was tested on other cases.
    """
    curve = params.curve
    if curve is None:
        raise ConfigError("curve: is missing; 'monai-tl curve' writes it")
    progress = Progress("curve", total=1)
    points = workspace / "artifacts/curve"

    def read(kind: str, budgets: Sequence[int | str], strategy: str) -> list[CurvePoint]:
        # only those asked for: a folder may hold points of an earlier choice
        names = [f"{budget}-{strategy}-{seed}" for budget, seed in product(budgets, curve.seeds)]
        return [CurvePoint.read(points / kind / name / POINT_FILE) for name in names]

    findings = summarise_curve(
        {name: read("labels", curve.labels, name) for name in curve.strategies},
        {
            # the full budget is a point of the other axis, so it is trained once
            name: read("steps", curve.steps, name) + read("labels", [curve.steps_labels], name)
            for name in curve.strategies
        },
        BootstrapRule(params.evaluate.n_bootstrap, params.evaluate.confidence, params.evaluate.seed),
    )
    labels, steps = draw_labels(findings), draw_steps(findings)
    reports = workspace / "reports/curve"
    with whole_folder(reports / "html") as out:
        for name, pictures in (("labels", labels), ("steps", steps)):
            for kind, content in pictures.items():
                write_bytes(out / f"{name}.{kind}", content)
        write_text(out / "curve.html", render_curve_page(findings, labels["svg"], steps["svg"]))
    write_text(reports / "labels.csv", format_lines(findings.by_labels, "labels"))
    write_text(reports / "steps.csv", format_lines(findings.by_steps, "steps"))
    write_json(reports / "curve.json", curve_record(findings))
    progress.advance(f"{findings.labels_sentence}; {findings.steps_sentence}")
