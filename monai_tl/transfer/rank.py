"""Sources side by side: scores before training, a short probe, and whether the two agree."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import combinations, pairwise

import numpy as np
from scipy.special import stdtrit
from scipy.stats import kendalltau, rankdata

from monai_tl.metrics.case import ClassScore
from monai_tl.metrics.summary import bootstrap_mean
from monai_tl.records import Record
from monai_tl.transfer.verdict import fewest_patients, paired_difference

LOGME, CCFV, GBC, PROBE = "LogME", "CC-FV", "GBC", "probe"
SCORES = {
    LOGME: "log evidence of a linear model of the classes on the head's input",
    CCFV: "variety of features over the difference of a class between cases, in the decoder",
    GBC: "minus the overlap of the classes in the head's input",
}
"""What each score is; higher is better in all."""
FEWEST_SOURCES = 3
"""Two rankings of two sources agree or disagree by the toss of a coin."""

CaseDice = Mapping[str, Sequence[float | None]]
"""Case id → Dice of each class on the case's own grid; None where reference and prediction are both empty."""


class MeanDice(Record):
    """Mean foreground Dice over the probe's validation cases.

    Attributes:
        low, high: Bootstrap over patients; None with fewer than two.
    """

    mean: float
    low: float | None
    high: float | None
    n_cases: int
    n_patients: int


class Difference(Record):
    """Paired difference of the mean foreground Dice over the cases that both have.

    Attributes:
        low, high: Bootstrap over patients; None with too few for the confidence.
        seed_margin: A difference up to this may come of the seeds; None with one seed. See ``seed_margin``.
    """

    mean: float
    low: float | None
    high: float | None
    seed_margin: float | None

    @property
    def decided(self) -> bool:
        """Whether neither the choice of patients nor that of seeds explains it."""
        beyond_patients = self.low is not None and self.high is not None and (self.low > 0 or self.high < 0)
        return beyond_patients and self.seed_margin is not None and abs(self.mean) > self.seed_margin


class RankedSource(Record):
    """One source.

    Attributes:
        name: Of its folder.
        weights_sha256: Which weights these were.
        network: Name in the table of builders.
        share_body: Share of the body's parameters that came across.
        contract: Items that are not equal, with their status.
        scores: Each of SCORES; None where it is undefined.
        probe: After the probe's steps from this source, mean over the seeds; None without a probe.
        scratch: The same network, contract, steps and seeds from fresh weights.
        gain: Probe − scratch.
    """

    name: str
    weights_sha256: str
    network: str
    share_body: float
    contract: dict[str, str]
    scores: dict[str, float | None]
    probe: MeanDice | None = None
    scratch: MeanDice | None = None
    gain: Difference | None = None


class RefusedSource(Record):
    """A source that could not be ranked, and why."""

    name: str
    reason: str


class Agreement(Record):
    """Kendall's tau-b between two rankings of the same sources.

    Attributes:
        n: Sources that both rank.
        tau: −1 to 1; None with fewer than FEWEST_SOURCES or when one side has no order at all.
    """

    first: str
    second: str
    n: int
    tau: float | None


class Conditions(Record):
    """Under which conditions the sources were ranked.

    Attributes:
        n_cases: Training cases looked at; no test case among them.
        n_train_cases, n_val_cases: The halves of these that the probe trained on and was judged on, by patient.
        steps: Of the probe; 0 without one.
        seeds: The first chose cases and voxels; the probe was run with each.
    """

    n_cases: int
    n_train_cases: int
    n_val_cases: int
    n_val_patients: int
    strategy: str
    steps: int
    seeds: tuple[int, ...]
    confidence: float


class Ranking(Record):
    """``rank.json``: sources by the probe's Dice, best first (by the mean rank of the scores without a probe).

    Attributes:
        findings: What can be said, sentence by sentence.
    """

    schema_version: int = 1
    conditions: Conditions
    sources: tuple[RankedSource, ...]
    refused: tuple[RefusedSource, ...]
    agreements: tuple[Agreement, ...]
    findings: tuple[str, ...]


