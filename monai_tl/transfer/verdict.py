"""The verdict: did the pretrained start help, do nothing, or harm, and can this test set tell?"""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import NormalDist
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from monai_tl.metrics.case import ClassScore
from monai_tl.metrics.summary import Interval, bootstrap_mean
from monai_tl.records import Record

POWER = 0.8
"""Chance of showing a true difference of the size called smallest detectable."""

Word = Literal["gain", "null", "harm"]


class Verdict(Record):
    """Judgement over the difference transfer − scratch of the mean foreground Dice per case.

    Attributes:
        verdict: ``gain`` when the whole interval is above 0, ``harm`` when it is below, else ``null``.
        decided: False for a ``null`` that only says that the test set is too small to tell: its interval reaches beyond
            plus or minus ``null_margin``, or there is none.
        difference: Mean over cases; None without a case.
        low, high: Bootstrap over patients, paired (:func:`~monai_tl.metrics.summary.bootstrap_mean`); None with fewer
            patients than :func:`fewest_patients`.
        confidence: Of the interval.
        smallest_detectable: (z(1 − a/2) + z(power)) · sd / √n over the patients' mean differences, a = 1 − confidence,
            power 0.8; None likewise.
        n_cases, n_patients: With a defined difference.
        sentence: The verdict for a person.
    """

    verdict: Word
    decided: bool
    difference: float | None
    low: float | None
    high: float | None
    confidence: float
    n_patients: int
    n_cases: int
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


def fewest_patients(confidence: float) -> int:
    """Patients below which no verdict has its confidence.

    Without any true difference all n patients lie on one side of zero with a chance of 2^(1 − n), and then every
    interval within the range of the patients excludes zero. This chance must not exceed 1 − confidence: 6 for 0.95.
    """
    return max(2, math.ceil(1.0 - math.log2(1.0 - confidence)))


def judge(
    differences: Sequence[float],
    patients: Sequence[str],
    n_bootstrap: int,
    confidence: float,
    null_margin: float,
    seed: int,
) -> Verdict:
    """Judge paired differences.

    Args:
        differences: Transfer − scratch, one a case; NaN where undefined.
        patients: Patient of each case.
        n_bootstrap: Bootstrap samples.
        confidence: E.g. 0.95.
        null_margin: A ``null`` whose interval lies within plus or minus this is certain; otherwise the sentence says
            that the test set is too small to tell. It never turns a gain or harm into a null.
        seed: Of the bootstrap.
    """
    array = np.asarray(differences, dtype=np.float64)
    defined = ~np.isnan(array)
    values = array[defined]
    kept = [patient for patient, keep in zip(patients, defined, strict=True) if keep]
    n_patients = len(set(kept))
    difference = float(values.mean()) if len(values) else None
    fewest = fewest_patients(confidence)
    if n_patients < fewest or difference is None:
        return Verdict(
            verdict="null",
            decided=False,
            difference=difference,
            low=None,
            high=None,
            confidence=confidence,
            n_patients=n_patients,
            n_cases=len(values),
            smallest_detectable=None,
            sentence=(
                f"No verdict on the pretrained start: both arms can be compared on {n_patients} "
                f"patient{'' if n_patients == 1 else 's'}, and at least {fewest} are needed."
            ),
        )
    interval = bootstrap_mean(values, kept, n_bootstrap, confidence, np.random.default_rng(seed))
    word = _word(interval)
    within = -null_margin <= interval.low and interval.high <= null_margin
    smallest = smallest_detectable(values, kept, confidence)
    return Verdict(
        verdict=word,
        decided=word != "null" or within,
        difference=difference,
        low=interval.low,
        high=interval.high,
        confidence=confidence,
        n_patients=n_patients,
        n_cases=len(values),
        smallest_detectable=smallest,
        sentence=_sentence(word, within, difference, smallest, null_margin),
    )


def smallest_detectable(values: NDArray[np.float64], patients: Sequence[str], confidence: float) -> float:
    """Smallest true difference that a test set of this size and spread shows with a chance of 0.8.

    (z(1 − a/2) + z(power)) · sd / √n with a = 1 − confidence, sd (n − 1) over the patients' means and n patients.

    Args:
        values: (n_cases,) paired differences.
        patients: Patient of each case; at least two different.
        confidence: E.g. 0.95.
    """
    names, index = np.unique(np.asarray(patients), return_inverse=True)
    means = np.bincount(index, weights=values) / np.bincount(index)
    normal = NormalDist()
    z = normal.inv_cdf(1.0 - (1.0 - confidence) / 2.0) + normal.inv_cdf(POWER)
    return float(z * means.std(ddof=1) / math.sqrt(len(names)))


def _word(interval: Interval) -> Word:
    if interval.low > 0:
        return "gain"
    return "harm" if interval.high < 0 else "null"


def _sentence(word: Word, within: bool, difference: float, smallest: float, null_margin: float) -> str:
    if word == "gain":
        return f"Gain: the pretrained start raised the mean Dice by {difference:.3f}."
    if word == "harm":
        return f"Harm: the pretrained start lowered the mean Dice by {-difference:.3f}."
    if difference == 0.0 and smallest == 0.0:
        return "Null: both arms score the same in every case."
    if within:
        return f"Null: with or without the pretrained start the mean Dice is the same to within {null_margin:g}."
    return (
        f"Null, but undecided: a difference of {difference:+.3f} in mean Dice may be chance. "
        f"This test set is too small to tell: it would show a difference of {smallest:.3f} or more."
    ).replace("-0.", "−0.")
