"""Preparing a cohort: our stage preprocess against nnU-Net's, each as a command, with its memory."""

from __future__ import annotations

import gc
import os
import shutil
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from benchmarks.common import HINT_NNUNET, Contestant, entered, goals, judged, table, take_turns
from benchmarks.processes import CommandLine, python_environment, python_line, watch
from benchmarks.training import Task

SPACING_MM = (1.5, 0.8, 0.8)
"""Of the large volumes, slices last; both are asked for (2.0, 1.2, 1.2)."""
TARGET_MM = (2.0, 1.2, 1.2)


class Preparing:
    """Takes turns as a worker does: a command on the same input, its output removed before each turn."""

    def __init__(self, line: CommandLine, out: Sequence[Path]) -> None:
        self.line, self.out = line, out
        self.remark = ""
        self.facts: dict[str, str] = {}
        self.peak, self.sum_of_peaks = 0, 0

    def turn(self) -> float:
        for path in self.out:
            shutil.rmtree(path, ignore_errors=True)
        os.sync()
        before = os.times()
        seen = watch([self.line], python_environment())
        after = os.times()
        spent = after.children_user + after.children_system - before.children_user - before.children_system
        self.remark = f"{spent:.1f} s of processor"
        self.peak, self.sum_of_peaks = max(self.peak, seen.peaks[0]), max(self.sum_of_peaks, sum(seen.peaks))
        self.facts["largest process, MB"] = f"{self.peak / 1e6:.0f}"
        self.facts["all processes, MB"] = f"{self.sum_of_peaks / 1e6:.0f}"
        return seen.wall_s

    def close(self) -> None:
        """Nothing waits."""


def run_preparing(root: Path, task: Task, quick: bool) -> list[str]:
    """200 hippocampi, and volumes of 512 x 512 x 150."""
    from benchmarks.engine import hippocampi

    if find_spec("nnunetv2") is None:
        return ["### Preparing", f"nnU-Net is {HINT_NNUNET}, so nothing is compared."]
    blocks = [
        "### Preparing",
        "From ingested NIfTI to arrays on the plan's grid, labels included: `monai-tl stage preprocess` with an empty "
        "case cache (it also hashes its inputs, writes a copy for the cache and waits for the disk) against "
        "`nnUNetv2_preprocess -c 3d_fullres`, which keeps blosc2 files; each a fresh command, a process a core. Plans "
        "are made before. Memory: sums of each process's greatest resident size. Where the grid changes the two do not "
        "do the same work: ours resamples linearly after a Gaussian that stands for the coarser voxel "
        "(monai_tl/dataset/resampling.py), nnU-Net by cubic splines (order 3, its default) without one; its row of "
        "order 1 has the plan's `resampling_fn_data_kwargs` changed to linear, still without one. Labels follow class "
        "by class, ours as the image does, nnU-Net's with order 1 in both rows.",
    ]
    pairs = hippocampi(16 if quick else None)
    blocks += _compare(root / "small", pairs, f"{len(pairs)} hippocampi at 1 mm", 2 if quick else 3, None)
    n_large, size, n_slices = (4, 96, 40) if quick else (20, 512, 150)
    large = write_large(root / "volumes", n_large, size, n_slices)
    words = f"{n_large} volumes of {size} x {size} x {n_slices} to {' x '.join(map(str, TARGET_MM[::-1]))} mm"
    return blocks + _compare(root / "large", large, words, 2, TARGET_MM)


def write_large(folder: Path, n_volumes: int, size: int, n_slices: int) -> list[tuple[Path, Path]]:
    """CT-like volumes, int16, and labels of two ellipsoids: smooth shapes in noise, each of a seed of its own."""
    import nibabel as nib
    import numpy as np

    folder.mkdir(parents=True)
    affine = np.diag([*SPACING_MM[::-1], 1.0])
    pairs = []
    i, j, k = np.ogrid[:size, :size, :n_slices]
    for number in range(n_volumes):
        generator = np.random.default_rng(number)
        image = generator.normal(-900.0, 30.0, (size, size, n_slices)).astype(np.float32)
        label = np.zeros(image.shape, dtype=np.uint8)
        shapes = ((0.40, 1050.0, 0), (0.15, 120.0, 1), (0.06, 150.0, 2))
        for share, rise, value in shapes:
            centre = generator.uniform(0.45, 0.55, 3)
            radii = np.array([size, size, n_slices]) * share
            terms = ((axis - c * n) / r for axis, c, n, r in zip((i, j, k), centre, image.shape, radii, strict=True))
            inside = sum(term**2 for term in terms) < 1.0
            image[inside] += np.float32(rise)
            if value:
                label[inside] = value
        name = f"large_{number:03d}.nii.gz"
        paths = (folder / "images" / name, folder / "labels" / name)
        for path, values in zip(paths, (image.astype(np.int16), label), strict=True):
            path.parent.mkdir(exist_ok=True)
            nib.save(nib.Nifti1Image(values, affine), path)
        pairs.append(paths)
        del image, label
        gc.collect()
    return pairs


