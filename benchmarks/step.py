"""Optimiser steps: the training loop with its batches against bare steps and a MONAI loop as its tutorials write it."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from benchmarks.common import contestant, number, table, take_turns, verdict

TITLE = "Training: one optimiser step"
PACKAGES = ("torch", "monai", "numpy", "scipy")
N_CASES = 8
Turn = Callable[[], Any]


def run(quick: bool) -> list[str]:
    from benchmarks.cases import PATCH, demo_network, demo_params, write_cases

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
        contestants = [
            contestant("limit", "limit", prepare_limit, folder, n_steps),
            contestant("monai_tl", "ours", prepare_ours, folder, n_steps),
            contestant("MONAI tutorial", "peer", prepare_monai, folder, n_steps, 0, "flips"),
            contestant("MONAI tutorial, 2 loader workers", "peer", prepare_monai, folder, n_steps, 2, "flips"),
            contestant("MONAI, our augmentation", "peer", prepare_monai, folder, n_steps, 0, "ours"),
        ]
        times = take_turns(contestants, n_rounds, budget_s=110.0)
    rates = ", ".join(f"{name} {number(n_steps / sorted(own)[len(own) // 2])}" for name, own in times.items())
    return [*blocks, table(contestants, times, "ms", n_steps), f"Steps a second: {rates}.", verdict(contestants, times)]


def _network(is_ours: bool) -> Any:
    import torch

    from benchmarks.cases import N_OUTPUTS, demo_network, demo_params
    from monai_tl.networks.builders import build_network
    from monai_tl.networks.device import place_network, set_up_torch

    config = demo_params().finetune
    network = build_network(demo_network(), 1, N_OUTPUTS, config.seed)
    if is_ours:
        return place_network(network, set_up_torch(config.n_threads))
    torch.set_num_threads(config.n_threads)
    return network


def _sampler(folder: Path) -> Any:
    from benchmarks.cases import PATCH, SPACING_MM, demo_network, demo_params
    from monai_tl.dataset.patches import PatchSampler, load_case
    from monai_tl.networks.builders import size_rule_of

    config = demo_params().finetune
    return PatchSampler(
        cases=tuple(load_case(case) for case in sorted(folder.iterdir())),
        patch_size_vox=PATCH,
        size_rule=size_rule_of(demo_network()),
        spacing_mm=SPACING_MM,
        foreground_fraction=config.foreground_fraction,
        augmentation=config.augmentation,
        seed=config.seed,
    )


def prepare_limit(folder: Path, n_steps: int) -> Turn:
    import torch

    from benchmarks.cases import N_OUTPUTS, demo_params
    from monai_tl.training.batches import make_batch
    from monai_tl.training.losses import SegmentationLoss

    config = demo_params().finetune
    network, loss = _network(True), SegmentationLoss(N_OUTPUTS)
    optimiser = torch.optim.AdamW(network.parameters(), lr=1e-3, weight_decay=config.weight_decay, fused=True)
    batch = make_batch(_sampler(folder), config.batch_size, 0)

    def turn() -> float:
        started = time.perf_counter()
        for _ in range(n_steps):
            optimiser.zero_grad(set_to_none=True)
            loss(network(batch.image), batch.label).backward()
            optimiser.step()
        return time.perf_counter() - started

    return turn


def prepare_ours(folder: Path, n_steps: int) -> Turn:
    from benchmarks.cases import N_OUTPUTS, demo_network, demo_params
    from monai_tl.networks.builders import groups_of
    from monai_tl.progress import Progress
    from monai_tl.training.loop import Trainer
    from monai_tl.transfer.strategy import make_strategy

    class Ended(Progress):
        """Notes when the last step but the validation after it was done; steps are reported one by one."""

        def show(self, note: str = "") -> None:
            if self.done == n_steps:
                self.at = time.perf_counter()

    # one step more than counted: the last one is followed by a validation and a checkpoint
    config = demo_params().finetune.model_copy(update={"max_steps": n_steps + 1, "validate_every": n_steps + 1})
    network, sampler = _network(True), _sampler(folder)
    groups = groups_of(demo_network(), network)
    strategy = make_strategy("full", config, [group.name for group in groups], groups[-1].name)

    def turn() -> tuple[float, str]:
        with tempfile.TemporaryDirectory() as checkpoints:
            progress = Ended("step", total=n_steps)
            trainer = Trainer(
                network, groups, strategy, sampler, lambda _: None, config, N_OUTPUTS, Path(checkpoints), progress
            )
            started = time.perf_counter()
            trainer.run()
            return progress.at - started, ""

    return turn


def _augmentation(kind: str) -> list[Any]:
    from monai import transforms as T

    from monai_tl.dataset.augmentation import PRESETS

    keys, mode = ("image", "label"), ("bilinear", "nearest")
    light = PRESETS["light"]
    if kind == "flips" or light is None:
        return [
            *(T.RandFlipd(keys, prob=0.5, spatial_axis=axis) for axis in range(3)),
            T.RandScaleIntensityd("image", factors=0.1, prob=0.5),
            T.RandShiftIntensityd("image", offsets=0.1, prob=0.5),
            T.RandGaussianNoised("image", prob=0.2, std=0.05),
        ]
    angle = light.rotation_deg * 3.14159 / 180
    return [
        T.RandAffined(keys, prob=light.p_spatial, rotate_range=[angle] * 3, scale_range=[0.1] * 3, mode=mode),
        T.RandScaleIntensityd("image", factors=light.contrast, prob=light.p_contrast),
        T.RandShiftIntensityd("image", offsets=0.05, prob=light.p_brightness),
        T.RandAdjustContrastd("image", prob=light.p_gamma, gamma=(1 / light.gamma, light.gamma)),
        T.RandGaussianNoised("image", prob=light.p_noise, std=0.05),
    ]


def prepare_monai(folder: Path, n_steps: int, n_workers: int, kind: str) -> Turn:
    import numpy as np
    import torch
    from monai import transforms as T
    from monai.data import CacheDataset, DataLoader
    from monai.losses import DiceCELoss

    from benchmarks.cases import PATCH, demo_params

    config = demo_params().finetune
    network = _network(False)
    files = [{"image": np.load(f / "image.npy"), "label": np.load(f / "label.npy")[None]} for f in folder.iterdir()]
    crop = T.RandCropByPosNegLabeld(
        ("image", "label"), "label", spatial_size=PATCH, pos=2, neg=1, num_samples=1, image_key="image"
    )
    steps = [
        T.EnsureTyped(("image", "label")),
        T.SpatialPadd(("image", "label"), PATCH),
        crop,
        *_augmentation(kind),
        T.EnsureTyped(("image", "label")),
    ]
    # an epoch is a turn: the cases as often as it takes
    n_samples = n_steps * config.batch_size
    dataset = CacheDataset([files[i % len(files)] for i in range(n_samples)], T.Compose(steps), progress=False)
    loader = DataLoader(
        dataset, batch_size=config.batch_size, shuffle=True, num_workers=n_workers, persistent_workers=n_workers > 0
    )
    loss_function = DiceCELoss(include_background=False, to_onehot_y=True, softmax=True)
    optimiser = torch.optim.AdamW(network.parameters(), 1e-3, weight_decay=config.weight_decay)

    def batches() -> Iterator[tuple[Any, Any]]:
        return ((batch["image"], batch["label"]) for batch in loader)

    def turn() -> float:
        started = time.perf_counter()
        network.train()
        for inputs, labels in batches():
            optimiser.zero_grad()
            loss = loss_function(network(inputs), labels)
            loss.backward()
            optimiser.step()
            loss.item()
        return time.perf_counter() - started

    return turn
