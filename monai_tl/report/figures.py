"""Plots as inline SVG that takes its colours and font from the page, in light and dark alike."""

from __future__ import annotations

import io
import re
import textwrap
from collections.abc import Sequence
from html import escape
from typing import Any

import matplotlib
import numpy as np
from matplotlib.figure import Figure

from monai_tl.metrics.cohort import ArmResult
from monai_tl.report.findings import TrainedModel
from monai_tl.report.plot_style import plain_style
from monai_tl.report.shown import evenly, points_of
from monai_tl.transfer.verdict import Verdict, paired_differences

# Stand-ins that are replaced by the page's variables once the figure is drawn.
INK, MUTED, RULE, PAPER, BAND = "#010203", "#010204", "#010205", "#010206", "#010207"
_VARIABLES = {INK: "ink", MUTED: "muted", RULE: "rule", PAPER: "paper", BAND: "band"}
_ARM_COLOURS = {"transfer": "#020201", "scratch": "#020202"}
_VARIABLES.update({colour: arm for arm, colour in _ARM_COLOURS.items()})
FIGURE_STYLE = {
    **plain_style(INK, MUTED, RULE),
    "svg.fonttype": "none",
    "font.size": 9.0,
    "text.color": MUTED,
    "axes.titlesize": 9.5,
    "axes.titlepad": 10.0,
    "axes.facecolor": "none",
    "xtick.major.size": 0.0,
    # the first words of both axes do not meet in the corner
    "xtick.major.pad": 6.0,
    "figure.facecolor": "none",
}
_LETTER_IN, _MOST_LINES = 0.075, 3
"""Width of a letter of a tick's name, inches, with room between names; lines of one."""
_PANELS = (
    ("dice", "Dice of each case: higher is better", "Dice"),
    ("surface_dice", "Surface Dice: higher is better", "surface Dice at {tolerance}"),
    ("hd95_mm", "HD95: lower is better", "HD95, mm"),
)
"""Metric, what is seen, the axis with its unit."""


def arm_colour(arm: str) -> str:
    """Stand-in colour of an arm."""
    return _ARM_COLOURS.get(arm, INK)


def verdict_plot(arms: Sequence[ArmResult], verdict: Verdict, null_margin: float) -> str:
    """The paired difference of each case (the mean over its seeds), and the mean with its interval against zero.

    Args:
        arms: Transfer and scratch, the same cases in the same order.
        verdict: Of their difference.
        null_margin: Half-width of the band called no difference.
    """
    table = paired_differences(arms[0], arms[1])
    found = np.sort(np.nanmean(table[np.isfinite(table).any(axis=1)], axis=1))
    found = found[evenly(len(found))]
    if verdict.difference is None or not len(found):
        return ""
    with matplotlib.rc_context(FIGURE_STYLE):
        figure = Figure(figsize=(10.0, 1.95))
        axes = figure.add_axes((0.01, 0.26, 0.98, 0.58))
        axes.set_title("What the pretrained start changed, case by case")
        axes.set_xlabel("difference in mean Dice, transfer − scratch")
        axes.axvspan(-null_margin, null_margin, color=BAND, lw=0)
        axes.axvline(0.0, color=MUTED, lw=1.0)
        spread = np.where(np.arange(len(found)) % 2, 0.06, -0.06) + 0.3
        axes.plot(found, spread, "o", ms=5.0, color=MUTED, alpha=0.8, mew=0)
        if verdict.low is not None and verdict.high is not None:
            axes.plot([verdict.low, verdict.high], [0.72, 0.72], color=INK, lw=3.2, solid_capstyle="round")
        axes.plot([verdict.difference], [0.72], "D", ms=8.0, color=INK, mec=PAPER, mew=1.4)
        left, right = _reach([*found, verdict.low or 0.0, verdict.high or 0.0, 2.0 * null_margin, -2.0 * null_margin])
        axes.set(xlim=(left, right), ylim=(0.02, 1.0), yticks=[])
        axes.grid(visible=False)
        axes.xaxis.set_major_locator(matplotlib.ticker.MaxNLocator(9))
        axes.xaxis.set_major_formatter(lambda value, _: f"{value:+.3g}".replace("-", "−") if abs(value) > 1e-9 else "0")
        for x, side, text in ((-null_margin, -1, "← scratch better"), (null_margin, 1, "transfer better →")):
            axes.annotate(
                text, (x, 0.92), xytext=(8 * side, 0), textcoords="offset points", va="center",
                ha="left" if side > 0 else "right",
            )  # fmt: skip
        return figure_svg(figure, "verdict", f"Difference in Dice, transfer minus scratch: {verdict.sentence}")


