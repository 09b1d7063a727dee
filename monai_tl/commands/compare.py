"""``monai-tl compare``: runs, evaluated folders or DVC revisions in pairs, over the cases that both have scored."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from monai_tl.commands.compare_runs import ScoredRun, find_cases, read_run
from monai_tl.config import EvaluateConfig
from monai_tl.errors import ConfigError, DataError
from monai_tl.files import write_json
from monai_tl.metrics.case import METRIC_NAMES
from monai_tl.metrics.cohort import BootstrapRule, perfect_score
from monai_tl.metrics.comparison import PairedDifference, difference_of, holm
from monai_tl.transfer.verdict import fewest_patients, smallest_detectable


@dataclass(frozen=True)
class Compared:
    """One pair.

    Attributes:
        n_left_out: Cases that only one of both has scored.
        seeds_paired: Both have the same seeds, and the interval covers other seeds too.
        adjusted_p: Holm's, over all pairs.
        smallest: Smallest true difference shown with a chance of 0.8 at the corrected level; None where undefined.
        fewest: Patients below which nothing is shown at that level.
    """

    first: str
    second: str
    difference: PairedDifference
    n_left_out: int
    seeds_paired: bool
    adjusted_p: float = 1.0
    smallest: float | None = None
    fewest: int = 0


def run(
    given: Sequence[str],
    workspace: Path,
    *,
    metric: str = "dice",
    arm: str | None = None,
    confidence: float = EvaluateConfig().confidence,
    out: Path | None = None,
) -> str:
    """Compare each with each: paired differences over patients, with Holm's correction for the number of pairs.

    Args:
        given: Two or more; see ``find_cases``.
        workspace: Where revisions are looked up.
        metric: One of METRIC_NAMES; a case's value is the mean over its classes.
        arm: Of runs with several.
        confidence: Of the intervals; 1 minus it is the chance allowed for a single false finding among all pairs.
        out: JSON file to write.

    Returns:
        A table in Markdown and a sentence for each pair.

    Raises:
        ConfigError: An argument is wrong.
        DataError: Two have no case in common, or a table is damaged.
    """
    _check(given, metric, confidence)
    runs = [read_run(one, find_cases(one, workspace), metric, arm) for one in given]
    defaults = EvaluateConfig()
    bootstrap = BootstrapRule(defaults.n_bootstrap, confidence, defaults.seed)
    pairs = [_compare(first, second, metric, bootstrap) for first, second in combinations(runs, 2)]
    adjusted = holm([pair.difference.p_value for pair in pairs])
    # the level that the strictest step of Holm's procedure works at
    strict = 1.0 - (1.0 - confidence) / len(pairs)
    found = [
        replace(pair, adjusted_p=p, smallest=_smallest(pair, strict), fewest=fewest_patients(strict))
        for pair, p in zip(pairs, adjusted, strict=True)
    ]
    if out is not None:
        write_json(out, _record(found, metric, confidence))
    return _describe(found, metric, confidence)


def judge_pair(first: ScoredRun, second: ScoredRun, metric: str = "dice") -> tuple[str, str]:
    """What becomes of the second in place of the first, over the cases that both have scored.

    Returns:
        ``better``, ``worse`` or ``undecided``, and the sentence that says so.

    Raises:
        DataError: They have no case or other classes in common.
    """
    rule = EvaluateConfig()
    pair = _compare(first, second, metric, BootstrapRule(rule.n_bootstrap, rule.confidence, rule.seed))
    smallest, fewest = _smallest(pair, rule.confidence), fewest_patients(rule.confidence)
    pair = replace(pair, adjusted_p=pair.difference.p_value, smallest=smallest, fewest=fewest)
    return _word(pair, metric, rule.confidence), _sentence(pair, metric, rule.confidence)


def _check(given: Sequence[str], metric: str, confidence: float) -> None:
    faults = []
    if len(given) < 2 or len(set(given)) < len(given):
        faults.append("A B ...: give two or more different runs, folders or revisions")
    if metric not in METRIC_NAMES:
        faults.append(f"--metric: {metric!r} is none of {', '.join(METRIC_NAMES)}")
    if not 0.5 < confidence < 1.0:
        faults.append("--confidence: must lie between 0.5 and 1")
    if faults:
        raise ConfigError(faults, "arguments")


def _compare(first: ScoredRun, second: ScoredRun, metric: str, bootstrap: BootstrapRule) -> Compared:
    cases = [sorted(next(iter(run.by_seed.values()))) for run in (first, second)]
    shared = sorted(set(cases[0]) & set(cases[1]))
    if not shared:
        raise DataError(f"{first.name} and {second.name} have no case in common; compare what was scored on the same")
    paired = set(first.by_seed) == set(second.by_seed)
    seeds = sorted(first.by_seed)
    columns = (
        [[_differ(first, second, (seed, seed), case, metric) for case in shared] for seed in seeds]
        if paired
        else [[_mean_differ(first, second, case, metric) for case in shared]]
    )
    table: NDArray[np.float64] = np.array(columns, dtype=np.float64).T
    difference = difference_of(table, [first.patients[case] for case in shared], bootstrap)
    n_left_out = len(set(cases[0]) ^ set(cases[1]))
    return Compared(first.name, second.name, difference, n_left_out, paired and len(seeds) > 1)


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


def _smallest(pair: Compared, confidence: float) -> float | None:
    found = pair.difference.found
    if found is None or pair.difference.n_patients < 2:
        return None
    return smallest_detectable(found, confidence)


def _word(pair: Compared, metric: str, confidence: float) -> str:
    found = pair.difference.found
    if found is None or pair.difference.n_patients < fewest_patients(confidence):
        return "undecided"
    if pair.adjusted_p > 1.0 - confidence:
        return "undecided"
    return "better" if (found.mean > 0.0) == (perfect_score(metric) > 0.0) else "worse"


def _record(found: Sequence[Compared], metric: str, confidence: float) -> dict[str, Any]:
    def plain(value: float | None) -> float | None:
        return None if value is None or math.isnan(value) else round(value, 6)

    return {
        "schema_version": 1,
        "metric": metric,
        "confidence": confidence,
        "pairs": [
            {
                "first": pair.first,
                "second": pair.second,
                "second_is": _word(pair, metric, confidence),
                "difference": plain(pair.difference.found.mean if pair.difference.found else None),
                "low": plain(pair.difference.found.interval.low if pair.difference.found else None),
                "high": plain(pair.difference.found.interval.high if pair.difference.found else None),
                "p": plain(pair.difference.p_value),
                "p_holm": plain(pair.adjusted_p),
                "smallest_detectable": plain(pair.smallest),
                "n_cases": pair.difference.n_cases,
                "n_patients": pair.difference.n_patients,
                "n_undefined": pair.difference.n_undefined,
                "n_in_one_only": pair.n_left_out,
                "covers_seeds": pair.seeds_paired,
            }
            for pair in found
        ],
    }


def _describe(found: Sequence[Compared], metric: str, confidence: float) -> str:
    lines = [
        f"| first | second | second − first, {metric} | {100 * confidence:g} % interval "
        "| p | p (Holm) | cases | patients |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for pair in found:
        one = pair.difference
        mean, interval = "–", "–"
        if one.found is not None:
            mean = f"{one.found.mean:+.4f}"
            if not math.isnan(one.found.interval.low):
                interval = f"{one.found.interval.low:+.4f} to {one.found.interval.high:+.4f}"
        lines.append(
            f"| {pair.first} | {pair.second} | {mean} | {interval} | {one.p_value:.2g} | {pair.adjusted_p:.2g} "
            f"| {one.n_cases} | {one.n_patients} |"
        )
    return "\n".join([*lines, "", *(_sentence(pair, metric, confidence) for pair in found)])


def _sentence(pair: Compared, metric: str, confidence: float) -> str:
    word = _word(pair, metric, confidence)
    if word != "undecided":
        text = f"{pair.second} is {word} than {pair.first}"
    elif pair.smallest is None or pair.difference.n_patients < pair.fewest:
        # with fewer the smallest p there is, corrected for the number of pairs, is above the level
        text = (
            f"{pair.first} and {pair.second}: {pair.difference.n_patients} patients are too few to tell; "
            f"at least {pair.fewest} are needed"
        )
    else:
        text = (
            f"{pair.first} and {pair.second}: undecided; these cases would show a difference of {pair.smallest:.3g} "
            f"in {metric} or more"
        )
    found = pair.difference.found
    if found is not None and found.mean == 0.0 and found.patient_error == 0.0:
        text = f"{pair.first} and {pair.second} score the same in every case"
    asides = []
    if pair.n_left_out:
        asides.append(f"{pair.n_left_out} cases that only one has scored are left out")
    if not pair.seeds_paired:
        asides.append("true of these trainings; other seeds may not agree")
    return text + "".join(f"; {aside}" for aside in asides) + "."
