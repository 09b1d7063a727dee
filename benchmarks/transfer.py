"""Labels and what they are worth: hippodeep tuned on real hippocampi against networks from scratch in the same time."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

from benchmarks.common import ROOT
from benchmarks.hippocampus import (
    KEPT,
    PATCH,
    SCRATCH_NETWORKS,
    TIMED,
    Point,
    curve_point_of,
    hippodeep_source,
    measure,
    workspace,
)

TITLE = "Transfer: Dice against labels on real hippocampi"
PACKAGES = ("torch", "monai", "numpy", "scipy")
SECONDS, SECONDS_ALL = 140.0, 1200.0
"""Of optimiser steps: for up to 64 labels, and for all 160; start and checkpoints come to them."""
SECONDS_SHORT = 60.0
"""A second budget, of the curves: what a start is worth depends on the time there is to make up for it."""
STEPS_LABELS, STEPS_SECONDS = "16", (15.0, 30.0, SECONDS_SHORT, SECONDS)
"""The curve over steps: with so many labels, in these times."""
N_DRAWS = 4
"""Of so many labels, each by another seed: which 16 of 160 they are changes the result as much as the goal is off."""
OWN, OTHER_LABELS = "hippodeep", ("8", "64")
"""The source's own network from scratch is trained with every number of labels, others with these and all."""
PLOTS = ROOT / "docs" / "images"
_BOUNDS = {"measured": "about", "at least": "more than", "at most": "at most"}
GOALS = {"4": (0.84, None), "16": (0.87, 180.0), "all": (0.885, 1800.0)}
"""Labels → mean Dice, and the seconds that the training may take."""
LABELS_SAVED = 8
"""At 8 labels: how many times as many the best scratch network should need."""


def run(quick: bool) -> list[str]:
    root = KEPT / "quick" if quick else KEPT
    labels = ["4", "8"] if quick else ["4", "8", "16", "32", "64"]
    seconds = 6.0 if quick else SECONDS
    source = hippodeep_source(root / "sources" / "hippodeep")
    tuned = workspace(root, "hippodeep", {"source": str(source), "patch_size_vox": PATCH})
    scratch = {name: workspace(root, f"scratch {name}", {"source": None, **plan}) for name, plan in _networks(quick)}
    points = {
        ("hippodeep tuned", n): Point(tuned, n, "auto", 0, seconds, TIMED if n == STEPS_LABELS else ()) for n in labels
    }
    if not quick:
        points["hippodeep tuned", "all"] = Point(tuned, "all", "auto", 0, SECONDS_ALL, TIMED)
    draws = [Point(tuned, STEPS_LABELS, "auto", seed, seconds, TIMED) for seed in range(0 if quick else N_DRAWS)]
    for name, folder in scratch.items():
        chosen = labels if name == OWN else [n for n in labels if n in OTHER_LABELS]
        points |= {(name, n): Point(folder, n, "scratch", 0, seconds) for n in (*chosen, "all")}
    short = {
        (name, n): Point(point.workspace, n, point.strategy, 0, SECONDS_SHORT)
        for (name, n), point in points.items()
        if not quick and ((name in scratch and n in (*OTHER_LABELS, "all")) or (name not in scratch and n != "all"))
    }
    times = (seconds / 2, seconds) if quick else STEPS_SECONDS
    few = labels[0] if quick else STEPS_LABELS
    steps = {
        name: [points[name, few] if time == seconds else Point(folder, few, way, 0, time) for time in times]
        for name, folder, way in (("hippodeep tuned", tuned, "auto"), (OWN, scratch[OWN], "scratch"))
    }
    of_steps = [one for group in steps.values() for one in group]
    found = measure(root, [*points.values(), *draws, *short.values(), *of_steps])
    results = {key: found[point] for key, point in points.items()}
    of_draws = [found[point] for point in draws]
    timed = [key for key, point in points.items() if point.changes]
    names = ["hippodeep tuned", *scratch]
    results_short = {key: found[point] for key, point in short.items()}
    in_short = [] if quick else [
        f"The same in {SECONDS_SHORT:.0f} s:",
        _table(names, results_short),
        f"- {_judge_saved(results_short, list(scratch))}",
        _draw(root, short, steps, results_short, list(scratch), quick),
    ]  # fmt: skip
    return [
        "Mean Dice (anterior, posterior) on 40 cases that no training sees; labels are drawn by seed 0 from the other "
        f"160, the fewer among the more. Each training has the optimiser steps that two threads do in {seconds:.0f} s "
        f"on this machine (tuned with all labels: {SECONDS_ALL:.0f} s); no label is kept for validation, the averaged "
        "weights of the last step count. Same loss, augmentation, rates and average for all. Tuned with "
        f"{STEPS_LABELS} and with all labels runs on two threads with nothing else on the machine, so that its time "
        "counts; the others on one, where threads change a result by rounding alone.",
        _table(names, results, timed),
        "\n".join([*_judge(results, timed, of_draws), f"- {_judge_saved(results, list(scratch))}"]),
        *([_draw(root, points, steps, results, list(scratch), quick)] if quick else []),
        *in_short,
    ]