def box_plots(arms: Sequence[ArmResult], class_names: Sequence[str], tolerance: str) -> str:
    """Each metric by class and arm: boxes, each case a point, the same case in both arms joined by a line.

    Args:
        arms: The same cases in the same order.
        class_names: In the order of the scores.
        tolerance: Of the surface Dice, in words.
    """
    rows, columns, names, turn = _lay_out(class_names, len(arms))
    n_lines = max(name.count("\n") + 1 for name in names)
    margins = _margins(rows, 0.3 + 0.16 * (n_lines - 1))
    margins["hspace"] += 0.06 * (n_lines - 1)
    if turn:
        margins |= {"bottom": 0.11, "hspace": 0.6}
    with matplotlib.rc_context(FIGURE_STYLE):
        figure = Figure(figsize=(10.0, 3.2 * rows))
        panels = figure.subplots(rows, columns, squeeze=False, gridspec_kw=margins).ravel()
        for axes, (metric, title, unit) in zip(panels, _PANELS, strict=True):
            values = [_values(arm, metric, len(class_names)) for arm in arms]
            for k in range(len(class_names)):
                _class_boxes(axes, [each[:, k] for each in values], arms, k)
            axes.set_title(title)
            axes.set_ylabel(unit.format(tolerance=tolerance))
            axes.set_xticks(range(len(class_names)), names)
            if turn:
                for label in axes.get_xticklabels():
                    label.set(rotation=turn, ha="right", rotation_mode="anchor")
            axes.set_xlim(-0.6, len(class_names) - 0.4)
            highest = np.nanmax([np.nanmax(each, initial=0.0) for each in values])
            if metric != "hd95_mm":
                axes.set_ylim(_floor(values) - 0.02, 1.02)
            elif highest > 60.0:
                axes.set_ylabel("HD95, mm (logarithmic above 10)")
                axes.set_yscale("symlog", linthresh=10.0, linscale=1.0)
                axes.set(ylim=(-0.5, highest * 1.3), yticks=[0, 5, 10, 30, 100, 300])
                axes.yaxis.set_major_formatter("{x:g}")
                axes.yaxis.set_minor_locator(matplotlib.ticker.NullLocator())
                axes.set_ylim(-0.5, highest * 1.3)
            else:
                axes.set_ylim(-0.03 * max(highest, 1.0), max(highest, 1.0) * 1.08)
        return figure_svg(
            figure,
            "boxes",
            "Box plots of each metric by class and arm; each case is a point. The table of cases holds the numbers.",
        )


def learning_curves(models: Sequence[TrainedModel]) -> str:
    """Validation Dice and training loss by step, one line an arm, fold and seed; the kept step is marked."""
    with matplotlib.rc_context(FIGURE_STYLE):
        figure = Figure(figsize=(10.0, 3.2))
        dice, loss = figure.subplots(1, 2, gridspec_kw=_margins(1, bottom_in=0.45))
        for model in models:
            colour, alpha = (
                arm_colour(model.arm),
                1.0 if len({(other.fold, other.seed) for other in models}) == 1 else 0.75,
            )
            scored = [(point.step, point.val_dice) for point in model.history if point.val_dice is not None]
            measured = [(point.step, point.train_loss) for point in model.history if point.train_loss is not None]
            if scored:
                dice.plot(*zip(*scored, strict=True), "-o", color=colour, lw=1.8, ms=4.0, mew=0, alpha=alpha)
                step, best = max(scored, key=lambda pair: (pair[1], -pair[0]))
                dice.plot([step], [best], "o", ms=9.0, mfc="none", mec=colour, mew=1.6)
            if measured:
                loss.plot(*zip(*measured, strict=True), color=colour, lw=1.4, alpha=alpha)
        # trainings of one strategy change their phase at the same step
        for step, name in dict.fromkeys(start for model in models for start in _phase_starts(model)):
            for axes in (dice, loss):
                axes.axvline(step, color=MUTED, lw=0.9, ls=(0, (3, 3)))
            loss.annotate(
                name, (step, 1.0), xycoords=("data", "axes fraction"), xytext=(5, -4),
                textcoords="offset points", va="top", fontsize=8.0,
            )  # fmt: skip
        dice.set_title("Validation Dice while training (ring: the step that was kept)")
        dice.set_ylabel("mean foreground Dice")
        dice.set_ylim(0.0, 1.02)
        loss.set_title("Training loss: lower is better")
        loss.set_ylabel("loss, no unit")
        for axes in (dice, loss):
            axes.set_xlabel("optimiser steps")
            axes.set_xlim(left=0)
        return figure_svg(
            figure, "curves", "Learning curves of each arm: validation Dice and training loss by optimiser step."
        )


def _reach(values: Sequence[float]) -> tuple[float, float]:
    """Limits that hold all values, and zero with room for a word on either side."""
    low, high = min(values), max(values)
    room = 0.2 * (high - low)
    return min(low - 0.06 * (high - low), -room), max(high + 0.06 * (high - low), room)


