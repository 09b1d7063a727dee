"""What a membership attack finds in networks tuned on real hippocampi, with differential privacy and without.

A network that has learnt the whole hippocampus on 96 patients is tuned to tell its two parts apart on 24 others; the 40
test patients are the strangers. All trainings have the same budget of patches. Small on purpose (a grid of 2 mm), so
that each network can be attacked with references trained like itself.
"""

from __future__ import annotations

import shutil
import time
from pathlib import Path
from typing import Any

from benchmarks.hippocampus import KEPT, workspace

TITLE = "Privacy: membership attacks on real hippocampi, and what DP-SGD costs"
PACKAGES = ("torch", "monai", "opacus")
N_PUBLIC, N_MEMBERS, N_REFERENCES, N_STEPS, PATIENTS_A_STEP = 96, 24, 4, 200, 8
MOST_MEMBERS = 64
PATCH = [20, 28, 20]
NETWORK = {
    "name": "unet",
    "arguments": {"channels": [16, 32, 64], "strides": [2, 2], "norm": ["instance", {"affine": True}]},
}
COMMON: dict[str, Any] = {
    "arms": ("transfer",),
    "max_steps": N_STEPS,
    "validate_every": N_STEPS,
    "batch_size": PATIENTS_A_STEP,
    "head_steps": 0,
    "augmentation": "none",
    "schedule": "constant",
    "n_threads": 1,
}
PRIVATE: dict[str, Any] = {"privacy": "dp_sgd", "privacy_delta": 1e-3, "patient_clip": 0.5}
_NORM_ONLY = {"strategy": "norm_only", "learning_rate": 1e-2}
_MORE = {"batch_size": 16}
ROWS: tuple[tuple[str, int, dict[str, Any]], ...] = (
    ("full, no privacy", N_MEMBERS, {"strategy": "full", "learning_rate": 2e-3}),
    ("norm_only, no privacy", N_MEMBERS, _NORM_ONLY),
    ("norm_only, ε = 8", N_MEMBERS, {**_NORM_ONLY, "privacy_epsilon": 8.0, **PRIVATE}),
    ("norm_only, ε = 2", N_MEMBERS, {**_NORM_ONLY, "privacy_epsilon": 2.0, **PRIVATE}),
    ("full, ε = 8", N_MEMBERS, {"strategy": "full", "learning_rate": 1e-3, "privacy_epsilon": 8.0, **PRIVATE}),
    ("norm_only, no privacy, 64 patients, 16 a step", MOST_MEMBERS, {**_NORM_ONLY, **_MORE}),
    (
        "norm_only, ε = 8, 64 patients, 16 a step",
        MOST_MEMBERS,
        {**_NORM_ONLY, **_MORE, "privacy_epsilon": 8.0, **PRIVATE},
    ),
)


def run(quick: bool) -> list[str]:
    from monai_tl.files import read_json, write_json

    root = KEPT / "quick" if quick else KEPT
    n_steps, n_references = (8, 2) if quick else (N_STEPS, N_REFERENCES)
    source = _public(root, n_steps)
    results = []
    for name, n_members, changes in ROWS:
        kept = root / "privacy" / f"{name} {n_steps}.json"
        if not kept.is_file():
            settings = {**COMMON, **changes, "max_steps": n_steps, "validate_every": n_steps}
            write_json(kept, _measure(_members(root, source, n_members), settings, n_references))
        results.append((name, read_json(kept)))
        print(_row(*results[-1]), flush=True)
    return [_explain(n_steps, n_references), _table(results)]


def _public(root: Path, n_steps: int) -> Path:
    """A network that knows the hippocampus as one class, of patients that nobody tunes on."""
    import numpy as np

    from monai_tl.config import load_params
    from monai_tl.labels import ClassSpec, LabelScheme
    from monai_tl.records import Fold, Plan
    from monai_tl.stages.finetune import finetune

    folder = workspace(root, "privacy-public", {"source": None, "network": NETWORK, "spacing_mm": [2.0, 2.0, 2.0],
                                                "patch_size_vox": PATCH})  # fmt: skip
    model = folder / f"models-{n_steps}" / "scratch-0-0"
    if model.is_dir():
        return model
    cases = _pool(folder)[:N_PUBLIC]
    whole = folder / "whole"
    for case_id in cases:
        out = whole / "artifacts/prepared" / case_id
        shutil.copytree(folder / "artifacts/prepared" / case_id, out, dirs_exist_ok=True)
        np.save(out / "label.npy", (np.load(out / "label.npy") > 0).astype(np.uint8))
    plan = Plan.read(folder / "artifacts/plan/plan.json")
    plan = plan.model_copy(update={"scheme": LabelScheme(classes=(ClassSpec(name="hippocampus"),))})
    settings = {
        **COMMON,
        "arms": ("scratch",),
        "max_steps": 2 * n_steps,
        "learning_rate": 2e-3,
        "augmentation": "light",
    }
    config = load_params(folder).finetune.model_validate(settings)
    finetune(whole, plan, Fold(train=cases, val=()), config, None, "scratch", 0, models=model.parent)
    return model


