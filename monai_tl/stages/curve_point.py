"""One point of a curve: a subset of the labels, a training, and the Dice of the test cases on their native grid."""

from __future__ import annotations

import math
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Literal, get_args

from pydantic import ValidationError

from monai_tl.config import CurveConfig, CurveTraining, FinetuneConfig, Params, PredictConfig, StrategyName
from monai_tl.dataset.label_subsets import nested_subset
from monai_tl.dataset.manifest import Manifest, read_manifest, read_unprepared
from monai_tl.dataset.nifti import read_label
from monai_tl.dataset.splits import patients_of
from monai_tl.errors import ConfigError, ContractError, DataError, StageError, describe_fault
from monai_tl.faults import fault_lines
from monai_tl.files import read_json, temporary_folder, whole_folder
from monai_tl.inference import Predictor, load_models
from monai_tl.looks import record_look
from monai_tl.metrics.overlap import dice
from monai_tl.progress import Progress
from monai_tl.records import Plan, Split
from monai_tl.sources.card import Source, read_source
from monai_tl.stages import STATE_FOLDER
from monai_tl.stages.finetune import finetune
from monai_tl.stages.predict_case import predict_case
from monai_tl.training.model_folder import HISTORY_FILE, TRAINING_FILE
from monai_tl.transfer.curve_point import POINT_FILE, CurvePoint

MODEL_FOLDER = "model"


def section_of(params: Params) -> CurveConfig:
    """The section ``curve``.

    Raises:
        ConfigError: There is none.
    """
    if params.curve is None:
        raise ConfigError("curve: is missing; 'monai-tl curve' writes it")
    return params.curve


def measure_point(
    workspace: Path, params: Params, out: Path, labels: str, strategy: str, seed: str, steps: int | None
) -> None:
    """Train one point, test it on the split's test set, and write its numbers.

    Checkpoints of the training live where those of finetune do, so a killed point goes on where it was.

    Args:
        workspace: Holds ``artifacts/cases``, ``split``, ``plan``, ``prepared``.
        params: Sections ``curve``, ``finetune`` and ``predict``.
        out: Folder of the point.
        labels: A number, or ``all``.
        strategy: Name in the ladder.
        seed: Of the subset, the weights and the order.
        steps: Budget; None takes the full one.

    Raises:
        ConfigError: No such strategy or number.
        DataError: There is no test set, or there are fewer labels.
        StageError: Every test case failed.
    """
    curve = section_of(params)
    n_labels = _check_arguments(labels, strategy, seed)
    plan = Plan.read(workspace / "artifacts/plan/plan.json")
    split = Split.read(workspace / "artifacts/split/split.json")
    manifest = read_manifest(workspace / "artifacts/cases")
    if not split.test:
        raise DataError("a curve needs a test set, and split has none; set split.test_fraction or split.test_ids_file")
    patients = patients_of(manifest.cases)
    if len({patients[case_id] for case_id in split.test}) < 2:
        raise DataError("a curve needs at least two test patients for its intervals; raise split.test_fraction")
    unprepared = read_unprepared(workspace / "artifacts/prepared")
    pool = {one: patients[one] for one in (*split.folds[0].train, *split.folds[0].val) if one not in unprepared}
    # all at once, before the first point is trained and not when its turn comes
    for asked in (*curve.labels, n_labels):
        nested_subset(pool, asked, curve.training.val_fraction, int(seed))
    fold = nested_subset(pool, n_labels, curve.training.val_fraction, int(seed))
    config = point_settings(params.finetune, curve.training, steps, strategy, int(seed))
    source = _source(workspace, plan, strategy)
    with (
        temporary_folder(workspace / STATE_FOLDER / "curve", out.name) as work,
        whole_folder(out) as folder,
    ):
        fast = params.predict.mode == "fast"
        model = finetune(workspace, plan, fold, config, source, config.arms[0], 0, models=work, tries_fast=fast)
        for name in (TRAINING_FILE, HISTORY_FILE):
            shutil.copyfile(model / name, folder / name)
        weights = read_source(model).card.weights.sha256
        record_look(workspace, manifest.select(split.test), {out.name: weights}, params.predict, "curve")
        scores, failed = score_cases(workspace, manifest, split.test, model, params.predict, out.name)
        trained = read_json(model / TRAINING_FILE)
        CurvePoint(
            labels=labels,
            steps=config.max_steps,
            strategy=strategy,
            seed=int(seed),
            n_labels=len(fold.train) + len(fold.val),
            n_val=len(fold.val),
            n_steps=trained["n_steps"],
            best_step=trained["best_step"],
            case_ids=tuple(sorted((*fold.train, *fold.val))),
            classes=manifest.dataset.scheme.names,
            patients={case_id: patients[case_id] for case_id in split.test},
            dice=scores,
            failed=failed,
            untaught=_untaught(manifest, fold.train),
        ).write(folder / POINT_FILE)
        if curve.training.keep_weights:
            shutil.copytree(model, folder / MODEL_FOLDER)


