"""Calibration and uncertainty as rows, sentences and numbers."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from monai_tl.metrics.calibration import DOUBT, MARGIN, N_BINS, TEMPERATURES
from monai_tl.metrics.certainty import Calibration, Reading, Uncertainty
from monai_tl.metrics.summary import Interval, MetricSummary
from monai_tl.metrics.uncertainty import FEWEST_FOR_AREA
from monai_tl.report.findings import Findings
from monai_tl.report.shown import evenly
from monai_tl.report.tables import NOTHING, number, plain_numbers

REGION = (
    f"Counted are the voxels, on the network's grid, of the box around each reference, {MARGIN} voxels wider on each "
    f"side, and beyond it those with a foreground probability above {100 * DOUBT:g} %: the air around is background "
    "for certain, and would make any network look calibrated."
)


@dataclass(frozen=True)
class CalibrationRow:
    """One arm: ECE of all voxels and of a case by itself, before and after the temperature."""

    arm: str
    ece: str
    of_cases: str
    temperature: str
    ece_after: str
    of_cases_after: str
    counts: str


@dataclass(frozen=True)
class UncertaintyRow:
    """One arm: areas under its risk-coverage curve, and what the half it is surest of leaves."""

    arm: str
    measure: str
    area: str
    best: str
    random: str
    excess: str
    half: str
    counts: str


def calibration_rows(findings: Findings) -> list[CalibrationRow]:
    """Each arm of which it is known."""
    rows = []
    for arm, found in findings.calibration.items():
        after = found.after
        temperatures = [number(value, 2) for value in found.temperatures.values()]
        rows.append(
            CalibrationRow(
                arm=arm,
                ece=number(found.before.counts.expected_error),
                of_cases=_with_interval(found.before.of_cases),
                temperature=", ".join(temperatures) if after else NOTHING,
                ece_after=number(after.counts.expected_error) if after else NOTHING,
                of_cases_after=_with_interval(after.of_cases) if after else NOTHING,
                counts=_counts(found.before.of_cases),
            )
        )
    return rows


def uncertainty_rows(findings: Findings) -> list[UncertaintyRow]:
    """Each arm of which it is known."""
    return [
        UncertaintyRow(
            arm=arm,
            measure=f"{found.measure} of {found.source}",
            area=_between(number(found.curve.area), found.intervals.area, 3),
            best=number(found.curve.best_area),
            random=number(found.curve.random_area),
            excess=_between(number(found.curve.excess, 2), found.intervals.excess, 2),
            # of an odd number the larger half
            half=number(float(found.curve.risk[(len(found.curve.risk) + 1) // 2 - 1])),
            counts=f"{len(found.curve.risk)} cases" + (f", {n} left out" if (n := found.curve.n_undefined) else ""),
        )
        for arm, found in findings.uncertainty.items()
    ]


def temperature_sentence(findings: Findings) -> str:
    """What the temperature is of, or why there is none."""
    found = [one for one in findings.calibration.values() if one.after is not None]
    if not found:
        if not findings.on_test:
            return (
                "There is no test set, so no temperature is judged: it would be on the cases it was fitted on. Set "
                "split.test_fraction."
            )
        return "No temperature was fitted: there is no validation case to fit it on."
    n_cases = min(one.n_validation_cases for one in found)
    text = (
        f"The temperature divides the logits before the softmax; it was fitted on the validation cases alone "
        f"({n_cases}), which no test case is among. Above 1 the network was too sure, below 1 not sure enough. "
        "It changes no label."
    )
    first, last = float(TEMPERATURES[0]), float(TEMPERATURES[-1])
    values = [value for one in found for value in one.temperatures.values() if value is not None]
    if any(math.isclose(value, end, rel_tol=1e-4) for value in values for end in (first, last)):
        text += f" One lies at an end of what was tried, {first:g} to {last:g}: the best may lie beyond."
    if len({model.fold for model in findings.models}) > 1:
        text += (
            " It was fitted on each fold's model by itself; the mean of several models is softer than each, so it may "
            "overdo."
        )
    return text


def uncertainty_sentence(findings: Findings) -> str:
    """How the curve is read, and how far it can be trusted."""
    text = (
        "Cases are ordered by how unsure the network is of them, and the least sure are handed to a person one after "
        "the other. The curve is the mean error (1 − mean Dice) of those that are kept; its area is their mean over "
        "all shares. Excess: 0 is the best order there is, 1 is no better than chance, above 1 misleads."
    )
    fewest = min((one.n_patients for one in findings.uncertainty.values()), default=0)
    if fewest < FEWEST_FOR_AREA:
        text += f" With {fewest} patients it hangs on the order of a few; below {FEWEST_FOR_AREA} it has no interval."
    return text


def calibration_record(findings: Findings) -> dict[str, Any]:
    """For ``metrics.json``."""
    return {arm: _calibration(found) for arm, found in findings.calibration.items()}


def uncertainty_record(findings: Findings) -> dict[str, Any]:
    """For ``metrics.json``."""
    return {arm: _uncertainty(found) for arm, found in findings.uncertainty.items()}


def _calibration(found: Calibration) -> dict[str, Any]:
    return {
        "region": REGION,
        "temperatures": plain_numbers({str(seed): value for seed, value in found.temperatures.items()}),
        "n_validation_cases": found.n_validation_cases,
        "before": _reading(found.before),
        "after": _reading(found.after) if found.after else None,
    }


def _reading(reading: Reading) -> dict[str, Any]:
    counts = reading.counts
    confidence, accuracy = counts.curve()
    return {
        **plain_numbers({"ece": counts.expected_error}),
        "case_ece": plain_numbers(asdict(reading.of_cases)),
        "bins": [
            plain_numbers(
                {
                    "above": index / N_BINS,
                    "n_voxels": int(counts.n[index]),
                    "confidence": float(confidence[index]),
                    "accuracy": float(accuracy[index]),
                }
            )
            for index in range(N_BINS)
            if counts.n[index]
        ],
    }


def _uncertainty(found: Uncertainty) -> dict[str, Any]:
    curve = found.curve
    # the file is in git, run after run
    shown = evenly(len(curve.risk))
    numbers: Mapping[str, Any] = {
        "measure": found.measure,
        "source": found.source,
        "n_cases": len(curve.risk),
        "n_patients": found.n_patients,
        "n_undefined": curve.n_undefined,
        "area": curve.area,
        "area_low": found.intervals.area.low,
        "area_high": found.intervals.area.high,
        "best_area": curve.best_area,
        "random_area": curve.random_area,
        "excess": curve.excess,
        "excess_low": found.intervals.excess.low,
        "excess_high": found.intervals.excess.high,
    }
    return {
        **plain_numbers(numbers),
        "coverage": [round(float(value), 6) for value in curve.coverage[shown]],
        "risk": [round(float(value), 6) for value in curve.risk[shown]],
    }


def _between(text: str, interval: Interval, digits: int) -> str:
    if not math.isfinite(interval.low):
        return text
    return f"{text} ({number(interval.low, digits)} to {number(interval.high, digits)})"


def _counts(summary: MetricSummary) -> str:
    counts = [f"{summary.n} case{'' if summary.n == 1 else 's'}"]
    counts += [f"{summary.n_empty} without a voxel"] if summary.n_empty else []
    counts += [f"{summary.n_failed} failed"] if summary.n_failed else []
    return ", ".join(counts)


def _with_interval(summary: MetricSummary) -> str:
    mean = number(summary.mean)
    return f"{mean} ({number(summary.low)} to {number(summary.high)})" if math.isfinite(summary.low) else mean
