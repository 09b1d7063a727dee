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
from monai_tl.fast_records import MIN_CASES, TOLERANCE, WINDOWS, FastRecord, Trial, Windows, name_way
from monai_tl.geometry import Shape
from monai_tl.inference import Predictor
from monai_tl.progress import Progress
from monai_tl.training.validation import class_dice

N_CASES = 32
"""Of a large validation set the first ones tell enough, and each costs a prediction in exact mode."""
MAX_VOXELS = 1 << 27
"""Of all these cases together, 134 million: eight of 256 x 256 x 256; of larger ones fewer."""
FLOAT32_COST = 2.2
"""Of a voxel in float32, in voxels in half precision: a U-Net by windows of 96 x 96 x 96 took 1.06 s and 0.48 s. It is
fixed, since the order of the ways decides which one is taken."""
_FAST, _EXACT = PredictConfig(mode="fast"), PredictConfig()


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
    progress.show(f"fast mode is tried on {len(chosen)} validation cases")
    exact = [_label(predictor, case, _EXACT) for case in chosen]
    trials: list[Trial] = []
    has_failed = False
    for way in _ways(predictor, chosen):
        try:
            trial = _try(replace(predictor, fast=way), way, chosen, exact)
        except (RuntimeError, MemoryError, ValueError) as error:
            # the others may do
            progress.warn(
                f"fast mode, {name_way(way.windows, way.precision)}: {type(error).__name__}, so it is not taken"
            )
            has_failed = True
            continue
        if trial is None:
            continue
        trials.append(trial)
        progress.show(_describe(trial))
        if trial.is_within:
            return _allow(way, trial, trials, predictor, has_failed)
    if not trials and not has_failed:
        return None
    progress.warn("no way of fast mode keeps exact mode's Dice, so it will be exact mode, and as slow")
    n_cases = min((trial.n_cases for trial in trials), default=0)
    return FastRecord(windows="exact", precision="float32", n_cases=n_cases, is_within=False, trials=tuple(trials))


def _ways(predictor: Predictor, cases: Sequence[TrainingCase]) -> list[FastRecord]:
    """From the cheapest on, by the voxels that are passed."""
    windows = WINDOWS if predictor.is_local else WINDOWS[1:]
    ways = [FastRecord(windows=one, precision=precision) for precision, one in product(_precisions(predictor), windows)]

    def cost(way: FastRecord) -> float:
        tilings = [replace(predictor, fast=way).tiling(_shape_of(case), _FAST) for case in cases]
        n_voxels = sum(tiling.n_windows * math.prod(tiling.window) for tiling in tilings)
        return n_voxels * (FLOAT32_COST if way.precision == "float32" else 1.0)

    return sorted(ways, key=cost)


def _allow(
    way: FastRecord, trial: Trial, trials: Sequence[Trial], predictor: Predictor, has_failed: bool
) -> FastRecord:
    """What held; and larger windows of which no case told anything, as without a trial."""
    is_untold = way.windows == "exact" and not has_failed and not any(one.windows == "large" for one in trials)
    if is_untold and predictor.careful.windows == "large":
        return FastRecord(windows="large", precision=way.precision, trials=tuple(trials))
    return way.model_copy(update={"n_cases": trial.n_cases, "is_within": True, "trials": tuple(trials)})


def _choose(cases: Sequence[TrainingCase]) -> list[TrainingCase]:
    """The first with foreground, by number and by voxels."""
    found: list[TrainingCase] = []
    n_voxels = 0
    for case in cases:
        if not case.foreground or n_voxels + case.label.size > MAX_VOXELS:
            continue
        n_voxels += case.label.size
        found.append(case)
    return found[:N_CASES]


def _try(
    way: Predictor, record: FastRecord, cases: Sequence[TrainingCase], exact: Sequence[NDArray[np.uint8]]
) -> Trial | None:
    """One way; None where too few cases can tell."""
    apart = []
    for case, before in zip(cases, exact, strict=True):
        shape = _shape_of(case)
        # a network that finds nothing shows nothing
        if not before.any():
            continue
        if record.windows == "exact" or way.tiling(shape, _FAST) != way.tiling(shape, _EXACT):
            apart.append(_difference(case, before, _label(way, case, _FAST), way.plan.scheme.n_outputs))
    if len(apart) < MIN_CASES:
        return None
    return _judge(record.windows, record.precision, apart)


def _describe(trial: Trial) -> str:
    return (
        f"fast mode, {name_way(trial.windows, trial.precision)}: mean Dice differs by {trial.difference:+.4f} ± "
        f"{trial.standard_error:.4f} from exact mode's on {trial.n_cases} validation cases (at most {TOLERANCE:g} with "
        f"the error): {'kept' if trial.is_within else 'not kept'}"
    )


def _precisions(predictor: Predictor) -> tuple[PrecisionName, ...]:
    unlimited = replace(predictor, fast=None).precision(_FAST)[0]
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
