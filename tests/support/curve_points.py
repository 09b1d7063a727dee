"""Points of a curve with chosen means, as the stages would leave them."""

from __future__ import annotations

import numpy as np

from monai_tl.transfer.curve_point import CurvePoint


def make_point(labels, steps, strategy, seed, dice, n_labels=None, patients=None):
    """A point; ``dice`` is case → Dice of each class."""
    n_labels = n_labels or int(labels)
    return CurvePoint(
        labels=str(labels),
        steps=steps,
        strategy=strategy,
        seed=seed,
        n_labels=n_labels,
        n_val=n_labels // 4,
        n_steps=steps,
        best_step=steps,
        case_ids=tuple(f"train-{k}" for k in range(n_labels)),
        classes=("liver", "tumour"),
        patients=patients or {case_id: f"patient of {case_id}" for case_id in dice},
        dice=dice,
        failed={},
    )


def make_group(budgets, means, strategy, axis="labels", n_seeds=2, n_cases=10, spread=0.03):
    """Points of one strategy whose mean over cases and classes is exactly the given one."""
    points = []
    for place, (budget, mean) in enumerate(zip(budgets, means, strict=True)):
        noise = np.random.default_rng([place, len(strategy)]).normal(0, spread, (n_seeds, n_cases, 2))
        noise -= noise.mean()
        for seed in range(n_seeds):
            dice = {f"case-{c}": tuple(float(v) for v in mean + noise[seed, c]) for c in range(n_cases)}
            labels, steps = (budget, 200) if axis == "labels" else (budgets[-1], budget)
            points.append(make_point(labels, steps, strategy, seed, dice, n_labels=160 if axis == "steps" else budget))
    return points


LABELS, STEPS = (4, 8, 16, 32, 64, 160), (25, 50, 100, 200)
SCRATCH, PRETRAINED = (0.35, 0.48, 0.60, 0.70, 0.78, 0.84), (0.70, 0.77, 0.80, 0.83, 0.855, 0.87)


def make_findings(n_cases=10, n_seeds=2, pretrained=PRETRAINED):
    from monai_tl.metrics.cohort import BootstrapRule
    from monai_tl.transfer.curve_summary import summarise_curve

    shape = {"n_cases": n_cases, "n_seeds": n_seeds}
    by_labels = {"lp_ft": make_group(LABELS, pretrained, "lp_ft", **shape)}
    by_labels["scratch"] = make_group(LABELS, SCRATCH, "scratch", **shape)
    by_steps = {"lp_ft": make_group(STEPS, (0.8, 0.85, 0.86, 0.87), "lp_ft", "steps", **shape)}
    by_steps["scratch"] = make_group(STEPS, (0.3, 0.6, 0.75, 0.84), "scratch", "steps", **shape)
    return summarise_curve(by_labels, by_steps, BootstrapRule(500, 0.95, 0))
