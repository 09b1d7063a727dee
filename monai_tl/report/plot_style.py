"""What all plots have in common: few lines, titles on the left."""

from __future__ import annotations

from typing import Any


def plain_style(ink: str, muted: str, rule: str) -> dict[str, Any]:
    """Settings of matplotlib for a plot with a horizontal grid and no frame.

    Args:
        ink: Colour of titles.
        muted: Of labels.
        rule: Of lines.

    Returns:
        Equal figures give equal bytes with them.
    """
    return {
        "svg.hashsalt": "monai_tl",
        "text.parse_math": False,
        "font.family": "DejaVu Sans",
        "axes.edgecolor": rule,
        "axes.labelcolor": muted,
        "axes.titlecolor": ink,
        "axes.titlelocation": "left",
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.spines.left": False,
        "axes.grid": True,
        "axes.grid.axis": "y",
        "axes.axisbelow": True,
        "grid.color": rule,
        "grid.linewidth": 0.6,
        "xtick.color": rule,
        "ytick.color": rule,
        "xtick.labelcolor": muted,
        "ytick.labelcolor": muted,
        "ytick.major.size": 0.0,
    }
