"""The verdict: did the pretrained start help, do nothing, or harm, and can this test set tell?"""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import NormalDist
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy.special import nctdtrinc, stdtrit

from monai_tl.metrics.case import ClassScore
from monai_tl.metrics.cohort import ArmResult
from monai_tl.metrics.crossed import CrossedMean, crossed_mean
from monai_tl.metrics.summary import Interval
from monai_tl.records import Record

POWER = 0.8
"""Chance of showing a true difference of the size called smallest detectable."""

Word = Literal["gain", "null", "harm"]


class Verdict(Record):
    """Judgement over the difference transfer − scratch of the mean foreground Dice per case.

    Attributes:
        verdict: ``gain`` when the whole interval is above 0, ``harm`` when it is below, else ``null``.
        decided: False for a ``null`` that only says that the test set is too small to tell: its interval reaches beyond
            plus or minus ``null_margin``, or there is none. With one seed always False: of the spread of trainings
            nothing is known then, and twins of which neither is better were told apart in up to 70 % of simulated
            trials (docs/decisions/0010-seeds.md). False, too, for a gain that is withheld.
        withheld: Lines of the source's contract that are broken: then what lies wholly above 0 is no ``gain`` but a
            ``null`` that is not decided (docs/decisions/0015-withheld-gains.md). Empty otherwise.
        difference: Mean over cases and seeds; None without a case.
        low, high: Bootstrap over patients and seeds, paired (``crossed_mean``), no wider than a Dice can differ (−1 to
            1); with one seed over patients alone. None with fewer patients than ``fewest_patients``.
        confidence: Of the interval.
        smallest_detectable: See ``smallest_detectable``; None likewise.
        n_cases, n_patients: With a defined difference.
        n_seeds: Pairs of trainings, one of each arm with the same seed.
        seed_sd: Standard deviation (n − 1) of the seeds' mean differences; None with one seed.
        sentence: The verdict for a person.
    """

    verdict: Word
    decided: bool
    withheld: tuple[str, ...] = ()
    difference: float | None
    low: float | None
    high: float | None
    confidence: float
    n_patients: int
    n_cases: int
    n_seeds: int = 1
    seed_sd: float | None = None
    smallest_detectable: float | None
    sentence: str


def paired_difference(transfer: Sequence[ClassScore], scratch: Sequence[ClassScore]) -> float:
    """Difference of the mean foreground Dice of one case, transfer − scratch, over the same classes.

    A class absent from the reference has no Dice for an arm that rightly predicts nothing. Where the other arm predicts
    something (Dice 0) the right one counts as 1, so that a false positive is never dropped from the comparison. A class
    undefined in both arms is left out of both.

    Args:
        transfer: Scores of each class.
        scratch: The same classes.

    Returns:
        -1 to 1; NaN when no class is defined in either arm.
    """
    differences = []
    for first, second in zip(transfer, scratch, strict=True):
        if math.isnan(first.dice) and math.isnan(second.dice):
            continue
        differences.append(
            (1.0 if math.isnan(first.dice) else first.dice) - (1.0 if math.isnan(second.dice) else second.dice)
        )
    return float(np.mean(differences)) if differences else math.nan


def paired_differences(transfer: ArmResult, scratch: ArmResult) -> NDArray[np.float64]:
    """Difference of each case under each seed, transfer − scratch, (n_cases, n_seeds).

    Both trainings of a seed share it, so what the seed alone does to both cancels. A case that neither arm has a
    prediction of compares nothing and is NaN: counted as equal it would make a null certain and a test set large. Where
    one arm lacks it the worst score counts.

    Args:
        transfer: With the same cases and seeds as ``scratch``.
        scratch: The twin.
    """
    pairs = [zip(cases, scratch.by_seed[seed], strict=True) for seed, cases in transfer.by_seed.items()]
    columns = [
        [
            math.nan if first.failed and second.failed else paired_difference(first.scores, second.scores)
            for first, second in pair
        ]
        for pair in pairs
    ]
    return np.array(columns, dtype=np.float64).T