def _lay_out(class_names: Sequence[str], n_arms: int) -> tuple[int, int, list[str], float]:
    """Rows and columns of the panels, and the names as they fit below: whole, in lines, or else turned by degrees."""
    widest_row = [(1, 3, 2.6)] if len(class_names) * n_arms <= 8 else []
    for rows, columns, width_in in [*widest_row, (3, 1, 9.2)]:
        n_letters = int(width_in / len(class_names) / _LETTER_IN)
        names = [textwrap.wrap(name, max(n_letters, 1), break_long_words=False) or [""] for name in class_names]
        if max(len(line) for name in names for line in name) <= n_letters and max(map(len, names)) <= _MOST_LINES:
            return rows, columns, ["\n".join(name) for name in names], 0.0
    return 3, 1, list(class_names), 30.0


def _margins(rows: int, bottom_in: float = 0.3) -> dict[str, float]:
    """Where the panels of a 10 inch wide figure lie, by rows of 3.2 inches."""
    height = 3.2 * rows
    return {
        "left": 0.055,
        "right": 0.995,
        "bottom": bottom_in / height,
        "top": 1.0 - 0.35 / height,
        "wspace": 0.22,
        "hspace": 0.3,
    }


def _floor(values: Sequence[Any]) -> float:
    """Where an axis of shares begins: at the tenth below the lowest point, and at 0 when that is low."""
    lowest = min((float(np.nanmin(each)) for each in values if not np.isnan(each).all()), default=0.0)
    tenth = np.floor(lowest * 10.0) / 10.0
    return float(tenth) if tenth >= 0.3 else 0.0


def _phase_starts(model: TrainedModel) -> list[tuple[int, str]]:
    """Last step before a new phase of the strategy, and the phase's name; nothing with one phase."""
    pairs = zip(model.history, model.history[1:], strict=False)
    return [(first.step, second.phase) for first, second in pairs if first.phase != second.phase]


def _values(arm: ArmResult, metric: str, n_classes: int) -> np.ndarray[Any, np.dtype[np.float64]]:
    rows = [[getattr(score, metric) for score in case.scores] for case in arm.cases]
    return np.array(rows, dtype=np.float64).reshape(len(arm.cases), n_classes)


def _class_boxes(axes: Any, columns: Sequence[Any], arms: Sequence[ArmResult], k: int) -> None:
    offsets = [0.0] if len(arms) == 1 else list(np.linspace(-0.2, 0.2, len(arms)))
    shown = points_of(arms)
    if len(arms) > 1:
        axes.plot([k + offset for offset in offsets], np.stack(columns)[:, shown], color=MUTED, lw=0.7, alpha=0.45)
    for offset, column, arm in zip(offsets, columns, arms, strict=True):
        colour = arm_colour(arm.arm)
        there = column[~np.isnan(column)]
        if len(there) >= 3:
            axes.boxplot(
                [there], positions=[k + offset], widths=0.24, whis=(0, 100), showfliers=False, patch_artist=True,
                manage_ticks=False, boxprops={"facecolor": colour, "alpha": 0.22, "linewidth": 0.0},
                whiskerprops={"color": colour, "linewidth": 1.0}, capprops={"linewidth": 0.0},
                medianprops={"color": colour, "linewidth": 2.0},
            )  # fmt: skip
        failed = np.array([case.failed for case in arm.cases], dtype=bool)[shown]
        points = column[shown]
        x = np.full(len(points), k + offset)
        axes.plot(x[~failed], points[~failed], "o", ms=4.2, color=colour, mec=PAPER, mew=0.6, alpha=0.95, clip_on=False)
        axes.plot(x[failed], points[failed], "X", ms=6.5, color=colour, mec=PAPER, mew=0.6, clip_on=False)


def figure_svg(figure: Figure, name: str, description: str) -> str:
    """The figure as an SVG element: no date, no version, page colours, fluid width."""
    stream = io.StringIO()
    figure.savefig(stream, format="svg", metadata={"Date": None, "Creator": None, "Format": None, "Type": None})
    text = stream.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    text = re.sub(r"<style.*?</style>", "", text, flags=re.DOTALL)
    text = re.sub(r"<!--.*?-->\n?", "", text, flags=re.DOTALL)
    text = re.sub(
        r' id="(?:figure|axes|patch|line2d|text|matplotlib|xtick|ytick|legend|PathCollection|LineCollection)[\w.]*"',
        "",
        text,
    )
    text = re.sub(r"font: ([\d.]+)px [^;\"]+", r"font-size: \1px", text)
    # ids of one page must differ, and each figure counts its own
    text = re.sub(r'(\sid="|url\(#|href="#)', rf"\g<1>{name}-", text)
    for colour, variable in _VARIABLES.items():
        text = text.replace(colour, f"var(--{variable})")
    box = re.search(r'viewBox="[^"]+"', text)
    head = f'<svg {box.group(0) if box else ""} role="img" aria-label="{escape(description)}" class="plot">'
    return head + text[text.index(">") + 1 :].rstrip()
