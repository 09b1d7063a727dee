"""The score that chooses the best weights: mean foreground Dice over whole cases on the plan's grid."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import nn

from monai_tl.dataset.patches import TrainingCase
from monai_tl.networks.windows import predict_probabilities
from monai_tl.records import Plan

OVERLAP = 0.25
"""Less than in prediction: the order of checkpoints hardly depends on seams, the time does."""


def class_dice(reference: NDArray[Any], prediction: NDArray[Any], n_outputs: int) -> list[float | None]:
    """Dice of each class but background.

    Args:
        reference: Label values 0 to n_outputs - 1, any shape.
        prediction: Same shape.
        n_outputs: Classes with background.

    Returns:
        One number a class, 0 to 1; 0 when only one map has it; None when both lack it.
    """
    first, second = np.ravel(reference), np.ravel(prediction)
    in_first = np.bincount(first, minlength=n_outputs)
    in_second = np.bincount(second, minlength=n_outputs)
    in_both = np.bincount(first[first == second], minlength=n_outputs)
    totals = (in_first + in_second)[1:]
    return [
        2.0 * float(both) / float(total) if total else None for both, total in zip(in_both[1:], totals, strict=True)
    ]


def foreground_dice(reference: NDArray[Any], prediction: NDArray[Any], n_outputs: int) -> list[float]:
    """``class_dice`` of the classes that occur in either map."""
    return [value for value in class_dice(reference, prediction, n_outputs) if value is not None]


def validation_dice(network: nn.Module, cases: Sequence[TrainingCase], plan: Plan, batch_size: int) -> float | None:
    """Mean of ``foreground_dice`` over all cases and classes; None when no class occurs anywhere.

    Args:
        network: In eval mode.
        cases: Of the fold's validation set.
        plan: Patch size, size rule and classes.
        batch_size: Windows a pass.
    """
    scores: list[float] = []
    for case in cases:
        probabilities = predict_probabilities(
            [network], case.image, plan.patch_size_vox, plan.size_rule, overlap=OVERLAP, batch_size=batch_size
        )
        scores += foreground_dice(case.label, probabilities.argmax(axis=0).astype(np.uint8), plan.scheme.n_outputs)
    return float(np.mean(scores)) if scores else None
