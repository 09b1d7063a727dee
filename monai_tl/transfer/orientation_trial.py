"""Whether a source finds its structures in images read as its card says, or rather in their mirror images.

The letters of a card's orientation are a claim that no file can show. A network that has learnt anatomy shows it: on
images that are turned wrongly it misses what it finds on their mirror images.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

DIRECTIONS = ("LR", "AP", "SI")
"""Of a mirror: left and right exchanged, front and back, top and bottom."""
STATED = "as stated"
READINGS = (STATED, *DIRECTIONS)

FOUND = 0.5
"""Mean Dice from which a source is taken to find the structure; below it the trial says nothing."""
CLEARLY = 0.2
"""Difference in mean Dice between two readings that is no matter of taste. Of hippodeep on hippocampi it is 0.70."""
FEWEST = 4
"""Cases that must all agree; by chance all of four do in one of sixteen trials."""

NAMES = {"LR": "left and right", "AP": "front and back", "SI": "top and bottom"}


class Trial(NamedTuple):
    """What a source found in a few training cases before any training.

    Attributes:
        structure: Which outputs were held against which labels, in words.
        dice: Reading (``READINGS``) → Dice of each case, of the same cases in the same order.
    """

    structure: str
    dice: Mapping[str, tuple[float, ...]]


class Answer(NamedTuple):
    """What a trial says of the card's orientation.

    Attributes:
        status: ``right``, ``mirrored``, or ``silent`` where nothing can be told.
        reason: In words, with the numbers.
        direction: Of ``mirrored``: which of ``DIRECTIONS``.
    """

    status: Literal["right", "mirrored", "silent"]
    reason: str
    direction: str = ""


def judge_trial(trial: Trial) -> Answer:
    """Mirrored where a mirrored reading finds the structure clearly better, in the mean and in each case."""
    means = {reading: float(np.mean(values)) if values else 0.0 for reading, values in trial.dice.items()}
    best = max(DIRECTIONS, key=lambda reading: means[reading])
    stated, n_cases = means[STATED], len(trial.dice[STATED])
    cases = f"{n_cases} training case{'' if n_cases == 1 else 's'}"
    numbers = (
        f"tried before training on {cases}, the source finds {trial.structure} with a mean Dice of {stated:.2f} as its "
        f"card says, and with {means[best]:.2f} where {NAMES[best]} are exchanged"
    )
    if n_cases < FEWEST or max(stated, means[best]) < FOUND:
        why = f"fewer than {FEWEST} cases" if n_cases < FEWEST else f"both below {FOUND:g}"
        return Answer("silent", f"{numbers}: {why}, so the letters could not be checked")
    if _is_clear(trial, best, STATED, means):
        return Answer("mirrored", numbers, best)
    if all(_is_clear(trial, STATED, other, means) for other in DIRECTIONS):
        return Answer("right", f"{numbers}, the best of the mirrored readings")
    return Answer("silent", f"{numbers}: too alike to check the letters by")


def _is_clear(trial: Trial, better: str, worse: str, means: Mapping[str, float]) -> bool:
    pairs = zip(trial.dice[better], trial.dice[worse], strict=True)
    return means[better] - means[worse] >= CLEARLY and all(one > other for one, other in pairs)


def overlap_table(
    found: NDArray[np.integer], label: NDArray[np.integer], n_found: int, n_labelled: int
) -> NDArray[np.int64]:
    """Voxels by output and label, (n_found + 1, n_labelled + 1); the first of each is the background.

    Args:
        found: Outputs, 0 to ``n_found``.
        label: Labels of the same shape, 0 to ``n_labelled``.
        n_found: Classes of the source.
        n_labelled: Classes of the target.
    """
    joined = found.astype(np.int64).reshape(-1) * (n_labelled + 1) + label.reshape(-1)
    counts = np.bincount(joined, minlength=(n_found + 1) * (n_labelled + 1))
    return counts.reshape(n_found + 1, n_labelled + 1)


def compare_readings(
    tables: Mapping[str, Sequence[NDArray[np.int64]]], found_names: Sequence[str], labelled_names: Sequence[str]
) -> Trial:
    """Dice of each case under each reading, of the structures that source and target have in common.

    Classes of the same name are held against each other (case does not matter), and their mean counts: so left and
    right organs that are classes of their own are told apart. Where no name is shared it is one pair, of a class or all
    classes together on either side: the one that some reading finds best, the same for all readings.

    Args:
        tables: Reading → ``overlap_table`` of each case.
        found_names: The source's classes.
        labelled_names: The target's.
    """
    values = {name.casefold(): k for k, name in enumerate(labelled_names, start=1)}
    shared = [(k, values[name.casefold()]) for k, name in enumerate(found_names, start=1) if name.casefold() in values]
    if shared:
        names = ", ".join(labelled_names[value - 1] for _, value in shared)
        return Trial(names, {reading: _dice_of(of, shared) for reading, of in tables.items()})
    sides = [[0, *range(1, 1 + len(names))] if len(names) > 1 else [0] for names in (found_names, labelled_names)]
    pairs = [(k, value) for k in sides[0] for value in sides[1]]
    best = max(pairs, key=lambda pair: max(_mean(_dice_of(of, [pair])) for of in tables.values()))
    structure = f"{_named(best[1], labelled_names)} (its {_named(best[0], found_names)})"
    return Trial(structure, {reading: _dice_of(of, [best]) for reading, of in tables.items()})


def _mean(values: Sequence[float]) -> float:
    return float(np.mean(values)) if values else 0.0


def _named(value: int, names: Sequence[str]) -> str:
    return names[value - 1] if value else " and ".join(names) if len(names) <= 3 else "foreground"


def _dice_of(tables: Sequence[NDArray[np.int64]], pairs: Sequence[tuple[int, int]]) -> tuple[float, ...]:
    """Mean over the pairs that a case has, case by case; 0 stands for all classes of a side together."""
    return tuple(_mean([dice for pair in pairs if not math.isnan(dice := _dice(table, *pair))]) for table in tables)


def _dice(table: NDArray[np.int64], found: int, labelled: int) -> float:
    rows = slice(1, None) if found == 0 else slice(found, found + 1)
    columns = slice(1, None) if labelled == 0 else slice(labelled, labelled + 1)
    total = int(table[rows].sum() + table[:, columns].sum())
    return 2.0 * int(table[rows, columns].sum()) / total if total else math.nan