def _untaught(manifest: Manifest, train: Sequence[str]) -> tuple[str, ...]:
    """Few labels drawn by chance may lack a class altogether; the point then says little of its strategy."""
    cases = [manifest.case(case_id) for case_id in train]
    return tuple(
        name for name in manifest.dataset.scheme.names if not any(case.class_voxels.get(name, 0) for case in cases)
    )


def _check_arguments(labels: str, strategy: str, seed: str) -> int | Literal["all"]:
    if strategy not in get_args(StrategyName):
        raise ConfigError(f"--strategy: {strategy!r} is none of {', '.join(get_args(StrategyName))}", "arguments")
    if not seed.isdigit():
        raise ConfigError(f"--seed: {seed!r} is no whole number from 0", "arguments")
    if labels == "all":
        return "all"
    if not labels.isdigit() or int(labels) < 1:
        raise ConfigError(f"--labels: {labels!r} is neither a number of labels nor 'all'", "arguments")
    return int(labels)


def point_settings(
    config: FinetuneConfig, training: CurveTraining, steps: int | None, strategy: str, seed: int
) -> FinetuneConfig:
    """Finetune's settings for one point.

    A smaller budget is the same training in fewer steps: whatever is counted in steps shrinks along, so the number of
    validations and the share of each phase stay.

    Args:
        config: Section finetune.
        training: What differs for points.
        steps: Budget; None takes the full one.
        strategy: Name in the ladder.
        seed: Of weights and order.

    Raises:
        ConfigError: The strategy does not go with finetune's other settings.
    """
    full = training.max_steps or config.max_steps
    budget = steps or full
    share = budget / config.max_steps
    every = training.validate_every or config.validate_every * full / config.max_steps
    changes = {
        "arms": ("scratch",) if strategy == "scratch" else ("transfer",),
        "strategy": strategy,
        "seeds": (seed,),
        "max_steps": budget,
        "validate_every": max(1, round(every * budget / full)),
        # at least one step is left for what follows
        "head_steps": min(round(config.head_steps * share), budget - 1),
        "warmup_steps": round(config.warmup_steps * share),
        "group_steps": max(1, round(config.group_steps * share)),
        # an average over about 1 / (1 - decay) steps
        "ema_decay": max(0.0, 1.0 - (1.0 - config.ema_decay) / share) if config.ema_decay else 0.0,
    }
    try:
        return FinetuneConfig.model_validate(config.model_dump() | changes)
    except ValidationError as error:
        faults = [f"finetune.{line} (for curve.strategies: {strategy})" for line in fault_lines(error, FinetuneConfig)]
        raise ConfigError(faults) from None


def _source(workspace: Path, plan: Plan, strategy: str) -> Source | None:
    if strategy == "scratch":
        return None
    if plan.source is None:
        raise ContractError("the plan has no source to transfer from; set plan.source, or curve.strategies: [scratch]")
    return read_source(workspace / plan.source)


def score_cases(
    workspace: Path, manifest: Manifest, case_ids: Sequence[str], model: Path, config: PredictConfig, name: str
) -> tuple[dict[str, tuple[float | None, ...]], dict[str, str]]:
    """Dice of each class of each test case, and the codes of those that failed, which count as 0."""
    prepared = workspace / "artifacts/prepared"
    unprepared = read_unprepared(prepared)
    predictor = load_models([model], config.n_threads)
    n_classes = len(manifest.dataset.scheme.names)
    progress = Progress(f"curve {name} test", total=len(case_ids))
    scores: dict[str, tuple[float | None, ...]] = {}
    faults: dict[str, Exception] = {}
    for case_id in case_ids:
        try:
            if case_id in unprepared:
                raise DataError(unprepared[case_id].reason, unprepared[case_id].code)
            scores[case_id] = _case_dice(predictor, manifest, prepared / case_id, model.parent, config)
        except (DataError, ValueError, RuntimeError, MemoryError) as error:
            faults[case_id], scores[case_id] = error, (0.0,) * n_classes
        is_fault = case_id in faults
        progress.advance(f"{case_id}{' failed' if is_fault else ''}", is_warning=is_fault)
    if len(faults) == len(case_ids):
        first, fault = next(iter(faults.items()))
        raise StageError("curve", f"{name}: every test case failed; the first: {describe_fault(fault)[1]}", first)
    return scores, {case_id: describe_fault(fault)[0] for case_id, fault in faults.items()}


def _case_dice(
    predictor: Predictor, manifest: Manifest, prepared: Path, work: Path, config: PredictConfig
) -> tuple[float | None, ...]:
    path = predict_case(predictor, prepared, work / "predictions", config)
    (reference, _), (prediction, _) = read_label(manifest.label_path(prepared.name)), read_label(path)
    path.unlink()
    found = (dice(reference == k, prediction == k) for k in range(1, len(manifest.dataset.scheme.names) + 1))
    return tuple(None if math.isnan(value) else round(value, 6) for value in found)