def fewest_patients(confidence: float) -> int:
    """Patients below which no verdict has its confidence.

    Without any true difference all n patients lie on one side of zero with a chance of 2^(1 − n), and then every
    interval within the range of the patients excludes zero. This chance must not exceed 1 − confidence: 6 for 0.95.
    """
    return max(2, math.ceil(1.0 - math.log2(1.0 - confidence)))


def judge(
    differences: Sequence[float] | NDArray[np.float64],
    patients: Sequence[str],
    n_bootstrap: int,
    confidence: float,
    null_margin: float,
    seed: int,
    broken: Sequence[str] = (),
) -> Verdict:
    """Judge paired differences.

    Args:
        differences: Transfer − scratch, one a case, or (n_cases, n_seeds); NaN where undefined.
        patients: Patient of each case.
        n_bootstrap: Bootstrap samples.
        confidence: E.g. 0.95.
        null_margin: A ``null`` whose interval lies within plus or minus this is certain; otherwise the sentence says
            that the test set is too small to tell. It never turns a gain or harm into a null.
        seed: Of the bootstrap.
        broken: Broken lines of the source's contract; with any of them nothing is called a gain.
    """
    array = np.asarray(differences, dtype=np.float64)
    array = array[:, np.newaxis] if array.ndim == 1 else array
    defined = np.flatnonzero(np.isfinite(array).any(axis=1))
    values = array[defined]
    kept = [patients[index] for index in defined.tolist()]
    n_patients = len(set(kept))
    fewest = fewest_patients(confidence)
    if n_patients < fewest:
        return Verdict(
            verdict="null",
            decided=False,
            difference=float(np.nanmean(values, axis=1).mean()) if len(values) else None,
            low=None,
            high=None,
            confidence=confidence,
            n_patients=n_patients,
            n_cases=len(values),
            n_seeds=array.shape[1],
            smallest_detectable=None,
            sentence=(
                f"No verdict on the pretrained start: both arms can be compared on {n_patients} "
                f"patient{'' if n_patients == 1 else 's'}, and at least {fewest} are needed."
            ),
        )
    found = crossed_mean(values, kept, n_bootstrap, confidence, np.random.default_rng(seed))
    interval = found.interval
    word = _word(interval)
    withheld = tuple(broken) if word == "gain" else ()
    within = -null_margin <= interval.low and interval.high <= null_margin
    return Verdict(
        verdict="null" if withheld else word,
        decided=found.n_seeds > 1 and not withheld and (word != "null" or within),
        withheld=withheld,
        difference=found.mean,
        low=max(-1.0, interval.low),
        high=min(1.0, interval.high),
        confidence=confidence,
        n_patients=n_patients,
        n_cases=len(values),
        n_seeds=found.n_seeds,
        seed_sd=None if found.n_seeds == 1 else found.seed_error * math.sqrt(found.n_seeds),
        smallest_detectable=smallest_detectable(found, confidence),
        sentence=_withheld(found, withheld) if withheld else _sentence(word, within, found, confidence, null_margin),
    )


def is_consistent(verdict: Verdict) -> bool:
    """Whether the word and ``decided`` are those of the interval and the seeds, as far as six decimals tell.

    A verdict that was read from a file may have been changed there by hand.
    """
    low, high = verdict.low, verdict.high
    if verdict.decided and verdict.n_seeds < 2:
        return False
    if low is None or high is None:
        return verdict.verdict == "null" and not verdict.decided
    if verdict.withheld:
        return verdict.verdict == "null" and not verdict.decided and 0.0 <= low <= high
    fits = {"gain": low >= 0.0, "harm": high <= 0.0, "null": low <= 0.0 <= high}
    return (
        low <= high and fits[verdict.verdict] and (verdict.verdict == "null" or verdict.n_seeds < 2 or verdict.decided)
    )


