"""Two scored runs, case by case: what they have in common, and their paired differences."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from monai_tl.commands.compare_runs import ScoredRun
from monai_tl.errors import DataError
from monai_tl.metrics.cohort import BootstrapRule, perfect_score
from monai_tl.metrics.comparison import PairedDifference, difference_of

_SAME_SHARE, _SAME_ML = 1e-5, 2e-6
"""Volumes that differ by less are the same: spacings are rounded to 32 bits, and tables to six decimals."""


@dataclass(frozen=True)
class Compared:
    """One pair.

    Attributes:
        n_left_out: Cases that only one of both has scored.
        n_redrawn: Cases left out because their references are not the same.
        doubts: What the reader must know of how they were scored.
        seeds_paired: Both have the same seeds, and the interval covers other seeds too.
        adjusted_p: Holm's, over all pairs.
        smallest: Smallest true difference shown with a chance of 0.8 at the corrected level; None where undefined.
        fewest: Patients below which nothing is shown at that level.
    """

    first: str
    second: str
    difference: PairedDifference
    n_left_out: int
    n_redrawn: int
    doubts: tuple[str, ...]
    seeds_paired: bool
    adjusted_p: float = 1.0
    smallest: float | None = None
    fewest: int = 0


def compare_pair(first: ScoredRun, second: ScoredRun, metric: str, bootstrap: BootstrapRule) -> Compared:
    """Paired differences second − first over the cases that both have scored against the same reference.

    Args:
        first: Of the metric.
        second: Of the same.
        metric: One of METRIC_NAMES.
        bootstrap: How intervals are drawn.

    Raises:
        DataError: They have no such case, or other classes, or surface Dice was measured at other tolerances.
    """
    _check_tolerances(first, second, metric)
    cases = [set(run.cases) for run in (first, second)]
    common = sorted(cases[0] & cases[1])
    if not common:
        raise DataError(f"{first.name} and {second.name} have no case in common; compare what was scored on the same")
    shared = [case for case in common if _same_reference(first.reference_ml.get(case), second.reference_ml.get(case))]
    if not shared:
        raise DataError(
            f"{first.name} and {second.name} were scored against other references in all {len(common)} cases that both "
            "have; evaluate both against the same"
        )
    paired = set(first.by_seed) == set(second.by_seed)
    seeds = sorted(first.by_seed)
    columns = (
        [[_differ(first, second, (seed, seed), case, metric) for case in shared] for seed in seeds]
        if paired
        else [[_mean_differ(first, second, case, metric) for case in shared]]
    )
    table: NDArray[np.float64] = np.array(columns, dtype=np.float64).T
    return Compared(
        first=first.name,
        second=second.name,
        difference=difference_of(table, joined_patients(shared, first.patients, second.patients), bootstrap),
        n_left_out=len(cases[0] ^ cases[1]),
        n_redrawn=len(common) - len(shared),
        doubts=tuple(_doubts(first, second, metric)),
        seeds_paired=paired and len(seeds) > 1,
    )


def joined_patients(cases: Sequence[str], *known: Mapping[str, str]) -> list[str]:
    """A patient for each case: cases that either table gives to one patient are one patient's.

    Names of patients mean something within a table only; a case that a table does not give to anybody stands alone in
    it.

    Args:
        cases: To find patients for.
        known: Tables, case → patient.
    """
    group = {case: case for case in cases}
    for table in known:
        owners: dict[str, str] = {}
        for case in cases:
            if case in table:
                old, new = group[case], group[owners.setdefault(table[case], case)]
                if old != new:
                    group = {one: new if found == old else found for one, found in group.items()}
    return [group[case] for case in cases]


def _check_tolerances(first: ScoredRun, second: ScoredRun, metric: str) -> None:
    if metric != "surface_dice":
        return
    for name in sorted(set(first.tolerance_mm) & set(second.tolerance_mm)):
        one, other = first.tolerance_mm[name], second.tolerance_mm[name]
        if not math.isclose(one, other, rel_tol=1e-6):
            raise DataError(
                f"{first.name} took {one:g} mm as agreement for surface Dice of {name}, {second.name} {other:g} mm; "
                "evaluate both with the same tolerance"
            )


def _same_reference(one: Mapping[str, float] | None, other: Mapping[str, float] | None) -> bool:
    """By the volume of each class; what one of them does not tell is no difference."""
    if one is None or other is None:
        return True
    return all(
        math.isclose(one[name], other[name], rel_tol=_SAME_SHARE, abs_tol=_SAME_ML) for name in set(one) & set(other)
    )


def _doubts(first: ScoredRun, second: ScoredRun, metric: str) -> list[str]:
    runs = (first, second)
    found = []
    if not any(run.patients for run in runs):
        found.append("nobody said whose the cases are, and each counts as a patient of its own")
    if silent := [run.name for run in runs if not run.reference_ml]:
        found.append(f"whether the references are the same is not known: {' and '.join(silent)} does not tell them")
    if metric == "surface_dice" and (silent := [run.name for run in runs if not run.tolerance_mm]):
        found.append(f"whether the tolerances are the same is not known: {' and '.join(silent)} does not tell them")
    return found


def _differ(first: ScoredRun, second: ScoredRun, seeds: tuple[int, int], case: str, metric: str) -> float:
    """Second − first in one case, over the classes that either has scored; a rightly empty one is perfect.

    A case that neither has a prediction of compares nothing (NaN).
    """
    if case in first.failed[seeds[0]] and case in second.failed[seeds[1]]:
        return math.nan
    scores = [run.by_seed[seed][case] for run, seed in zip((first, second), seeds, strict=True)]
    if set(scores[0]) != set(scores[1]):
        raise DataError(f"{first.name} and {second.name} have other classes; compare what has the same")
    differences = []
    for name, one in scores[0].items():
        other = scores[1][name]
        if math.isnan(one) and math.isnan(other):
            continue
        perfect = perfect_score(metric)
        differences.append((perfect if math.isnan(other) else other) - (perfect if math.isnan(one) else one))
    return float(np.mean(differences)) if differences else math.nan


def _mean_differ(first: ScoredRun, second: ScoredRun, case: str, metric: str) -> float:
    """The mean over all pairs of seeds: that of the seeds' means, where every score is defined."""
    values = [_differ(first, second, (a, b), case, metric) for a in first.by_seed for b in second.by_seed]
    defined = [value for value in values if not math.isnan(value)]
    return float(np.mean(defined)) if defined else math.nan