def mean_dice(
    runs: Sequence[CaseDice], patients: Mapping[str, str], n_bootstrap: int, confidence: float, seed: int
) -> MeanDice:
    """Mean over cases of the mean over classes (and over runs), with its interval over patients.

    Args:
        runs: At least one, of the same cases, in each of which a class is defined somewhere.
        patients: Case id → patient.
        n_bootstrap: Bootstrap samples.
        confidence: Of the interval.
        seed: Of the bootstrap.
    """
    found = [_case_means(run) for run in runs]
    ids = [case_id for case_id in sorted(found[0]) if all(case_id in run for run in found)]
    values = np.array([np.mean([run[case_id] for run in found]) for case_id in ids])
    owners = [patients[case_id] for case_id in ids]
    interval = bootstrap_mean(values, owners, n_bootstrap, confidence, np.random.default_rng(seed))
    low, high = _finite(interval.low), _finite(interval.high)
    return MeanDice(mean=float(values.mean()), low=low, high=high, n_cases=len(ids), n_patients=len(set(owners)))


def _case_means(run: CaseDice) -> dict[str, float]:
    found = {case_id: [one for one in dice if one is not None] for case_id, dice in run.items()}
    return {case_id: float(np.mean(dice)) for case_id, dice in found.items() if dice}


def seed_margin(first: Sequence[CaseDice], second: Sequence[CaseDice], confidence: float) -> float | None:
    """Difference between the mean Dice of two sets of runs that the choice of seeds alone explains (Welch).

    t · √(s₁²/n₁ + s₂²/n₂), with the standard deviations of the runs' means and Satterthwaite's degrees of freedom.

    Args:
        first: Runs that differ by their seed alone.
        second: Likewise.
        confidence: Two-sided.

    Returns:
        None when a side has one run: its seeds' part is unknown.

    References:
        Welch 1947, doi:10.1093/biomet/34.1-2.28.
    """
    if min(len(first), len(second)) < 2:
        return None
    sizes = np.array([len(first), len(second)])
    means = [[float(np.mean(list(_case_means(run).values()))) for run in runs] for runs in (first, second)]
    parts = np.array([np.var(values, ddof=1) for values in means]) / sizes
    if not parts.any():
        return 0.0
    freedom = parts.sum() ** 2 / np.sum(parts**2 / (sizes - 1))
    return float(stdtrit(freedom, 0.5 + confidence / 2.0)) * math.sqrt(float(parts.sum()))


def compare(
    first: Sequence[CaseDice],
    second: Sequence[CaseDice],
    patients: Mapping[str, str],
    n_bootstrap: int,
    confidence: float,
    seed: int,
) -> Difference:
    """Paired difference first − second; see ``paired_difference``.

    No interval is given with fewer patients than its confidence needs.

    Args:
        first: Runs with equal seeds, place by place, as those of ``second``; differences are averaged over them.
        second: As many.
        patients: Case id → patient.
        n_bootstrap: Bootstrap samples.
        confidence: Of the interval.
        seed: Of the bootstrap.
    """
    pairs = list(zip(first, second, strict=True))
    ids = sorted(set(first[0]).intersection(*first, *second))
    table = [[paired_difference(_class_scores(a[one]), _class_scores(b[one])) for a, b in pairs] for one in ids]
    values = np.array([np.mean([one for one in row if not math.isnan(one)] or [math.nan]) for row in table])
    defined = ~np.isnan(values)
    owners = [patients[case_id] for case_id, keep in zip(ids, defined, strict=True) if keep]
    mean = float(values[defined].mean()) if defined.any() else 0.0
    margin = seed_margin(first, second, confidence)
    if len(set(owners)) < fewest_patients(confidence):
        return Difference(mean=mean, low=None, high=None, seed_margin=margin)
    interval = bootstrap_mean(values[defined], owners, n_bootstrap, confidence, np.random.default_rng(seed))
    return Difference(mean=mean, low=interval.low, high=interval.high, seed_margin=margin)


def _class_scores(dice: Sequence[float | None]) -> list[ClassScore]:
    return [ClassScore(math.nan if one is None else one, math.nan, math.nan, math.nan, math.nan) for one in dice]


def _finite(value: float) -> float | None:
    return float(value) if math.isfinite(value) else None


def order_sources(sources: Sequence[RankedSource]) -> tuple[RankedSource, ...]:
    """Best first: by the probe's mean Dice, else by the mean rank over the scores that all sources have."""
    if all(source.probe is not None for source in sources):
        return tuple(sorted(sources, key=lambda item: (-(item.probe.mean if item.probe else 0.0), item.name)))
    ranks = np.zeros(len(sources))
    for name in SCORES:
        values = [source.scores.get(name) for source in sources]
        known = [value for value in values if value is not None]
        if len(known) == len(values):
            ranks += rankdata([-value for value in known])
    places = sorted(range(len(sources)), key=lambda index: (ranks[index], sources[index].name))
    return tuple(sources[index] for index in places)


