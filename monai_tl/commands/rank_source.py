"""One source against the training cases: plan under its contract, scores of its features, and a short probe.

The probe is the pipeline itself: a small workspace is laid out that holds the chosen training cases and nothing else,
and the stages run in it. Test cases are not there, so nothing can touch them.
"""

from __future__ import annotations

import math
import shutil
from collections import defaultdict
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from monai_tl.commands.rank_scores import VOXELS_A_CLASS, case_features, score_features
from monai_tl.config import Params, parse_params
from monai_tl.dataset.manifest import DATASET_FILE, Manifest, read_unprepared
from monai_tl.dataset.nifti import read_label
from monai_tl.files import code_digest, read_json, sha256_of, to_json, write_json
from monai_tl.inference import load_models
from monai_tl.metrics.overlap import dice
from monai_tl.networks.builders import build_network
from monai_tl.networks.device import describe_torch, place_network, set_up_torch
from monai_tl.progress import Progress
from monai_tl.records import Fingerprint, Fold, Plan, PreparedCase, Split, model_name
from monai_tl.sources.audit import load_source
from monai_tl.sources.card import Source, read_source
from monai_tl.sources.opening import hash_weights
from monai_tl.stages import run_stage
from monai_tl.training.checkpoint import locked
from monai_tl.transfer.planning import make_plan
from monai_tl.transfer.transferability import CaseFeatures

STRATEGY = "lp_ft"
Dice = dict[str, list[float | None]]


@dataclass(frozen=True)
class Task:
    """What all sources have in common.

    Attributes:
        params: Of the workspace.
        manifest: Its cases.
        found: Fingerprint of all its training cases.
        fold: The chosen training cases: those the probe trains on, and those it is judged on.
        cases_sha256: Over the files of the chosen cases.
        state: ``.monai_tl/rank``: results by key, and work in progress.
        steps: Of the probe; 0 for none.
        seeds: Of the probe; the first chooses voxels too.
    """

    params: Params
    manifest: Manifest
    found: Fingerprint
    fold: Fold
    cases_sha256: str
    state: Path
    steps: int
    seeds: tuple[int, ...]


@dataclass(frozen=True)
class Findings:
    """What was found about one source.

    Attributes:
        plan: Under the source's contract, which the adaptations describe.
        scores: Each score; None where it is undefined.
        share_body: Share of the body's parameters that came across.
        probe: Once a seed, case id → Dice of each class, from the source; empty without a probe.
        scratch: The same from fresh weights.
    """

    source: Source
    plan: Plan
    scores: dict[str, float | None]
    share_body: float
    probe: list[Dice]
    scratch: list[Dice]


def look_at_source(path: Path, name: str, task: Task) -> Findings:
    """Plan, score and probe one source; what is known from an earlier call with the same inputs is not done again.

    Args:
        path: Of the source.
        name: For progress.
        task: What all sources have in common.

    Raises:
        MonaiTLError: The source cannot be read, loaded or trained, or its contract is broken beyond adapting.
    """
    source = read_source(path)
    params = _probe_params(task, path)
    plan = make_plan(task.found, task.manifest.dataset.scheme, params.plan, source)
    keys = _make_keys(task, params, plan, source)
    with locked(task.state / f"work-{keys['work'][:32]}") as folder:
        work = _Work(task, params, plan, source, folder, name)
        try:
            scores = _remember(task.state, keys["scores"], work.score)
            probes = {
                arm: [
                    _remember(task.state, sha256_of(keys[arm], str(seed)), partial(work.probe, arm, seed))
                    for seed in task.seeds
                    if task.steps
                ]
                for arm in ("transfer", "scratch")
            }
        except Exception:
            shutil.rmtree(folder)
            raise
        # results are kept by key; arrays and models of a probe serve nothing else. A kill leaves them to go on with
        shutil.rmtree(folder)
    return Findings(source, plan, scores["scores"], scores["share_body"], probes["transfer"], probes["scratch"])


def _remember(state: Path, key: str, compute: Callable[[], Any]) -> Any:
    path = state / f"{key}.json"
    with suppress(OSError, ValueError):
        return read_json(path)
    result = compute()
    write_json(path, result)
    return result


def _probe_params(task: Task, path: Path) -> Params:
    """The workspace's parameters, but for a short run under this source's own contract.

    What the plan section overrides was meant for the workspace's own source. The weights of the last step count:
    choosing the best step on the cases that judge would flatter.
    """
    content = task.params.model_dump(mode="json")
    given, steps = task.params.finetune, max(task.steps, 2)
    share = steps / given.max_steps
    overridden = dict.fromkeys(("network", "spacing_mm", "intensity", "patch_size_vox"))
    content["plan"] |= {"source": str(path), **overridden}
    content["finetune"] |= {
        "arms": ["transfer", "scratch"],
        "folds": [0],
        "strategy": STRATEGY,
        "max_steps": steps,
        "head_steps": min(max(1, round(given.head_steps * share)), steps - 1),
        "warmup_steps": math.ceil(given.warmup_steps * share),
        "validate_every": steps,
        # both need more steps than a probe has
        "find_learning_rate": False,
        "ema_decay": 0.0,
        "average_power": 0,
        "try_fast": False,
    }
    return parse_params(content)


