"""What a case costs a network that was, or was not, trained on it: losses, and networks to hold them against."""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from monai_tl.config import FinetuneConfig, Params
from monai_tl.dataset.patches import load_case
from monai_tl.files import code_digest, read_json, sha256_files, sha256_of, to_json, write_json
from monai_tl.inference import load_models
from monai_tl.metrics.case_loss import CaseLoss
from monai_tl.metrics.membership import scaled_confidence
from monai_tl.progress import Progress
from monai_tl.records import Fold, Plan
from monai_tl.sources.card import Source, read_source
from monai_tl.stages import STATE_FOLDER
from monai_tl.stages.finetune import finetune

_REFERENCE_CODE = ("dataset", "metrics.case_loss", "networks", "sources", "stages.finetune", "training", "transfer")
_FIRST_NUMBER = 1000
"""Reference networks are folds of their own; these numbers keep their names apart."""


@dataclass
class Losses:
    """Losses of whole cases by networks, each computed once.

    Attributes:
        prepared: Cases as preprocess left them.
        params: Section ``predict``: windows and threads.
        known: Model folder → case → loss.
    """

    prepared: Path
    params: Params
    progress: Progress
    known: dict[Path, dict[str, float]] = field(default_factory=dict)

    def of(self, model: Path, case_ids: Iterable[str]) -> dict[str, float]:
        """Loss of each case.

        Raises:
            MonaiTLError: The model or an array cannot be read.
        """
        found = self.known.setdefault(model, {})
        wanted = sorted(set(case_ids))
        if missing := [case_id for case_id in wanted if case_id not in found]:
            # one way through the windows for all: references have no trial of fast mode
            predictor = replace(load_models([model], self.params.predict.n_threads), fast=None)
            for case_id in missing:
                case = load_case(self.prepared / case_id)
                loss = CaseLoss(np.asarray(case.label), predictor.plan.scheme.n_outputs)
                for slab in predictor.stream(case.image, self.params.predict):
                    loss.add(slab.axis, slab.start, slab.values)
                found[case_id] = loss.finish()
            self.progress.show(f"losses of {len(missing)} cases by {model.name}")
        return {case_id: found[case_id] for case_id in wanted}


def half_patients(patients: Sequence[str], n_references: int, seed: int) -> list[frozenset[str]]:
    """Which patients each reference network trains on: pairs of complementary halves, drawn anew for each pair.

    So each patient is in half of them, and out of the other half.

    Args:
        patients: Each once.
        n_references: Even.
        seed: Of the draws.
    """
    halves: list[frozenset[str]] = []
    for number in range(n_references // 2):
        order = np.random.default_rng([seed, number]).permutation(sorted(patients)).tolist()
        halves += [frozenset(order[: len(order) // 2]), frozenset(order[len(order) // 2 :])]
    return halves


def train_references(
    workspace: Path,
    plan: Plan,
    config: FinetuneConfig,
    arm: str,
    source: Source | None,
    patients: Mapping[str, str],
    n_references: int,
    losses: Losses,
) -> list[tuple[frozenset[str], dict[str, float]]]:
    """Train networks as the one attacked was, each on a random half of the patients, and take their losses.

    They are thrown away; their losses are kept below ``.monai_tl/privacy``, so that a call that was cut off goes on.

    Args:
        workspace: Holds ``artifacts/prepared``.
        plan: Of the run.
        config: As the network attacked was trained with.
        arm: Of it.
        source: Where its weights started.
        patients: Case → patient, of members and others.
        n_references: Even.
        losses: Of whole cases.

    Returns:
        For each network the cases it was trained on, and the loss of every case.
    """
    found = []
    state = workspace / STATE_FOLDER / "privacy"
    names = sorted(set(patients.values()))
    arrays = sha256_files(
        losses.prepared / case_id / name for case_id in sorted(patients) for name in ("image.npy", "label.npy")
    )
    for number, half in enumerate(half_patients(names, n_references, config.seed)):
        inside = tuple(sorted(case_id for case_id, patient in patients.items() if patient in half))
        settings = config.model_copy(update={"seeds": (config.seed + 1 + number,)})
        key = sha256_of(
            to_json([settings.model_dump(mode="json"), plan.model_dump(mode="json"), inside, sorted(patients), arm]),
            to_json(losses.params.predict.model_dump(mode="json")),
            arrays,
            code_digest(*_REFERENCE_CODE),
        )
        kept = state / f"{key[:32]}.json"
        if not kept.is_file():
            models = state / "models"
            fold = Fold(train=inside, val=())
            model = finetune(workspace, plan, fold, settings, source, arm, _FIRST_NUMBER + number, models=models)
            write_json(kept, losses.of(model, patients))
            shutil.rmtree(model)
        found.append((frozenset(inside), {case_id: float(value) for case_id, value in read_json(kept).items()}))
        losses.progress.show(f"reference {number + 1} of {n_references}")
    return found


def references_of_folds(
    target: int,
    folds: Mapping[int, Fold],
    models: Mapping[int, Sequence[Path]],
    case_ids: Iterable[str],
    losses: Losses,
) -> dict[str, list[float]]:
    """Scaled confidence of each case by the networks of a fold that was not trained on it.

    A case that no other fold held out has none. One that several did (a test case) takes one of them, in turn, so that
    members and others are held against equally many.

    Args:
        target: Fold of the network attacked.
        folds: Trained folds by number.
        models: Model folders of each.
        case_ids: Of members and others.
        losses: Of whole cases.
    """
    chosen: dict[int, list[str]] = {}
    for turn, case_id in enumerate(sorted(case_ids)):
        out = [number for number, fold in sorted(folds.items()) if number != target and case_id not in fold.train]
        if out:
            chosen.setdefault(out[turn % len(out)], []).append(case_id)
    found: dict[str, list[float]] = {}
    for number, cases in chosen.items():
        for model in models[number]:
            for case_id, loss in losses.of(model, cases).items():
                found.setdefault(case_id, []).append(scaled_confidence(loss))
    return found


def source_of(workspace: Path, plan: Plan, arm: str) -> Source | None:
    """Where the arm's weights start."""
    return None if arm == "scratch" or plan.source is None else read_source(workspace / plan.source)
