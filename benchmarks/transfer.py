"""Labels and what they are worth: hippodeep tuned on real hippocampi against networks from scratch in the same time."""

from __future__ import annotations

from typing import Any

from benchmarks.hippocampus import KEPT, PATCH, SCRATCH_NETWORKS, Point, hippodeep_source, measure, workspace

TITLE = "Transfer: Dice against labels on real hippocampi"
PACKAGES = ("torch", "monai", "numpy", "scipy")
SECONDS, SECONDS_ALL = 180.0, 1800.0
"""Of training: for up to 64 labels, and for all 160."""
GOALS = {"4": 0.84, "16": 0.87, "all": 0.885}


def run(quick: bool) -> list[str]:
    root = KEPT / "quick" if quick else KEPT
    labels = ["4", "8"] if quick else ["4", "8", "16", "32", "64"]
    seconds = 6.0 if quick else SECONDS
    source = hippodeep_source(root / "sources" / "hippodeep")
    tuned = workspace(root, "hippodeep", {"source": str(source), "patch_size_vox": PATCH})
    scratch = {name: workspace(root, f"scratch {name}", {"source": None, **plan}) for name, plan in _networks(quick)}
    points = {("hippodeep tuned", n): Point(tuned, n, "auto", 0, seconds) for n in labels}
    if not quick:
        points["hippodeep tuned", "all"] = Point(tuned, "all", "auto", 0, SECONDS_ALL)
    for name, folder in scratch.items():
        points |= {(name, n): Point(folder, n, "scratch", 0, seconds) for n in (*labels, "all")}
    found = measure(root, points.values())
    results = {key: found[point] for key, point in points.items()}
    names = ["hippodeep tuned", *scratch]
    return [
        "Mean Dice (anterior, posterior) on 40 cases that no training sees; labels are drawn by seed 0 from the other "
        f"160, the fewer among the more. Each training takes {seconds:.0f} s on this machine, as many optimiser steps "
        f"as fit (tuned with all labels: {SECONDS_ALL:.0f} s); no label is kept for validation, the averaged weights "
        "of the last step count. Same loss, augmentation, rates and average for all.",
        _table(names, results),
        *_judge(results, list(scratch)),
    ]


def _networks(quick: bool) -> list[tuple[str, dict[str, Any]]]:
    return list(SCRATCH_NETWORKS.items())[: 1 if quick else None]


def _table(names: list[str], results: dict[tuple[str, str], dict[str, Any]]) -> str:
    labels = list(dict.fromkeys(n for _, n in results))
    lines = [f"| labels | {' | '.join(names)} |", "|---" * (len(names) + 1) + "|"]
    for n in labels:
        cells = []
        for name in names:
            one = results.get((name, n))
            cells.append(
                ""
                if one is None
                else f"{one['mean']:.3f} ({one['classes'][0]:.3f}, {one['classes'][1]:.3f}), {_how(one)}"
            )
        lines.append(f"| {n} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _how(one: dict[str, Any]) -> str:
    strategy = f"{one['decision']['strategy']}, " if one["decision"] else ""
    return f"{strategy}{one['n_steps']} steps in {one['training_s']:.0f} s"


def _judge(results: dict[tuple[str, str], dict[str, Any]], scratch: list[str]) -> list[str]:
    lines = []
    for n, goal in GOALS.items():
        one = results.get(("hippodeep tuned", n))
        if one is not None:
            word = "reached" if one["mean"] >= goal else "**not reached**"
            lines.append(f"- {n} labels: {one['mean']:.4f}, goal {goal:g}: {word}.")
    best = {n: max(results[name, n]["mean"] for name in scratch) for n in dict.fromkeys(n for _, n in results)}
    wanted = results["hippodeep tuned", "8"]["mean"]
    reached = [160 if n == "all" else int(n) for n, dice in best.items() if dice >= wanted]
    if reached:
        needed = f"needs {min(reached)} labels for what tuning reaches with 8: a factor of {min(reached) / 8:g}"
    else:
        needed = (
            f"reaches with no number of labels the {wanted:.3f} of tuning with 8: a factor of more than {160 / 8:g}"
        )
    lines.append(f"- The best scratch network {needed}.")
    return ["\n".join(lines)]
