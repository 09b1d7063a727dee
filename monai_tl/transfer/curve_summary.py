"""The points of a curve taken together: means, bands, labels saved, steps saved, and each in a sentence."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from monai_tl.errors import DataError
from monai_tl.metrics.cohort import BootstrapRule
from monai_tl.transfer.curve_point import CurvePoint
from monai_tl.transfer.label_efficiency import (
    Curve,
    Draws,
    Reals,
    Saving,
    band,
    draw_samples,
    expanded_tail,
    labels_saved,
    steps_saved,
)
from monai_tl.transfer.verdict import fewest_patients

SCRATCH = "scratch"
_MORE_THAN_ONCE = 1.0 + 1e-9
"""A factor that is 1 comes out as 1 ± some 1e-15, a quotient of powers of logarithms; no saving worth telling is
smaller than this."""


@dataclass(frozen=True)
class Line:
    """One strategy's curve with its band.

    Attributes:
        budgets: (n,) labels or steps.
        dice, low, high: (n,).
    """

    budgets: tuple[int, ...]
    dice: Reals
    low: Reals
    high: Reals


@dataclass(frozen=True)
class CurveFindings:
    """All that is said of a curve.

    Attributes:
        by_labels, by_steps: Strategy → line.
        labels_saved: Strategy → one saving a number of labels; empty without scratch.
        steps_saved: Strategy → saving.
        n_labels_of_steps: Labels behind ``by_steps``.
        full_steps: Budget behind ``by_labels``.
        n_failed: Predictions that are missing, over all points.
        n_points, n_untaught: Trainings, and those of which no training case holds one class or more.
        labels_sentence, steps_sentence: The best supported of all savings, or that none is. The best of many intervals
            is too good: each of k is held to a confidence of 1 − (1 − confidence) / k for the sentence (Bonferroni).
        labels_told, steps_told: Strategy and saving of the sentence; None where it tells of none.
    """

    by_labels: dict[str, Line]
    by_steps: dict[str, Line]
    labels_saved: dict[str, tuple[Saving, ...]]
    steps_saved: dict[str, Saving]
    n_labels_of_steps: int
    full_steps: int
    n_cases: int
    n_patients: int
    n_seeds: int
    n_failed: int
    n_points: int
    n_untaught: int
    confidence: float
    labels_sentence: str
    steps_sentence: str
    labels_told: tuple[str, Saving] | None
    steps_told: tuple[str, Saving] | None


def summarise_curve(
    by_labels: Mapping[str, Sequence[CurvePoint]], by_steps: Mapping[str, Sequence[CurvePoint]], rule: BootstrapRule
) -> CurveFindings:
    """Summarise points.

    A class that reference and prediction lack has no Dice; where another point predicts something there (Dice 0) the
    right one counts as 1, so that every point is scored on the same cases and classes.

    Args:
        by_labels: Strategy → points at the full budget, of all seeds.
        by_steps: Strategy → points of each budget with the same labels, the full one among them, of all seeds.
        rule: Of the bootstrap.

    Raises:
        DataError: The points were tested on different cases, or on fewer than two patients.
    """
    points = [point for group in (*by_labels.values(), *by_steps.values()) for point in group]
    patients = points[0].patients
    if any(point.patients != patients for point in points):
        raise DataError("the points of the curve were tested on different cases; run 'monai-tl curve' again")
    scores = _scores(points)
    kept = [case_id for case_id in sorted(patients) if all(not math.isnan(one[case_id]) for one in scores.values())]
    if len({patients[case_id] for case_id in kept}) < 2:
        raise DataError("fewer than two test patients have a class to score; a curve needs them for its intervals")
    seeds = sorted({point.seed for point in points})
    names = [patients[case_id] for case_id in kept]
    draws = draw_samples(names, len(seeds), rule.n_bootstrap, rule.confidence, rule.seed)

    def curve(group: Sequence[CurvePoint], axis: str) -> Curve:
        values = {(getattr(point, axis), point.seed): scores[_key(point)] for point in group}
        budgets = tuple(sorted({budget for budget, _ in values}))
        rows = [[[values[budget, seed][one] for one in kept] for seed in seeds] for budget in budgets]
        return Curve(budgets, np.array(rows, dtype=np.float64))

    labels = {name: curve(group, "n_labels") for name, group in by_labels.items()}
    steps = {name: curve(group, "steps") for name, group in by_steps.items()}
    others = [name for name in labels if name != SCRATCH] if SCRATCH in labels else []
    saved = {name: labels_saved(labels[name], labels[SCRATCH], draws) for name in others}
    saved_steps = {name: steps_saved(steps[name], steps[SCRATCH], draws) for name in others}
    n_patients = len(set(names))
    full_steps = max(point.steps for point in points)
    sure = _sure_labels(labels, others, draws, n_patients, rule.confidence)
    sure_steps = _sure_steps(steps, others, draws, n_patients, rule.confidence)
    told = (_best(sure), _best({name: (one,) for name, one in sure_steps.items()}))
    sentences = (
        _labels_sentence(sure, told[0]) + _of_one(seeds),
        _steps_sentence(sure_steps, told[1]) + _of_one(seeds),
    )
    if n_patients < fewest_patients(rule.confidence):
        # so few cannot have the confidence, whatever they say
        saved = {name: tuple(_unbounded(one) for one in every) for name, every in saved.items()}
        saved_steps = {name: _unbounded(one) for name, one in saved_steps.items()}
        sentences = (f"{n_patients} test patients are too few to say what is saved",) * 2
        told = (None, None)
    whole = {_key(point): point for point in points}
    return CurveFindings(
        by_labels={name: _line(one, draws) for name, one in labels.items()},
        by_steps={name: _line(one, draws) for name, one in steps.items()},
        labels_saved=saved,
        steps_saved=saved_steps,
        n_labels_of_steps=next(iter(by_steps.values()))[0].n_labels,
        full_steps=full_steps,
        n_cases=len(kept),
        n_patients=n_patients,
        n_seeds=len(seeds),
        n_failed=sum(len(point.failed) for point in whole.values()),
        n_points=len(whole),
        n_untaught=sum(bool(point.untaught) for point in whole.values()),
        confidence=rule.confidence,
        labels_sentence=sentences[0],
        steps_sentence=sentences[1],
        labels_told=told[0],
        steps_told=told[1],
    )


def _sure_labels(
    labels: Mapping[str, Curve], others: Sequence[str], draws: Draws, n_patients: int, confidence: float
) -> dict[str, list[Saving]]:
    """Savings with the lower ends that hold for all of them at once; from scratch's last budget on nothing is saved."""
    places = [
        (name, budget) for name in others for budget in labels[name].budgets if budget < labels[SCRATCH].budgets[-1]
    ]
    strict = _for_all(draws, len(places), n_patients, confidence)
    if strict is None:
        return {
            name: [_unbounded(one) for one in labels_saved(labels[name], labels[SCRATCH], draws)] for name in others
        }
    return {name: list(labels_saved(labels[name], labels[SCRATCH], strict)) for name in others}


