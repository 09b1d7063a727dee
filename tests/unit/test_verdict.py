"""The verdict in each of its cases."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from monai_tl.metrics.case import ClassScore
from monai_tl.metrics.crossed import crossed_mean
from monai_tl.transfer.verdict import (
    Verdict,
    fewest_patients,
    is_consistent,
    judge,
    paired_difference,
    smallest_detectable,
)


def score(dice: float) -> ClassScore:
    return ClassScore(dice, dice, 1.0, 1.0, 1.0)


def judge_values(
    values: list[float], patients: list[str] | None = None, margin: float = 0.01, n_seeds: int = 3
) -> Verdict:
    """Of seeds that agree in every case, which leave the interval of the patients."""
    table = np.tile(np.array(values).reshape(-1, 1), (1, n_seeds))
    return judge(table, patients or [f"p{index}" for index in range(len(values))], 2000, 0.95, margin, 0)


def test_gain() -> None:
    verdict = judge_values([0.10, 0.12, 0.08, 0.11, 0.09, 0.10])
    assert verdict.verdict == "gain"
    assert verdict.decided
    assert verdict.difference == pytest.approx(0.10)
    assert verdict.low is not None
    assert verdict.high is not None
    assert 0.08 <= verdict.low < 0.10 < verdict.high <= 0.12
    assert "raised the mean Dice by 0.100" in verdict.sentence


def test_harm() -> None:
    verdict = judge_values([-0.10, -0.12, -0.08, -0.11, -0.09, -0.10])
    assert verdict.verdict == "harm"
    assert "lowered the mean Dice by 0.100" in verdict.sentence


@pytest.mark.parametrize(
    ("values", "word", "text"),
    [
        ([0.10, 0.12, 0.08, 0.11, 0.09, 0.10], "gain", "Gain, but of one seed: the pretrained start raised"),
        ([-0.10, -0.12, -0.08, -0.11, -0.09, -0.10], "harm", "Harm, but of one seed: the pretrained start lowered"),
        ([0.004, -0.004, 0.002, -0.002, 0.001, -0.001], "null", "Null, but of one seed: with or without"),
        ([0.0] * 6, "null", "Null, but of one seed: both arms score the same in every case"),
        ([0.2, -0.2, 0.1, -0.1, 0.05, -0.05], "null", "or more, if other seeds did the same."),
    ],
)
def test_one_seed_decides_nothing_and_says_so_first(values: list[float], word: str, text: str) -> None:
    """The interval is over patients alone; decision 10: up to 70 % of such twins are told apart."""
    one, three = judge_values(values, n_seeds=1), judge_values(values)
    assert (one.verdict, three.verdict) == (word, word)
    assert (one.low, one.high) == pytest.approx((three.low, three.high))
    assert not one.decided
    assert text in one.sentence
    assert "one pair of trainings" in one.sentence or "but undecided" in one.sentence
    assert three.decided == ("undecided" not in three.sentence)
    assert "seed" not in three.sentence


def test_twins_that_differ_by_their_training_alone_are_never_decided_apart_by_one_seed() -> None:
    generator = np.random.default_rng(0)
    verdicts = [judge_values(list(generator.normal(generator.normal(0, 0.05), 0.05, 12)), n_seeds=1) for _ in range(60)]
    # the words alone are wrong in most: that is why they decide nothing
    assert sum(verdict.verdict != "null" for verdict in verdicts) > 20
    assert not any(verdict.decided for verdict in verdicts)


def test_arms_swapped_swap_the_verdict() -> None:
    values = list(np.random.default_rng(0).normal(0.05, 0.05, 20))
    forth, back = judge_values(values), judge_values([-value for value in values])
    assert (forth.verdict, back.verdict) == ("gain", "harm")
    assert forth.difference == pytest.approx(-back.difference)  # type: ignore[operator]
    assert forth.smallest_detectable == pytest.approx(back.smallest_detectable)


def test_null_for_certain_and_null_undecided() -> None:
    values = [0.004, -0.004, 0.002, -0.002, 0.001, -0.001]
    certain = judge_values(values)
    assert certain.verdict == "null"
    assert certain.decided
    assert "same to within 0.01" in certain.sentence
    undecided = judge_values([value * 50 for value in values])
    assert undecided.verdict == "null"
    assert not undecided.decided
    assert "too small to tell" in undecided.sentence
    assert f"{undecided.smallest_detectable:.3f}" in undecided.sentence


def test_nothing_is_said_of_differences_that_no_dice_can_have() -> None:
    """Two seeds 0.77 and 0.43: the interval of their mean is wider than what two Dice can differ by."""
    verdict = judge(np.tile([[0.77, 0.43]], (25, 1)), [f"p{k}" for k in range(25)], 2000, 0.95, 0.01, 0)
    assert (verdict.low, verdict.high) == (-1.0, 1.0)
    assert (verdict.verdict, verdict.decided) == ("null", False)
    assert "would show no difference, however large; train more seeds (finetune.seeds)." in verdict.sentence
    assert is_consistent(verdict)


def test_margin_never_hides_a_gain() -> None:
    verdict = judge_values([0.002, 0.003, 0.0025, 0.0021, 0.0023, 0.0026], margin=0.01)
    assert verdict.verdict == "gain"


def test_identical_arms() -> None:
    verdict = judge_values([0.0] * 6)
    assert (verdict.verdict, verdict.difference, verdict.low, verdict.high) == ("null", 0.0, 0.0, 0.0)
    assert verdict.decided
    assert "same in every case" in verdict.sentence


@pytest.mark.parametrize("n_patients", [0, 1, 2, 5])
def test_too_few_patients(n_patients: int) -> None:
    patients = [f"p{index % n_patients}" for index in range(5)] if n_patients else []
    verdict = judge_values([0.1] * len(patients), patients)
    assert verdict.verdict == "null"
    assert not verdict.decided
    assert verdict.n_patients == n_patients
    assert (verdict.low, verdict.high, verdict.smallest_detectable) == (None, None, None)
    assert "at least 6" in verdict.sentence
    assert Verdict.model_validate(verdict.model_dump(mode="json")) == verdict


def test_scans_of_few_patients_do_not_make_a_gain() -> None:
    """One patient with many good scans among six: by scan a clear gain, by patient not."""
    values = [0.2] * 30 + [-0.1, 0.02, -0.05, 0.01, -0.02]
    patients = ["a"] * 30 + ["b", "c", "d", "e", "f"]
    assert judge_values(values).verdict == "gain"
    assert judge_values(values, patients).verdict == "null"


def test_undefined_pairs_are_left_out_and_counted() -> None:
    verdict = judge_values([0.1, math.nan, 0.1, 0.1, math.nan, 0.1, 0.1, 0.1])
    assert (verdict.n_cases, verdict.n_patients) == (6, 6)
    assert verdict.difference == pytest.approx(0.1)


@pytest.mark.parametrize(("confidence", "fewest"), [(0.9, 5), (0.95, 6), (0.99, 8)])
def test_fewest_patients_by_the_sign_test(confidence: float, fewest: int) -> None:
    def p_value(n: int) -> float:
        return float(stats.binomtest(n, n, 0.5).pvalue)

    assert p_value(fewest) <= 1.0 - confidence < p_value(fewest - 1)
    assert fewest_patients(confidence) == fewest


@pytest.mark.parametrize("n_patients", [6, 9, 12])
def test_without_a_true_difference_a_verdict_is_rare(n_patients: int) -> None:
    """Simulated: nominally 5 %; the plain percentile interval gives 14, 11 and 9 %."""
    generator = np.random.default_rng(n_patients)
    n_trials = 800
    patients = [f"p{index}" for index in range(n_patients)]
    wrong = sum(
        judge(list(values), patients, 1000, 0.95, 0.01, 0).verdict != "null"
        for values in generator.normal(0.0, 0.05, (n_trials, n_patients))
    )
    assert 0.03 <= wrong / n_trials <= 0.085


@pytest.mark.parametrize("n", [6, 8, 12, 50])
def test_smallest_detectable_difference_has_its_power(n: int) -> None:
    """Simulated: a true difference of that size is found by a t test in 80 % of the trials, however few patients."""
    sd = 0.1
    values = np.random.default_rng(0).normal(0, 1, n)
    values = (values - values.mean()) / values.std(ddof=1) * sd
    names = [str(index) for index in range(n)]
    smallest = smallest_detectable(crossed_mean(values[:, None], names, 200, 0.95, np.random.default_rng(0)), 0.95)
    trials = np.random.default_rng(1).normal(smallest, sd, (20_000, n))
    found = stats.ttest_1samp(trials, 0.0, axis=1)
    assert np.mean((found.pvalue < 0.05) & (found.statistic > 0)) == pytest.approx(0.8, abs=0.01)


def test_a_patient_of_many_cases_weighs_in_the_error_as_in_the_mean() -> None:
    """Against resampling of whole patients, which needs no formula."""
    generator = np.random.default_rng(3)
    counts = np.array([20, *[1] * 10, *[3] * 29])
    patients = [str(patient) for patient, count in enumerate(counts) for _ in range(count)]
    own = generator.normal(0.1, 0.1, len(counts))
    rows = np.repeat(own, counts)
    error = crossed_mean(rows[:, None], patients, 200, 0.95, generator).patient_error
    drawn = generator.integers(0, len(counts), (20_000, len(counts)))
    means = (own * counts)[drawn].sum(axis=1) / counts[drawn].sum(axis=1)
    assert error == pytest.approx(means.std(), rel=0.15)
    even = crossed_mean(own[:, None], [str(patient) for patient in range(40)], 200, 0.95, generator)
    assert even.patient_error == pytest.approx(own.std(ddof=1) / math.sqrt(40))


def test_paired_difference_is_the_mean_over_classes() -> None:
    assert paired_difference([score(0.9), score(0.5)], [score(0.8), score(0.3)]) == pytest.approx(0.15)


def test_false_positive_of_one_arm_is_not_dropped() -> None:
    right, wrong = score(math.nan), score(0.0)
    assert paired_difference([score(0.8), right], [score(0.8), wrong]) == pytest.approx(0.5)
    assert paired_difference([wrong], [right]) == -1.0
    assert math.isnan(paired_difference([right], [right]))
    assert paired_difference([score(0.9), right], [score(0.8), right]) == pytest.approx(0.1)


def test_a_gain_over_a_broken_contract_is_withheld() -> None:
    values = np.tile([[0.10], [0.12], [0.08], [0.11], [0.09], [0.10]], (1, 3))
    patients = [f"p{index}" for index in range(6)]
    plain = judge(values, patients, 2000, 0.95, 0.01, 0)
    broken = judge(values, patients, 2000, 0.95, 0.01, 0, broken=["field of view"])
    assert (plain.verdict, plain.withheld) == ("gain", ())
    assert (broken.verdict, broken.decided, broken.withheld) == ("null", False, ("field of view",))
    assert (broken.difference, broken.low, broken.high) == (plain.difference, plain.low, plain.high)
    assert "rose by 0.100" in broken.sentence
    assert "field of view" in broken.sentence
    assert is_consistent(broken)
    # it is not called a gain by taking the reason away, nor decided
    assert not is_consistent(broken.model_copy(update={"withheld": ()}))
    assert not is_consistent(broken.model_copy(update={"decided": True}))
    assert not is_consistent(broken.model_copy(update={"verdict": "gain"}))


@pytest.mark.parametrize("sign", [-1.0, 0.0])
def test_harm_and_null_stay_what_they_are_whatever_is_broken(sign: float) -> None:
    values = sign * np.tile([[0.10], [0.12], [0.08], [0.11], [0.09], [0.10]], (1, 3))
    patients = [f"p{index}" for index in range(6)]
    found = [judge(values, patients, 2000, 0.95, 0.01, 0, broken=lines) for lines in ([], ["orientation"])]
    assert found[0] == found[1]
    assert found[0].verdict == ("harm" if sign else "null")
