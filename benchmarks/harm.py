"""Starts that must never be called a gain, and twins that must be called null."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from benchmarks.common import ROOT, SHARED
from benchmarks.hippocampus import KEPT, PATCH, Point, hippodeep_source, measure, workspace

TITLE = "Harm is found: bad starts on real hippocampi"
PACKAGES = ("torch", "monai", "numpy", "scipy")
SECONDS, N_LABELS, SEEDS = 60.0, "16", (0, 1, 2)


def run(quick: bool) -> list[str]:
    root = KEPT / "quick" if quick else KEPT
    seconds, seeds = (6.0, (0,)) if quick else (SECONDS, SEEDS)
    folders = _folders(root)
    points = {
        (name, arm, seed): Point(folder, N_LABELS, arm, seed, seconds)
        for name, folder in folders.items()
        for arm in ("lp_ft", "scratch")
        for seed in seeds
    }
    found = measure(root, points.values())
    results = {key: found[point] for key, point in points.items()}
    lines = ["| start | tuned | twin | verdict | difference |", "|---|---:|---:|---|---|"]
    verdicts = {}
    for name in folders:
        verdict = _verdict({key[1:]: one for key, one in results.items() if key[0] == name}, seeds)
        verdicts[name] = verdict.verdict
        means = [sum(results[name, arm, seed]["mean"] for seed in seeds) / len(seeds) for arm in ("lp_ft", "scratch")]
        interval = (
            "" if verdict.low is None else f"{verdict.difference:+.3f} ({verdict.low:+.3f} to {verdict.high:+.3f})"
        )
        lines.append(f"| {name} | {means[0]:.3f} | {means[1]:.3f} | {verdict.verdict} | {interval} |")
    bad = [name for name in folders if name != "as published" and verdicts[name] == "gain"]
    return [
        f"{N_LABELS} labels, {seconds:.0f} s of training an arm, seeds {', '.join(map(str, seeds))}; verdict over the "
        "40 test patients and the seeds, paired.",
        "\n".join(lines),
        f"- **Called a gain: {', '.join(bad)}.**" if bad else "- None of the bad starts is called a gain.",
    ]


def _folders(root: Path) -> dict[str, Path]:
    plan: dict[str, Any] = {"patch_size_vox": PATCH}
    good = hippodeep_source(root / "sources" / "hippodeep")
    shuffled = hippodeep_source(root / "sources" / "shuffled", _shuffle)
    flipped = hippodeep_source(root / "sources" / "flipped", orientation="LAS")
    meshnet = _meshnet(root / "sources" / "meshnet")
    return {
        "as published": workspace(root, "hippodeep", {"source": str(good), **plan}),
        "weights shuffled within each tensor": workspace(root, "shuffled", {"source": str(shuffled), **plan}),
        "left and right flipped": workspace(root, "flipped", {"source": str(flipped), **plan}),
        "meshnet18 on crops": workspace(
            root, "meshnet", {"source": str(meshnet), "accept_broken": ["field of view"], **plan}
        ),
    }


def _shuffle(tensors: dict[str, Any]) -> dict[str, Any]:
    import torch

    generator = torch.Generator().manual_seed(0)
    return {
        name: tensor.flatten()[torch.randperm(tensor.numel(), generator=generator)].reshape(tensor.shape)
        for name, tensor in sorted(tensors.items())
    }


def _meshnet(folder: Path) -> Path:
    import shutil

    folder.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(ROOT / "examples" / "meshnet" / "card.yaml", folder / "card.yaml")
    shutil.copyfile(SHARED / "weights" / "meshnet18" / "weights.safetensors", folder / "weights.safetensors")
    return folder


def _verdict(results: dict[tuple[str, int], dict[str, Any]], seeds: tuple[int, ...]) -> Any:
    import numpy as np

    from monai_tl.transfer.verdict import judge

    cases = sorted(results["lp_ft", seeds[0]]["cases"])
    differences = np.array(
        [
            [results["lp_ft", seed]["cases"][case] - results["scratch", seed]["cases"][case] for seed in seeds]
            for case in cases
        ]
    )
    return judge(differences, cases, 5000, 0.95, 0.01, 0)