def measure_agreement(sources: Sequence[RankedSource]) -> tuple[Agreement, ...]:
    """Kendall's tau-b of each score with the probe, then between the scores.

    References:
        Kendall 1945, doi:10.1093/biomet/33.3.239.
    """
    columns: dict[str, list[float | None]] = {}
    if all(source.probe is not None for source in sources):
        columns[PROBE] = [source.probe.mean if source.probe else None for source in sources]
    columns |= {name: [source.scores.get(name) for source in sources] for name in SCORES}
    return tuple(_agreement(first, second, columns) for first, second in combinations(columns, 2))


def _agreement(first: str, second: str, columns: Mapping[str, Sequence[float | None]]) -> Agreement:
    both = [
        (one, two)
        for one, two in zip(columns[first], columns[second], strict=True)
        if one is not None and two is not None
    ]
    tau = math.nan
    if len(both) >= FEWEST_SOURCES:
        tau = float(kendalltau(*zip(*both, strict=True)).statistic)
    return Agreement(first=first, second=second, n=len(both), tau=_finite(tau))


def describe_ranking(
    sources: Sequence[RankedSource], agreements: Sequence[Agreement], neighbours: Sequence[Difference]
) -> tuple[str, ...]:
    """What can be said, and what cannot.

    Args:
        sources: In their order.
        agreements: Of ``measure_agreement``.
        neighbours: Each source − the next in the order, by the probe; empty without one.
    """
    if not any(source.probe for source in sources):
        listed = "There was no probe: the order is by the mean rank of the scores alone."
        reliable = "No score is known to tell reliably how well a source will do; run the probe before choosing."
        return (listed, reliable, *_describe_scores(agreements))
    return (*_describe_order(sources, neighbours), _describe_help(sources), *_describe_scores(agreements))


def _describe_order(sources: Sequence[RankedSource], neighbours: Sequence[Difference]) -> tuple[str, ...]:
    if len(sources) == 1:
        return ("One source was probed: there is nothing to rank it against.",)
    open_pairs = [
        f"{above.name} and {below.name}"
        for (above, below), difference in zip(pairwise(sources), neighbours, strict=True)
        if not difference.decided
    ]
    n_patients = min(source.probe.n_patients for source in sources if source.probe)
    if not open_pairs:
        return ("The probe separates every source from the next in the order, beyond chance of patients and seeds.",)
    return (
        f"The order is not decided: on {n_patients} validation patients and with these seeds the probe does not "
        f"separate {'; '.join(open_pairs)}. More cases (--n-cases), steps (--steps) or seeds (--seeds) may.",
    )


def _describe_help(sources: Sequence[RankedSource]) -> str:
    helping = [item.name for item in sources if item.gain and item.gain.decided and item.gain.mean > 0]
    harming = [item.name for item in sources if item.gain and item.gain.decided and item.gain.mean < 0]
    text = (
        f"Better in the probe than the same network from fresh weights: {', '.join(helping)}."
        if helping
        else "No source is shown to be better in the probe than the same network from fresh weights."
    )
    return text + (f" Worse: {', '.join(harming)}." if harming else "")


def _describe_scores(agreements: Sequence[Agreement]) -> tuple[str, ...]:
    with_probe = [item for item in agreements if item.first == PROBE]
    chosen = with_probe or list(agreements)
    n_sources = max((item.n for item in chosen), default=0)
    what = "scores and probe" if with_probe else "the scores"
    if n_sources < FEWEST_SOURCES:
        count = f"{n_sources} source{'' if n_sources == 1 else 's'}"
        return (f"Whether {what} agree is not decided: {count}, and at least {FEWEST_SOURCES} are needed.",)
    partner = "the probe" if with_probe else "one another"
    defined = [item.tau for item in chosen if item.tau is not None]
    if len(defined) == len(chosen) and min(defined) > 1.0 - 1e-9:
        word = f"The scores order the sources as {partner}"
    elif len(defined) == len(chosen) and min(defined) > 0:
        word = f"The scores agree with {partner} in part"
    else:
        word = f"The scores do not all agree with {partner}"
    word += ": follow the probe, as far as it decides" if with_probe else ""
    listed = ", ".join(f"{_pair(item)} {'undefined' if item.tau is None else f'{item.tau:+.2f}'}" for item in chosen)
    return (f"{word} (Kendall's tau-b over {n_sources} sources: {listed}). So few sources prove nothing either way.",)


def _pair(item: Agreement) -> str:
    return item.second if item.first == PROBE else f"{item.first} and {item.second}"
