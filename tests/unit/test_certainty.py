"""What is made of the kept numbers: ECE of a cohort by hand, and an uncertainty that is the error."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from test_report import RULE, arm, make_findings

from monai_tl.certainty_records import CaseCertainty, Reliability, RunCertainty
from monai_tl.metrics.calibration import N_BINS
from monai_tl.metrics.certainty import Calibration, Uncertainty, judge_calibration, judge_uncertainty
from monai_tl.metrics.cohort import ArmResult, summarise_arm
from monai_tl.report.certainty import (
    calibration_rows,
    temperature_sentence,
    uncertainty_record,
    uncertainty_rows,
    uncertainty_sentence,
)
from monai_tl.report.certainty_figure import certainty_plot


def one_bin(n: int, confidence: float, accuracy: float) -> Reliability:
    """All voxels equally sure."""
    index = math.ceil(confidence * N_BINS) - 1
    row = np.zeros(N_BINS)
    row[index] = 1
    return Reliability(
        n=tuple((row * n).astype(int).tolist()),
        confidence=tuple((row * n * confidence).tolist()),
        n_right=tuple(np.rint(row * n * accuracy).astype(int).tolist()),
    )


def run_of(*cases: CaseCertainty, seed: int = 0, temperature: float | None = None, members: bool = False):
    return RunCertainty(
        arm="transfer", seed=seed, temperature=temperature, n_validation_cases=3, n_members=2 if members else 0,
        members="mirrored passes" if members else None, cases={f"case-{k}": case for k, case in enumerate(cases)},
    )  # fmt: skip


def known() -> tuple[Calibration, Uncertainty]:
    """Two cases whose errors are opposite, with a temperature that mends both."""
    cases = [
        CaseCertainty(reliability=one_bin(100, 0.82, 0.72), scaled=one_bin(100, 0.73, 0.72), entropy=0.3),
        CaseCertainty(reliability=one_bin(300, 0.82, 0.92), scaled=one_bin(300, 0.93, 0.92), entropy=0.1),
    ]
    runs = [run_of(*cases, temperature=1.7)]
    result = arm("transfer", 0.5, 0.9)
    calibration, uncertainty = judge_calibration(runs, result, RULE), judge_uncertainty(runs, result, RULE)
    assert calibration is not None
    assert uncertainty is not None
    return calibration, uncertainty


def test_errors_of_cases_cancel_in_the_pool_and_not_in_their_mean() -> None:
    calibration, _ = known()
    pooled = 0.25 * 0.72 + 0.75 * 0.92 - 0.82
    assert calibration.before.counts.expected_error == pytest.approx(pooled)
    assert calibration.before.of_cases.mean == pytest.approx(0.1)
    assert calibration.after is not None
    assert calibration.after.counts.expected_error == pytest.approx(0.01)
    assert calibration.temperatures == {0: 1.7}


@pytest.mark.parametrize(("temperature", "is_told"), [(1.7, False), (0.26, False), (0.25, True), (8.0, True)])
def test_a_temperature_at_an_end_of_what_was_tried_is_told(temperature: float, is_told: bool) -> None:
    calibration, _ = known()
    findings = make_findings((arm("transfer", 0.5, 0.9),))
    told = replace(findings, calibration={"transfer": replace(calibration, temperatures={0: temperature})})
    words = temperature_sentence(told)
    assert "Above 1 the network was too sure, below 1 not sure enough" in words
    assert ("0.25 to 8: the best may lie beyond" in words) == is_told


def test_a_failed_case_has_no_calibration_and_is_told() -> None:
    case = CaseCertainty(reliability=one_bin(100, 0.9, 0.8), entropy=0.2)
    result = arm("transfer", 0.8, 0.0)
    failed = replace(result.cases[1], failed=True)
    result = summarise_arm("transfer", {0: [result.cases[0], failed]}, ("liver",), RULE)
    found = judge_calibration([run_of(case)], result, RULE)
    assert found is not None
    summary = found.before.of_cases
    assert (summary.n, summary.n_empty, summary.n_failed) == (1, 0, 1)
    uncertain = judge_uncertainty([run_of(case)], result, RULE)
    assert uncertain is not None
    assert uncertain.curve.n_undefined == 1


def test_without_counts_nothing_is_judged_and_without_a_temperature_no_after() -> None:
    result = arm("transfer", 0.8, 0.7)
    bare = CaseCertainty(entropy=0.2)
    assert judge_calibration([run_of(bare, bare)], result, RULE) is None
    assert judge_uncertainty([], result, RULE) is None
    counted = CaseCertainty(reliability=one_bin(100, 0.9, 0.8), entropy=0.2)
    found = judge_calibration([run_of(counted, counted)], result, RULE)
    assert found is not None
    assert found.after is None
    findings = replace(make_findings((result,)), calibration={"transfer": found})
    assert "no validation case" in temperature_sentence(findings)
    assert "There is no test set" in temperature_sentence(replace(findings, on_test=False))
    assert calibration_rows(findings)[0].ece_after == "–"


def of_errors(errors: list[float]) -> ArmResult:
    return arm("transfer", *(1.0 - error for error in errors))


def test_an_uncertainty_that_is_the_error_is_perfect_and_members_are_asked_first() -> None:
    errors = [0.4, 0.1, 0.3, 0.2]
    cases = [CaseCertainty(entropy=1.0 - error, disagreement=error / 2) for error in errors]
    found = judge_uncertainty([run_of(*cases, members=True)], of_errors(errors), RULE)
    assert found is not None
    assert (found.measure, found.source) == ("disagreement", "2 mirrored passes of one model")
    # the means of the first 1, 2, 3, 4 errors in order
    assert found.curve.area == pytest.approx(np.mean([0.1, 0.15, 0.2, 0.25]))
    assert found.curve.random_area == pytest.approx(0.25)
    assert found.curve.excess == pytest.approx(0.0)
    alone = judge_uncertainty([run_of(*cases)], of_errors(errors), RULE)
    assert alone is not None
    assert alone.measure == "entropy"
    # the worst order there is
    np.testing.assert_allclose(alone.curve.risk, [0.4, 0.35, 0.3, 0.25])
    assert alone.curve.excess == pytest.approx(2.0)


def test_seeds_are_pooled_in_counts_and_meant_in_uncertainty() -> None:
    first = [CaseCertainty(reliability=one_bin(100, 0.9, 0.8), entropy=entropy) for entropy in (0.1, 0.5)]
    second = [CaseCertainty(reliability=one_bin(100, 0.9, 1.0), entropy=entropy) for entropy in (0.7, 0.1)]
    runs = [run_of(*first), run_of(*second, seed=1, temperature=2.0)]
    result = of_errors([0.1, 0.3])
    found = judge_calibration(runs, result, RULE)
    assert found is not None
    assert found.before.counts.expected_error == pytest.approx(0.0)
    assert found.before.of_cases.mean == pytest.approx(0.1)
    # one seed without a temperature leaves none for the arm
    assert found.after is None
    # 0.4 against 0.3: the worse case counts as surer
    uncertain = judge_uncertainty(runs, result, RULE)
    assert uncertain is not None
    np.testing.assert_allclose(uncertain.curve.risk, [0.3, 0.2])


def test_the_plot_has_both_panels_and_the_sentence_warns_of_few() -> None:
    calibration, uncertainty = known()
    plot = certainty_plot({"transfer": calibration}, {"transfer": uncertainty})
    assert "How often it is right" in plot
    assert "Error that is left" in plot
    assert certainty_plot({}, {}) == ""
    findings = replace(make_findings((arm("transfer", 0.5, 0.9),)), uncertainty={"transfer": uncertainty})
    assert "With 2 patients it hangs on the order of a few; below 20 it has no interval" in uncertainty_sentence(
        findings
    )
    assert uncertainty_rows(findings)[0].area == f"{uncertainty.curve.area:.3f}"
    record = uncertainty_record(findings)["transfer"]
    assert [record[name] for name in ("area_low", "area_high", "excess_low", "excess_high")] == [None] * 4


def test_with_patients_enough_the_curve_has_intervals_and_says_them() -> None:
    errors = np.linspace(0.05, 0.6, 24)
    unsure = errors + 0.05 * np.sin(np.arange(24))
    result = of_errors(errors.tolist())
    found = judge_uncertainty([run_of(*(CaseCertainty(entropy=max(0.0, one)) for one in unsure))], result, RULE)
    assert found is not None
    area, excess = found.intervals.area, found.intervals.excess
    assert area.low < found.curve.area < area.high < found.curve.random_area
    # it tells of error: no better than chance would be 1
    assert 0.0 <= excess.low < found.curve.excess < excess.high < 0.5
    findings = replace(make_findings((result,)), uncertainty={"transfer": found})
    (row,) = uncertainty_rows(findings)
    assert row.area == f"{found.curve.area:.3f} ({area.low:.3f} to {area.high:.3f})"
    assert "no interval" not in uncertainty_sentence(findings)
    record = uncertainty_record(findings)["transfer"]
    assert (record["area_low"], record["excess_high"]) == (round(area.low, 6), round(excess.high, 6))


@pytest.mark.parametrize(("n", "kept"), [(1, 1), (2, 1), (5, 3), (6, 3)])
def test_the_surest_half_of_an_odd_number_is_the_larger(n: int, kept: int) -> None:
    errors = [0.1 * (index + 1) for index in range(n)]
    found = judge_uncertainty([run_of(*(CaseCertainty(entropy=one) for one in errors))], of_errors(errors), RULE)
    assert found is not None
    findings = replace(make_findings((of_errors(errors),)), uncertainty={"transfer": found})
    assert uncertainty_rows(findings)[0].half == f"{np.mean(errors[:kept]):.3f}"
