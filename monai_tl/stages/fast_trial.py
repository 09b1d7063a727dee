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
from monai_tl.fast_records import MIN_CASES, TOLERANCE, FastRecord, Trial, Windows
from monai_tl.geometry import Shape
from monai_tl.inference import Predictor
from monai_tl.progress import Progress
from monai_tl.training.validation import class_dice

N_CASES = 8
"""Of a large validation set the first ones tell enough, and each costs a prediction in exact mode."""
MAX_VOXELS = 1 << 27
"""Of all these cases together, 134 million: eight of 256 x 256 x 256; of larger ones fewer."""


def try_fast_mode(predictor: Predictor, cases: Sequence[TrainingCase], progress: Progress) -> FastRecord | None:
    """The cheapest way through the windows whose mean Dice is that of exact mode within ``TOLERANCE``.

    Windows that differ from those of exact mode show the network other surroundings, and other statistics where it
    normalises by the window; half precision rounds. How much of its Dice that costs depends on network, patch and
    training, so that it is measured: mean difference over cases, and a standard error of it either way. Nothing is
    timed, so the same model gets the same answer. Cases have chosen the model's best step; between two ways through
    the windows of the same weights they choose nothing else.

    Larger windows are tried with networks alone that look at neighbourhoods: what one window size costs others tells
    nothing of the next size, and new cases have new sizes. A way is judged by cases where its windows are others than
    exact mode's: where they are the same it has shown nothing.

    Args:
        predictor: Of one model.
        cases: Labelled cases that it was not trained on.
        progress: Told of each way.

    Returns:
        None with fewer than ``MIN_CASES`` cases that tell: with foreground, of which the network finds something.
    """
    chosen = _choose(cases)
    if len(chosen) < MIN_CASES:
        return None
    exact = [_label(predictor, case, PredictConfig()) for case in chosen]
    trials: list[Trial] = []
    for precision, windows in product(_precisions(predictor), ("large" if predictor.is_local else "patch", "exact")):
        record = FastRecord.model_validate({"windows": windows, "precision": precision, "n_cases": len(chosen)})
        trial = _try(replace(predictor, fast=record), record, chosen, exact)
        if trial is None:
            continue
        trials.append(trial)
        progress.show(_describe(trial))
        if trial.is_within:
            return record.model_copy(update={"n_cases": trial.n_cases, "is_within": True, "trials": tuple(trials)})
    if not trials:
        return None
    progress.warn("fast mode does not keep exact mode's Dice; segment with --mode exact")
    last = record.model_copy(update={"n_cases": trials[-1].n_cases, "is_within": False, "trials": tuple(trials)})
    assert (last.windows, last.precision) == ("exact", "float32")
    return last


def _choose(cases: Sequence[TrainingCase]) -> list[TrainingCase]:
    """The first with foreground, by number and by voxels."""
    found: list[TrainingCase] = []
    n_voxels = 0
    for case in cases:
        n_voxels += case.label.size if case.foreground else 0
        if n_voxels > MAX_VOXELS or len(found) == N_CASES:
            break
        found += [case] if case.foreground else []
    return found


def _try(
    way: Predictor, record: FastRecord, cases: Sequence[TrainingCase], exact: Sequence[NDArray[np.uint8]]
) -> Trial | None:
    """One way; None where too few cases can tell."""
    fast, plain = PredictConfig(mode="fast"), PredictConfig()
    apart = []
    for case, before in zip(cases, exact, strict=True):
        shape = _shape_of(case)
        # a network that finds nothing shows nothing
        if not before.any():
            continue
        if record.windows == "exact" or way.tiling(shape, fast) != way.tiling(shape, plain):
            apart.append(_difference(case, before, _label(way, case, fast), way.plan.scheme.n_outputs))
    if len(apart) < MIN_CASES:
        return None
    return _judge(record.windows, record.precision, apart)


def _describe(trial: Trial) -> str:
    words = {"large": "larger windows", "patch": "less overlap", "exact": "the windows of exact mode"}
    return (
        f"fast mode, {words[trial.windows]}, {trial.precision}: mean Dice {trial.difference:+.4f} of exact mode's on "
        f"{trial.n_cases} validation cases: {'held' if trial.is_within else 'not held'}"
    )


def _precisions(predictor: Predictor) -> tuple[PrecisionName, ...]:
    unlimited = replace(predictor, fast=None).precision(PredictConfig(mode="fast"))[0]
    return ("float32",) if unlimited == "float32" else (unlimited, "float32")


def _judge(windows: Windows, precision: PrecisionName, apart: Sequence[float]) -> Trial:
    difference, error = fmean(apart), stdev(apart) / math.sqrt(len(apart))
    return Trial(
        windows=windows,
        precision=precision,
        n_cases=len(apart),
        difference=round(difference, 6),
        standard_error=round(error, 6),
        is_within=abs(difference) + error <= TOLERANCE,
    )


def _label(predictor: Predictor, case: TrainingCase, config: PredictConfig) -> NDArray[np.uint8]:
    """On the plan's grid."""
    label = np.zeros(_shape_of(case), dtype=np.uint8)
    for slab in predictor.stream(case.image, config):
        planes = slice(slab.start, slab.start + slab.values.shape[1 + slab.axis])
        label[(*[slice(None)] * slab.axis, planes)] = slab.values.argmax(axis=0)
    return label


def _difference(case: TrainingCase, exact: NDArray[np.uint8], fast: NDArray[np.uint8], n_outputs: int) -> float:
    """Mean Dice of the fast label less that of the exact one, over the classes that any of the three maps has.

    A class that the reference and one of them lack is right there: to find what is not there costs all of it.
    """
    reference = np.asarray(case.label)
    pairs = zip(class_dice(reference, exact, n_outputs), class_dice(reference, fast, n_outputs), strict=True)
    counted = [(before, after) for before, after in pairs if before is not None or after is not None]
    return fmean((1.0 if after is None else after) - (1.0 if before is None else before) for before, after in counted)


def _shape_of(case: TrainingCase) -> Shape:
    i, j, k = (int(size) for size in case.label.shape)
    return i, j, k
