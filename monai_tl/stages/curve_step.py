"""Stage curve_step: one point of Dice against steps."""

from __future__ import annotations

from pathlib import Path

from monai_tl.config import Params
from monai_tl.errors import ConfigError
from monai_tl.stages.curve_point import measure_point, section_of


def run(workspace: Path, params: Params, steps: str, strategy: str, seed: str) -> None:
    """Train for so many steps and test: ``artifacts/curve/steps/<steps>-<strategy>-<seed>``.

    Each budget is a training of its own with its own schedule. The weights of a longer run at that step would be no
    answer: their learning rate has not come down yet.

    Args:
        workspace: Holds ``artifacts/cases``, ``split``, ``plan``, ``prepared``.
        params: Sections ``curve``, ``finetune`` and ``predict``.
        steps: Optimiser steps.
        strategy: Name in the ladder.
        seed: Of the subset, the weights and the order.

    Raises:
        ConfigError, DataError, SourceError, TrainingError: See their messages.
    """
    if not steps.isdigit() or int(steps) < 1:
        raise ConfigError(f"--steps: {steps!r} is no number of steps", "arguments")
    out = workspace / "artifacts/curve/steps" / f"{steps}-{strategy}-{seed}"
    measure_point(workspace, params, out, str(section_of(params).steps_labels), strategy, seed, int(steps))
