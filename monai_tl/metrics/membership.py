"""Was a patient trained on? What an attacker gets out of a network's losses, and how sure that number is.

The unit is the patient: several cases of one patient are one score. Members are those trained on.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import brentq
from scipy.special import betaincinv, ndtri

from monai_tl.metrics.cohort import BootstrapRule
from monai_tl.metrics.summary import Interval

Scores = NDArray[np.float64]
_MIN_LOSS = 1e-12


@dataclass(frozen=True)
class AttackStrength:
    """How well a score tells members from others.

    Attributes:
        auc: Chance that a random member scores above a random other, ties counted half; 0.5 is guessing.
        auc_interval: Over patients.
        true_positive_rate: Share of the members that are found while at most ``false_positive_rate`` of the others
            are taken for members.
        rate_interval: Of it, over patients.
        false_positive_rate: As it was asked for.
        finest_rate: One of the others, as a share: the smallest false positive rate above 0 that they can show.
        rate_bound: No more than this is the true false positive rate at the threshold used, with the interval's
            confidence; where the others are few it is far above what was asked for.
        n_members, n_others: Patients.
    """

    auc: float
    auc_interval: Interval
    true_positive_rate: float
    rate_interval: Interval
    false_positive_rate: float
    finest_rate: float
    rate_bound: float
    n_members: int
    n_others: int

    @property
    def is_resolved(self) -> bool:
        """Whether there are enough others for a false positive rate as small as was asked for."""
        return self.finest_rate <= self.false_positive_rate


def by_patient(scores: Mapping[str, float], patients: Mapping[str, str]) -> dict[str, float]:
    """Mean score of each patient's cases.

    Args:
        scores: Case → score.
        patients: Case → patient.
    """
    found: dict[str, list[float]] = {}
    for case_id, score in scores.items():
        found.setdefault(patients[case_id], []).append(score)
    return {patient: math.fsum(values) / len(values) for patient, values in found.items()}


def scaled_confidence(loss: float) -> float:
    """A loss as the log odds of ``exp(-loss)``, which over networks is nearly normal where the loss is not.

    References:
        Carlini et al. 2022, arXiv:2112.03570, section V.
    """
    return -math.log(math.expm1(max(loss, _MIN_LOSS)))


def likelihood_ratio(
    target: Mapping[str, float],
    inside: Mapping[str, Sequence[float]],
    outside: Mapping[str, Sequence[float]],
) -> dict[str, float]:
    """Log likelihood ratio of a case's scaled confidence: network trained on it against network not trained on it.

    Each side is a normal distribution of the case's own mean over its reference networks; the spread is pooled over the
    cases, since references are few. Without references that were trained on the case the ratio falls back to the
    distance from the mean of those that were not: how much better the network does than is usual for this case.

    Args:
        target: Case → scaled confidence by the network attacked.
        inside: Case → the same by reference networks that were trained on it.
        outside: Case → the same by those that were not; a case without any gets no score.

    Returns:
        Case → score; higher speaks for a member.

    References:
        Carlini et al. 2022, arXiv:2112.03570 (LiRA, with global variance); the fallback is Watson et al. 2022,
        arXiv:2111.08440 (difficulty calibration).
    """
    cases = [case_id for case_id in target if outside.get(case_id)]
    has_both = bool(cases) and all(inside.get(case_id) for case_id in cases)
    spread_out, spread_in = _pooled_spread(outside, cases), _pooled_spread(inside, cases)
    scores = {}
    for case_id in cases:
        above = target[case_id] - float(np.mean(outside[case_id]))
        if not has_both or not spread_in or not spread_out:
            scores[case_id] = above
            continue
        beside = target[case_id] - float(np.mean(inside[case_id]))
        scores[case_id] = (
            0.5 * (above / spread_out) ** 2 - 0.5 * (beside / spread_in) ** 2 + math.log(spread_out / spread_in)
        )
    return scores


def _pooled_spread(values: Mapping[str, Sequence[float]], cases: Sequence[str]) -> float:
    """Standard deviation around each case's own mean; 0 where no case has two values."""
    rows = [np.asarray(values.get(case_id, ()), dtype=np.float64) for case_id in cases]
    squares = sum(float(((row - row.mean()) ** 2).sum()) for row in rows if len(row) > 1)
    n_free = sum(len(row) - 1 for row in rows if len(row) > 1)
    return math.sqrt(squares / n_free) if n_free else 0.0


def auc_of(members: Scores, others: Scores) -> float:
    """Area under the ROC curve: Mann and Whitney's statistic by the number of pairs; NaN without any."""
    if not len(members) or not len(others):
        return math.nan
    return float(_wins(members, others).mean())


def rate_at(members: Scores, others: Scores, false_positive_rate: float) -> float:
    """True positive rate at the lowest threshold that takes at most a share of the others for members.

    A member must score above the threshold, so ties never count as found.
    """
    if not len(members) or not len(others):
        return math.nan
    threshold = np.sort(others)[::-1][_n_allowed(len(others), false_positive_rate)]
    return float((members > threshold).mean())