def _members(root: Path, source: Path, n_members: int) -> Path:
    """The workspace of those who are tuned on; the source's patients are not in it."""
    from monai_tl.records import Fold, Split

    folder = workspace(root, "privacy-members", {"source": str(source), "patch_size_vox": PATCH})
    path = folder / "artifacts/split/split.json"
    members = _pool(folder)[N_PUBLIC : N_PUBLIC + n_members]
    split = Split.read(path)
    Split(test=split.test, folds=(Fold(train=members, val=()),), same_patient=()).write(path)
    return folder


def _pool(folder: Path) -> tuple[str, ...]:
    from monai_tl.dataset.manifest import read_manifest
    from monai_tl.files import read_json

    test = set(read_json(folder / "test.json"))
    return tuple(sorted(set(read_manifest(folder / "artifacts/cases").dataset.case_ids) - test))


def _measure(folder: Path, settings: dict[str, Any], n_references: int) -> dict[str, Any]:
    """Train, test and attack one row."""
    from monai_tl.commands import audit_privacy
    from monai_tl.config import load_params
    from monai_tl.dataset.patches import load_case
    from monai_tl.inference import load_models
    from monai_tl.records import Split
    from monai_tl.stages import finetune
    from monai_tl.training.validation import validation_dice

    params = load_params(folder)
    params = params.model_copy(update={"finetune": params.finetune.model_validate(settings)})
    started = time.process_time()
    finetune.run(folder, params, "transfer", "0", "0")
    seconds = time.process_time() - started
    model = folder / "artifacts/models/transfer-0-0"
    predictor = load_models([model], 1)
    split = Split.read(folder / "artifacts/split/split.json")
    dice = {}
    for side, names in (("train", split.folds[0].train), ("test", split.test)):
        cases = [load_case(folder / "artifacts/prepared" / name) for name in names]
        dice[side] = validation_dice(predictor.networks[0], cases, predictor.plan, 1)
    audit = audit_privacy.run(folder, params, n_references=n_references, out=folder / "privacy.json")
    (found,) = audit.models
    return {"seconds": seconds, "dice": dice, "audit": found.model_dump(mode="json")}


def _row(name: str, result: dict[str, Any]) -> str:
    def told(estimate: dict[str, Any]) -> str:
        return f"{estimate['value']:.2f} ({estimate['low']:.2f} to {estimate['high']:.2f})"

    audit, dice = result["audit"], result["dice"]
    attacks = {attack["name"]: attack for attack in audit["attacks"]}
    ratio = attacks["likelihood_ratio"]
    guarantee = audit["guarantee"]
    epsilon = "–" if guarantee is None else f"{guarantee['epsilon']:.2f}"
    noise = "–" if guarantee is None else f"{guarantee['noise_multiplier']:.2f}"
    cells = [name, epsilon, noise, told(attacks["loss"]["auc"]), told(ratio["auc"]),
             told(ratio["true_positive_rate"]), f"{dice['train']:.3f}", f"{dice['test']:.3f}",
             f"{result['seconds']:.0f}"]  # fmt: skip
    return f"| {' | '.join(cells)} |"


def _table(results: list[tuple[str, dict[str, Any]]]) -> str:
    headings = ["strategy", "ε at δ = 0.001", "noise multiplier", "AUC, loss", "AUC, likelihood ratio",
                "found at 1 % false positives", "Dice, members", "Dice, test", "processor s"]  # fmt: skip
    lines = [f"| {' | '.join(headings)} |", "|---" + "|---:" * (len(headings) - 1) + "|"]
    return "\n".join([*lines, *(_row(name, result) for name, result in results)])


def _explain(n_steps: int, n_references: int) -> str:
    return (
        f"{N_MEMBERS} patients tuned on where no other number is named, 40 strangers, {n_steps} steps of "
        f"{PATIENTS_A_STEP} patches (with privacy: of {PATIENTS_A_STEP} patients on average, one patch each), no "
        "augmentation, grid of 2 mm, one training each, seed 0; the likelihood ratio holds each case against "
        f"{n_references} networks trained like the one attacked, each on a half of all members and strangers. "
        "Intervals (95 %) over patients; the seed's part is not in them. With 40 strangers 1 % of false positives "
        "means none, whose true rate may be up to 7 %. Dice is the mean of both parts on the grid; seconds are of the "
        "training alone, of one core that other work shared."
    )
