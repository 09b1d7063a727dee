"""Classes that a training never finds, in words: page, summary and a model's card tell of them alike."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

_NEXT = (
    "A training that was too short, or fell into a state without it, is more likely than a class that cannot be "
    "learnt: look at its curve, raise finetune.max_steps, and train more seeds."
)


def say_unfound(found: Sequence[Mapping[str, Any]], set_name: str) -> list[str]:
    """One line for each class that an arm never finds, and what to do next; nothing where there is none.

    Args:
        found: As ``never_found`` in ``metrics.json``.
        set_name: ``test`` or ``validation``.
    """
    lines = []
    for one in found:
        cases = f"{one['n_cases']} {set_name} cases that have it"
        lines.append(f"{one['arm']}: {one['class']} is found in none of the {cases}{_of(one)}.")
    return [*lines, _NEXT] if lines else []


def _of(one: Mapping[str, Any]) -> str:
    if one["n_seeds"] == 1:
        return ""
    if len(one["seeds"]) == one["n_seeds"]:
        return ", with any seed"
    return f", with seed{'s' if len(one['seeds']) > 1 else ''} {', '.join(map(str, one['seeds']))}"
