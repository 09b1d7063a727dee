"""nnU-Net v2 as a peer, in folders of its own: its planner, preprocessor and trainer as it runs them.

It is installed without its requirements; docs/decisions/0002-dependencies.md has the line.

``python -m benchmarks.nnunet VERB FOLDER``: verb ``plan`` (fingerprint and plan) or ``preprocess``.
"""

from __future__ import annotations

import atexit
import json
import os
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from benchmarks.training import Turn, timed

DATASET = "Dataset004_Hippocampus"
CONFIGURATION = "3d_fullres"
BATCH_SIZE = 9
"""Of the plan that nnU-Net makes for all 260 cases of the Decathlon's task."""


def set_folders(root: Path) -> None:
    """Before nnU-Net is imported: it reads them then."""
    for name, folder in (("raw", "raw"), ("preprocessed", "preprocessed"), ("results", "results")):
        (root / folder).mkdir(parents=True, exist_ok=True)
        os.environ[f"nnUNet_{name}"] = str(root / folder)


def write_raw(root: Path, pairs: Iterable[tuple[Path, Path]], labels: tuple[str, ...], channel: str) -> None:
    """A data set as nnU-Net wants it, of links to images and labels."""
    folder = root / "raw" / DATASET
    (folder / "imagesTr").mkdir(parents=True)
    (folder / "labelsTr").mkdir()
    n_pairs = 0
    for image, label in pairs:
        name = image.name.removesuffix(".nii.gz")
        (folder / "imagesTr" / f"{name}_0000.nii.gz").symlink_to(image)
        (folder / "labelsTr" / f"{name}.nii.gz").symlink_to(label)
        n_pairs += 1
    content = {
        "channel_names": {"0": channel},
        "labels": {name: value for value, name in enumerate(("background", *labels))},
        "numTraining": n_pairs,
        "file_ending": ".nii.gz",
    }
    (folder / "dataset.json").write_text(json.dumps(content))


def plan(root: Path, n_processes: int) -> None:
    """Fingerprint and plan."""
    set_folders(root)
    from nnunetv2.experiment_planning.plan_and_preprocess_api import (
        extract_fingerprint_dataset,
        plan_experiment_dataset,
    )

    extract_fingerprint_dataset(4, num_processes=n_processes, show_progress_bar=False, verbose=False)
    plan_experiment_dataset(4)


def preprocess(root: Path, n_processes: int) -> None:
    """What ``nnUNetv2_preprocess -d 4 -c 3d_fullres -np N`` does."""
    set_folders(root)
    from nnunetv2.experiment_planning.plan_and_preprocess_api import preprocess_dataset

    preprocess_dataset(4, configurations=(CONFIGURATION,), num_processes=(n_processes,), show_progress_bar=False)


def plans_file(root: Path) -> Path:
    return root / "preprocessed" / DATASET / "nnUNetPlans.json"


def set_batch_size(root: Path, batch_size: int) -> dict[str, Any]:
    """Change the plan's batch, and give the configuration."""
    content = json.loads(plans_file(root).read_text())
    configuration: dict[str, Any] = content["configurations"][CONFIGURATION]
    configuration["batch_size"] = batch_size
    plans_file(root).write_text(json.dumps(content))
    return configuration


def prepare_trainer(root: Path, n_steps: int, n_threads: int, n_drain: int) -> Turn:
    """Its trainer's own steps on what its own loader gives: deep supervision, SGD, its augmentation, its processes.

    While others have their turn its processes fill two queues of at least 6 batches each and hold one in hand each.
    With steps much longer than a batch takes to make, a turn still makes about as many as it uses: the queues are full
    before it and, but for the last one or two, after it. With fast steps that is not so, hence ``n_drain`` steps before
    the clock starts.
    """
    set_folders(root)
    # as many as it takes where it knows nothing of a machine, which its own limit brings down to the cores
    os.environ.pop("nnUNet_n_proc_DA", None)
    import torch
    from nnunetv2.run.run_training import get_trainer_from_args

    # as its own entry point sets them, but for the number of cores
    torch.set_num_threads(n_threads)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    trainer = get_trainer_from_args("4", CONFIGURATION, 0, device=device)
    trainer.plot_network_architecture = lambda: None
    trainer.on_train_start()
    trainer.on_epoch_start()
    trainer.on_train_epoch_start()
    for loader in (trainer.dataloader_train, trainer.dataloader_val):
        atexit.register(getattr(loader, "_finish", lambda: None))

    def steps(count: int) -> None:
        for _ in range(count):
            trainer.train_step(next(trainer.dataloader_train))

    def turn() -> tuple[float, str]:
        steps(n_drain)
        return timed(lambda: steps(n_steps), n_steps)

    return turn


if __name__ == "__main__":
    {"plan": plan, "preprocess": preprocess}[sys.argv[1]](Path(sys.argv[2]), len(os.sched_getaffinity(0)))
