"""The two plots of a curve, as SVG and PNG: plain colours on white, for pages and slides alike."""

from __future__ import annotations

import io
import re
import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib
import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, NullLocator

from monai_tl.report.plot_style import plain_style
from monai_tl.transfer.curve_summary import SCRATCH, CurveFindings, Line
from monai_tl.transfer.label_efficiency import Saving

INK, MUTED, RULE = "#1a1f26", "#59636e", "#d9dee3"
SCRATCH_COLOUR = "#d55e00"
COLOURS = ("#0072b2", "#009e73", "#cc79a7", "#56b4e9", "#e69f00", "#000000")
"""Okabe and Ito's palette: told apart with any kind of colour vision."""
_TITLE_CHARACTERS = 58
"""As many as fit between the axis and the right edge in the title's size."""
_MARKERS = ("o", "s", "^", "v", "P", "X")
_STYLE = {
    **plain_style(INK, MUTED, RULE),
    "svg.fonttype": "path",
    "font.size": 10.0,
    "text.color": INK,
    "axes.titlesize": 12.0,
    "axes.titleweight": "bold",
    "axes.titlepad": 24.0,
}


def draw_labels(findings: CurveFindings, budget: str | None = None) -> dict[str, bytes]:
    """Dice against labels, and how far the best supported saving reaches.

    Args:
        findings: What is drawn.
        budget: What each training had, where that is not the same number of steps for all.

    Returns:
        ``svg`` and ``png``; equal findings give equal bytes.
    """
    arrow = _arrow(findings.labels_told, "labels")
    label = f"labels, those for validation included ({budget or f'{findings.full_steps} steps'} of training each)"
    return _draw(findings.by_labels, findings.labels_sentence, label, _about(findings), arrow)


def draw_steps(findings: CurveFindings) -> dict[str, bytes]:
    """Dice against steps; see ``draw_labels``."""
    arrow = _arrow(findings.steps_told, "steps")
    label = f"optimiser steps, each budget with its own schedule ({findings.n_labels_of_steps} labels)"
    return _draw(findings.by_steps, findings.steps_sentence, label, _about(findings), arrow)


def _arrow(told: tuple[str, Saving] | None, things: str) -> tuple[float, float, float, str] | None:
    """The saving of the title, from the pretrained budget to scratch's, at the Dice that both have there."""
    if told is None:
        return None
    saving = told[1]
    more = {"at least": "more than ", "measured": ""}[saving.bound]
    return saving.dice, saving.budget, saving.needed, f"{more}{saving.factor:.2g} × the {things}"


def _about(findings: CurveFindings) -> str:
    seeds = f"{findings.n_seeds} seed{'' if findings.n_seeds == 1 else 's'}"
    patients = f"{findings.n_patients} test patients"
    return f"mean Dice, {100 * findings.confidence:g} % interval over {patients}, {seeds}"


def _draw(
    lines: Mapping[str, Line],
    title: str,
    x_label: str,
    about: str,
    arrow: tuple[float, float, float, str] | None,
) -> dict[str, bytes]:
    with matplotlib.rc_context(_STYLE):
        figure = Figure(figsize=(7.2, 4.4))
        rows = textwrap.wrap(title, _TITLE_CHARACTERS)
        axes = figure.add_axes((0.105, 0.13, 0.715, 0.755 - 0.045 * len(rows)))
        others = [name for name in lines if name != SCRATCH]
        for name, line in lines.items():
            colour = _colour(name, others)
            dash = (0, (4, 2)) if name == SCRATCH else "solid"
            axes.fill_between(line.budgets, line.low, line.high, color=colour, alpha=0.16, lw=0)
            axes.plot(line.budgets, line.dice, color=colour, lw=2.0, ls=dash, clip_on=False)
            axes.plot(line.budgets, line.dice, _marker(name, others), color=colour, ms=5.5, mec="white", mew=0.8)
        _scale(axes, lines)
        if arrow is not None:
            _point_across(axes, list(lines.values()), *arrow)
        _name_lines(axes, lines, others)
        axes.set_xlabel(x_label)
        axes.set_ylabel("mean Dice")
        axes.set_title("\n".join(rows))
        axes.text(0.0, 1.03, about, transform=axes.transAxes, color=MUTED, fontsize=9.0)
        return {"svg": _save(figure, "svg"), "png": _save(figure, "png")}


