"""The section ``curve`` of params.yaml."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, ValidationInfo, field_validator

from monai_tl.finetune_config import Seed, StrategyName
from monai_tl.sections import Positive, Real, Section


class CurveTraining(Section):
    """How one point of the curve is trained, where that differs from the section finetune.

    Attributes:
        max_steps: Full budget of a point, optimiser steps; null takes finetune's. All else that is counted in steps is
            scaled along.
        validate_every: Steps between validations of a full budget; null takes finetune's, scaled.
        val_fraction: Largest share of a point's labels that choose the best weights instead of training; with 0, or
            where no whole patient fits in, the last weights count.
        keep_weights: Whether a point keeps its model, beside its scores.
    """

    max_steps: Positive | None = None
    validate_every: Positive | None = None
    val_fraction: Annotated[Real, Field(ge=0.0, lt=1.0)] = 0.25
    keep_weights: bool = False


class CurveConfig(Section):
    """Dice against labels and against steps: each combination is one training, and one stage run of DVC.

    Attributes:
        labels: Labels in all, those for validation included; ``all`` takes all outside the test set.
        strategies: Names of the ladder; ``scratch`` is the twin that the savings are measured against.
        seeds: Each draws its own nested subsets, weights and order, the same for all strategies.
        steps: Budgets below the full one, each a training with its own schedule; the full one is among ``labels``.
        steps_labels: How many labels these have; one of ``labels``.
        training: What a point is trained by.
    """

    labels: tuple[Positive | Literal["all"], ...] = Field(min_length=1)
    strategies: tuple[StrategyName, ...] = Field(min_length=1)
    seeds: tuple[Seed, ...] = Field(min_length=1)
    steps: tuple[Positive, ...] = Field(min_length=1)
    steps_labels: Positive | Literal["all"]
    training: CurveTraining = CurveTraining()

    @field_validator("labels", "strategies", "seeds", "steps")
    @classmethod
    def _are_given_once(cls, values: tuple[Any, ...]) -> tuple[Any, ...]:
        if len(set(values)) != len(values):
            raise ValueError("must be given once each")
        return values

    @field_validator("steps_labels")
    @classmethod
    def _is_one_of_the_labels(cls, value: int | str, info: ValidationInfo) -> int | str:
        if "labels" in info.data and value not in info.data["labels"]:
            raise ValueError("must be one of curve.labels, whose points are the full budget")
        return value