def _make_keys(task: Task, params: Params, plan: Plan, source: Source) -> dict[str, str]:
    """Keys over all that decides a result: cases, contract, settings, code, versions, and for most the source."""
    device = set_up_torch(params.finetune.n_threads)
    # the source's place is not its content, and what is said of the contract changes no voxel
    own = plan.model_dump(mode="json", exclude={"source", "source_sha256", "adaptations", "shift", "notes"})
    common = (code_digest(), task.cases_sha256, to_json([own, describe_torch(device), VOXELS_A_CLASS]))
    preparing = params.preprocess.model_dump(mode="json")
    # the file's own hash beside the card's: a file that was changed must not be answered from memory
    weights = to_json([source.card.model_dump(mode="json"), hash_weights(source)])
    # scores know nothing of the probe's length, nor of its halves
    chosen = sorted([*task.fold.train, *task.fold.val])
    scoring = to_json([chosen, preparing, params.finetune.seed, params.finetune.min_transferred])
    settings = params.model_dump(mode="json", include={"preprocess", "finetune", "predict"})
    settings["finetune"].pop("seeds")
    probing = to_json([task.fold.model_dump(mode="json"), settings])
    return {
        "work": sha256_of("work", weights, *common, probing),
        "scores": sha256_of("scores", weights, *common, scoring),
        "transfer": sha256_of("transfer", weights, *common, probing),
        "scratch": sha256_of("scratch", *common, probing),
    }


@dataclass(frozen=True)
class _Work:
    """A small workspace of its own for one source."""

    task: Task
    params: Params
    plan: Plan
    source: Source
    folder: Path
    name: str

    @property
    def prepared(self) -> Path:
        return self.folder / "artifacts/prepared"

    def lay_out(self) -> None:
        """Links to the chosen cases, split and plan, then the arrays; once."""
        if self.prepared.is_dir():
            return
        chosen = tuple(sorted([*self.task.fold.train, *self.task.fold.val]))
        cases = self.folder / "artifacts/cases"
        for case_id in chosen:
            _link(self.task.manifest.folder / case_id, cases / case_id)
        self.task.manifest.dataset.model_copy(update={"case_ids": chosen}).write(cases / DATASET_FILE)
        Split(test=(), folds=(self.task.fold,)).write(self.folder / "artifacts/split/split.json")
        self.plan.write(self.folder / "artifacts/plan/plan.json")
        self.task.found.write(self.folder / "artifacts/plan/fingerprint.json")
        run_stage("preprocess", self.folder, self.params, {})

    def score(self) -> dict[str, Any]:
        """The source's network on the target's cases, before any training."""
        self.lay_out()
        plan, seed = self.plan, self.params.finetune.seed
        device = set_up_torch(self.params.finetune.n_threads)
        network = build_network(plan.network, plan.n_channels, plan.scheme.n_outputs, seed)
        floor = self.params.finetune.min_transferred
        audit = load_source(network, plan.network, plan.n_channels, plan.scheme.names, self.source, floor)
        network = place_network(network, device).eval()
        failed = read_unprepared(self.prepared)
        case_ids = [one for one in sorted([*self.task.fold.train, *self.task.fold.val]) if one not in failed]
        layers: dict[str, list[CaseFeatures]] = defaultdict(list)
        progress = Progress(f"rank {self.name}: scores", total=len(case_ids))
        for case_id in case_ids:
            for layer, found in case_features(network, plan, self.prepared / case_id, case_id, seed).items():
                layers[layer].append(found)
            progress.advance(case_id)
        return {"scores": score_features(layers), "share_body": audit.share_body}

    def probe(self, arm: str, seed: int) -> Dice:
        """Dice of each class on each validation case after the probe's steps."""
        self.lay_out()
        run_stage("finetune", self.folder, self.params, {"arm": arm, "fold": "0", "seed": str(seed)})
        model = self.folder / "artifacts/models" / model_name(arm, 0, seed)
        predictor = load_models([model], self.params.finetune.n_threads)
        failed = read_unprepared(self.prepared)
        settings = self.params.predict
        found: Dice = {}
        for case_id in self.task.fold.val:
            reference = read_label(self.task.manifest.label_path(case_id))[0]
            prediction = np.zeros(reference.shape, dtype=np.uint8)
            # a case that cannot be prepared under this contract scores as nothing found
            if case_id not in failed:
                image = np.load(self.prepared / case_id / "image.npy", mmap_mode="r", allow_pickle=False)
                record = PreparedCase.read(self.prepared / case_id / "meta.json")
                prediction = predictor.predict_label(image, record, settings)
            found[case_id] = _class_dice(reference, prediction, len(self.plan.scheme.classes))
        return found


def _link(target: Path, link: Path) -> None:
    link.parent.mkdir(parents=True, exist_ok=True)
    link.unlink(missing_ok=True)
    link.symlink_to(target.resolve())


def _class_dice(reference: NDArray[Any], prediction: NDArray[Any], n_classes: int) -> list[float | None]:
    found = [dice(reference == value, prediction == value) for value in range(1, n_classes + 1)]
    return [None if math.isnan(one) else one for one in found]
