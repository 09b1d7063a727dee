"""What the dashboard shows of a run: progress while it goes on, then the summary, the metrics and a plot."""

from __future__ import annotations

import base64
import csv
import json
import os
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, cast
from uuid import UUID
from xml.sax.saxutils import escape

from httpx import HTTPError
from prefect.artifacts import (
    create_link_artifact,
    create_markdown_artifact,
    create_progress_artifact,
    create_table_artifact,
    update_progress_artifact,
)

from flows.server import SERVER_FILE
from monai_tl.json_lines import MARK
from monai_tl.stages import STATE_FOLDER

_UPDATE_EVERY_S = 2.0
_MOST_ROWS = 50
"""Of a table that grows with the studies: each run writes it anew, and Prefect keeps what every run wrote."""
_METRICS = ("dice", "surface_dice", "hd95_mm")
_COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#56b4e9", "#e69f00")


class ProgressBoard:
    """One progress artifact for the whole run.

    Args:
        n_steps: Steps of the pipeline; each takes an equal share of the bar.
    """

    def __init__(self, n_steps: int) -> None:
        self._n_steps = n_steps
        self._n_finished = 0
        self._last = 0.0
        self._id: UUID = _created(create_progress_artifact(0.0, key="progress", description="stages"))

    def take(self, line: str) -> None:
        """Follow a stage's own progress line; other lines are not for here."""
        record = parse_progress(line)
        if record is None or time.monotonic() - self._last < _UPDATE_EVERY_S:
            return
        done, total = float(record.get("done", 0)), float(record.get("total", 0))
        part = min(done / total, 1.0) if total > 0 else 0.0
        self._show(part, f"{record.get('stage', '')} {done:g}/{total:g}")

    def finish(self, address: str, outcome: str) -> None:
        """Count a step as finished; unchanged ones go by too fast to be shown one by one."""
        self._n_finished += 1
        if outcome != "unchanged" or self._n_finished == self._n_steps:
            self._show(0.0, f"{address}: {outcome}")

    def _show(self, part: float, text: str) -> None:
        percent = 100.0 * (self._n_finished + part) / self._n_steps
        self._last = time.monotonic()
        # a server that is busy for a moment must not end hours of training
        with suppress(HTTPError):
            update_progress_artifact(self._id, min(percent, 100.0), description=text)


def _created(identifier: Any) -> UUID:
    # Prefect types its twin functions as "value or coroutine"; from synchronous code it is the value
    return cast("UUID", identifier)


def parse_progress(line: str) -> dict[str, Any] | None:
    """The record of a stage's progress line; None for any other line."""
    if not line.startswith(MARK):
        return None
    try:
        record = json.loads(line[len(MARK) :])
    except ValueError:
        return None
    return record if isinstance(record, dict) else None


def publish_results(workspace: Path, outcomes: Mapping[str, str]) -> None:
    """Write the artifacts of a finished run."""
    rows = [{"stage": address, "outcome": outcome} for address, outcome in outcomes.items()]
    create_table_artifact(rows, key="stages", description="What each stage did")
    reports = workspace / "reports"
    summary = reports / "html" / "summary.md"
    if summary.is_file():
        create_markdown_artifact(summary.read_text(encoding="utf-8"), key="summary", description="Summary")
    metrics = reports / "metrics.json"
    if metrics.is_file():
        table = metric_rows(json.loads(metrics.read_text(encoding="utf-8")))
        create_table_artifact(table, key="metrics", description="Metrics of the test cases")
    plot = learning_curves(reports / "plots" / "history.csv")
    if plot:
        create_markdown_artifact(plot, key="learning-curves", description="Validation Dice by step")
    address = report_address(workspace)
    if address and (reports / "html" / "report.html").is_file():
        create_link_artifact(address, "report.html", key="report", description="The report of the latest run")


def report_address(workspace: Path) -> str | None:
    """Where ``monai-tl serve`` shows the workspace's report; None while it does not run.

    In a clone it is told by the environment: the server's file lies in the workspace that was cloned.
    """
    if told := os.environ.get("MONAI_TL_REPORT_URL"):
        return told
    try:
        address = json.loads((workspace / STATE_FOLDER / SERVER_FILE).read_text(encoding="utf-8"))["report_url"]
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return str(address)


def publish_curve(workspace: Path, outcomes: Mapping[str, str]) -> None:
    """Write the artifacts of a finished curve."""
    rows = [{"stage": address, "outcome": outcome} for address, outcome in outcomes.items()]
    create_table_artifact(rows, key="curve-stages", description="What each point did")
    reports = workspace / "reports" / "curve"
    record = json.loads((reports / "curve.json").read_text(encoding="utf-8"))
    parts = []
    for axis in ("labels", "steps"):
        picture = base64.b64encode((reports / "html" / f"{axis}.svg").read_bytes()).decode("ascii")
        parts.append(f"### {record[axis]['sentence']}\n\n![{axis}](data:image/svg+xml;base64,{picture})\n")
    create_markdown_artifact("\n".join(parts), key="curve", description="Dice against labels and steps")


