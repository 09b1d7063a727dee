"""What speed costs in Dice on real hippocampi: training in bfloat16, and the fast mode of prediction."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from statistics import mean, stdev
from typing import Any, NamedTuple

import numpy as np

from benchmarks.hippocampus import (
    KEPT,
    PATCH,
    SCRATCH_NETWORKS,
    Point,
    curve_point_of,
    hippodeep_source,
    measure,
    model_of,
    workspace,
)
from monai_tl.config import PredictConfig
from monai_tl.dataset.patches import TrainingCase
from monai_tl.fast_records import WINDOWS, FastRecord
from monai_tl.inference import Predictor, load_models
from monai_tl.progress import Progress
from monai_tl.records import Split
from monai_tl.stages.fast_trial import try_fast_mode

TITLE = "Precision: what speed costs in Dice"
PACKAGES = ("torch", "monai", "numpy")
WAYS: dict[str, tuple[tuple[str, Any], ...]] = {
    "float32": (("precision", "float32"),),
    "bfloat16": (("precision", "bfloat16"),),
    "bfloat16, compiled": (("compile", True), ("precision", "bfloat16")),
}
SECONDS, N_LABELS, SEEDS = 30.0, "16", (0, 1, 2, 3)
SMALL_PATCH = [24, 32, 24]
N_TRAINED = "152"
"""Of the 160 cases; the others are there to try fast mode on."""


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
    """Fast mode against exact, with networks that were trained on patches smaller than a case."""
    root = KEPT / "quick" if quick else KEPT
    found = {norm: _fast_of(root, norm, 6.0 if quick else 120.0) for norm in ("instance", "batch")}
    size = " × ".join(map(str, SMALL_PATCH))
    n_test = len(found["instance"][0][0].dice)
    lines = [
        "| normalisation | windows | numbers | windows a case | mean Dice | less exact | time of exact's | "
        "on validation cases |",
        "|---|---|---|---:|---:|---:|---:|---|",
    ]
    verdicts = []
    for norm, (rows, allowed) in found.items():
        exact = rows[0]
        for row in rows:
            apart = mean(row.dice) - mean(exact.dice)
            word = "" if row is exact else _describe_trial(allowed, row)
            lines.append(
                f"| {norm} | {row.windows} | {row.precision} | {row.n_windows:.1f} | {mean(row.dice):.4f} "
                f"| {apart:+.5f} | {row.seconds / exact.seconds:.2f} | {word} |"
            )
        held = next(row for row in rows[1:] if (row.windows, row.precision) == (allowed.windows, allowed.precision))
        cases = [a - b for a, b in zip(held.dice, exact.dice, strict=True)]
        word = "Met" if abs(mean(cases)) < 0.001 else "**Not met**"
        verdicts.append(
            f"- {word}, {norm} normalisation: mean Dice of fast less that of exact: {mean(cases):+.5f} (goal: within "
            f"0.001; case by case {min(cases):+.4f} to {max(cases):+.4f}), at {exact.seconds / held.seconds:.2f} times "
            "the speed of exact."
        )
    return [
        "### Prediction",
        f"MONAI's UNet from scratch on {N_TRAINED} cases, patch {size}, smaller than a case, so that a case takes "
        f"many windows; the same weights over the same {n_test} test cases each way. What fast mode may do was decided "
        "on the cases that neither training nor test has (`fast.json`, docs/inference.md); the other ways are there to "
        "see what they would have cost. Time: all test cases, one after the other, two threads.",
        "\n".join(lines),
        "\n".join(verdicts),
    ]


class _Way(NamedTuple):
    windows: str
    precision: str
    n_windows: float
    dice: list[float]
    seconds: float


def _fast_of(root: Path, norm: str, seconds: float) -> tuple[list[_Way], FastRecord]:
    from monai_tl.dataset.patches import load_case

    network = SCRATCH_NETWORKS["MONAI UNet"]["network"]
    network = network | {"arguments": network["arguments"] | {"norm": norm}}
    plan = {"source": None, "network": network, "patch_size_vox": SMALL_PATCH}
    folder = workspace(root, f"unet-small-patches-{norm}", plan)
    point = Point(folder, N_TRAINED, "scratch", 0, seconds)
    measure(root, [point])
    split = Split.read(folder / "artifacts/split/split.json")
    fold = split.folds[0]
    seen = {*curve_point_of(root, point).case_ids}
    unseen = [case for case in sorted((*fold.train, *fold.val)) if case not in seen]
    prepared = folder / "artifacts/prepared"
    predictor = load_models([model_of(root, point)], len(os.sched_getaffinity(0)))
    allowed = try_fast_mode(predictor, [load_case(prepared / case) for case in unseen], Progress("fast mode"))
    assert allowed is not None
    test = [load_case(prepared / case) for case in split.test]
    precision = predictor.precision(PredictConfig(mode="fast"))[0]
    ways = [_pass(predictor, test, "exact", PredictConfig())]
    for windows in WINDOWS:
        record = FastRecord(windows=windows, precision=precision)
        ways.append(_pass(replace(predictor, fast=record), test, windows, PredictConfig(mode="fast")))
    if allowed.precision != precision:
        ways.append(_pass(replace(predictor, fast=allowed), test, allowed.windows, PredictConfig(mode="fast")))
    return ways, allowed


def _pass(predictor: Predictor, cases: Sequence[TrainingCase], windows: str, config: PredictConfig) -> _Way:
    """Labels of all cases on the plan's grid; the fastest of three rounds."""
    spent = []
    for _ in range(3):
        started = time.perf_counter()
        labels = [_label(predictor, case, config) for case in cases]
        spent.append(time.perf_counter() - started)
    dice = [
        mean(_dice(np.asarray(case.label) == k, label == k) for k in range(1, 3))
        for case, label in zip(cases, labels, strict=True)
    ]
    shapes = [np.asarray(case.label).shape for case in cases]
    n_windows = mean(predictor.tiling((i, j, k), config).n_windows for i, j, k in shapes)
    return _Way(windows, predictor.precision(config)[0], n_windows, dice, min(spent))


def _label(predictor: Predictor, case: TrainingCase, config: PredictConfig) -> Any:
    label = np.empty(case.label.shape, np.uint8)
    for slab in predictor.stream(case.image, config):
        planes = slice(slab.start, slab.start + slab.values.shape[1 + slab.axis])
        label[(*[slice(None)] * slab.axis, planes)] = slab.values.argmax(axis=0)
    return label


def _dice(reference: Any, prediction: Any) -> float:
    return 2.0 * float((reference & prediction).sum()) / float(reference.sum() + prediction.sum())


def _describe_trial(allowed: FastRecord, row: _Way) -> str:
    for trial in allowed.trials:
        if (trial.windows, trial.precision) == (row.windows, row.precision):
            word = "allowed" if trial.is_within else "refused"
            return f"{word}: {trial.difference:+.5f} ± {trial.standard_error:.5f} ({trial.n_cases} cases)"
    return "not tried"
