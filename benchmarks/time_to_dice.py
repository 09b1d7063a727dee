"""Seconds of training until a mean Dice on real hippocampi is reached."""

from __future__ import annotations

import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

from benchmarks.training import Task, _network, _sampler

N_VALIDATION = 40
MAX_STEPS = 4000
VALIDATE_EVERY = 50


class ReachedError(Exception):
    """Ends the training."""


def measure(task: Task, wanted: float, max_steps: int = MAX_STEPS, validate_every: int = VALIDATE_EVERY) -> str:
    """Train from scratch on all cases but the last 40, which are scored whole; validations are left out of the time."""
    import numpy as np

    from monai_tl.config import FinetuneConfig
    from monai_tl.dataset.patches import load_case
    from monai_tl.networks.builders import groups_of
    from monai_tl.networks.windows import predict_probabilities
    from monai_tl.progress import Progress
    from monai_tl.training.loop import Trainer
    from monai_tl.training.validation import foreground_dice
    from monai_tl.transfer.strategy import make_strategy

    config = FinetuneConfig(
        arms=("scratch",),
        strategy="scratch",
        max_steps=max_steps,
        validate_every=validate_every,
        patience=max_steps,
        batch_size=task.batch_size,
        learning_rate=1e-3,
        precision=task.precision,
        augmentation=task.augmentation,
        n_threads=task.n_threads,
    )
    whole = _sampler(task)
    n_held = min(N_VALIDATION, len(whole.cases) // 2)
    sampler, held = replace(whole, cases=whole.cases[:-n_held]), [load_case(path) for path in task.cases()[-n_held:]]
    network = _network(task, True)
    groups = groups_of(task.network, network)
    strategy = make_strategy("scratch", config, [group.name for group in groups], groups[-1].name)
    seen: dict[str, float] = {"validating": 0.0, "dice": 0.0}
    started = time.perf_counter()

    def validate(trained: Any) -> float:
        begun = time.perf_counter()
        scores: list[float] = []
        for case in held:
            probabilities = predict_probabilities([trained], case.image, task.patch, sampler.size_rule, overlap=0.25)
            scores += foreground_dice(case.label, probabilities.argmax(axis=0).astype(np.uint8), task.n_outputs)
        seen["dice"] = float(np.mean(scores))
        seen["training"] = begun - started - seen["validating"]
        seen["validating"] += time.perf_counter() - begun
        if seen["dice"] >= wanted:
            raise ReachedError
        return seen["dice"]

    with tempfile.TemporaryDirectory(prefix="monai_tl_bench_") as folder:
        progress = Progress("time to Dice", total=max_steps)
        trainer = Trainer(network, groups, strategy, sampler, validate, config, task.n_outputs, Path(folder), progress)
        try:
            trainer.run()
        except ReachedError:
            return (
                f"Dice {seen['dice']:.3f} after {trainer.position.step} steps and {seen['training']:.1f} s of training"
            )
    return f"Dice {wanted:g} was not reached: {seen['dice']:.3f} after {seen['training']:.1f} s of training"
