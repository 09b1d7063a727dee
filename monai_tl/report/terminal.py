"""The results of a run as tables in a terminal."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from monai_tl.files import read_json
from monai_tl.records import Rejection, read_refused
from monai_tl.verdict_words import say_verdict

NOTHING = "–"
METRICS = (("dice", "Dice", 3), ("surface_dice", "Surface Dice", 3), ("hd95_mm", "HD95, mm", 1))


def show_results(workspace: Path, console: Console) -> None:
    """Print each arm's metrics with intervals, the verdict, what was refused and why, and where the products are.

    Args:
        workspace: Whose pipeline has run.
        console: Where to.

    Raises:
        DataError: A list of what was refused is missing or damaged.
    """
    metrics = read_json(workspace / "reports/metrics.json")
    cases = f"{metrics['n_test_cases']} {metrics['evaluated_on']} cases, {metrics['n_test_patients']} patients"
    console.print()
    console.print(metrics_table(metrics, f"Means with intervals over {cases}"))
    if metrics["verdict"] is not None:
        console.print(f"Verdict: {say_verdict(metrics['verdict'])}", highlight=False)
    if metrics.get("forgetting") is not None:
        console.print(f"The source's own task: {metrics['forgetting']['sentence']}", highlight=False)
    console.print()
    refused = read_refused(workspace / "artifacts")
    console.print(rejection_table(refused) if refused else "Nothing was refused.")
    if refused:
        console.print(
            "Which files: 'monai-tl whois ITEM', with items of artifacts/cases/rejected.json", highlight=False
        )
    for title, path in (("Report", "reports/report.html"), ("DICOM SEG", "artifacts/export/seg")):
        console.print(f"{title}: {workspace / path}", highlight=False, markup=False, soft_wrap=True)
    console.print("To record that the model may go out: 'monai-tl promote'", highlight=False)


def metrics_table(metrics: Mapping[str, Any], title: str) -> Table:
    """Arms, over all classes first, then class by class."""
    table = Table(title=title, title_justify="left")
    table.add_column("Arm")
    table.add_column("Class")
    for _, name, _ in METRICS:
        table.add_column(name, justify="right")
    # the pretrained arm first, as in the report; the file has them in the order of the alphabet
    order = sorted(metrics["arms"], key=lambda arm: (arm != "transfer", arm))
    arms: Mapping[str, Mapping[str, Any]] = {arm: metrics["arms"][arm] for arm in order}
    for arm, record in arms.items():
        table.add_row(arm, "all", *_cells(record))
    names = next(iter(arms.values()))["classes"] if arms else {}
    for name in names if len(names) > 1 else ():
        for arm, record in arms.items():
            table.add_row(arm, name, *_cells(record["classes"][name]))
    return table


def _cells(record: Mapping[str, Any]) -> list[str]:
    return [_cell(record[metric], digits) for metric, _, digits in METRICS]


def _cell(summary: Mapping[str, Any], digits: int) -> str:
    if summary["mean"] is None:
        return NOTHING
    mean = f"{summary['mean']:.{digits}f}"
    if summary["low"] is None:
        return mean
    return f"{mean} ({summary['low']:.{digits}f} to {summary['high']:.{digits}f})"


def rejection_table(refused: Sequence[Rejection]) -> Table:
    """Refused series, files and cases, grouped by cause, with one reason of each cause."""
    table = Table(title="Refused", title_justify="left")
    for name in ("What", "Code", "Count", "Reason"):
        table.add_column(name, justify="right" if name == "Count" else "left", overflow="fold")
    counts = Counter((item.kind, item.code) for item in refused)
    for (kind, code), count in sorted(counts.items(), key=lambda entry: (-entry[1], entry[0])):
        reason = min(item.reason for item in refused if (item.kind, item.code) == (kind, code))
        table.add_row(kind, code, str(count), reason)
    return table
