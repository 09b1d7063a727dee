"""The engine against its peers: samples a second on nnU-Net's network, the share of the limit, features, preparing."""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from benchmarks.common import (
    HINT_NNUNET,
    PARTS_VARIABLE,
    SHARED,
    Contestant,
    Worker,
    contestant,
    entered,
    goals,
    number,
    ratio,
    table,
    take_turns,
)
from benchmarks.training import Task, prepare_limit, prepare_monai, prepare_ours

TITLE = "The engine: training and preparing against nnU-Net and MONAI"
PACKAGES = ("torch", "monai", "nnunetv2", "batchgenerators", "batchgeneratorsv2", "numpy", "scipy")
PATCH = (40, 56, 40)
NETWORK: dict[str, Any] = {
    "n_stages": 4,
    "features_per_stage": [32, 64, 128, 256],
    "kernel_sizes": [[3, 3, 3]] * 4,
    "strides": [[1, 1, 1], [2, 2, 2], [2, 2, 2], [2, 2, 2]],
    "n_conv_per_stage": [2, 2, 2, 2],
    "n_conv_per_stage_decoder": [2, 2, 2],
    "conv_op": "torch.nn.modules.conv.Conv3d",
    "conv_bias": True,
    "norm_op": "torch.nn.modules.instancenorm.InstanceNorm3d",
    "norm_op_kwargs": {"eps": 1e-05, "affine": True},
    "dropout_op": None,
    "dropout_op_kwargs": None,
    "nonlin": "torch.nn.LeakyReLU",
    "nonlin_kwargs": {"inplace": True},
}
"""Of nnU-Net's plan ``3d_fullres`` for the Decathlon's hippocampus; that the planner says so is checked."""
STEPS_CUDA = (100, 40)
"""Of a turn on a GPU, and before them to use up what was made ahead: ours has 3 batches, nnU-Net two queues of 6 and
one in the hands of each of up to 16 processes."""


def run(quick: bool) -> list[str]:
    """All sections, or those that ``MONAI_TL_BENCH_PARTS`` names."""
    from benchmarks.preparing import run_preparing

    parts = {"samples": run_samples, "presets": run_presets, "features": run_features, "preparing": run_preparing}
    wanted = (os.environ.get(PARTS_VARIABLE) or ",".join(parts)).split(",")
    if unknown := sorted(set(wanted) - set(parts)):
        sys.exit(f"{PARTS_VARIABLE}: no part is called {', '.join(unknown)}; there are {', '.join(parts)}")
    if not (SHARED / "data" / "hippocampus").is_dir():
        return ["Needs the hippocampus images (`MONAI_TL_SHARED`), which are not here."]
    blocks: list[str] = []
    with tempfile.TemporaryDirectory(prefix="monai_tl_bench_") as name:
        root = Path(name)
        # of all contestants, each in a process of its own
        os.environ.setdefault("TORCHINDUCTOR_CACHE_DIR", str(root / "code"))
        task = make_task(root, quick)
        for part in wanted:
            blocks += parts[part](root, task, quick)
    return blocks


def make_task(root: Path, quick: bool) -> Task:
    """Real hippocampi as the preprocess stage leaves them, and nnU-Net's network, patch and batch."""
    import torch

    from benchmarks.nnunet import BATCH_SIZE
    from monai_tl.config import NetworkConfig

    n_steps, n_drain = STEPS_CUDA if torch.cuda.is_available() else (4, 0)
    return Task(
        folder=prepare_cases(root, 16 if quick else None),
        network=NetworkConfig(name="nnunet_plain", arguments=NETWORK),
        n_outputs=3,
        patch=PATCH,
        spacing_mm=(1.0, 1.0, 1.0),
        batch_size=2 if quick else BATCH_SIZE,
        n_threads=len(os.sched_getaffinity(0)),
        n_steps=2 if quick else n_steps,
        n_drain=0 if quick else n_drain,
        augmentation="strong",
        precision="bfloat16",
    )


