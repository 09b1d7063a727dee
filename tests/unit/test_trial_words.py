"""What a trial of the source says: overlaps counted by hand, and the rule for each answer."""

from __future__ import annotations

import numpy as np
import pytest

from monai_tl.transfer.orientation_trial import (
    DIRECTIONS,
    READINGS,
    STATED,
    Trial,
    compare_readings,
    judge_trial,
    overlap_table,
)


def trial(stated: list[float], **mirrored: list[float]) -> Trial:
    """Readings that are not given find nothing."""
    nothing = tuple(0.0 for _ in stated)
    given = {STATED: tuple(stated), **{name: tuple(values) for name, values in mirrored.items()}}
    return Trial("liver", {reading: given.get(reading, nothing) for reading in READINGS})


@pytest.mark.parametrize(
    ("found", "status", "direction"),
    [
        (trial([0.1] * 4, LR=[0.8] * 4), "mirrored", "LR"),
        (trial([0.1] * 4, LR=[0.7] * 4, SI=[0.9] * 4), "mirrored", "SI"),
        (trial([0.8] * 4, LR=[0.5] * 4), "right", ""),
        # one case says otherwise
        (trial([0.1, 0.1, 0.1, 0.95], AP=[0.9] * 4), "silent", ""),
        # a symmetric organ
        (trial([0.8] * 4, LR=[0.81] * 4), "silent", ""),
        # the source does not know the structure at all
        (trial([0.05] * 4, LR=[0.4] * 4), "silent", ""),
        (trial([0.1] * 3, LR=[0.9] * 3), "silent", ""),
    ],
)
def test_the_answer(found: Trial, status: str, direction: str) -> None:
    answer = judge_trial(found)
    assert (answer.status, answer.direction) == (status, direction)
    means = {reading: np.mean(found.dice[reading]) for reading in READINGS}
    assert f"{means[STATED]:.2f}" in answer.reason
    assert f"{max(means[name] for name in DIRECTIONS):.2f}" in answer.reason


def test_overlaps_and_dice_by_hand() -> None:
    found = np.array([0, 1, 1, 2, 2, 0])
    label = np.array([0, 1, 2, 2, 2, 1])
    table = overlap_table(found, label, 2, 2)
    assert table.tolist() == [[1, 1, 0], [0, 1, 1], [0, 0, 2]]
    tables = {reading: [table] for reading in READINGS}
    # shared by name, whatever their order: b = output 2 with label 1, a = output 1 with label 2
    both = compare_readings(tables, ["A", "b"], ["B", "a"])
    assert both.dice[STATED] == pytest.approx([(2 * 0 / (2 + 2) + 2 * 1 / (2 + 3)) / 2])
    # no name is shared: the best pair. Output 2 with label 2 has 2 · 2 / (2 + 3), all with all 2 · 4 / (4 + 5)
    best = compare_readings(tables, ["x", "y"], ["p", "q"])
    assert best.structure == "p and q (its x and y)"
    assert best.dice[STATED] == pytest.approx([8 / 9])


def test_left_and_right_of_the_same_name_are_told_apart() -> None:
    """A mirrored source calls the left kidney right: together they overlap as well as before, by name not at all."""
    label = np.repeat([1, 0, 2], 10)
    exact, swapped = overlap_table(label, label, 2, 2), overlap_table(label[::-1], label, 2, 2)
    tables = {reading: [exact if reading == "LR" else swapped] * 4 for reading in READINGS}
    names = ["kidney_left", "kidney_right"]
    assert judge_trial(compare_readings(tables, names, names)).direction == "LR"


def test_a_class_that_a_case_lacks_does_not_count_there() -> None:
    label = np.array([0, 0, 1, 1])
    table = overlap_table(label, label, 2, 2)
    tables = {reading: [table] for reading in READINGS}
    assert compare_readings(tables, ["a", "b"], ["a", "b"]).dice[STATED] == (1.0,)
