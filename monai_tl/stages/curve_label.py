"""Stage curve_label: one point of Dice against labels."""

from __future__ import annotations

from pathlib import Path

from monai_tl.config import Params
from monai_tl.stages.curve_point import measure_point


def run(workspace: Path, params: Params, labels: str, strategy: str, seed: str) -> None:
    """Train with so many labels and test: ``artifacts/curve/labels/<labels>-<strategy>-<seed>``.

    Args:
        workspace: Holds ``artifacts/cases``, ``split``, ``plan``, ``prepared``.
        params: Sections ``curve``, ``finetune`` and ``predict``.
        labels: A number, or ``all``.
        strategy: Name in the ladder.
        seed: Of the subset, the weights and the order.

    Raises:
        ConfigError, DataError, SourceError, TrainingError: See their messages.
    """
    out = workspace / "artifacts/curve/labels" / f"{labels}-{strategy}-{seed}"
    measure_point(workspace, params, out, labels, strategy, seed, None)
