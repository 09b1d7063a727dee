"""Dice against the size of what is outlined."""

from __future__ import annotations

from collections.abc import Sequence

import matplotlib
import numpy as np
from matplotlib.figure import Figure

from monai_tl.metrics.cohort import ArmResult
from monai_tl.report.figures import FIGURE_STYLE, PAPER, arm_colour, figure_svg
from monai_tl.report.shown import points_of

_MOST_PANELS = 4


def size_plot(arms: Sequence[ArmResult], class_names: Sequence[str]) -> str:
    """One panel a class, or one of all classes where they are many; empty where nothing has a size.

    Args:
        arms: The same cases in the same order.
        class_names: In the order of the scores.
    """
    chosen = [[k] for k in range(len(class_names))] if len(class_names) <= _MOST_PANELS else [range(len(class_names))]
    titles = list(class_names) if len(chosen) > 1 or len(class_names) == 1 else ["all classes"]
    shown = points_of(arms)
    points = [
        [
            [(arm.cases[one].scores[k].reference_ml, arm.cases[one].scores[k].dice) for one in shown for k in classes]
            for arm in arms
        ]
        for classes in chosen
    ]
    if not any(ml > 0 for panel in points for arm in panel for ml, _ in arm):
        return ""
    with matplotlib.rc_context(FIGURE_STYLE):
        figure = Figure(figsize=(10.0, 2.9))
        panels = figure.subplots(
            1, len(chosen), squeeze=False, sharey=True,
            gridspec_kw={"left": 0.055, "right": 0.995, "bottom": 0.17, "top": 0.88, "wspace": 0.08},
        ).ravel()  # fmt: skip
        lowest = 1.0
        for axes, title, panel in zip(panels, titles, points, strict=True):
            for arm, pairs in zip(arms, panel, strict=True):
                values = np.array([pair for pair in pairs if pair[0] > 0 and np.isfinite(pair[1])]).reshape(-1, 2)
                axes.plot(
                    values[:, 0], values[:, 1], "o", ms=4.4, color=arm_colour(arm.arm), mec=PAPER, mew=0.6, alpha=0.9
                )
                lowest = min(lowest, *values[:, 1], 1.0)
            axes.set_xscale("log")
            known = [ml for pairs in panel for ml, _ in pairs if ml > 0]
            # as many marks as have room below the panel
            decades = len(chosen) * np.log10(max(known) / min(known)) if known else 0.0
            marks = (1.0, 2.0, 5.0) if decades < 5.0 else (1.0, 3.0) if decades < 9.0 else (1.0,)
            axes.xaxis.set_major_locator(matplotlib.ticker.LogLocator(subs=marks))
            axes.xaxis.set_major_formatter("{x:g}")
            axes.xaxis.set_minor_locator(matplotlib.ticker.NullLocator())
            axes.set_title(f"Dice by size: {title}")
            axes.set_xlabel("reference volume, ml")
        panels[0].set_ylabel("Dice")
        panels[0].set_ylim(max(-0.02, lowest - 0.05), 1.02)
        return figure_svg(figure, "sizes", "Dice of each case against the volume of its reference, by class and arm.")