def judge_attack(
    members: Sequence[float], others: Sequence[float], bootstrap: BootstrapRule, false_positive_rate: float = 0.01
) -> AttackStrength:
    """Strength of an attack, with intervals over patients.

    Members and others are drawn anew, each among themselves. Where the draws do not differ (the scores separate
    perfectly) the interval of the AUC is Newcombe's and that of the rate Clopper and Pearson's, which then have
    a width.

    Args:
        members: One score a patient.
        others: Likewise.
        bootstrap: How intervals are drawn.
        false_positive_rate: 0 to 1, without 1.

    Returns:
        NaN where there is no patient on one side; intervals NaN where there are fewer than two.

    References:
        Newcombe 2006, doi:10.1002/sim.2324, method 5.
    """
    a, b = np.asarray(members, dtype=np.float64), np.asarray(others, dtype=np.float64)
    auc, rate = auc_of(a, b), rate_at(a, b, false_positive_rate)
    auc_interval = rate_interval = Interval(math.nan, math.nan)
    if min(len(a), len(b)) > 1:
        aucs, rates = _draw(a, b, bootstrap, false_positive_rate)
        tail = (1.0 - bootstrap.confidence) / 2.0
        low, high = np.quantile(aucs, [tail, 1.0 - tail])
        auc_interval = Interval(float(low), float(high))
        if high - low < 1.0 / (len(a) * len(b)):
            auc_interval = _newcombe(auc, len(a), len(b), bootstrap.confidence)
        low, high = np.quantile(rates, [tail, 1.0 - tail])
        rate_interval = Interval(float(low), float(high))
        if low == high:
            rate_interval = _clopper_pearson(round(rate * len(a)), len(a), bootstrap.confidence)
    return AttackStrength(
        auc=auc,
        auc_interval=auc_interval,
        true_positive_rate=rate,
        rate_interval=rate_interval,
        false_positive_rate=false_positive_rate,
        finest_rate=1.0 / len(b) if len(b) else math.nan,
        rate_bound=_bound(len(b), false_positive_rate, bootstrap.confidence),
        n_members=len(a),
        n_others=len(b),
    )


def _wins(members: Scores, others: Scores) -> Scores:
    above = members[:, np.newaxis] > others[np.newaxis]
    equal = members[:, np.newaxis] == others[np.newaxis]
    wins: Scores = above + 0.5 * equal
    return wins


def _n_allowed(n_others: int, false_positive_rate: float) -> int:
    # a share such as 0.07 of 100 must count 7, though its product is below 7 in binary
    return math.floor(n_others * false_positive_rate + 1e-9)


def _draw(members: Scores, others: Scores, bootstrap: BootstrapRule, rate: float) -> tuple[Scores, Scores]:
    generator = np.random.default_rng(bootstrap.seed)
    wins, n_allowed = _wins(members, others), _n_allowed(len(others), rate)
    aucs, rates = np.empty(bootstrap.n_bootstrap), np.empty(bootstrap.n_bootstrap)
    for index in range(bootstrap.n_bootstrap):
        i = generator.integers(0, len(members), len(members))
        j = generator.integers(0, len(others), len(others))
        weights_i, weights_j = np.bincount(i, minlength=len(members)), np.bincount(j, minlength=len(others))
        aucs[index] = weights_i @ wins @ weights_j / (len(members) * len(others))
        threshold = np.partition(others[j], len(others) - 1 - n_allowed)[len(others) - 1 - n_allowed]
        rates[index] = (members[i] > threshold).mean()
    return aucs, rates


def _newcombe(auc: float, n_members: int, n_others: int, confidence: float) -> Interval:
    """Interval of an AUC from its own variance at each end, after Hanley and McNeil with the mean of both counts."""
    z = float(ndtri(0.5 + confidence / 2.0))
    mean_count = (n_members + n_others) / 2.0 - 1.0

    def gap(value: float) -> float:
        shape = (1.0 - value) / (2.0 - value) + value / (1.0 + value)
        variance = value * (1.0 - value) * (1.0 + mean_count * shape) / (n_members * n_others)
        return abs(value - auc) - z * math.sqrt(variance)

    low = brentq(gap, 1e-12, auc - 1e-9) if auc > 1e-6 else 0.0
    high = brentq(gap, auc + 1e-9, 1.0 - 1e-12) if auc < 1.0 - 1e-6 else 1.0
    return Interval(float(low), float(high))


def _clopper_pearson(n_seen: int, n: int, confidence: float) -> Interval:
    """Exact interval of a share of which so many were seen."""
    tail = (1.0 - confidence) / 2.0
    low = float(betaincinv(n_seen, n - n_seen + 1, tail)) if n_seen else 0.0
    high = float(betaincinv(n_seen + 1, n - n_seen, 1.0 - tail)) if n_seen < n else 1.0
    return Interval(low, high)


def _bound(n_others: int, rate: float, confidence: float) -> float:
    """Clopper and Pearson's one-sided bound: no more than this is the share of which so many were seen."""
    if not n_others:
        return math.nan
    n_seen = _n_allowed(n_others, rate)
    return float(betaincinv(n_seen + 1, n_others - n_seen, confidence))
