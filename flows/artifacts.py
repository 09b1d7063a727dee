"""What the dashboard shows of a run: the summary, the metrics, a plot, what was refused, links to report and model."""

from __future__ import annotations

import base64
import csv
import json
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from xml.sax.saxutils import escape

from prefect.artifacts import (
    create_link_artifact,
    create_markdown_artifact,
    create_table_artifact,
)

from flows.server import SERVER_FILE
from monai_tl.stages import STATE_FOLDER

_MOST_ROWS = 50
"""Of a table that grows with the studies: each run writes it anew, and Prefect keeps what every run wrote."""
_REFUSED = (
    ("ingest", "artifacts/cases/rejected.json", "rejected.json"),
    ("preprocess", "artifacts/prepared/failed.json", "preprocess_failed.json"),
)
"""Stage, its list among the outputs, and in the state folder where the stage failed by it."""
_TOLD = ("item", "kind", "code", "n_files")
_MODEL_FOLDER = "artifacts/export/model"
_VERSION = re.compile(r"v\d+\.\d+\.\d+")
_METRICS = ("dice", "surface_dice", "hd95_mm")
_COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#56b4e9", "#e69f00")


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
    publish_refused(workspace)
    publish_links(workspace)


def publish_refused(workspace: Path, failed: str = "") -> None:
    """Write the table of what ingest refused and preprocess could not prepare.

    Args:
        workspace: Whose run it is.
        failed: Stage by which the run failed, perhaps by what it refused.
    """
    rows, words = refused_table(
        refused_rows(workspace, failed), "Series and cases that were refused; monai-tl whois ITEM tells"
    )
    create_table_artifact(rows, key="refused", description=words)


def refused_rows(workspace: Path, failed: str = "") -> list[dict[str, Any]]:
    """Pseudonym and code of each refusal. The reasons stay in the workspace, in the files read here."""
    rows: list[dict[str, Any]] = []
    state = workspace / STATE_FOLDER
    for stage, made, kept in _REFUSED:
        # a stage that fails by what it refuses leaves its reasons in the state folder and no output
        path = state / kept if stage == failed else workspace / made
        rows += [{"stage": stage, **{key: one.get(key) for key in _TOLD}} for one in _rejections(path)]
        if stage == failed:
            # what is there of later stages is of an earlier run
            break
    return rows


def _rejections(path: Path) -> list[dict[str, Any]]:
    """None where the list cannot be read: the stage that needs it says so."""
    try:
        return list(json.loads(path.read_text(encoding="utf-8"))["rejected"])
    except (OSError, ValueError, KeyError, TypeError):
        return []


def publish_links(workspace: Path) -> None:
    """Write where the report and the model are, for those that are there."""
    address = report_address(workspace)
    if address and (workspace / "reports/html/report.html").is_file():
        create_link_artifact(address, "report.html", key="report", description="The report of the latest run")
    if (workspace / _MODEL_FOLDER).is_dir():
        create_markdown_artifact(model_place(workspace), key="model", description="The model of the latest run")


def model_place(workspace: Path) -> str:
    """Markdown: where the run's model lies, and how to go on with it."""
    is_clone = workspace.parent.name == STATE_FOLDER
    where = f"{STATE_FOLDER}/{workspace.name}/{_MODEL_FOLDER}" if is_clone else _MODEL_FOLDER
    then = (
        "The run that works in the clone gives it a version when it is a new one."
        if is_clone
        else "Give it a version and put it in production with `monai-tl promote --stage prod --approve`."
    )
    return f"The model is in `{where}` of the workspace. {then}\n"


def publish_version(branch: str, said: str) -> None:
    """Write which version a run in a clone has left, and how to get it.

    Args:
        branch: Of the results.
        said: By the registry: a sentence that begins with the version.
    """
    create_markdown_artifact(version_place(branch, said), key="model", description="The model of the latest run")


def version_place(branch: str, said: str) -> str:
    """Markdown; see ``publish_version``."""
    version = _VERSION.match(said)
    if version is None:
        return f"The model got no version. It is on the branch `{branch}`: `git checkout {branch} && dvc pull`.\n"
    return (
        f"Version `{version[0]}`, branch `{branch}`.\n\n{said}\n\n"
        f"To get it, in the workspace: `dvc artifacts get . model --rev {version[0]}`\n"
    )


def report_address(workspace: Path) -> str | None:
    """Where the workspace's report is shown: MONAI_TL_REPORT_URL, else by ``monai-tl serve``; None where it is not.

    The variable is for workers of a pool, beside which no ``serve`` runs, and for a clone: the server's file lies in
    the workspace that was cloned.
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
    refused, words = refused_table(found["refused"], "Studies that were given up, and why")
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


def refused_table(rows: Sequence[dict[str, Any]], words: str) -> tuple[list[dict[str, Any]], str]:
    """The last of them, and what the table is called."""
    more = f" (the last {_MOST_ROWS} of {len(rows)})" if len(rows) > _MOST_ROWS else ""
    return list(rows[-_MOST_ROWS:]), f"{words}{more}"


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
    # the pretrained arm first: with one training an arm the colours are those of the report
    names = sorted(curves, key=lambda name: (not name.startswith("transfer"), name))
    for index, name in enumerate(names):
        colour = _COLOURS[index % len(_COLOURS)]
        places = ((left + width * step / last, top + height * (1 - dice)) for step, dice in curves[name])
        line = " ".join(f"{x:.1f},{y:.1f}" for x, y in places)
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