def _networks(quick: bool) -> list[tuple[str, dict[str, Any]]]:
    return list(SCRATCH_NETWORKS.items())[: 1 if quick else None]


def _table(
    names: list[str], results: dict[tuple[str, str], dict[str, Any]], timed: Collection[tuple[str, str]] = ()
) -> str:
    labels = list(dict.fromkeys(n for _, n in results))
    lines = [f"| labels | {' | '.join(names)} |", "|---" * (len(names) + 1) + "|"]
    for n in labels:
        cells = []
        for name in names:
            one = results.get((name, n))
            cells.append(
                ""
                if one is None
                else f"{one['mean']:.3f} ({one['classes'][0]:.3f}, {one['classes'][1]:.3f}), "
                + _how(one, (name, n) in timed)
            )
        lines.append(f"| {n} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _draw(
    root: Path,
    points: dict[tuple[str, str], Point],
    steps: dict[str, list[Point]],
    results: dict[tuple[str, str], dict[str, Any]],
    scratch: list[str],
    quick: bool,
) -> str:
    """The package's own curves of these points; of the networks from scratch the one that is best where all were."""
    from monai_tl.metrics.cohort import BootstrapRule
    from monai_tl.report.curve_figures import draw_labels, draw_steps
    from monai_tl.transfer.curve_summary import summarise_curve

    few = steps["hippodeep tuned"][0].labels
    at_once = [n for name, n in points if name == "hippodeep tuned" and n != "all"]
    shared = [n for n in (*at_once, "all") if all((name, n) in results for name in scratch)]
    best = max(scratch, key=lambda name: sum(results[name, n]["mean"] for n in shared))
    shown = {
        "hippodeep": [curve_point_of(root, points["hippodeep tuned", n]) for n in at_once],
        "scratch": [curve_point_of(root, points[best, n]) for n in (*at_once, "all") if (best, n) in points],
    }
    over_steps = {
        name: [curve_point_of(root, one) for one in steps[key]]
        for name, key in (("hippodeep", "hippodeep tuned"), ("scratch", "hippodeep"))
    }
    # networks differ in what a step costs; points over labels have the same time, so they count as the same budget
    own = [one for one in steps["hippodeep tuned"] if one.seconds == points["hippodeep tuned", few].seconds]
    budget = curve_point_of(root, own[0]).steps
    shown = {
        name: [one.model_copy(update={"steps": budget, "strategy": name}) for one in group]
        for name, group in shown.items()
    }
    # the pace of the same network, measured twice, differs by a few in a thousand; the time is the same
    over_steps = {
        name: [
            one.model_copy(update={"strategy": name, "steps": own.steps})
            for one, own in zip(group, over_steps["hippodeep"], strict=True)
        ]
        for name, group in over_steps.items()
    }
    rule = BootstrapRule(n_bootstrap=2000, confidence=0.95, seed=0)
    at_budget = {name: [one for one in group if one.steps == budget] for name, group in over_steps.items()}
    at_last = {name: group[-1:] for name, group in over_steps.items()}
    findings, findings_steps = summarise_curve(shown, at_budget, rule), summarise_curve(at_last, over_steps, rule)
    if not quick:
        labels_plot = draw_labels(findings, f"{own[0].seconds:.0f} s")
        for name, plot in (("transfer_labels", labels_plot), ("transfer_steps", draw_steps(findings_steps))):
            (PLOTS / f"{name}.png").write_bytes(plot["png"])
    lines = [
        f"- {one.budget:.0f} labels: Dice {one.dice:.3f}; {best} from scratch needs "
        f"{_BOUNDS[one.bound]} {one.needed:.0f}, {one.factor:.1f} times as many "
        f"({_number(one.low)} to {_number(one.high)})."
        for one in findings.labels_saved["hippodeep"]
    ]
    saved = findings_steps.steps_saved["hippodeep"]
    lines.append(
        f"- Steps, {findings_steps.n_labels_of_steps} labels: for the Dice {saved.dice:.3f} that the same network from "
        f"scratch ends with it needs {_BOUNDS[saved.needed_bound]} {saved.needed:.0f} and tuning "
        f"{_BOUNDS[saved.budget_bound]} {saved.budget:.0f}: "
        + ("no factor" if saved.is_open else f"{_BOUNDS[saved.bound]} {saved.factor:.1f} times as many")
        + f" ({_number(saved.low)} to {_number(saved.high)})."
    )
    return "Labels and steps saved, with 95 % intervals over the 40 test patients (one seed):\n\n" + "\n".join(lines)


