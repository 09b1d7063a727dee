"""Where a training run stands, and what it gives in the end."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from monai_tl.privacy_records import Guarantee


@dataclass(frozen=True)
class HistoryRow:
    """One row of history.csv: the mean loss since the row before, Dice where it was measured.

    The loss is of patients trained on, so a private training tells none.
    """

    step: int
    phase: str
    learning_rate: float
    train_loss: float | None
    val_dice: float | None = None


@dataclass
class Position:
    """Where a run stands; with network, optimiser and random state it is all that a resume needs.

    Attributes:
        step: Optimiser steps done.
        validated_step: Steps done at the last validation.
        best_step, best_dice: Of the kept weights; the earliest of equals, but at Dice 0 the latest.
        n_worse: Validations of the last phase since a better Dice.
        losses: Of the steps since the last row of the history.
    """

    step: int = 0
    validated_step: int = 0
    best_step: int = 0
    best_dice: float | None = None
    n_worse: int = 0
    losses: list[float] = field(default_factory=list)
    history: list[HistoryRow] = field(default_factory=list)


@dataclass(frozen=True)
class Outcome:
    """What training gives.

    Attributes:
        state_dict: The best weights, on the CPU.
        position: Where it ended.
        stop_reason: ``budget`` or ``patience``.
        guarantee: Of a private training.
        facts: Of the run, for ``training.json``: parameters trained, kept features, the range test.
    """

    state_dict: dict[str, Tensor]
    position: Position
    stop_reason: str
    guarantee: Guarantee | None = None
    facts: dict[str, Any] = field(default_factory=dict)
