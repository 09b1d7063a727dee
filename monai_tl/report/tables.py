"""Tables of the report as plain rows of text, and the short summary in Markdown."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from monai_tl.metrics.cohort import ArmResult, MetricSummaries
from monai_tl.metrics.summary import MetricSummary
from monai_tl.records import Plan, Rejection
from monai_tl.report.counted import counts
from monai_tl.report.findings import Findings
from monai_tl.report.unfound import unfound_lines
from monai_tl.transfer.forgetting import HEADS, Forgetting
from monai_tl.transfer.shift_words import in_words
from monai_tl.transfer.verdict import POWER, Verdict
from monai_tl.verdict_words import say_interval, say_verdict

NOTHING = "–"


@dataclass(frozen=True)
class MetricCell:
    """A mean with its interval as text; ``place`` holds mean, low, high on 0 to 100 for a bar, or None."""

    mean: str
    interval: str
    counts: str
    place: tuple[float, float, float] | None = None


@dataclass(frozen=True)
class MetricRow:
    """One arm (or class of an arm) and its cells in the order of METRIC_NAMES."""

    arm: str
    class_name: str
    cells: tuple[MetricCell, ...]


@dataclass(frozen=True)
class RejectionRow:
    """What was refused for one cause."""

    code: str
    kind: str
    n_items: int
    n_files: int
    reasons: tuple[str, ...]
    items: tuple[str, ...]


@dataclass(frozen=True)
class ForgettingRow:
    """One head and class on the source's own task; ``change`` holds the interval."""

    head: str
    class_name: str
    before: str
    after: str
    change: str
    n_cases: str


@dataclass(frozen=True)
class CaseRow:
    """One case and class; the cells of each arm follow one another."""

    case_id: str
    class_name: str
    cells: tuple[str, ...]


@dataclass(frozen=True)
class ShiftRow:
    """One feature of the shift as text; an unknown distance is a dash, never 0."""

    name: str
    source: str
    target: str
    distance: str
    words: str
    note: str


def number(value: float | None, digits: int = 3) -> str:
    """Fixed digits, a true minus sign, a dash for what is undefined."""
    if value is None or not math.isfinite(value):
        return NOTHING
    return f"{value:.{digits}f}".replace("-", "−")


def plain_numbers(record: Mapping[str, Any]) -> dict[str, Any]:
    """For JSON: six decimals, None for NaN: enough to tell runs apart, and no noise of the last bit."""
    return {key: _plain(value) for key, value in record.items()}


def _plain(value: Any) -> Any:
    if not isinstance(value, float):
        return value
    return None if math.isnan(value) else round(value, 6)


def percent(share: float) -> str:
    """A share as percent; only a whole is called 100 %."""
    return f"{share:.0%}".replace("%", " %") if share in (0.0, 1.0) else f"{min(share, 0.999):.1%}".replace("%", " %")


def thousands(count: int) -> str:
    """A count with thin spaces between thousands."""
    return f"{count:,}".replace(",", "\u2009")


def metric_rows(findings: Findings) -> list[MetricRow]:
    """All arms over all classes, then class by class where there is more than one."""
    rows = [MetricRow(arm.arm, "", _cells(arm.overall)) for arm in findings.arms]
    if len(findings.class_names) > 1:
        rows += [
            MetricRow(arm.arm, name, _cells(arm.classes[name]))
            for name in findings.class_names
            for arm in findings.arms
        ]
    return rows


def _cells(summaries: MetricSummaries) -> tuple[MetricCell, ...]:
    return (
        _cell(summaries["dice"], 3, is_share=True),
        _cell(summaries["surface_dice"], 3, is_share=True),
        _cell(summaries["hd95_mm"], 1, is_share=False),
    )


def _cell(summary: MetricSummary, digits: int, is_share: bool) -> MetricCell:
    interval = (
        f"{number(summary.low, digits)} to {number(summary.high, digits)}" if math.isfinite(summary.low) else NOTHING
    )
    place = None
    if is_share and math.isfinite(summary.mean):
        low, high = (summary.low, summary.high) if math.isfinite(summary.low) else (summary.mean, summary.mean)
        place = (round(100 * summary.mean, 2), round(100 * low, 2), round(100 * high, 2))
    return MetricCell(number(summary.mean, digits), interval, counts(summary), place)