def _number(value: float | None) -> str:
    return "unbounded" if value is None else f"{value:.1f}"


def _how(one: dict[str, Any], is_timed: bool) -> str:
    strategy = f"{one['decision']['strategy']}, " if one["decision"] else ""
    return f"{strategy}{one['n_steps']} steps" + (f" in {one['training_s']:.0f} s" if is_timed else "")


def _judge(
    results: dict[tuple[str, str], dict[str, Any]],
    timed: Collection[tuple[str, str]],
    draws: Sequence[dict[str, Any]] = (),
) -> list[str]:
    lines = []
    for n, (goal, most_s) in GOALS.items():
        key = ("hippodeep tuned", n)
        if key not in results:
            continue
        several = draws if n == STEPS_LABELS and draws else [results[key]]
        mean, longest_s = fmean(one["mean"] for one in several), max(one["training_s"] for one in several)
        words, is_reached = [f"{mean:.4f}{_describe_draws(several)}, goal {goal:g}"], mean >= goal
        if most_s is not None and key in timed:
            words.append(f"{longest_s:.0f} s of training, at most {most_s:.0f}")
            is_reached = is_reached and longest_s <= most_s
        elif most_s is not None:
            words.append(f"its time, at most {most_s:.0f} s, is not measured here")
        lines.append(f"- {n} labels: {'; '.join(words)}: {'reached' if is_reached else '**not reached**'}.")
    return lines


def _describe_draws(draws: Sequence[dict[str, Any]]) -> str:
    if len(draws) < 2:
        return ""
    each = [one["mean"] for one in draws]
    error = stdev(each) / len(each) ** 0.5
    return f" (mean of draws by seeds 0 to {len(each) - 1}: {', '.join(f'{one:.4f}' for one in each)}; ± {error:.4f})"


def _judge_saved(results: dict[tuple[str, str], dict[str, Any]], scratch: list[str]) -> str:
    best = {
        n: max(results[name, n]["mean"] for name in scratch if (name, n) in results)
        for n in dict.fromkeys(n for name, n in results if name in scratch)
    }
    wanted = results["hippodeep tuned", "8"]["mean"]
    reached = [160 if n == "all" else int(n) for n, dice in best.items() if dice >= wanted]
    if reached:
        needed = f"needs at most {min(reached)} labels for what tuning reaches with 8 ({wanted:.3f})"
        needed += f": a factor of at most {min(reached) / 8:g}"
    else:
        needed = (
            f"reaches with no number of labels the {wanted:.3f} of tuning with 8: a factor of more than {160 / 8:g}"
        )
    is_reached = not reached or min(reached) > LABELS_SAVED * 8
    word = "reached" if is_reached else "**not reached**"
    return f"The best scratch network {needed}; goal {LABELS_SAVED}: {word}."
