"""Starts that must never be called a gain, and twins that must be called null."""

from __future__ import annotations

from itertools import combinations
from pathlib import Path
from typing import Any

from benchmarks.common import ROOT, SHARED
from benchmarks.hippocampus import KEPT, PATCH, Point, hippodeep_source, measure, workspace

TITLE = "Harm is found: bad starts on real hippocampi"
PACKAGES = ("torch", "monai", "numpy", "scipy")
SECONDS, N_LABELS, SEEDS = 30.0, "16", (0, 1, 2)
TWIN_SEEDS = tuple(range(8))
"""Of scratch against scratch: three of them are one arm, three others its twin."""
SHUFFLED = "weights shuffled within each tensor"
"""Tuned, its seeds differ so much that three leave it open; the twin's trainings are there for more."""


def run(quick: bool) -> list[str]:
    root = KEPT / "quick" if quick else KEPT
    seconds, few = (6.0, (0,)) if quick else (SECONDS, SEEDS)
    folders = _folders(root)
    # weights that are shuffled change neither the plan nor the twin
    same_twin = {SHUFFLED: "as published"}
    seeds = {name: TWIN_SEEDS if name == SHUFFLED and not quick else few for name in folders}
    points = {
        (name, arm, seed): Point(folders[same_twin.get(name, name) if arm == "scratch" else name],
                                 N_LABELS, arm, seed, seconds)
        for name in folders
        for arm in ("lp_ft", "scratch")
        for seed in seeds[name]
    }  # fmt: skip
    twins = {seed: Point(folders["as published"], N_LABELS, "scratch", seed, seconds)
             for seed in (few if quick else TWIN_SEEDS)}  # fmt: skip
    found = measure(root, [*points.values(), *twins.values()])
    results = {key: found[point] for key, point in points.items()}
    lines = ["| start | seeds | tuned | twin | verdict | difference |", "|---|---:|---:|---:|---|---|"]
    verdicts = {}
    for name in folders:
        broken = _broken_lines(folders[name])
        arms = [[results[name, arm, seed] for seed in seeds[name]] for arm in ("lp_ft", "scratch")]
        verdict = _verdict(arms[0], arms[1], broken)
        verdicts[name] = verdict.verdict
        means = [sum(one["mean"] for one in arm) / len(arm) for arm in arms]
        interval = (
            "" if verdict.low is None else f"{verdict.difference:+.3f} ({verdict.low:+.3f} to {verdict.high:+.3f})"
        )
        word = f"{verdict.verdict}, withheld: {', '.join(broken)}" if verdict.withheld else verdict.verdict
        lines.append(f"| {name} | {len(seeds[name])} | {means[0]:.3f} | {means[1]:.3f} | {word} | {interval} |")
    bad = [name for name in folders if name != "as published" and verdicts[name] == "gain"]
    return [
        f"{N_LABELS} labels, {seconds:.0f} s of training an arm, seeds from 0 on; verdict over the 40 test patients "
        "and the seeds, paired.",
        "\n".join(lines),
        f"- **Called a gain: {', '.join(bad)}.**" if bad else "- None of the bad starts is called a gain.",
        _judge_twins([found[point] for point in twins.values()], len(few)),
    ]


def _judge_twins(results: list[dict[str, Any]], n_seeds: int) -> str:
    """Scratch against scratch: every choice of seeds for one arm and, in order, of others for its twin."""
    chosen = [
        (one, other)
        for one in combinations(range(len(results)), n_seeds)
        for other in combinations(sorted({*range(len(results))} - {*one}), n_seeds)
        # arms change places without a new comparison
        if one < other
    ]
    if not chosen:
        return "Scratch against scratch needs more seeds than a quick run has."
    verdicts = [_verdict([results[k] for k in one], [results[k] for k in other]).verdict for one, other in chosen]
    n_null = sum(verdict == "null" for verdict in verdicts)
    others = ", ".join(f"{verdicts.count(word)} {word}" for word in sorted({*verdicts} - {"null"})) or "none other"
    word = "reached" if n_null >= 0.95 * len(verdicts) else "**not reached**"
    return (
        f"- Scratch against scratch, {len(results)} seeds (each with a draw of labels and a start of its own), "
        f"{n_seeds} against {n_seeds}: null in {n_null} of {len(verdicts)} comparisons "
        f"({others}); at least 95 %: {word}. The comparisons are overlapping choices from the same {len(results)} "
        "trainings, so they are not independent, and how sure this share is they do not say."
    )


def _folders(root: Path) -> dict[str, Path]:
    plan: dict[str, Any] = {"patch_size_vox": PATCH}
    good = hippodeep_source(root / "sources" / "hippodeep")
    shuffled = hippodeep_source(root / "sources" / "shuffled", _shuffle)
    flipped = hippodeep_source(root / "sources" / "flipped", orientation="LAS")
    # the plan refuses it by its own trial of the source; accepted here to see what training makes of it
    accept_flipped = {"source": str(flipped), "accept_broken": ["orientation"], **plan}
    meshnet = _meshnet(root / "sources" / "meshnet")
    return {
        "as published": workspace(root, "hippodeep", {"source": str(good), **plan}),
        "weights shuffled within each tensor": workspace(root, "shuffled", {"source": str(shuffled), **plan}),
        "left and right flipped": workspace(root, "flipped", accept_flipped),
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


def _broken_lines(folder: Path) -> list[str]:
    """Lines of the contract that the plan found broken."""
    from monai_tl.records import Plan

    return [line.item for line in Plan.read(folder / "artifacts/plan/plan.json").adaptations if line.status == "broken"]


def _verdict(tuned: list[dict[str, Any]], twin: list[dict[str, Any]], broken: list[str] | None = None) -> Any:
    """Over test patients and pairs of trainings, one of each list."""
    import numpy as np

    from monai_tl.transfer.verdict import judge

    cases = sorted(tuned[0]["cases"])
    differences = np.array(
        [[one["cases"][case] - other["cases"][case] for one, other in zip(tuned, twin, strict=True)] for case in cases]
    )
    return judge(differences, cases, 5000, 0.95, 0.01, 0, broken or [])