def rejection_rows(rejections: Sequence[Rejection], n_reasons: int = 3) -> list[RejectionRow]:
    """Refused series and files by kind and code, the most first; a few different reasons of each."""
    groups: dict[tuple[str, str], list[Rejection]] = {}
    for rejection in rejections:
        groups.setdefault((rejection.code, rejection.kind), []).append(rejection)
    rows = []
    for (code, kind), members in sorted(groups.items(), key=lambda group: (-len(group[1]), group[0])):
        reasons = sorted({member.reason for member in members})
        more = len(reasons) - n_reasons
        shown = tuple(reasons[:n_reasons]) + ((f"and {more} more",) if more > 0 else ())
        items = tuple(sorted(member.item for member in members))
        rows.append(RejectionRow(code, kind, len(members), sum(member.n_files for member in members), shown, items))
    return rows


def rejection_counts(rejections: Sequence[Rejection]) -> dict[str, int]:
    """Code → refused items."""
    return {
        code: sum(rejection.code == code for rejection in rejections) for code in sorted({r.code for r in rejections})
    }


def shift_rows(plan: Plan) -> list[ShiftRow]:
    """The features of the plan's shift in their order; empty without a source."""
    rows = []
    for feature in plan.shift.features if plan.shift else ():
        source, target = (_with_unit(value, feature.unit) for value in (feature.source, feature.target))
        words = "not known" if feature.distance is None else in_words(feature.measure, feature.distance)
        rows.append(ShiftRow(feature.name, source, target, number(feature.distance, 2), words, feature.note))
    return rows


def _with_unit(value: float | None, unit: str) -> str:
    return NOTHING if value is None else f"{value:.4g} {unit}".strip().replace("-", "−")


def broken_contract(plan: Plan) -> list[str]:
    """A sentence for each broken line of the contract that the user accepted."""
    return [
        f"The source's contract is broken in its {line.item}, and params.yaml accepts this: {line.reason}."
        for line in plan.adaptations
        if line.accepted
    ]


def case_rows(arms: Sequence[ArmResult], class_names: Sequence[str]) -> list[CaseRow]:
    """Each evaluated case and class, all arms side by side."""
    rows = []
    for members in zip(*(arm.cases for arm in arms), strict=True):
        for k, name in enumerate(class_names):
            cells: list[str] = []
            for case in members:
                score = case.scores[k]
                cells += [number(score.dice), number(score.surface_dice), number(score.hd95_mm, 1)]
                cells.append("no prediction" if case.failed else number(score.prediction_ml, 1))
            reference = number(members[0].scores[k].reference_ml, 1)
            rows.append(CaseRow(members[0].case_id, name, (reference, *cells)))
    return rows


def markdown_summary(findings: Findings) -> str:
    """The report in a few lines of Markdown: verdict, means with intervals, what was refused."""
    settings = findings.settings
    lines = [
        "# Evaluation",
        "",
        f"**{headline(findings)}**",
        "",
        *[f"{markdown(text)}\n" for text in details(findings)],
    ]
    lines += [
        f"| Arm | Class | Dice | Surface Dice at {markdown(settings.tolerance_words)} | HD95, mm | Cases |",
        "|---|---|---|---|---|---|",
    ]
    for row in metric_rows(findings):
        cells = [f"{cell.mean} ({cell.interval})" for cell in row.cells]
        texts = [row.arm, row.class_name or "all", *cells, row.cells[0].counts]
        lines.append("| " + " | ".join(markdown(text) for text in texts) + " |")
    lines += [text for line in (*seed_lines(findings), *unfound_lines(findings)) for text in ("", markdown(line))]
    if findings.forgetting is not None:
        lines += ["", "## The source's own task", "", findings.forgetting.sentence, ""]
        lines += ["| After tuning | Class | Dice before | Dice after | Change | Cases |", "|---|---|---|---|---|---|"]
        for one in forgetting_rows(findings.forgetting):
            texts = [one.head, one.class_name, one.before, one.after, one.change, one.n_cases]
            lines.append("| " + " | ".join(markdown(text) for text in texts) + " |")
    lines += ["", "## Refused", ""]
    refused = rejection_rows(findings.rejections)
    if not refused:
        lines.append("Nothing was refused.")
    else:
        lines += ["| What | Code | Count | Reason |", "|---|---|---|---|"]
        for group in refused:
            texts = [group.kind, group.code, str(group.n_items), "; ".join(group.reasons)]
            lines.append("| " + " | ".join(markdown(text) for text in texts) + " |")
    return "\n".join(lines) + "\n"


