"""Optimiser steps: the training loop with its batches against bare steps and a MONAI loop as its tutorials write it."""

from __future__ import annotations

import tempfile
from pathlib import Path

from benchmarks.common import contestant, number, table, take_turns, verdict
from benchmarks.training import Task, prepare_limit, prepare_monai, prepare_ours

TITLE = "Training: one optimiser step"
PACKAGES = ("torch", "monai", "numpy", "scipy")
N_CASES = 8


def run(quick: bool) -> list[str]:
    from benchmarks.cases import N_OUTPUTS, PATCH, SPACING_MM, demo_network, demo_params, write_cases

    config = demo_params().finetune
    n_steps, n_rounds = (4, 2) if quick else (8, 8)
    size = " × ".join(str(voxels) for voxels in PATCH)
    blocks = [
        f"The demo's network ({demo_network().name}), batch {config.batch_size} of {size} voxels, Dice and "
        f"cross-entropy, AdamW, {config.n_threads} threads, {N_CASES} phantom cases, {n_steps} steps a turn, each "
        "contestant in a process of its own. Limit: forward, backward and step on one batch in memory, weights "
        "channels last and deterministic kernels as we use them, nothing else. Ours: `Trainer.run`, with memory-mapped "
        "cases, augmentation, gradient clipping, checks of loss and gradient, without its validations and checkpoints. "
        "MONAI: CacheDataset, RandCropByPosNegLabeld, random flip, scale, shift and noise, DataLoader, DiceCELoss, "
        "AdamW, as its spleen tutorial, an epoch a turn; loader workers stay alive between epochs. Last, the same with "
        f"our preset's changes ({config.augmentation}: rotation, zoom, noise, brightness, contrast, gamma at our "
        "chances) in place of the flips."
    ]
    with tempfile.TemporaryDirectory(prefix="monai_tl_bench_") as name:
        folder = Path(name) / "prepared"
        write_cases(folder, N_CASES)
        task = Task(
            folder=folder,
            network=demo_network(),
            n_outputs=N_OUTPUTS,
            patch=PATCH,
            spacing_mm=SPACING_MM,
            batch_size=config.batch_size,
            n_threads=config.n_threads,
            n_steps=n_steps,
            augmentation=config.augmentation,
        )
        contestants = [
            contestant("limit", "limit", prepare_limit, task),
            contestant("monai_tl", "ours", prepare_ours, task),
            contestant("MONAI tutorial", "peer", prepare_monai, task, 0, "flips"),
            contestant("MONAI tutorial, 2 loader workers", "peer", prepare_monai, task, 2, "flips"),
            contestant("MONAI, our augmentation", "peer", prepare_monai, task, 0, config.augmentation),
        ]
        times = take_turns(contestants, n_rounds, budget_s=110.0)
    rates = ", ".join(f"{name} {number(n_steps / sorted(own)[len(own) // 2])}" for name, own in times.items())
    return [*blocks, table(contestants, times, "ms", n_steps), f"Steps a second: {rates}.", verdict(contestants, times)]