def smallest_detectable(found: CrossedMean, confidence: float) -> float:
    """Smallest true difference that patients and seeds of this number and spread show with a chance of 0.8.

    With one seed the difference under which Student's t of n patients passes its critical value with that chance
    (noncentral t). With several, half of the interval's width and what the chance asks for beyond it, each joined over
    patients and seeds as the interval joins them; the seeds' share beyond it by normal theory.

    Args:
        found: Of at least two patients.
        confidence: E.g. 0.95.

    References:
        Cohen 1988, Statistical Power Analysis, section 2.5.
    """
    tail = (1.0 - confidence) / 2.0
    critical = -float(stdtrit(found.n_patients - 1, tail))
    beyond = float(nctdtrinc(found.n_patients - 1, 1.0 - POWER, critical)) - critical
    seeds = NormalDist().inv_cdf(POWER) * found.seed_error if found.n_seeds > 1 else 0.0
    return math.hypot(*_half_widths(found, confidence)) + math.hypot(beyond * found.patient_error, seeds)


def _half_widths(found: CrossedMean, confidence: float) -> tuple[float, float]:
    """Half the interval's width for the choice of patients and for that of seeds, both Student's."""
    tail = (1.0 - confidence) / 2.0
    patients = -float(stdtrit(found.n_patients - 1, tail)) * found.patient_error
    if found.n_seeds == 1:
        return patients, 0.0
    return patients, -float(stdtrit(found.n_seeds - 1, tail)) * found.seed_error


def _word(interval: Interval) -> Word:
    if interval.low > 0:
        return "gain"
    return "harm" if interval.high < 0 else "null"


def _sentence(word: Word, within: bool, found: CrossedMean, confidence: float, null_margin: float) -> str:
    difference, smallest = found.mean, smallest_detectable(found, confidence)
    if word == "gain":
        return _claim("Gain", f"the pretrained start raised the mean Dice by {difference:.3f}", found)
    if word == "harm":
        return _claim("Harm", f"the pretrained start lowered the mean Dice by {-difference:.3f}", found)
    if difference == 0.0 and smallest == 0.0:
        return _claim("Null", "both arms score the same in every case", found)
    if within:
        same = f"with or without the pretrained start the mean Dice is the same to within {null_margin:g}"
        return _claim("Null", same, found)
    by_patients, by_seeds = _half_widths(found, confidence)
    who = (
        f"{found.n_seeds} seeds differ too much to tell: with this test set they"
        if by_seeds > by_patients
        else "This test set is too small to tell: it"
    )
    if_so = ", if other seeds did the same" if found.n_seeds == 1 else ""
    # no Dice differs by more than 1
    size = f"a difference of {smallest:.3f} or more{if_so}" if smallest <= 1.0 else "no difference, however large"
    more = "; train more seeds (finetune.seeds)" if smallest > 1.0 and by_seeds > by_patients else ""
    may_be = f"a difference of {difference:+.3f} in mean Dice may be chance"
    return f"Null, but undecided: {may_be}. {who} would show {size}{more}.".replace("-0.", "−0.")


def _withheld(found: CrossedMean, broken: Sequence[str]) -> str:
    several = len(broken) > 1
    return (
        f"Null, and undecided: the mean Dice rose by {found.mean:.3f}, but the source's contract is broken "
        f"({', '.join(broken)}), and a gain over a broken contract is not called one: weights that see what they never "
        f"learnt on are a better beginning than random ones, and still not the source that the card describes. Mend "
        f"th{'ose lines' if several else 'at line'} or choose another source, and run again."
    )


def _claim(word: str, text: str, found: CrossedMean) -> str:
    """One pair of trainings answers for itself, and the first words say so."""
    if found.n_seeds > 1:
        return f"{word}: {text}."
    return (
        f"{word}, but of one seed: {text} in the one pair of trainings that was made. Other seeds may not agree; train "
        "three or more (finetune.seeds) to decide it."
    )
