"""bfloat16 against float32 on real hippocampi: what it saves, and whether Dice moves more than by a seed."""

from __future__ import annotations

from statistics import mean, stdev
from typing import Any

from benchmarks.hippocampus import KEPT, PATCH, Point, hippodeep_source, measure, workspace

TITLE = "Precision: what bfloat16 costs in Dice"
PACKAGES = ("torch", "monai", "numpy")
PRECISIONS = ("float32", "bfloat16")
SECONDS, N_LABELS, SEEDS = 30.0, "16", (0, 1, 2, 3)


def run(quick: bool) -> list[str]:
    root = KEPT / "quick" if quick else KEPT
    seconds, seeds = (6.0, (0, 1)) if quick else (SECONDS, SEEDS)
    good = hippodeep_source(root / "sources" / "hippodeep")
    folder = workspace(root, "hippodeep", {"source": str(good), "patch_size_vox": PATCH})
    points = {
        (precision, seed): Point(folder, N_LABELS, "lp_ft", seed, seconds, (("precision", precision),))
        for seed in seeds
        for precision in PRECISIONS
    }
    found = measure(root, points.values())
    results = {key: found[point] for key, point in points.items()}
    dice = {precision: [results[precision, seed]["mean"] for seed in seeds] for precision in PRECISIONS}
    n_steps = results[PRECISIONS[0], seeds[0]]["n_steps"]
    rows = [
        f"| {precision} | {', '.join(f'{value:.4f}' for value in dice[precision])} | {mean(dice[precision]):.4f} "
        f"| {stdev(dice[precision]):.4f} | {mean(_ms_a_step(results[precision, seed]) for seed in seeds):.0f} |"
        for precision in PRECISIONS
    ]
    return [
        f"hippodeep tuned (`lp_ft`) on {N_LABELS} labels, {n_steps} steps each, the same samples and order for a seed, "
        f"one thread; mean Dice of both classes over the same 40 test cases.",
        "\n".join(["| precision | Dice, by seed | mean | spread over seeds | processor ms a step |",
                   "|---|---|---:|---:|---:|", *rows]),
        _judge(dice["bfloat16"], dice["float32"]),
    ]  # fmt: skip


def _ms_a_step(result: dict[str, Any]) -> float:
    return 1000.0 * float(result["training_cpu_s"]) / float(result["n_steps"])


def _judge(half: list[float], single: list[float]) -> str:
    """The mean difference, seed by seed, against what another seed alone changes in float32."""
    difference = mean(a - b for a, b in zip(half, single, strict=True))
    noise = stdev(single)
    word = "within" if abs(difference) <= noise else "**beyond**"
    return f"- bfloat16 less float32: {difference:+.4f}, {word} what a seed changes in float32 ({noise:.4f})."
