"""Which cases a page shows one by one where there are too many: it must open in a browser, and still tell no lie."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from monai_tl.metrics.cohort import ArmResult
from monai_tl.report.tables import thousands

MOST_POINTS = 500
"""Points of one kind in a plot; boxes, means and curves are of all cases."""
MOST_ROWS = 300
"""Cases in the table of all cases, and names in a list."""


def evenly(count: int, most: int = MOST_POINTS) -> NDArray[np.intp]:
    """Indices of so many of ``count`` ordered things, evenly spaced, the first and the last among them."""
    return np.unique(np.linspace(0, max(count - 1, 0), min(count, most)).round().astype(np.intp))


def points_of(arms: Sequence[ArmResult]) -> NDArray[np.intp]:
    """Cases that are drawn as points: all, or evenly many in the order of the first arm's Dice, for all arms the same.

    The worst and the best are among them, and those without a prediction (as the worst) by their share.
    """
    dice = np.array([case.mean("dice") for case in arms[0].cases], dtype=np.float64)
    if len(dice) <= MOST_POINTS:
        return np.arange(len(dice))
    return np.sort(np.argsort(dice, kind="stable")[evenly(len(dice))])


def lowest(arms: Sequence[ArmResult]) -> tuple[ArmResult, ...]:
    """The arms with the cases of a table: all, or those of the lowest mean Dice over the arms, in the order of ids."""
    if len(arms[0].cases) <= MOST_ROWS:
        return tuple(arms)
    table = np.array([[case.mean("dice") for case in arm.cases] for arm in arms], dtype=np.float64)
    # what has no Dice in any arm comes last
    filled = np.where(np.isnan(table), 2.0, table).mean(axis=0)
    chosen = np.sort(np.argsort(filled, kind="stable")[:MOST_ROWS])
    return tuple(replace(arm, cases=tuple(arm.cases[index] for index in chosen)) for arm in arms)


def points_note(n_cases: int) -> str:
    """Under a plot; empty where all cases are points."""
    if n_cases <= MOST_POINTS:
        return ""
    return f"Of {thousands(n_cases)} cases {MOST_POINTS} are points, evenly in the order of Dice."
