"""Every strategy of the ladder at four numbers of labels, and what ``auto`` chooses."""

from __future__ import annotations

from typing import get_args

from benchmarks.hippocampus import KEPT, PATCH, Point, hippodeep_source, measure, workspace

TITLE = "The ladder: strategies against labels on real hippocampi"
PACKAGES = ("torch", "monai", "numpy", "scipy")
SECONDS = 45.0
LABELS = ("4", "16", "64", "all")
CLOSE = 0.01
"""Mean Dice by which ``auto`` may miss the best, and LoRA full tuning."""


def run(quick: bool) -> list[str]:
    from monai_tl.config import StrategyName

    root = KEPT / "quick" if quick else KEPT
    labels, seconds = (("4",), 6.0) if quick else (LABELS, SECONDS)
    strategies = [name for name in get_args(StrategyName) if name != "scratch"]
    source = hippodeep_source(root / "sources" / "hippodeep")
    folder = workspace(root, "hippodeep", {"source": str(source), "patch_size_vox": PATCH})
    # frozen, a path that the source has no weights for stays at zero: the strategy takes the network without it
    plain = hippodeep_source(root / "sources" / "plain", side_path=False)
    published = workspace(root, "as published", {"source": str(plain), "patch_size_vox": PATCH})
    points = {
        (name, n): Point(published if name == "feature_extraction" else folder, n, name, 0, seconds)
        for n in labels
        for name in strategies
    }
    found = measure(root, points.values())
    results = {key: found[point] for key, point in points.items()}
    lines = [f"| strategy | {' | '.join(labels)} | parameters trained |", "|---" * (len(labels) + 2) + "|"]
    for name in strategies:
        cells = [f"{results[name, n]['mean']:.3f}" for n in labels]
        lines.append(f"| {name} | {' | '.join(cells)} | {results[name, labels[0]]['share_trained'] or 1:.1%} |")
    return [
        f"Mean Dice on the 40 test cases, {seconds:.0f} s of training each (the steps that fit when everything "
        "trains), seed 0, else as in the section before.",
        "\n".join(lines),
        "\n".join(_judge(results, labels)),
    ]


def _judge(results: dict[tuple[str, str], dict[str, object]], labels: tuple[str, ...]) -> list[str]:
    lines = []
    for n in labels:
        here = {name: float(one["mean"]) for (name, m), one in results.items() if m == n}  # type: ignore[arg-type]
        chosen = here.pop("auto")
        best = max(here, key=lambda name: here[name])
        decision = results["auto", n]["decision"]
        strategy = decision["strategy"] if isinstance(decision, dict) else "?"
        word = "within" if chosen >= here[best] - CLOSE else "**not within**"
        lines.append(f"- {n} labels: auto ({strategy}) {chosen:.3f}, best {best} {here[best]:.3f}: {word} {CLOSE:g}.")
        gap = here["full"] - here["lora"]
        share = results["lora", n]["share_trained"]
        small = isinstance(share, float) and share < 0.05
        word = "reached" if gap <= CLOSE and small else "**not reached**"
        lines.append(f"  LoRA trains {share:.1%} of the parameters, {gap:+.3f} below full: {word}.")
    return lines