def hippocampi(n_cases: int | None) -> list[tuple[Path, Path]]:
    """Images and labels, spread over the data set."""
    source = SHARED / "data" / "hippocampus"
    images = sorted((source / "images").glob("*.nii.gz"))
    chosen = images if n_cases is None else images[:: len(images) // n_cases][:n_cases]
    return [(image, source / "labels" / image.name) for image in chosen]


def prepare_cases(root: Path, n_cases: int | None) -> Path:
    """Arrays of the same values as nnU-Net prepares: zero mean, unit variance, at 1 mm."""
    import numpy as np

    from monai_tl.dataset.nifti import read_image, read_label

    folder = root / "prepared"
    for image_path, label_path in hippocampi(n_cases):
        image = np.asarray(read_image(image_path)[0], dtype=np.float32)
        case = folder / f"case-{image_path.name.removesuffix('.nii.gz')}"
        case.mkdir(parents=True)
        np.save(case / "image.npy", ((image - image.mean()) / image.std())[np.newaxis])
        np.save(case / "label.npy", read_label(label_path)[0].astype(np.uint8))
    return folder


def run_samples(root: Path, task: Task, quick: bool) -> list[str]:
    """Samples a second of all who train."""
    compiled = replace(task, is_compiled=True)
    contestants = [
        contestant("limit, compiled", "limit", prepare_limit, compiled, note="bfloat16"),
        contestant("monai_tl, compiled", "ours", prepare_ours, compiled, note="bfloat16, preset strong"),
        contestant("limit", "other", prepare_limit, task, note="bfloat16"),
        contestant("monai_tl", "other", prepare_ours, task, note="bfloat16, preset strong"),
        contestant("limit, float32", "other", prepare_limit, replace(task, precision="float32")),
        contestant("monai_tl, float32", "other", prepare_ours, replace(task, precision="float32")),
        _nnunet_trainer(root, task, quick),
        contestant("MONAI loop", "peer", prepare_monai, task, 0, "flips", note="its tutorial's changes"),
        contestant("MONAI loop, 2 workers", "peer", prepare_monai, task, 2, "flips", note="its tutorial's changes"),
        contestant("MONAI loop, our changes", "peer", prepare_monai, task, 0, task.augmentation),
    ]
    times = take_turns(contestants, 2 if quick else 4, budget_s=60.0 if quick else 900.0)
    size = " × ".join(map(str, task.patch))
    return [
        "### Samples a second",
        f"nnU-Net's own network for the hippocampus ({CONFIGURATION_WORDS}), batch {task.batch_size} of {size}, "
        f"{len(task.cases())} real cases, {task.n_threads} threads for each, {task.n_steps} steps a turn"
        f"{f', {task.n_drain} before them that are not timed' if task.n_drain else ''}, each "
        "contestant in a process of its own. nnU-Net: `nnUNetTrainer.train_step` on its own loader (deep supervision, "
        "SGD, its augmentation in as many processes as it starts by itself). MONAI: CacheDataset, DataLoader, AdamW, "
        "float32, network as built. Ours: `Trainer.run`; compiled (`finetune.compile`): without what "
        "compiling takes, a minute the first time.",
        table(contestants, times, "ms a sample", task.n_steps * task.batch_size),
        goals(contestants, times, {"nnU-Net": 3.0, "MONAI loop": 2.0, "MONAI loop, our changes": 2.0}),
    ]


CONFIGURATION_WORDS = "3d_fullres: PlainConvUNet, 32 to 256 features, 4 levels"


def _nnunet_trainer(root: Path, task: Task, quick: bool) -> Contestant:
    from benchmarks import nnunet

    if find_spec("nnunetv2") is None:
        return Contestant("nnU-Net", "peer", None, HINT_NNUNET)
    from benchmarks.processes import python_environment, python_line, watch

    def make() -> Worker:
        folder = root / "nnunet"
        nnunet.write_raw(folder, hippocampi(16 if quick else None), ("anterior", "posterior"), "MRI")
        for verb in ("plan", "preprocess"):
            watch([python_line("benchmarks.nnunet", verb, folder)], python_environment())
        configuration = nnunet.set_batch_size(folder, task.batch_size)
        found = configuration["architecture"]["arch_kwargs"]
        if configuration["patch_size"] != list(task.patch) or any(found[key] != NETWORK[key] for key in NETWORK):
            raise RuntimeError("nnU-Net has planned another network or patch than is measured here")
        return Worker(nnunet.prepare_trainer, folder, task.n_steps, task.n_threads, task.n_drain)

    return entered("nnU-Net", "peer", make)


def run_presets(root: Path, task: Task, quick: bool) -> list[str]:
    """Whether data ever make the network wait."""
    rows = [
        "| precision | preset | limit, ms a step | ours, ms a step | rate by the limit's |",
        "|---|---|---:|---:|---:|",
    ]
    for words, changes in {
        "float32": {"precision": "float32"},
        "bfloat16": {"precision": "bfloat16"},
        "bfloat16, compiled": {"precision": "bfloat16", "is_compiled": True},
    }.items():
        settings = replace(task, **changes)
        contestants = [
            contestant("limit", "limit", prepare_limit, settings),
            *(
                contestant(preset, "ours", prepare_ours, replace(settings, augmentation=preset))
                for preset in ("none", "light", "elastic", "strong")
            ),
        ]
        times = take_turns(contestants, 2 if quick else 5, budget_s=40.0 if quick else 400.0)
        bare = sorted(times["limit"])[len(times["limit"]) // 2] * 1000 / task.n_steps
        for one in contestants[1:]:
            mine = sorted(times[one.name])[len(times[one.name]) // 2] * 1000 / task.n_steps
            share = ratio(times, "limit", one.name)
            text = f"{share:.1%}" if share >= 0.95 else f"**{share:.1%}**"
            rows.append(f"| {words} | {one.name} | {number(bare)} | {number(mine)} | {text} |")
    return [
        "### Share of the bare rate",
        "The same network and batch; limit: forward, backward and step on one batch in memory. Goal: 95 %.",
        "\n".join(rows),
    ]


def run_features(root: Path, task: Task, quick: bool) -> list[str]:
    """A step on kept features against a step of everything; a turn passes each case at least once."""
    n_cases = 4 if quick else 16
    folder = root / "few"
    for case in task.cases()[:n_cases]:
        shutil.copytree(case, folder / case.name)
    n_steps = max(n_cases // 2 - 1, 0 if quick else task.n_steps)
    few = replace(task, folder=folder, batch_size=2, n_steps=n_steps, augmentation="none")
    contestants = [
        contestant("full", "peer", prepare_ours, few),
        contestant("feature_extraction", "ours", prepare_ours, replace(few, strategy="feature_extraction")),
    ]
    times = take_turns(contestants, 2 if quick else 4, budget_s=200.0)
    return [
        "### feature_extraction's epoch against full's",
        f"{n_cases} cases, batch 2; features are kept from the first epoch on, which is not counted. Goal: 10 times.",
        table(contestants, times, "ms a sample", few.n_steps * few.batch_size),
        goals(contestants, times, {"full": 10.0}),
    ]