def _compare(
    root: Path, pairs: list[tuple[Path, Path]], words: str, n_rounds: int, spacing_mm: tuple[float, ...] | None
) -> list[str]:
    ours = _ours(root / "ours", pairs, spacing_mm)
    contestants = [
        Contestant("monai_tl", "ours", ours.turn, worker=ours),
        entered("nnU-Net", "peer", lambda: _nnunet(root / "nnunet", pairs, spacing_mm)),
    ]
    # on the same grid nothing is resampled
    if spacing_mm is not None:
        linear = entered("nnU-Net, order 1", "peer", lambda: _nnunet(root / "nnunet_1", pairs, spacing_mm, order=1))
        contestants.append(linear)
    times = take_turns(contestants, n_rounds, budget_s=900.0)
    lines = [goals(contestants, times, {one.name: 3.0 for one in contestants[1:]})]
    for one in contestants[1:]:
        if one.name in times and isinstance(one.worker, Preparing):
            memory = ours.sum_of_peaks / one.worker.sum_of_peaks
            lines.append(judged(memory <= 1.0, f"{memory:.2f} of the memory of {one.name} (goal: no more)"))
    shutil.rmtree(root)
    return [f"**{words}**", table(contestants, times), "\n".join(lines)]


def _ours(root: Path, pairs: list[tuple[Path, Path]], spacing_mm: tuple[float, ...] | None) -> Preparing:
    """A workspace up to its plan."""
    import yaml

    from benchmarks.engine import NETWORK, PATCH
    from monai_tl.commands import key

    data = _write_decathlon(root / "data", pairs)
    key_file = root.parent / "key"
    key.run(key_file, seed=0)
    content: dict[str, Any] = {
        "ingest": {
            "source": str(data),
            "layout": "decathlon",
            "key_file": str(key_file),
            "classes": [{"name": name, "values": [value]} for value, name in enumerate(("first", "second"), start=1)],
        },
        "split": {"n_folds": 2, "test_fraction": 0.2},
        "plan": {
            "source": None,
            "network": {"name": "nnunet_plain", "arguments": NETWORK},
            "patch_size_vox": list(PATCH),
            "intensity": {"rule": "zscore"},
            **({} if spacing_mm is None else {"spacing_mm": list(spacing_mm[::-1])}),
        },
        "finetune": {"arms": ["scratch"]},
    }
    folder = root / "workspace"
    folder.mkdir()
    (folder / "params.yaml").write_text(yaml.safe_dump(content))
    for stage in ("ingest", "split", "plan"):
        watch([python_line("monai_tl", "stage", stage, "-w", folder)], python_environment())
    line = python_line("monai_tl", "stage", "preprocess", "-w", folder)
    return Preparing(line, (folder / "artifacts/prepared", folder / ".monai_tl"))


def _write_decathlon(folder: Path, pairs: list[tuple[Path, Path]]) -> Path:
    import json

    listed = []
    for kind in ("imagesTr", "labelsTr"):
        (folder / kind).mkdir(parents=True)
    for image, label in pairs:
        shutil.copyfile(image, folder / "imagesTr" / image.name)
        shutil.copyfile(label, folder / "labelsTr" / image.name)
        listed.append({"image": f"./imagesTr/{image.name}", "label": f"./labelsTr/{image.name}"})
    content = {
        "name": "Benchmark",
        "modality": {"0": "MRI"},
        "labels": {"0": "background", "1": "first", "2": "second"},
        "training": listed,
        "numTraining": len(listed),
    }
    (folder / "dataset.json").write_text(json.dumps(content))
    return folder


def _nnunet(
    root: Path, pairs: list[tuple[Path, Path]], spacing_mm: tuple[float, ...] | None, order: int | None = None
) -> Preparing:
    """A folder up to its plan; ``order`` is of the splines for images, its own choice if None."""
    import json

    from benchmarks import nnunet

    nnunet.write_raw(root, pairs, ("first", "second"), "MRI")
    watch([python_line("benchmarks.nnunet", "plan", root)], python_environment())
    file = nnunet.plans_file(root)
    content = json.loads(file.read_text())
    configuration = content["configurations"][nnunet.CONFIGURATION]
    if spacing_mm is not None:
        configuration["spacing"] = list(spacing_mm)
    if order is not None:
        configuration["resampling_fn_data_kwargs"]["order"] = order
    file.write_text(json.dumps(content))
    line = python_line("benchmarks.nnunet", "preprocess", root)
    return Preparing(line, (root / "preprocessed" / nnunet.DATASET / f"nnUNetPlans_{nnunet.CONFIGURATION}",))
