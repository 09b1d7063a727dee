"""Tables beside the headline numbers: the other measures, the groups of cases, how often the test set was looked at."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from monai_tl.metrics.lesions import LESION_METRICS
from monai_tl.metrics.summary import MetricSummary
from monai_tl.report import certainty
from monai_tl.report.counted import counts_of
from monai_tl.report.findings import Findings
from monai_tl.report.tables import NOTHING, markdown, number

OTHER_MEASURES = (
    ("iou", "IoU", 3),
    ("mean_surface_distance_mm", "Mean surface distance, mm", 2),
    ("hd100_mm", "HD100, mm", 1),
    ("volume_error_ml", "Volume error, ml", 2),
    ("relative_volume_error", "Relative volume error", 3),
)
"""Name of the metric, its heading, digits; in the order of the table."""


@dataclass(frozen=True)
class MeasureRow:
    """One arm, over all classes or of one: mean and interval of each of OTHER_MEASURES as text, and over what."""

    arm: str
    class_name: str
    cells: tuple[str, ...]
    counts: str


@dataclass(frozen=True)
class GroupRow:
    """One group of cases; ``means`` holds the mean Dice of each arm with its interval."""

    attribute: str
    group: str
    n_cases: int
    counts: str
    n_patients: int
    means: tuple[str, ...]
    warning: str
    begins: bool


def measure_rows(findings: Findings) -> list[MeasureRow]:
    """The other measures of all arms, over all classes and then class by class where there is more than one."""
    names = findings.class_names if len(findings.class_names) > 1 else ()
    tables = [(arm.arm, "", arm.overall) for arm in findings.arms]
    tables += [(arm.arm, name, arm.classes[name]) for name in names for arm in findings.arms]
    return [
        MeasureRow(
            arm,
            name,
            tuple(_with_interval(found[metric], digits) for metric, _, digits in OTHER_MEASURES),
            counts_of({heading: found[metric] for metric, heading, _ in OTHER_MEASURES}),
        )
        for arm, name, found in tables
    ]


def group_of_case_rows(findings: Findings) -> list[GroupRow]:
    """Mean foreground Dice group by group, all arms side by side; empty where all cases are alike."""
    tables = [findings.subgroups.get(arm.arm, ()) for arm in findings.arms]
    rows = []
    before = ""
    for same in zip(*tables, strict=True):
        first = same[0]
        rows.append(
            GroupRow(
                attribute=first.attribute,
                group=first.group,
                n_cases=first.summary.n + first.summary.n_empty,
                counts=counts_of({arm.arm: one.summary for arm, one in zip(findings.arms, same, strict=True)}),
                n_patients=first.n_patients,
                means=tuple(_with_interval(one.summary, 3) for one in same),
                warning=first.warning,
                begins=first.attribute != before,
            )
        )
        before = first.attribute
    return rows


_LESION_HEADINGS = dict(
    zip(LESION_METRICS, ("Sensitivity", "False positives a case", "F1", "Panoptic quality"), strict=True)
)


@dataclass(frozen=True)
class LesionRow:
    """One class of one arm, lesion by lesion; each cell is a mean over cases and its interval, in the order of
    LESION_METRICS."""

    arm: str
    class_name: str
    cells: tuple[tuple[str, str], ...]
    counts: str
    together: str


def lesion_rows(findings: Findings) -> list[LesionRow]:
    """Class by class, all arms side by side; empty where no class is counted so."""
    rows = []
    for name in findings.settings.lesions:
        for arm in findings.arms:
            found = findings.lesions[arm.arm][name]
            cells = tuple(_with_interval(found.metrics[metric], 2).partition(" ")[::2] for metric in LESION_METRICS)
            over = counts_of({heading: found.metrics[metric] for metric, heading in _LESION_HEADINGS.items()})
            rows.append(LesionRow(arm.arm, name, cells, over, f"{round(found.n_found, 1):g} of {found.n_reference}"))
    return rows


def markdown_more(findings: Findings) -> str:
    """Lesions, calibration and uncertainty for the short summary, where they are known; with a blank line before."""
    lines: list[str] = []
    if rows := lesion_rows(findings):
        lines += ["## Lesion by lesion", ""]
        lines += _markdown_table(
            ("Arm", "Class", *_LESION_HEADINGS.values(), "Counted", "Found in all cases"),
            [
                (row.arm, row.class_name, *(" ".join(cell).strip() for cell in row.cells), row.counts, row.together)
                for row in rows
            ],
        )
    if found := certainty.calibration_rows(findings):
        lines += ["## Calibration", ""]
        lines += _markdown_table(
            ("Arm", "ECE", "Temperature", "ECE with it", "Counted"),
            [(row.arm, row.ece, row.temperature, row.ece_after, row.counts) for row in found],
        )
    if unsure := certainty.uncertainty_rows(findings):
        lines += ["## Does uncertainty tell of error?", ""]
        lines += _markdown_table(
            ("Arm", "Ordered by", "Area under risk and coverage", "Best", "Random", "Counted"),
            [(row.arm, row.measure, row.area, row.best, row.random, row.counts) for row in unsure],
        )
    return "".join(f"\n{line}" for line in lines)


def _markdown_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    table = [header, ["---"] * len(header), *([markdown(text) for text in row] for row in rows)]
    return [*(f"| {' | '.join(row)} |" for row in table), ""]


def look_sentence(findings: Findings) -> str:
    """How often this test set was looked at; empty without one."""
    if findings.look is None:
        return ""
    # what came after is no part of this run: the same run must give the same page
    later = "test_looks.json lists all, also those that were scored since."
    if findings.look.number == 1:
        return f"These models were the first to be scored on this test set; {later}"
    return (
        f"This is look {findings.look.number} at this test set: before these models {findings.look.number - 1} other "
        "sets were scored on it. The more often models are chosen by what it shows, the more its numbers flatter the "
        f"one that is kept; {later}"
    )


def _with_interval(summary: MetricSummary, digits: int) -> str:
    mean = number(summary.mean, digits)
    if mean == NOTHING or not math.isfinite(summary.low):
        return mean
    return f"{mean} ({number(summary.low, digits)} to {number(summary.high, digits)})"


def measure_names() -> Sequence[str]:
    """Headings of the measures."""
    return [heading for _, heading, _ in OTHER_MEASURES]
