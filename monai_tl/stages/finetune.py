"""Stage finetune: one network for one arm, fold and seed, with its history and audit."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from functools import partial
from pathlib import Path
from typing import Any, get_args

from torch import nn

from monai_tl.config import Arm, FinetuneConfig, Params
from monai_tl.dataset.manifest import read_unprepared
from monai_tl.dataset.patches import PatchSampler, TrainingCase, load_case
from monai_tl.errors import ConfigError, ContractError, DataError, LabelError, TrainingError
from monai_tl.fast_records import FAST_FILE, FastRecord
from monai_tl.files import code_digest, sha256_file, sha256_of, temporary_folder, to_json, whole_folder, write_json
from monai_tl.inference import load_models
from monai_tl.networks.builders import build_network, groups_of
from monai_tl.networks.device import describe_torch, place_network, set_up_torch
from monai_tl.progress import Progress, use_view
from monai_tl.progress_views import Silent
from monai_tl.records import Audit, Fingerprint, Fold, Plan, Split, model_name
from monai_tl.sources.accounting import describe_audit, fresh_groups
from monai_tl.sources.audit import load_source
from monai_tl.sources.card import Source, read_source
from monai_tl.stages import STATE_FOLDER
from monai_tl.stages.fast_trial import try_fast_mode
from monai_tl.training.checkpoint import locked
from monai_tl.training.loop import Trainer
from monai_tl.training.model_folder import TRAINING_FILE, describe_training, fresh_audit, write_model
from monai_tl.training.private_steps import PrivateSteps, make_private
from monai_tl.training.ranks import Ranks, joined_ranks
from monai_tl.training.validation import validation_dice
from monai_tl.transfer.recommend import Decision, recommend
from monai_tl.transfer.strategy import make_strategy

_CODE = ("dataset.augmentation", "dataset.patches", "networks", "sources", "stages.finetune", "training", "transfer")
"""Code that decides what a training run gives; a checkpoint made by other code is not gone on with."""


def run(workspace: Path, params: Params, arm: str, fold: str, seed: str) -> None:
    """Fine-tune one arm on one fold with one seed: ``artifacts/models/<arm>-<fold>-<seed>``.

    Args:
        workspace: Holds ``artifacts/plan``, ``artifacts/split``, ``artifacts/prepared``.
        params: Section ``finetune``.
        arm: ``transfer`` or ``scratch``.
        fold: Number of the fold, from 0.
        seed: Of weights, order, patches and augmentation.

    Raises:
        ConfigError: No such arm, fold or seed.
        DataError, SourceError, TrainingError: See their messages.
    """
    plan = Plan.read(workspace / "artifacts/plan/plan.json")
    split = Split.read(workspace / "artifacts/split/split.json")
    if arm not in get_args(Arm):
        raise ConfigError(f"--arm: {arm!r} is none of {', '.join(get_args(Arm))}", "arguments")
    if not fold.isdigit() or int(fold) >= len(split.folds):
        raise ConfigError(f"--fold: {fold!r} is none of 0 to {len(split.folds) - 1}", "arguments")
    if not seed.isdigit():
        raise ConfigError(f"--seed: {seed!r} is no whole number from 0", "arguments")
    source = None
    if arm == "transfer":
        if plan.source is None:
            raise ContractError("the plan has no source to transfer from; set plan.source, or drop the transfer arm")
        source = read_source(workspace / plan.source)
    usable = _leave_out_unprepared(workspace, split.folds[int(fold)], model_name(arm, int(fold), int(seed)))
    config = params.finetune.model_copy(update={"seeds": (int(seed),)})
    found = Fingerprint.read(workspace / "artifacts/plan/fingerprint.json")
    finetune(workspace, plan, usable, config, source, arm, int(fold), found, tries_fast=True)


def _leave_out_unprepared(workspace: Path, fold: Fold, name: str) -> Fold:
    unprepared = read_unprepared(workspace / "artifacts/prepared")
    absent = sorted(unprepared.keys() & {*fold.train, *fold.val})
    if absent:
        Progress(f"finetune {name}").warn(f"left out, because they could not be prepared: {', '.join(absent)}")
    train, val = (tuple(case_id for case_id in ids if case_id not in unprepared) for ids in (fold.train, fold.val))
    if not train:
        raise TrainingError(
            f"{name}: the fold has no training case that could be prepared; artifacts/prepared/failed.json gives the "
            "reasons"
        )
    return Fold(train=train, val=val)


def finetune(
    workspace: Path,
    plan: Plan,
    fold: Fold,
    config: FinetuneConfig,
    source: Source | None,
    arm: str,
    number: int,
    found: Fingerprint | None = None,
    models: Path | None = None,
    tries_fast: bool = False,
) -> Path:
    """Train one network and write its folder, which is a source folder itself.

    Checkpoints live under ``.monai_tl/train/<key>`` until the output is whole. The key covers all that decides the
    result: settings, plan (source hash included), the fold's arrays byte by byte, code and versions. Weights are loaded
    from the source also when a checkpoint then replaces them: the audit must be of this run.

    Args:
        workspace: Holds ``artifacts/prepared``; gets ``artifacts/models/<arm>-<number>-<seed>``.
        plan: What the network is and is given.
        fold: Cases to train on and to choose the best weights by.
        config: Budget, rates and the like; of its seeds the first.
        source: Where the weights start; None starts from scratch and trains everything.
        arm: ``transfer`` or ``scratch``, for names and records.
        number: Of the fold, likewise.
        found: Fingerprint of the training cases, for the card of the model.
        models: Where the folder is written; None writes ``artifacts/models`` of the workspace.
        tries_fast: Whether fast mode is tried on the validation cases; without, it is careful.

    Returns:
        The folder.
    """
    name = model_name(arm, number, config.seed)
    n_outputs = plan.scheme.n_outputs
    device = set_up_torch(config.n_threads)
    prepared = workspace / "artifacts/prepared"
    train_cases, val_cases = _load_cases(prepared, fold.train, plan), _load_cases(prepared, fold.val, plan)
    if not train_cases:
        raise TrainingError(f"{name}: the fold has no training case; ingest more labelled studies")
    network = build_network(plan.network, plan.n_channels, n_outputs, config.seed)
    groups = groups_of(plan.network, network)
    names = [group.name for group in groups]
    versions = describe_torch(device)
    key = _training_key(prepared, plan, fold, config, name, versions)
    audit = _start(network, plan, config, source)
    fresh = () if source is None else fresh_groups(network, audit)
    with joined_ranks() as ranks, _heard_alone(ranks):
        ranks.check(config.batch_size, key)
        config, decision = _decide(config, plan, len(fold.train), network, source, fresh, audit.groups[names[-1]] < 1.0)
        if source is not None:
            Progress(f"finetune {name}").show(describe_audit(audit))
        strategy = make_strategy(
            "scratch" if source is None else config.strategy, config, names, names[-1], audit, fresh
        )
        sampler = PatchSampler(
            cases=train_cases,
            patch_size_vox=plan.patch_size_vox,
            size_rule=plan.size_rule,
            spacing_mm=plan.spacing_mm,
            foreground_fraction=config.foreground_fraction,
            augmentation=config.augmentation,
            seed=config.seed,
        )
        validate = partial(validation_dice, cases=val_cases, plan=plan, batch_size=config.batch_size)
        out = (models or workspace / "artifacts/models") / name
        state = workspace / STATE_FOLDER / "train" / key[:32]
        with locked(state) if ranks.is_first else nullcontext(state) as checkpoints:
            progress = Progress(f"finetune {name}", total=strategy.n_steps)
            network = place_network(network, device)
            outcome = Trainer(
                network,
                groups,
                strategy,
                sampler,
                validate,
                config,
                n_outputs,
                checkpoints,
                progress,
                ranks,
                _make_private(workspace, key, config, fold, strategy.n_steps),
            ).run()
            facts = {
                "arm": arm,
                "fold": number,
                "n_threads": config.n_threads,
                "n_ranks": ranks.n_ranks,
                "versions": versions,
                "code_sha256": code_digest(*_CODE),
                "n_train_cases": len(fold.train),
                "n_val_cases": len(fold.val),
            }
            facts |= {} if decision is None else {"decision": decision.model_dump(mode="json")}
            facts |= describe_training(config, strategy, outcome)

            write = partial(write_model, plan=plan, source=source, audit=audit, outcome=outcome, name=name, found=found)
            # of several processes the others wait for the first no longer than their limit
            tries = tries_fast and config.try_fast and not ranks.are_several and config.privacy == "none"

            def keep() -> None:
                work = state.parent
                fast = _try_fast_mode(write, work, name, val_cases, config.n_threads, progress) if tries else None
                _keep(out, write, facts, fast)
                shutil.rmtree(checkpoints)

            ranks.from_first(keep)
    return out


def _keep(out: Path, write: Callable[[Path], None], facts: dict[str, Any], fast: FastRecord | None) -> None:
    with whole_folder(out) as folder:
        write(folder)
        write_json(folder / TRAINING_FILE, facts)
        if fast is not None:
            fast.write(folder / FAST_FILE)


def _try_fast_mode(
    write: Callable[[Path], None],
    parent: Path,
    name: str,
    cases: Sequence[TrainingCase],
    n_threads: int,
    progress: Progress,
) -> FastRecord | None:
    """On the model as it will be loaded, so that what was merged or averaged is in it; where nobody looks for models,
    since it takes a while. A private training does without: it chooses nothing by an image.
    """
    if not cases:
        return None
    with temporary_folder(parent, name) as folder:
        write(folder)
        predictor = load_models([folder], n_threads)
        try:
            return try_fast_mode(predictor, cases, progress)
        except (RuntimeError, MemoryError, ValueError) as error:
            # of a trained model nothing is lost by a way of prediction that it does not take
            progress.warn(f"fast mode could not be tried ({type(error).__name__}), so it may cost Dice")
            return None


def _make_private(workspace: Path, key: str, config: FinetuneConfig, fold: Fold, n_steps: int) -> PrivateSteps | None:
    if config.privacy == "none":
        return None
    return make_private(workspace / STATE_FOLDER, key, config, _patients_of(workspace, fold), n_steps)


def _patients_of(workspace: Path, fold: Fold) -> tuple[tuple[int, ...], ...]:
    """Positions of each patient's cases among the training cases: what a private training protects.

    Raises:
        DataError: The split does not tell.
    """
    told = Split.read(workspace / "artifacts/split/split.json").same_patient
    if told is None:
        raise DataError(
            "finetune.privacy: dp_sgd protects patients, but artifacts/split does not tell which cases are of one; "
            "remove artifacts/split and run again"
        )
    first = {case_id: cases[0] for cases in told for case_id in cases}
    units: dict[str, list[int]] = {}
    for position, case_id in enumerate(fold.train):
        units.setdefault(first.get(case_id, case_id), []).append(position)
    return tuple(map(tuple, units.values()))


@contextmanager
def _heard_alone(ranks: Ranks) -> Iterator[None]:
    """Of several processes the first alone tells of progress."""
    if ranks.is_first:
        yield
        return
    use_view(Silent())
    try:
        yield
    finally:
        use_view(None)


def _load_cases(prepared: Path, case_ids: Sequence[str], plan: Plan) -> tuple[TrainingCase, ...]:
    cases = tuple(load_case(prepared / case_id) for case_id in case_ids)
    for case in cases:
        if case.foreground and max(case.foreground) >= plan.scheme.n_outputs:
            raise LabelError(
                f"case {case.case_id}: label value {max(case.foreground)}, but the plan has {len(plan.scheme.classes)} "
                "classes; run preprocess again"
            )
    return cases


def _decide(
    config: FinetuneConfig,
    plan: Plan,
    n_labels: int,
    network: nn.Module,
    source: Source | None,
    fresh: Sequence[str],
    head_is_fresh: bool,
) -> tuple[FinetuneConfig, Decision | None]:
    """The settings that hold, and why, where ``strategy: auto`` leaves them to the rule."""
    if source is None or config.strategy != "auto":
        return config, None
    n_parameters = sum(parameter.numel() for parameter in network.parameters())
    score = None if plan.shift is None else plan.shift.score
    decision = recommend(n_labels, plan.adaptations, n_parameters, config.max_steps, score, fresh, head_is_fresh)
    Progress("finetune").show(f"strategy {decision.strategy}: {decision.reason}")
    return config.model_copy(update={"strategy": decision.strategy, **decision.settings}), decision


def _start(network: nn.Module, plan: Plan, config: FinetuneConfig, source: Source | None) -> Audit:
    """Bring the source's weights in, if there is one, and account for every tensor."""
    if source is not None:
        if plan.source_sha256 not in (None, source.card.weights.sha256):
            raise ContractError(f"{source.folder}: its weights are not those of the plan; run the plan stage again")
        return load_source(network, plan.network, plan.n_channels, plan.scheme.names, source, config.min_transferred)
    return fresh_audit(network, plan)


def _training_key(
    prepared: Path, plan: Plan, fold: Fold, config: FinetuneConfig, name: str, versions: dict[str, Any]
) -> str:
    files = ("image.npy", "label.npy")
    arrays = [sha256_file(prepared / case_id / file) for case_id in (*fold.train, *fold.val) for file in files]
    settings = config.model_dump(mode="json", exclude={"arms", "folds", "seeds"}) | {"seed": config.seed}
    records = [settings, plan.model_dump(mode="json"), fold.model_dump(mode="json"), versions, arrays]
    return sha256_of(name, code_digest(*_CODE), *(to_json(record) for record in records))
