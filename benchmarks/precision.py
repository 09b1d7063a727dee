"""What speed costs in Dice on real hippocampi: training in bfloat16, and the fast mode of prediction."""

from __future__ import annotations

from statistics import mean, stdev
from typing import Any

import numpy as np

from benchmarks.hippocampus import (
    KEPT,
    PATCH,
    SCRATCH_NETWORKS,
    Point,
    hippodeep_source,
    measure,
    model_of,
    workspace,
)

TITLE = "Precision: what speed costs in Dice"
PACKAGES = ("torch", "monai", "numpy")
WAYS: dict[str, tuple[tuple[str, Any], ...]] = {
    "float32": (("precision", "float32"),),
    "bfloat16": (("precision", "bfloat16"),),
    "bfloat16, compiled": (("compile", True), ("precision", "bfloat16")),
}
SECONDS, N_LABELS, SEEDS = 30.0, "16", (0, 1, 2, 3)
SMALL_PATCH = [24, 32, 24]
"""Smaller than every case along some axis, so that a case takes many windows."""


def run(quick: bool) -> list[str]:
    return [*_training(quick), *_prediction(quick)]


def _training(quick: bool) -> list[str]:
    root = KEPT / "quick" if quick else KEPT
    seconds, seeds = (6.0, (0, 1)) if quick else (SECONDS, SEEDS)
    good = hippodeep_source(root / "sources" / "hippodeep")
    folder = workspace(root, "hippodeep", {"source": str(good), "patch_size_vox": PATCH})
    points = {
        (way, seed): Point(folder, N_LABELS, "lp_ft", seed, seconds, changes)
        for seed in seeds
        for way, changes in WAYS.items()
    }
    found = measure(root, points.values())
    results = {key: found[point] for key, point in points.items()}
    dice = {way: [results[way, seed]["mean"] for seed in seeds] for way in WAYS}
    n_steps = results["float32", seeds[0]]["n_steps"]
    rows = [
        f"| {way} | {', '.join(f'{value:.4f}' for value in dice[way])} | {mean(dice[way]):.4f} "
        f"| {stdev(dice[way]):.4f} | {mean(_ms_a_step(results[way, seed]) for seed in seeds):.0f} |"
        for way in WAYS
    ]
    return [
        "### Training",
        f"hippodeep tuned (`lp_ft`) on {N_LABELS} labels, {n_steps} steps each, the same samples and order for a seed, "
        f"one thread; mean Dice of both classes over the same 40 test cases.",
        "\n".join(["| precision | Dice, by seed | mean | spread over seeds | processor ms a step |",
                   "|---|---|---:|---:|---:|", *rows]),
        "\n".join(_judge(way, dice[way], dice["float32"]) for way in WAYS if way != "float32"),
    ]  # fmt: skip


def _ms_a_step(result: dict[str, Any]) -> float:
    return 1000.0 * float(result["training_cpu_s"]) / float(result["n_steps"])


def _judge(way: str, half: list[float], single: list[float]) -> str:
    """The mean difference, seed by seed, against what another seed alone changes in float32."""
    difference = mean(a - b for a, b in zip(half, single, strict=True))
    noise = stdev(single)
    word = "within" if abs(difference) <= noise else "**beyond**"
    return f"- {way} less float32: {difference:+.4f}, {word} what a seed changes in float32 ({noise:.4f})."


def _prediction(quick: bool) -> list[str]:
    """Fast mode against exact, for a network whose windows see different statistics (instance normalisation)."""
    import os

    from monai_tl.config import PredictConfig
    from monai_tl.dataset.manifest import read_manifest
    from monai_tl.inference import load_models
    from monai_tl.records import Split
    from monai_tl.stages.curve_point import score_cases

    root = KEPT / "quick" if quick else KEPT
    plan = {"source": None, **SCRATCH_NETWORKS["MONAI UNet"], "patch_size_vox": SMALL_PATCH}
    folder = workspace(root, "unet-small-patches", plan)
    point = Point(folder, "all", "scratch", 0, 6.0 if quick else 120.0)
    measure(root, [point])
    model = model_of(root, point)
    manifest = read_manifest(folder / "artifacts/cases")
    test = Split.read(folder / "artifacts/split/split.json").test
    dice, n_windows = {}, {}
    for mode in ("exact", "fast"):
        settings = PredictConfig(mode=mode, n_threads=len(os.sched_getaffinity(0)))
        scores, failed = score_cases(folder, manifest, test, model, settings, mode)
        assert not failed, failed
        dice[mode] = [mean(value or 0.0 for value in scores[case]) for case in sorted(scores)]
        tiling = load_models([model], 1).tiling
        shapes = [np.load(folder / f"artifacts/prepared/{case}/image.npy", mmap_mode="r").shape[1:] for case in test]
        n_windows[mode] = mean(tiling(shape, settings).n_windows for shape in shapes)
    apart = [fast - exact for fast, exact in zip(dice["fast"], dice["exact"], strict=True)]
    word = "Met" if abs(mean(apart)) < 0.001 else "**Not met**"
    precision = load_models([model], 1).precision(PredictConfig(mode="fast"))[0]
    return [
        "### Prediction",
        f"MONAI's UNet (instance normalisation) from scratch on 160 cases, patch {' × '.join(map(str, SMALL_PATCH))}; "
        f"the same weights over {len(apart)} test cases in both modes. Fast computes in {precision} here.",
        "\n".join(
            ["| mode | windows a case | mean Dice |", "|---|---:|---:|"]
            + [f"| {mode} | {n_windows[mode]:.1f} | {mean(dice[mode]):.4f} |" for mode in dice]
        ),
        f"- {word}: mean Dice of fast less that of exact: {mean(apart):+.5f} (goal: within 0.001; case by case "
        f"{min(apart):+.4f} to {max(apart):+.4f}).",
    ]