def headline(findings: Findings) -> str:
    """The verdict in one sentence with its interval, or the one arm's Dice."""
    if findings.verdict is not None:
        return say_verdict(findings.verdict.model_dump())
    arm = findings.arms[0]
    return f"One arm, no verdict: {arm.arm} reaches a mean Dice of {number(arm.overall['dice'].mean)}."


def details(findings: Findings) -> list[str]:
    """What must be read beside the headline: size of the set, seeds, what the set can show."""
    cases = f"{findings.n_cases} {findings.set_name} case{'' if findings.n_cases == 1 else 's'}"
    patients = f"{findings.n_patients} patient{'' if findings.n_patients == 1 else 's'}"
    lines = []
    verdict = findings.verdict
    if verdict is not None and say_interval(verdict.model_dump()):
        lines.append(
            f"{cases} of {patients}{_compared(findings, verdict)}{_over_seeds(verdict)}.{_smallest_in_words(verdict)}"
        )
    else:
        lines.append(f"{cases} of {patients}.")
    lines += decisions(findings)
    if not findings.on_test:
        lines.append(
            "There is no test set. These are validation cases, which also chose the kept step: "
            "their scores flatter the network."
        )
    return lines + broken_contract(findings.plan)


def forgetting_rows(found: Forgetting) -> list[ForgettingRow]:
    """The source's task before and after tuning: the source's head first, all classes first."""
    return [
        ForgettingRow(
            head=HEADS[change.head],
            class_name=change.class_name or ("all classes" if len(change.classes) > 1 else change.classes[0]),
            before=number(change.before),
            after=number(change.after),
            change=signed(change.difference)
            + ("" if change.low is None else f" ({signed(change.low)} to {signed(change.high)})"),
            n_cases=str(change.n_cases),
        )
        for change in found.changes
    ]


def _compared(findings: Findings, verdict: Verdict) -> str:
    """A case that no arm has a prediction of, or whose classes no arm and no reference has, compares nothing."""
    if verdict.n_cases == findings.n_cases:
        return ""
    return f", of which {verdict.n_cases} of {verdict.n_patients} patients can be compared"


def _smallest_in_words(verdict: Verdict) -> str:
    size = number(verdict.smallest_detectable)
    # a verdict that is undecided says it in its own sentence; by more than 1 no Dice differs
    if verdict.smallest_detectable is None or verdict.smallest_detectable > 1.0:
        return ""
    if f"of {size} or more" in verdict.sentence:
        return ""
    return (
        f" A true difference of {size} would be shown in {10 * POWER:g} of 10 such trials, a smaller one less "
        "often: it may be there and not be seen."
    )


def _over_seeds(verdict: Verdict) -> str:
    if verdict.n_seeds == 1:
        return ", one seed, whose choice the interval does not cover"
    return f", {verdict.n_seeds} seeds whose differences have a standard deviation of {number(verdict.seed_sd)}"


def seed_lines(findings: Findings) -> list[str]:
    """Mean Dice of each seed, one line an arm; nothing with one seed."""
    if len(findings.seeds) == 1:
        return []
    return [
        f"{arm.arm}: mean Dice {', '.join(f'{number(mean)} (seed {seed})' for seed, mean in means.items())}; "
        f"standard deviation {number(arm.seed_sd('dice'))}."
        for arm in findings.arms
        if (means := arm.seed_means("dice"))
    ]


def decisions(findings: Findings) -> list[str]:
    """What ``strategy: auto`` chose and why, once for all models that agree; the page also says from what."""
    made = [model.training["decision"] for model in findings.models if "decision" in model.training]
    texts = [f"Strategy chosen by rule: {one['strategy']}, because {one['reason']}." for one in made]
    return list(dict.fromkeys(texts))


def signed(value: float | None) -> str:
    """A difference with its sign; a dash for what is undefined."""
    return NOTHING if value is None else f"{value:+.3f}".replace("-", "−")


def markdown(text: str) -> str:
    """Text in a table of Markdown: nothing in it is markup."""
    return text.replace("\\", "\\\\").replace("|", "\\|").replace("<", "&lt;").replace("\n", " ")
