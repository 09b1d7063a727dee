"""``monai-tl compare``: runs, evaluated folders or DVC revisions in pairs, over the cases that both have scored."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from itertools import combinations
from pathlib import Path
from typing import Any

from monai_tl.commands.compare_pairs import Compared, compare_pair
from monai_tl.commands.compare_runs import ScoredRun, find_cases, read_run
from monai_tl.config import EvaluateConfig
from monai_tl.errors import ConfigError
from monai_tl.files import write_json
from monai_tl.metrics.case import METRIC_NAMES
from monai_tl.metrics.cohort import BootstrapRule, perfect_score
from monai_tl.metrics.comparison import holm
from monai_tl.transfer.verdict import fewest_patients, smallest_detectable


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
        DataError: Two have no case in common that was scored alike (see ``compare_pair``), or a table is damaged.
    """
    _check(given, metric, confidence)
    runs = [read_run(one, find_cases(one, workspace), metric, arm) for one in given]
    defaults = EvaluateConfig()
    bootstrap = BootstrapRule(defaults.n_bootstrap, confidence, defaults.seed)
    pairs = [compare_pair(first, second, metric, bootstrap) for first, second in combinations(runs, 2)]
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
        DataError: They have no case in common that was scored alike; see ``compare_pair``.
    """
    rule = EvaluateConfig()
    pair = compare_pair(first, second, metric, BootstrapRule(rule.n_bootstrap, rule.confidence, rule.seed))
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
                "n_other_reference": pair.n_redrawn,
                "doubts": list(pair.doubts),
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
    asides = list(pair.doubts)
    if pair.n_redrawn:
        asides.append(f"{pair.n_redrawn} cases whose references differ are left out")
    if pair.n_left_out:
        asides.append(f"{pair.n_left_out} cases that only one has scored are left out")
    if not pair.seeds_paired:
        asides.append("true of these trainings; other seeds may not agree")
    return text + "".join(f"; {aside}" for aside in asides) + "."