def _colour(name: str, others: Sequence[str]) -> str:
    return SCRATCH_COLOUR if name == SCRATCH else COLOURS[others.index(name) % len(COLOURS)]


def _marker(name: str, others: Sequence[str]) -> str:
    return "D" if name == SCRATCH else _MARKERS[others.index(name) % len(_MARKERS)]


def _scale(axes: Any, lines: Mapping[str, Line]) -> None:
    budgets = sorted({budget for line in lines.values() for budget in line.budgets})
    axes.set_xscale("log", base=2)
    axes.xaxis.set_major_locator(FixedLocator(budgets))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter("{x:g}")
    axes.set_xlim(budgets[0] / 1.1, budgets[-1] * 1.1)
    lowest = min(float(np.min(line.low)) for line in lines.values())
    highest = max(float(np.max(line.high)) for line in lines.values())
    axes.set_ylim(max(0.0, lowest - 0.03), min(1.0, highest + 0.04))


def _point_across(axes: Any, lines: Sequence[Line], dice: float, start: float, end: float, text: str) -> None:
    """An arrow from the pretrained budget to scratch's at the Dice of both, and its words where no line passes."""
    if end <= start:
        return
    style = {"arrowstyle": "<|-|>", "color": INK, "lw": 1.2, "shrinkA": 4.0, "shrinkB": 0.0}
    axes.annotate("", (end, dice), (start, dice), arrowprops=style)
    # half a label's width and its distance from the arrow, as shares of the axes
    wide, far = 0.0085 * len(text), 0.045
    low, high = axes.get_ylim()
    left, right = np.log2(axes.get_xlim())
    span = np.log2(end / start)

    def clearance(place: tuple[float, int]) -> float:
        along, side = place
        middle, level = np.log2(start) + along * span, (dice - low) / (high - low) + side * far
        budgets = np.linspace(middle - wide * (right - left), middle + wide * (right - left), 9)
        found = [
            np.abs((np.interp(budgets, np.log2(line.budgets), line.dice) - low) / (high - low) - level).min()
            for line in lines
        ]
        return float(min(found))

    places = [(along, side) for along in (0.5, 0.65, 0.8, 0.35, 0.2) for side in (-1, 1)]
    along, side = max(places, key=clearance)
    axes.annotate(
        text, (start * 2 ** (along * span), dice), xytext=(0, 5 * side), textcoords="offset points", ha="center",
        va="bottom" if side > 0 else "top", fontsize=9.0,
        bbox={"boxstyle": "round,pad=0.15", "fc": "white", "ec": "none", "alpha": 0.8},
    )  # fmt: skip


def _name_lines(axes: Any, lines: Mapping[str, Line], others: Sequence[str]) -> None:
    """Each name at the end of its line, pushed apart where they would overlap."""
    low, high = axes.get_ylim()
    gap = 0.05 * (high - low)
    placed = low - gap
    for name, line in sorted(lines.items(), key=lambda item: float(item[1].dice[-1])):
        placed = max(float(line.dice[-1]), placed + gap)
        axes.annotate(
            name, (1.0, placed), xycoords=("axes fraction", "data"), xytext=(6, 0), textcoords="offset points",
            va="center", color=_colour(name, others), fontweight="bold", annotation_clip=False,
        )  # fmt: skip


def _save(figure: Figure, kind: str) -> bytes:
    stream = io.BytesIO()
    # no date and no version, so equal numbers give equal bytes
    fields = {"Date": None, "Creator": None} if kind == "svg" else {"Software": None}
    figure.savefig(stream, format=kind, dpi=160, metadata=fields, facecolor="white")
    content = stream.getvalue()
    return re.sub(rb"<metadata>.*?</metadata>", b"", content, flags=re.DOTALL) if kind == "svg" else content
