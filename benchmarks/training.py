"""Contestants that train: bare steps, ours, and a MONAI loop as its tutorials write it, all on one task."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from monai_tl.config import NetworkConfig
from monai_tl.geometry import Shape, Spacing

Turn = Callable[[], Any]
FOREGROUND_FRACTION = 0.67
WEIGHT_DECAY = 1e-4


@dataclass(frozen=True)
class Task:
    """What is trained on what; the same for all contestants but for what each is to show.

    Attributes:
        folder: Cases as under artifacts/prepared.
        n_steps: Optimiser steps a turn.
        n_drain: Steps before them that are not timed, and use up what loaders made ahead while others had their turn.
        augmentation, precision, strategy: Of ours, and of the limit where it has them.
        is_compiled: Ours and the limit go through torch.compile first: in the turn that warms up, and before a turn
            is timed.
    """

    folder: Path
    network: NetworkConfig
    n_outputs: int
    patch: Shape
    spacing_mm: Spacing
    batch_size: int
    n_threads: int
    n_steps: int
    n_drain: int = 0
    augmentation: Any = "light"
    precision: Any = "float32"
    strategy: Any = "full"
    is_compiled: bool = False

    def cases(self) -> list[Path]:
        return sorted(path.parent for path in self.folder.glob("*/label.npy"))


def processor_seconds() -> float:
    """Of this process and of the children that live; beside other load a truer measure than the clock on the wall."""
    import psutil

    own = psutil.Process()
    total = time.process_time()
    for child in own.children(recursive=True):
        try:
            times = child.cpu_times()
        except psutil.Error:
            continue
        total += times.user + times.system
    return total


def timed(work: Callable[[], Any], n_steps: int) -> tuple[float, str]:
    """Seconds of some steps, and a remark of what they took of the processors."""
    wall, processor = time.perf_counter(), processor_seconds()
    work()
    seconds = time.perf_counter() - wall
    return seconds, processor_remark(processor_seconds() - processor, n_steps)


def processor_remark(seconds: float, n_steps: int) -> str:
    return f"{seconds / n_steps:.3f} s of processor a step"


def _network(task: Task, is_ours: bool) -> Any:
    import torch

    from monai_tl.networks.builders import build_network
    from monai_tl.networks.device import place_network, set_up_torch

    network = build_network(task.network, 1, task.n_outputs, 0)
    if is_ours:
        return place_network(network, set_up_torch(task.n_threads))
    torch.set_num_threads(task.n_threads)
    return network.to("cuda" if torch.cuda.is_available() else "cpu")


def _sampler(task: Task) -> Any:
    from monai_tl.dataset.patches import PatchSampler, load_case
    from monai_tl.networks.builders import size_rule_of

    return PatchSampler(
        cases=tuple(load_case(case) for case in task.cases()),
        patch_size_vox=task.patch,
        size_rule=size_rule_of(task.network),
        spacing_mm=task.spacing_mm,
        foreground_fraction=FOREGROUND_FRACTION,
        augmentation=task.augmentation,
        seed=0,
    )


def prepare_limit(task: Task) -> Turn:
    """Forward, backward and step on one batch in memory, and nothing else."""
    import torch

    from monai_tl.networks.precision import computing_in
    from monai_tl.training.batches import make_batch
    from monai_tl.training.losses import SegmentationLoss

    network, loss = _network(task, True), SegmentationLoss(task.n_outputs)
    device = next(network.parameters()).device
    optimiser = torch.optim.AdamW(network.parameters(), lr=1e-3, weight_decay=WEIGHT_DECAY, fused=True)
    batch = make_batch(_sampler(task), task.batch_size, 0)
    image, label = batch.image.to(device), batch.label.to(device)
    if task.is_compiled:
        network = torch.compile(network, dynamic=False)

    def steps() -> None:
        for _ in range(task.n_steps):
            optimiser.zero_grad(set_to_none=True)
            with computing_in(device, task.precision):
                logits = network(image)
            loss(logits.float(), label).backward()
            optimiser.step()
        if device.type == "cuda":
            torch.cuda.synchronize()

    return lambda: timed(steps, task.n_steps)


def prepare_ours(task: Task) -> Turn:
    """``Trainer.run`` but its validations and checkpoints; features of a frozen body are kept from turn to turn."""
    import torch

    from monai_tl.config import FinetuneConfig
    from monai_tl.networks.builders import groups_of
    from monai_tl.progress import Progress
    from monai_tl.training.batches import n_loaders
    from monai_tl.training.loop import Trainer
    from monai_tl.transfer.strategy import make_strategy

    # One before those that count, in which buffers are made, and one after, which a validation follows. A loader has up
    # to three batches made or in hand before they are asked for, and none left to make in the last steps: of a turn of
    # n steps at least n - 2 are made in it. With steps of seconds and batches of milliseconds
    # (docs/decisions/0012-engine.md) that is less than turns differ by; where steps are as fast as loaders, a drain is
    # asked for, and loaders go on until after the last step that counts.
    first = 1 + task.n_drain
    last = first + task.n_steps
    n_steps = last + (2 * n_loaders() + 2 if task.n_drain else 1)

    class Timed(Progress):
        """Notes when the steps before those that count, and when they were done; tells nobody."""

        def tick(self, done: int, epoch: Any = ()) -> None:
            if done in (first, last):
                if device.type == "cuda":
                    torch.cuda.synchronize()
                self.at = {**getattr(self, "at", {}), done: (time.perf_counter(), processor_seconds())}

        def measure(self, done: int, note: str = "", **values: float) -> None:
            """Losses are not what is measured here."""

    config = FinetuneConfig(
        max_steps=n_steps,
        validate_every=n_steps,
        batch_size=task.batch_size,
        precision=task.precision,
        strategy=task.strategy,
        augmentation=task.augmentation,
        n_threads=task.n_threads,
        weight_decay=WEIGHT_DECAY,
        feature_variants=1,
        compile=task.is_compiled,
    )
    network, sampler = _network(task, True), _sampler(task)
    device = next(network.parameters()).device
    groups = groups_of(task.network, network)
    strategy = make_strategy(task.strategy, config, [group.name for group in groups], groups[-1].name)
    # it takes away the space of a cache that is kept between turns
    kept = tempfile.TemporaryDirectory(prefix="monai_tl_bench_")

    def turn() -> tuple[float, str]:
        for checkpoint in Path(kept.name).glob("step-*"):
            checkpoint.unlink()
        progress = Timed("step", total=n_steps)
        arguments = (network, groups, strategy, sampler, lambda _: None, config, task.n_outputs, Path(kept.name))
        Trainer(*arguments, progress).run()
        (begun, begun_cpu), (ended, ended_cpu) = progress.at[first], progress.at[last]
        return ended - begun, processor_remark(ended_cpu - begun_cpu, task.n_steps)

    return turn


def monai_changes(kind: str) -> list[Any]:
    """MONAI's transforms: the tutorial's flips, or those of a preset of ours."""
    from monai import transforms as T

    from monai_tl.dataset.augmentation import PRESETS

    keys, mode = ("image", "label"), ("bilinear", "nearest")
    preset = PRESETS.get(kind)
    if preset is None:
        return [
            *(T.RandFlipd(keys, prob=0.5, spatial_axis=axis) for axis in range(3)),
            T.RandScaleIntensityd("image", factors=0.1, prob=0.5),
            T.RandShiftIntensityd("image", offsets=0.1, prob=0.5),
            T.RandGaussianNoised("image", prob=0.2, std=0.05),
        ]
    angle, zoom = preset.rotation_deg * 3.14159 / 180, preset.scale[1] - 1.0
    sigma, coarse = (0.0, preset.blur_vox), (1.0 / preset.low_resolution, 1.0)
    return [
        T.RandAffined(keys, prob=preset.p_spatial, rotate_range=[angle] * 3, scale_range=[zoom] * 3, mode=mode),
        *([T.RandGaussianSmoothd("image", sigma, sigma, sigma, prob=preset.p_blur)] if preset.p_blur else []),
        *(
            [T.RandSimulateLowResolutiond("image", prob=preset.p_low_resolution, zoom_range=coarse)]
            if preset.p_low_resolution
            else []
        ),
        T.RandScaleIntensityd("image", factors=preset.contrast, prob=preset.p_contrast),
        T.RandShiftIntensityd("image", offsets=0.05, prob=preset.p_brightness),
        T.RandAdjustContrastd("image", prob=preset.p_gamma, gamma=(1 / preset.gamma, preset.gamma)),
        T.RandGaussianNoised("image", prob=preset.p_noise, std=0.05),
    ]


def prepare_monai(task: Task, n_workers: int, kind: str) -> Turn:
    """CacheDataset, DataLoader, DiceCELoss, AdamW, as MONAI's spleen tutorial has them; an epoch a turn.

    Nothing is made ahead of a turn: its loader begins with the epoch.
    """
    import numpy as np
    import torch
    from monai import transforms as T
    from monai.data import CacheDataset, DataLoader
    from monai.losses import DiceCELoss

    network = _network(task, False)
    device = next(network.parameters()).device
    files = [{"image": np.load(f / "image.npy"), "label": np.load(f / "label.npy")[None]} for f in task.cases()]
    keys = ("image", "label")
    crop = T.RandCropByPosNegLabeld(
        keys, "label", spatial_size=task.patch, pos=2, neg=1, num_samples=1, image_key="image"
    )
    steps = [
        T.EnsureTyped(keys),
        T.SpatialPadd(keys, task.patch),
        crop,
        *monai_changes(kind),
        T.EnsureTyped(keys),
    ]
    # an epoch is a turn: the cases as often as it takes
    n_samples = task.n_steps * task.batch_size
    dataset = CacheDataset([files[i % len(files)] for i in range(n_samples)], T.Compose(steps), progress=False)
    loader = DataLoader(
        dataset, batch_size=task.batch_size, shuffle=True, num_workers=n_workers, persistent_workers=n_workers > 0
    )
    loss_function = DiceCELoss(include_background=False, to_onehot_y=True, softmax=True)
    optimiser = torch.optim.AdamW(network.parameters(), 1e-3, weight_decay=WEIGHT_DECAY)

    def batches() -> Iterator[tuple[Any, Any]]:
        return ((batch["image"].to(device), batch["label"].to(device)) for batch in loader)

    def epoch() -> None:
        network.train()
        for inputs, labels in batches():
            optimiser.zero_grad()
            loss = loss_function(network(inputs), labels)
            loss.backward()
            optimiser.step()
            loss.item()

    return lambda: timed(epoch, task.n_steps)
