"""What one point of a curve leaves: which labels it was given, and the Dice of each test case."""

from __future__ import annotations

from monai_tl.records import Record

POINT_FILE = "point.json"


class CurvePoint(Record):
    """``point.json``: one training and its test.

    Attributes:
        labels, steps: As asked for: a number or ``all``; optimiser steps of the budget.
        n_labels, n_val: Labels it was given, and how many of these chose the best weights.
        n_steps, best_step: Steps it took, fewer than the budget where patience ended it, and those of the kept weights.
        case_ids: Of training and validation.
        classes: Names, in the order of ``dice``.
        patients: Patient of each test case.
        dice: Test case → Dice of each class on the native grid; None where reference and prediction lack the class, 0
            where there is no prediction.
        failed: Test case → code of why it has no prediction.
        untaught: Classes that none of its training cases holds.
    """

    schema_version: int = 1
    labels: str
    steps: int
    strategy: str
    seed: int
    n_labels: int
    n_val: int
    n_steps: int
    best_step: int
    case_ids: tuple[str, ...]
    classes: tuple[str, ...]
    patients: dict[str, str]
    dice: dict[str, tuple[float | None, ...]]
    failed: dict[str, str]
    untaught: tuple[str, ...] = ()
