"""Fast mode tried on validation cases, so that it keeps exact mode's Dice with this very model."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from itertools import product
from statistics import fmean, stdev

import numpy as np
from numpy.typing import NDArray

from monai_tl.config import PrecisionName, PredictConfig
from monai_tl.dataset.patches import TrainingCase
from monai_tl.fast_records import MIN_CASES, TOLERANCE, WINDOWS, FastRecord, Trial, Windows
from monai_tl.geometry import Shape
from monai_tl.inference import Predictor
from monai_tl.training.validation import class_dice

N_CASES = 8
"""Of a large validation set the first ones tell enough, and each costs a prediction in exact mode."""


def try_fast_mode(predictor: Predictor, cases: Sequence[TrainingCase]) -> FastRecord | None:
    """The cheapest way through the windows whose mean Dice is that of exact mode within ``TOLERANCE``.

    Windows that differ from those of exact mode show the network other surroundings, and other statistics where it
    normalises by the window; half precision rounds. How much of its Dice that costs depends on network, patch and
    training, so that it is measured: mean difference over cases, and a standard error of it either way. Nothing is
    timed, so the same model gets the same answer. Cases have chosen the model's best step; between two ways through
    the windows of the same weights they choose nothing else.

    Args:
        predictor: Of one model.
        cases: Labelled cases that it was not trained on.

    Returns:
        None with fewer than ``MIN_CASES`` cases.
    """
    cases = cases[:N_CASES]
    if len(cases) < MIN_CASES:
        return None
    exact = [_dice(predictor, case, PredictConfig()) for case in cases]
    fast = PredictConfig(mode="fast")
    trials: list[Trial] = []
    tried: dict[tuple[object, ...], Trial] = {}
    for precision, windows in product(_precisions(predictor), WINDOWS):
        record = FastRecord(windows=windows, precision=precision, n_cases=len(cases))
        way = replace(predictor, fast=record)
        tilings = tuple(way.tiling(_shape_of(case), fast) for case in cases)
        if (precision, tilings) in tried:
            continue
        apart = [_dice(way, case, fast) - before for case, before in zip(cases, exact, strict=True)]
        trial = _judge(windows, precision, apart)
        tried[precision, tilings] = trial
        trials.append(trial)
        if trial.is_within:
            sizes = [tiling.window for tiling in tilings]
            largest = None if predictor.is_local or windows != "large" else _largest(sizes)
            return record.model_copy(update={"largest_vox": largest, "trials": tuple(trials)})
    # what is left is rounding of sums in half precision, and windows without a body: as near as fast mode comes
    return FastRecord(windows="exact", precision="float32", n_cases=len(cases), trials=tuple(trials))


def describe_fast(record: FastRecord) -> str:
    """One line for who watches the training."""
    words = {"large": "larger windows", "patch": "the patch, less overlap", "exact": "the windows of exact mode"}
    held = record.trials[-1]
    return (
        f"fast mode: {words[record.windows]}, {record.precision}: mean Dice {held.difference:+.4f} of exact mode's on "
        f"{record.n_cases} validation cases"
    )


def _precisions(predictor: Predictor) -> tuple[PrecisionName, ...]:
    unlimited = replace(predictor, fast=None).precision(PredictConfig(mode="fast"))[0]
    return ("float32",) if unlimited == "float32" else (unlimited, "float32")


def _judge(windows: Windows, precision: PrecisionName, apart: Sequence[float]) -> Trial:
    difference, error = fmean(apart), stdev(apart) / math.sqrt(len(apart))
    return Trial(
        windows=windows,
        precision=precision,
        difference=round(difference, 6),
        standard_error=round(error, 6),
        is_within=abs(difference) + error <= TOLERANCE,
    )


def _dice(predictor: Predictor, case: TrainingCase, config: PredictConfig) -> float:
    """Mean over the foreground classes, on the plan's grid; a class that neither map has counts as right."""
    label = np.zeros(_shape_of(case), dtype=np.uint8)
    for slab in predictor.stream(case.image, config):
        planes = slice(slab.start, slab.start + slab.values.shape[1 + slab.axis])
        label[(*[slice(None)] * slab.axis, planes)] = slab.values.argmax(axis=0)
    values = class_dice(np.asarray(case.label), label, predictor.plan.scheme.n_outputs)
    return fmean(1.0 if value is None else value for value in values)


def _largest(sizes: Sequence[Shape]) -> Shape:
    i, j, k = (max(axis) for axis in zip(*sizes, strict=True))
    return i, j, k


def _shape_of(case: TrainingCase) -> Shape:
    label: NDArray[np.uint8] = case.label
    i, j, k = (int(size) for size in label.shape)
    return i, j, k
