"""Intervals against the normal theory, and clusters against the naive bootstrap."""

from __future__ import annotations

import math

import numpy as np
import pytest

from monai_tl.metrics.summary import bootstrap_mean, summarise


def names(n_patients: int, n_scans: int = 1) -> list[str]:
    return [f"p{index}" for index in range(n_patients) for _ in range(n_scans)]


@pytest.mark.parametrize("confidence", [0.8, 0.95])
def test_interval_of_normal_data_comes_near_the_closed_form(confidence: float) -> None:
    values = np.random.default_rng(1).normal(0.8, 0.1, 400)
    interval = bootstrap_mean(values, names(400), 5000, confidence, np.random.default_rng(0))
    z = {0.8: 1.2815515655446004, 0.95: 1.959963984540054}[confidence]
    half = z * values.std() / math.sqrt(400)
    assert interval.low == pytest.approx(values.mean() - half, abs=0.06 * half)
    assert interval.high == pytest.approx(values.mean() + half, abs=0.06 * half)


def test_scans_of_one_patient_widen_the_interval() -> None:
    """60 patients with 3 scans each that are almost alike: counting scans makes the interval about √3 too narrow."""
    generator = np.random.default_rng(3)
    patient = np.repeat(generator.normal(0.85, 0.06, 60), 3)
    values = patient + generator.normal(0.0, 0.01, 180)
    clustered = bootstrap_mean(values, names(60, 3), 4000, 0.95, np.random.default_rng(0))
    naive = bootstrap_mean(values, names(180), 4000, 0.95, np.random.default_rng(0))
    ratio = (clustered.high - clustered.low) / (naive.high - naive.low)
    assert 1.5 < ratio < 1.95


def test_patients_of_different_size_are_drawn_whole() -> None:
    """Two patients, one with one case at 0 and one with three at 1: a draw gives 0, 3/4 or 1."""
    interval = bootstrap_mean(np.array([0.0, 1.0, 1.0, 1.0]), ["a", "b", "b", "b"], 2000, 0.1, np.random.default_rng(0))
    assert interval.low == pytest.approx(0.75)
    assert interval.high == pytest.approx(0.75)


def test_seed_decides_everything() -> None:
    values, patients, failed = list(np.random.default_rng(0).random(30)), names(30), [False] * 30
    first = summarise(values, patients, failed, 500, 0.95, 7)
    assert first == summarise(values, patients, failed, 500, 0.95, 7)
    assert first != summarise(values, patients, failed, 500, 0.95, 8)


def test_undefined_is_counted_and_not_averaged() -> None:
    summary = summarise([0.5, math.nan, 0.7, 0.0], names(4), [False, False, False, True], 500, 0.95, 0)
    assert summary.mean == pytest.approx(0.4)
    assert (summary.n, summary.n_empty, summary.n_failed) == (3, 1, 1)
    assert summary.low <= summary.mean <= summary.high


def test_nothing_defined() -> None:
    summary = summarise([math.nan, math.nan], names(2), [False, False], 500, 0.95, 0)
    assert math.isnan(summary.mean)
    assert (summary.n, summary.n_empty, summary.n_failed) == (0, 2, 0)
    assert summarise([], [], [], 500, 0.95, 0).n == 0


def test_one_patient_has_no_interval() -> None:
    summary = summarise([0.5, 0.7], ["a", "a"], [False, False], 500, 0.95, 0)
    assert summary.mean == pytest.approx(0.6)
    assert math.isnan(summary.low)
    assert math.isnan(summary.high)
