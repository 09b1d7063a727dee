"""Forgetting: what tuning cost the source's own task, paired over the cases of a held set."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np

from monai_tl.metrics.case import ClassScore
from monai_tl.metrics.cohort import BootstrapRule, CaseResult
from monai_tl.metrics.summary import bootstrap_mean
from monai_tl.records import Record
from monai_tl.transfer.verdict import fewest_patients

HEADS = {"source": "the source's head", "own": "the tuned head"}


class TaskChange(Record):
    """Dice on the source's task before and after tuning, over the same cases.

    Attributes:
        head: ``source``: the tuned body with the source's own head. ``own``: the tuned model as it is, for classes
            that both have.
        class_name: Empty for the mean over ``classes``.
        classes: In the mean.
        before, after: Mean Dice; None without a case that has the class.
        difference: after − before.
        low, high: Bootstrap over patients of the paired difference; None with too few for its confidence
            (``fewest_patients``).
        n_cases, n_patients: With a defined difference.
    """

    head: str
    class_name: str
    classes: tuple[str, ...]
    before: float | None
    after: float | None
    difference: float | None
    low: float | None
    high: float | None
    n_cases: int
    n_patients: int


class Forgetting(Record):
    """What tuning cost the source's own task.

    Attributes:
        source, source_sha256: Whose task.
        models: Tuned models, averaged.
        n_failed: Cases of the held set that could not be prepared; they are left out.
        confidence: Of the intervals.
        changes: First the source's head over all classes.
        sentence: The first of them for a person.
    """

    source: str
    source_sha256: str
    models: tuple[str, ...]
    n_failed: int
    confidence: float
    changes: tuple[TaskChange, ...]
    sentence: str


def compare_task(
    head: str,
    before: Sequence[CaseResult],
    after: Sequence[CaseResult],
    class_names: Sequence[str],
    chosen: Sequence[str],
    bootstrap: BootstrapRule,
) -> tuple[TaskChange, ...]:
    """Changes over all chosen classes, then class by class where there are several.

    Args:
        head: Of the tuned model, see ``TaskChange``.
        before: The source's results.
        after: The tuned model's, of the same cases in the same order.
        class_names: In the order of the scores.
        chosen: Those to compare.
        bootstrap: How intervals are drawn.
    """
    rows = [("", tuple(chosen))] + ([(name, (name,)) for name in chosen] if len(chosen) > 1 else [])
    return tuple(_change(head, name, classes, before, after, class_names, bootstrap) for name, classes in rows)


def _change(
    head: str,
    name: str,
    classes: tuple[str, ...],
    before: Sequence[CaseResult],
    after: Sequence[CaseResult],
    class_names: Sequence[str],
    bootstrap: BootstrapRule,
) -> TaskChange:
    places = [class_names.index(one) for one in classes]
    found = [
        (*pair, first.patient_key)
        for first, second in zip(before, after, strict=True)
        if (pair := _paired_dice([first.scores[k] for k in places], [second.scores[k] for k in places])) is not None
    ]
    patients = [patient for *_, patient in found]
    mean_before = float(np.mean([one for one, _, _ in found])) if found else None
    mean_after = float(np.mean([one for _, one, _ in found])) if found else None
    low = high = math.nan
    differences = np.array([second - first for first, second, _ in found])
    # two to five lie on one side of zero too often by chance
    if len(set(patients)) >= fewest_patients(bootstrap.confidence):
        generator = np.random.default_rng(bootstrap.seed)
        interval = bootstrap_mean(differences, patients, bootstrap.n_bootstrap, bootstrap.confidence, generator)
        low, high = interval.low, interval.high
    return TaskChange(
        head=head,
        class_name=name,
        classes=classes,
        before=mean_before,
        after=mean_after,
        difference=float(np.mean(differences)) if found else None,
        low=None if math.isnan(low) else low,
        high=None if math.isnan(high) else high,
        n_cases=len(found),
        n_patients=len(set(patients)),
    )


def _paired_dice(before: Sequence[ClassScore], after: Sequence[ClassScore]) -> tuple[float, float] | None:
    """Mean Dice of both over the classes that one of them has; where only one has, the other was right: 1."""
    pairs = [
        tuple(1.0 if math.isnan(score.dice) else score.dice for score in pair)
        for pair in zip(before, after, strict=True)
        if not all(math.isnan(score.dice) for score in pair)
    ]
    return (float(np.mean([one for one, _ in pairs])), float(np.mean([one for _, one in pairs]))) if pairs else None


def describe_forgetting(first: TaskChange, confidence: float) -> str:
    """One sentence on the source's task over all its classes."""
    if first.difference is None or first.before is None or first.after is None:
        return "Forgetting is unknown: no case of the source's set has any of its classes."
    numbers = f"mean Dice on the source's task {first.before:.3f} before tuning, {first.after:.3f} after"
    if first.low is None or first.high is None:
        few = f"{first.n_patients} patient{'' if first.n_patients == 1 else 's'}"
        return f"Forgetting is undecided: {numbers} ({few}, too few for an interval)."
    interval = f"{first.difference:+.3f}, {confidence * 100:g} % interval {first.low:+.3f} to {first.high:+.3f}"
    if first.low == first.high == 0.0:
        return f"Nothing was forgotten: {numbers}, the same in every case."
    word = "Forgotten" if first.high < 0 else "Improved" if first.low > 0 else "Forgetting is undecided"
    return f"{word}: {numbers} ({interval}, {first.n_patients} patients).".replace("-0.", "−0.")


def shared_classes(source: Sequence[str], tuned: Sequence[str]) -> Mapping[int, int]:
    """Value in the tuned model's labels → value in the source's, for classes that both name (case aside)."""
    known = {name.casefold(): value for value, name in enumerate(source, start=1)}
    return {value: known[name.casefold()] for value, name in enumerate(tuned, start=1) if name.casefold() in known}
