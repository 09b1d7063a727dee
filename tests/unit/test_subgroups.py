"""Bands, groups, and what is said where few patients stand behind a number."""

from __future__ import annotations

import math

import numpy as np
import pytest

from monai_tl.metrics.cohort import BootstrapRule
from monai_tl.metrics.subgroups import band_numbers, group_column, summarise_groups, tercile_groups
from monai_tl.metrics.summary import summarise

RULE = BootstrapRule(500, 0.95, 0)


def test_ages_are_banded_as_dicom_writes_them() -> None:
    texts = ["017Y", "018Y", "39", "40", "64", "65", "79", "80", "091Y", ""]
    bands = ["<18", "18–40", "18–40", "40–65", "40–65", "65–80", "65–80", "≥80", "≥80", "unknown"]
    assert group_column("age", texts) == bands


def test_slices_are_banded_with_their_upper_end() -> None:
    assert group_column("slice_thickness_mm", ["1.5", "1.6", "3.0", "5", "7.5"]) == [
        "≤1.5",
        "1.5–3",
        "1.5–3",
        "3–5",
        ">5",
    ]


def test_few_different_numbers_and_words_stay_as_they_are() -> None:
    assert group_column("field_strength", ["1.5", "3", "", "3"]) == ["1.5", "3", "unknown", "3"]
    assert group_column("vendor", ["A", " b", "", "7"]) == ["A", "b", "unknown", "7"]


@pytest.mark.parametrize("n", [9, 30, 300])
def test_terciles_hold_a_third_each(n: int) -> None:
    numbers = np.random.default_rng(0).permutation(np.arange(1, n + 1)).astype(float)
    groups = tercile_groups(list(numbers))
    sizes = [groups.count(name) for name in set(groups)]
    assert len(sizes) == 3
    # bounds are rounded to three digits
    assert max(sizes) - min(sizes) <= max(1, n // 100 + 1)


def test_unknown_and_equal_numbers_make_no_group_of_their_own() -> None:
    assert tercile_groups([math.nan, None]) == ["unknown", "unknown"]
    assert tercile_groups([2.0, 2.0, 2.0, 5.0]) == ["≤2", "≤2", "≤2", ">2"]
    assert band_numbers([None, 3.0], [1.0]) == ["unknown", "≥1"]


def test_each_group_is_summarised_by_itself_in_order_of_its_bands() -> None:
    generator = np.random.default_rng(1)
    ages = [str(age) for age in (5, *[25] * 8, *[50] * 21, *[85] * 3)]
    values = list(generator.random(len(ages)))
    values[-1] = math.nan
    failed = [index == 4 for index in range(len(ages))]
    patients = [f"p{index}" for index in range(len(ages))]
    rows = summarise_groups(values, patients, failed, {"age": group_column("age", ages)}, RULE)
    assert [(row.group, row.n_patients) for row in rows] == [("<18", 1), ("18–40", 8), ("40–65", 21), ("≥80", 2)]
    assert [row.warning for row in rows] == [
        "1 patient: too few for an interval", "8 patients: the interval is rough", "",
        "2 patients: too few for an interval",
    ]  # fmt: skip
    assert rows[1].summary == summarise(values[1:9], patients[1:9], failed[1:9], 500, 0.95, 0)
    assert rows[1].summary.n_failed == 1
    assert (rows[3].summary.n, rows[3].summary.n_empty) == (2, 1)
    assert math.isnan(rows[3].summary.low)
    assert rows[3].summary.mean == pytest.approx(np.mean(values[-3:-1]))


def test_an_attribute_in_which_all_are_alike_says_nothing() -> None:
    assert summarise_groups([0.1, 0.2], ["a", "b"], [False, False], {"site": ["x", "x"]}, RULE) == ()