def publish_inbox(found: Mapping[str, Any]) -> None:
    """Write the artifacts of one pass over the inbox; an alarm has one of its own."""
    create_markdown_artifact(inbox_summary(found), key="inbox", description="What became of the studies")
    create_table_artifact(found["studies"], key="inbox-studies", description="The latest studies, oldest first")
    refused, words = refused_table(found["refused"])
    create_table_artifact(refused, key="inbox-refused", description=words)
    if found["drift"]["alarm"]:
        rows = "\n".join(
            f"| {row['name']} | {row['source']} | {row['target']} | {row['distance']} |"
            for row in found["drift"]["features"]
        )
        table = f"| feature | training | now | distance |\n|---|---|---|---|\n{rows}\n"
        create_markdown_artifact(
            f"# {found['drift']['words']}\n\n{table}", key="inbox-drift", description="Alarm: drift"
        )


def refused_table(rows: Sequence[dict[str, Any]]) -> tuple[list[dict[str, Any]], str]:
    """The latest of them, and what the table is called."""
    more = f" (the latest {_MOST_ROWS} of {len(rows)})" if len(rows) > _MOST_ROWS else ""
    return list(rows[-_MOST_ROWS:]), f"Studies that were given up, and why{more}"


def inbox_summary(found: Mapping[str, Any]) -> str:
    """Counts and throughput as Markdown."""
    states = "\n".join(f"| {state} | {count} |" for state, count in found["states"].items())
    speed = "\n".join(f"| {name.replace('_', ' ')} | {value} |" for name, value in found["throughput"].items())
    faults = "".join(f"\n**{fault}**\n" for fault in found["faults"])
    return (
        f"{faults}\n| studies | |\n|---|---|\n{states}\n\n| throughput | |\n|---|---|\n{speed}\n\n"
        f"{found['drift']['words']}\n"
    )


def metric_rows(metrics: Mapping[str, Any]) -> list[dict[str, Any]]:
    """One row an arm and class, ``all`` first: means with intervals, null where undefined, and the number of cases."""
    rows = []
    # the pretrained arm first, as in the report
    for arm, record in sorted(metrics.get("arms", {}).items(), key=lambda item: (item[0] != "transfer", item[0])):
        for name, summaries in {"all": record, **record["classes"]}.items():
            row: dict[str, Any] = {"arm": arm, "class": name}
            for metric in _METRICS:
                row |= {metric: summaries[metric]["mean"]}
                row |= {f"{metric} {bound}": summaries[metric][bound] for bound in ("low", "high")}
            rows.append(row | {"cases": summaries["dice"]["n"], "failed": summaries["dice"]["n_failed"]})
    return rows


def learning_curves(history: Path) -> str:
    """Markdown with a line chart of validation Dice by step, one line a training; empty when there is none.

    The picture is inside the text: the dashboard needs no other address to fetch it from.
    """
    if not history.is_file():
        return ""
    curves: dict[str, list[tuple[float, float]]] = {}
    with history.open(encoding="utf-8", newline="") as stream:
        for row in csv.DictReader(stream):
            if row.get("val_dice"):
                name = row["arm"] + "".join(f" {key} {row[key]}" for key in ("fold", "seed") if row.get(key))
                curves.setdefault(name, []).append((float(row["step"]), float(row["val_dice"])))
    if not curves:
        return ""
    picture = base64.b64encode(_chart(curves).encode("utf-8")).decode("ascii")
    return f"### Validation Dice by step\n\n![learning curves](data:image/svg+xml;base64,{picture})\n"


def _chart(curves: Mapping[str, Sequence[tuple[float, float]]]) -> str:
    last = max(step for points in curves.values() for step, _ in points) or 1.0
    left, top, width, height = 50.0, 20.0, 560.0, 240.0
    parts = []
    for tick in (0.0, 0.25, 0.5, 0.75, 1.0):
        y = top + height * (1 - tick)
        parts.append(f'<line x1="{left}" x2="{left + width}" y1="{y}" y2="{y}" stroke="#dddddd"/>')
        parts.append(f'<text x="{left - 8}" y="{y + 4}" text-anchor="end">{tick:.2f}</text>')
    for index, (name, points) in enumerate(sorted(curves.items())):
        colour = _COLOURS[index % len(_COLOURS)]
        line = " ".join(f"{left + width * step / last:.1f},{top + height * (1 - dice):.1f}" for step, dice in points)
        parts.append(f'<polyline points="{line}" fill="none" stroke="{colour}" stroke-width="2"/>')
        parts.append(f'<text x="{left + width + 10}" y="{top + 14 + 18 * index}" fill="{colour}">{escape(name)}</text>')
    middle = top + height / 2
    parts.append(f'<text x="12" y="{middle}" text-anchor="middle" transform="rotate(-90 12 {middle})">Dice</text>')
    parts.append(f'<text x="{left}" y="{top + height + 20}">0</text>')
    parts.append(f'<text x="{left + width / 2}" y="{top + height + 20}" text-anchor="middle">optimiser steps</text>')
    parts.append(f'<text x="{left + width}" y="{top + height + 20}" text-anchor="end">{last:g}</text>')
    body = "".join(parts)
    return (
        '<svg xmlns="http://www.w3.org/2000/svg" width="760" height="300" viewBox="0 0 760 300" '
        'font-family="sans-serif" font-size="12" fill="#333333">'
        f'<rect width="760" height="300" fill="white"/>{body}</svg>'
    )
