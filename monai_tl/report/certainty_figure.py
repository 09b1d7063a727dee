"""Accuracy against confidence, and the error that is left against the share of cases kept."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import matplotlib
import numpy as np
from matplotlib.figure import Figure

from monai_tl.metrics.calibration import ReliabilityCounts
from monai_tl.metrics.certainty import Calibration, Uncertainty
from monai_tl.report.figures import FIGURE_STYLE, MUTED, arm_colour, figure_svg
from monai_tl.report.shown import evenly

FEWEST_VOXELS = 200
"""A bin of fewer has no accuracy worth a point."""
_DASHED = (0, (4, 3))


def certainty_plot(calibration: Mapping[str, Calibration], uncertainty: Mapping[str, Uncertainty]) -> str:
    """Both panels; empty where neither has anything to show.

    Args:
        calibration: By arm. Solid: as the network says it; dashed: with the temperature.
        uncertainty: By arm. Solid: its own order; dashed: the best one; dotted: none.
    """
    if not calibration and not uncertainty:
        return ""
    with matplotlib.rc_context(FIGURE_STYLE):
        figure = Figure(figsize=(10.0, 3.6))
        reliability, risk = figure.subplots(
            1, 2, gridspec_kw={"left": 0.055, "right": 0.995, "bottom": 0.14, "top": 0.9, "wspace": 0.16}
        )
        reliability.plot([0.0, 1.0], [0.0, 1.0], color=MUTED, lw=1.0)
        shares = [0.5]
        for arm, found in calibration.items():
            shares += _curve(reliability, found.before.counts, arm, "-")
            shares += _curve(reliability, found.after.counts, arm, _DASHED) if found.after else []
        left = np.floor(10.0 * min(shares)) / 10.0
        reliability.set(xlim=(left, 1.005), ylim=(left, 1.005))
        reliability.set_title("How often it is right, by how sure it is")
        reliability.set_xlabel("confidence (probability of the class given)")
        reliability.set_ylabel("share of voxels that are right")
        highest = 0.0
        for arm, unsure in uncertainty.items():
            highest = max(highest, _risk(risk, unsure, arm))
        risk.set(xlim=(0.0, 101.0), ylim=(0.0, max(1.08 * highest, 1e-3)))
        risk.set_title("Error that is left when the least sure cases are handed on")
        risk.set_xlabel("cases kept, the surest first, %")
        risk.set_ylabel("mean error (1 − Dice)")
        return figure_svg(
            figure,
            "certainty",
            "Left: accuracy against confidence by arm. Right: mean error against the share of cases kept, by arm.",
        )


def _curve(axes: Any, counts: ReliabilityCounts, arm: str, style: Any) -> list[float]:
    """Draws the bins with enough voxels; gives their coordinates."""
    enough = counts.n >= FEWEST_VOXELS
    confidence, accuracy = (values[enough] for values in counts.curve())
    axes.plot(confidence, accuracy, ls=style, marker="o", ms=3.6, mew=0, lw=1.6, color=arm_colour(arm))
    return [*confidence.tolist(), *accuracy.tolist()]


def _risk(axes: Any, found: Uncertainty, arm: str) -> float:
    curve, colour = found.curve, arm_colour(arm)
    shown = evenly(len(curve.coverage))
    share = 100.0 * curve.coverage[shown]
    axes.plot(share, curve.risk[shown], "-o", ms=3.6, mew=0, lw=1.6, color=colour)
    axes.plot(share, curve.best_risk[shown], ls=_DASHED, lw=1.2, color=colour)
    axes.axhline(curve.random_area, ls=(0, (1, 2)), lw=1.2, color=colour)
    return float(max(curve.risk.max(), curve.random_area))