def _sure_steps(
    steps: Mapping[str, Curve], others: Sequence[str], draws: Draws, n_patients: int, confidence: float
) -> dict[str, Saving]:
    strict = _for_all(draws, len(others), n_patients, confidence)
    found = {name: steps_saved(steps[name], steps[SCRATCH], strict or draws) for name in others}
    return found if strict else {name: _unbounded(one) for name, one in found.items()}


def _for_all(draws: Draws, n_claims: int, n_patients: int, confidence: float) -> Draws | None:
    """The same draws with tails that hold for so many intervals at once; None where the patients are too few."""
    each = 1.0 - (1.0 - confidence) / max(1, n_claims)
    if n_patients < fewest_patients(each):
        return None
    return replace(draws, tail=expanded_tail(n_patients, each))


def _of_one(seeds: Sequence[int]) -> str:
    """With one seed an interval says nothing of other trainings, and neither does a title."""
    return ", in one training each: other seeds may differ" if len(seeds) == 1 else ""


def _unbounded(saving: Saving) -> Saving:
    return replace(saving, low=None, high=None)


def _key(point: CurvePoint) -> tuple[str, int, str, int]:
    return point.labels, point.steps, point.strategy, point.seed


def _scores(points: Sequence[CurvePoint]) -> dict[tuple[str, int, str, int], dict[str, float]]:
    """Mean Dice of each case of each point over the classes that any point has a Dice for; NaN without one."""
    found: dict[tuple[str, int, str, int], dict[str, float]] = {_key(point): {} for point in points}
    for case_id in points[0].patients:
        rows = [[math.nan if value is None else value for value in point.dice[case_id]] for point in points]
        table = np.array(rows, dtype=np.float64)
        defined = ~np.isnan(table).all(axis=0)
        table = np.where(np.isnan(table), 1.0, table)[:, defined]
        for point, row in zip(points, table, strict=True):
            found[_key(point)][case_id] = float(row.mean()) if len(row) else math.nan
    return found


def _line(curve: Curve, draws: Draws) -> Line:
    return Line(curve.budgets, curve.means, *band(curve, draws))


def _best(saved: Mapping[str, Sequence[Saving]]) -> tuple[str, Saving] | None:
    """The saving that is best supported: whose interval begins highest, and above 1 by more than rounding.

    None that may be any smaller counts.
    """
    every = [
        (one.low or 0.0, -one.budget, name, one)
        for name, savings in saved.items()
        for one in savings
        if one.bound != "at most"
    ]
    if not every:
        return None
    low, _, name, best = max(every, key=lambda item: item[:3])
    return (name, best) if low > _MORE_THAN_ONCE else None


def _labels_sentence(saved: Mapping[str, Sequence[Saving]], told: tuple[str, Saving] | None) -> str:
    if not any(saved.values()):
        return "Dice against labels"
    if told is None:
        return "No saving of labels that this test set can show"
    name, best = told
    if best.bound == "at least":
        return f"{_labels(best.budget)} with {name} beat all {best.needed:.0f} from scratch"
    return f"{_labels(best.budget)} with {name} equal {best.needed:.0f} from scratch"


def _labels(number: float) -> str:
    return f"{number:.0f} label{'' if number == 1 else 's'}"


def _steps_sentence(saved: Mapping[str, Saving], told: tuple[str, Saving] | None) -> str:
    if not saved:
        return "Dice against steps"
    _, name, best = max((one.low or 0.0, name, one) for name, one in saved.items())
    if told is None and best.budget_bound == "at least":
        return f"{name} does not reach in {best.budget:.0f} steps what scratch does"
    if told is None:
        return "No saving of steps that this test set can show"
    name, best = told
    few = " or fewer" if best.bound == "at least" else ""
    return f"{best.budget:.0f}{few} steps with {name} equal {best.needed:.0f} from scratch"
