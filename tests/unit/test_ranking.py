"""Order, agreement and what is said of them, against scipy and by hand."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest
from scipy.stats import ttest_ind

from monai_tl.transfer.rank import (
    CCFV,
    GBC,
    LOGME,
    PROBE,
    Difference,
    MeanDice,
    RankedSource,
    compare,
    describe_ranking,
    mean_dice,
    measure_agreement,
    order_sources,
    seed_margin,
)

PATIENTS = {f"case-{index}": f"patient-{index}" for index in range(12)}
BOOTSTRAP = (PATIENTS, 500, 0.95, 0)


def source(name: str, dice: float | None, *scores: float | None) -> RankedSource:
    probe = None if dice is None else MeanDice(mean=dice, low=None, high=None, n_cases=8, n_patients=8)
    found = dict(zip((LOGME, CCFV, GBC), scores, strict=True))
    return RankedSource(
        name=name, weights_sha256="0" * 64, network="unet", share_body=1.0, contract={}, scores=found, probe=probe
    )


def decided(mean: float) -> Difference:
    return Difference(mean=mean, low=mean - 0.01, high=mean + 0.01, seed_margin=0.0)


def tau_b(first: list[float], second: list[float]) -> float:
    """By its definition over pairs."""
    signs = [(np.sign(a - b), np.sign(c - d)) for (a, c), (b, d) in combinations(zip(first, second, strict=True), 2)]
    total = sum(a * b for a, b in signs)
    return float(total / np.sqrt(sum(a != 0 for a, _ in signs) * sum(b != 0 for _, b in signs)))


def test_agreement_is_kendalls_tau_b_over_the_sources_that_both_rank():
    dice = [0.9, 0.7, 0.5, 0.5]
    logme, ccfv = [0.3, 0.1, 0.2, 0.2], [1.0, 2.0, 3.0, 4.0]
    rows = [source(f"s{i}", dice[i], logme[i], ccfv[i], None if i == 3 else float(-i)) for i in range(4)]
    found = {(item.first, item.second): item for item in measure_agreement(rows)}
    assert set(found) == set(combinations((PROBE, LOGME, CCFV, GBC), 2))
    assert found[PROBE, LOGME].tau == pytest.approx(tau_b(dice, logme))
    assert found[PROBE, CCFV].tau == pytest.approx(tau_b(dice, ccfv))
    assert found[PROBE, GBC].tau == pytest.approx(1.0)
    assert [found[PROBE, LOGME].n, found[PROBE, GBC].n] == [4, 3]


def test_two_sources_or_a_constant_score_have_no_agreement():
    rows = [source("a", 0.9, 1.0, 1.0, 0.0), source("b", 0.8, 2.0, 1.0, 0.0)]
    assert all(item.tau is None and item.n == 2 for item in measure_agreement(rows))
    text = " ".join(describe_ranking(rows, measure_agreement(rows), [decided(0.1)]))
    assert "not decided: 2 sources, and at least 3 are needed" in text
    rows.append(source("c", 0.7, 3.0, 1.0, 0.0))
    taus = {item.second: item.tau for item in measure_agreement(rows) if item.first == PROBE}
    assert taus == {LOGME: pytest.approx(-1.0), CCFV: None, GBC: None}


def test_the_probe_orders_and_without_it_the_mean_rank():
    rows = [source("low", 0.2, 9.0, 9.0, 9.0), source("high", 0.8, 1.0, 1.0, 1.0)]
    assert [row.name for row in order_sources(rows)] == ["high", "low"]
    bare = [source("x", None, 1.0, 2.0, None), source("y", None, 3.0, 3.0, -1.0), source("z", None, 2.0, 1.0, -2.0)]
    assert [row.name for row in order_sources(bare)] == ["y", "x", "z"]
    findings = " ".join(describe_ranking(bare, measure_agreement(bare), []))
    assert "no probe" in findings
    assert "No score is known to tell reliably" in findings


def test_findings_name_the_undecided_pair_and_do_not_claim_agreement():
    rows = [source("a", 0.9, 1.0, 3.0, 0.0), source("b", 0.8, 2.0, 2.0, 0.0), source("c", 0.7, 3.0, 1.0, 0.0)]
    undecided = Difference(mean=0.1, low=0.05, high=0.15, seed_margin=0.2)
    text = " ".join(describe_ranking(rows, measure_agreement(rows), [decided(0.1), undecided]))
    assert "order is not decided" in text
    assert "separate b and c." in text
    assert "The scores do not all agree with the probe" in text
    assert "LogME -1.00, CC-FV +1.00, GBC undefined" in text
    assert "No source is shown to be better" in text
    clear = [row.model_copy(update={"gain": decided(0.3 - 0.3 * i)}) for i, row in enumerate(rows)]
    clear = [row.model_copy(update={"scores": {LOGME: -i, CCFV: -i, GBC: -i}}) for i, row in enumerate(clear)]
    text = " ".join(describe_ranking(clear, measure_agreement(clear), [decided(0.1), decided(0.1)]))
    assert "separates every source" in text
    assert "fresh weights: a. Worse: c." in text
    assert "The scores order the sources as the probe" in text


def test_the_margin_of_seeds_is_welchs():
    rng = np.random.default_rng(0)
    first, second = rng.normal(0.8, 0.02, 3), rng.normal(0.6, 0.1, 4)
    runs = [[{"case-0": [value - 0.1], "case-1": [value + 0.1, None]} for value in side] for side in (first, second)]
    interval = ttest_ind(first, second, equal_var=False).confidence_interval(0.95)
    assert seed_margin(*runs, 0.95) == pytest.approx((interval.high - interval.low) / 2)
    assert seed_margin(runs[0], runs[1][:1], 0.95) is None
    assert seed_margin([runs[0][0]] * 2, [runs[1][0]] * 2, 0.95) == 0.0


def test_means_and_differences_by_hand():
    runs = [{"case-0": [0.5, None], "case-1": [1.0, 0.0], "case-2": [None, None]}]
    found = mean_dice(runs, *BOOTSTRAP)
    assert (found.mean, found.n_cases, found.n_patients) == (0.5, 2, 2)
    # where one predicts a class that is not there and the other rightly does not, the latter has the point
    other = [{"case-0": [0.5, 0.0], "case-1": [0.6, 0.2], "case-2": [None, None]}]
    difference = compare(runs, other, *BOOTSTRAP)
    assert difference.mean == pytest.approx(((0.0 + 1.0) / 2 + (0.4 - 0.2) / 2) / 2)
    # two patients have no interval of 95 %, one seed no margin
    assert (difference.low, difference.seed_margin, difference.decided) == (None, None, False)


def simulate(rng: np.random.Generator, gap: float) -> bool:
    """Two sources that differ by ``gap`` in the long run: 8 patients, 3 seeds each; whether they are told apart."""
    patients = rng.normal(0.0, 0.1, 8)

    def runs(mean: float) -> list[dict[str, list[float | None]]]:
        own = rng.normal(0.0, 0.02, 8)
        return [
            {f"case-{i}": [float(mean + shift + patients[i] + own[i])] for i in range(8)}
            for shift in rng.normal(0.0, 0.05, 3)
        ]

    return compare(runs(0.6 + gap), runs(0.6), PATIENTS, 200, 0.95, 0).decided


def test_equal_sources_are_seldom_told_apart_and_unequal_ones_are():
    rng = np.random.default_rng(1)
    assert np.mean([simulate(rng, 0.0) for _ in range(300)]) <= 0.05
    assert np.mean([simulate(rng, 0.4) for _ in range(50)]) >= 0.9
