"""What ``strategy: auto`` chose, from what and why, as text."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from monai_tl.report.findings import Findings
from monai_tl.report.tables import NOTHING, number, thousands

_INPUTS = {
    "n_labels": "labelled training cases",
    "n_parameters": "parameters of the network",
    "max_steps": "steps of the budget",
    "shift_score": "shift from the source, 0 is the same",
    "contract_broken": "broken lines of the contract",
    "contract_adapted": "adapted lines of the contract",
}


@dataclass(frozen=True)
class Choice:
    """One decision, and the trainings that it was made for.

    Attributes:
        models: Folds and seeds, e.g. ``fold 0, seeds 0, 1``.
        strategy: Chosen.
        reason: One sentence without its full stop.
        inputs: Name and value of what it was decided from.
        settings: Name and value of the parameters that it fixes.
    """

    models: str
    strategy: str
    reason: str
    inputs: tuple[tuple[str, str], ...]
    settings: tuple[tuple[str, str], ...]


def choices(findings: Findings) -> list[Choice]:
    """Each different decision once; nothing where the strategy was given."""
    made: list[tuple[Mapping[str, Any], list[tuple[int, int]]]] = []
    for model in findings.models:
        decision = model.training.get("decision")
        if decision is None:
            continue
        found = next((places for one, places in made if one == decision), None)
        if found is None:
            made.append((decision, found := []))
        found.append((model.fold, model.seed))
    return [_choice(decision, places) for decision, places in made]


def _choice(decision: Mapping[str, Any], places: list[tuple[int, int]]) -> Choice:
    inputs = decision["inputs"]
    names = [*(name for name in _INPUTS if name in inputs), *(name for name in inputs if name not in _INPUTS)]
    return Choice(
        models=f"{_counted('fold', {fold for fold, _ in places})}, {_counted('seed', {seed for _, seed in places})}",
        strategy=decision["strategy"],
        reason=decision["reason"],
        inputs=tuple((_INPUTS.get(name, name), _in_words(name, inputs[name])) for name in names),
        settings=tuple((name, _in_words(name, value)) for name, value in decision["settings"].items()),
    )


def _counted(name: str, places: set[int]) -> str:
    return f"{name}{'s' if len(places) > 1 else ''} {', '.join(map(str, sorted(places)))}"


def _in_words(name: str, value: Any) -> str:
    if value is None:
        return "not known"
    if isinstance(value, list | tuple):
        return ", ".join(map(str, value)) or NOTHING
    if isinstance(value, int):
        return thousands(value)
    return number(value, 2) if isinstance(value, float) else str(value)
