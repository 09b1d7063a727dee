"""Drift against closed forms: what is pooled, what is a drift, what is one odd study."""

from __future__ import annotations

import statistics

import numpy as np
import pytest
from balls import make_plan
from targets import make_fingerprint

from monai_tl.certainty_records import CaseCertainty, sum_up
from monai_tl.inbox.drift import Measured, drift_of, measure, measures_to_text, pool
from monai_tl.inbox.entries import Entry
from monai_tl.records import Fingerprint


def one(**changes: object) -> Fingerprint:
    return make_fingerprint(n_cases=1, **changes)


def entry(number: int, found: Fingerprint, entropy: float | None = None) -> Entry:
    return Entry(
        content=f"{number:04d}", study=f"study-{number}", n_instances=1, arrived=float(number), state="done",
        attempts=1, owner="", not_before=0.0, code="", reason="", started=0.0, finished=1.0, n_segmented=1,
        n_refused=0, model="m", measures=measures_to_text([Measured(found, entropy)]), sent="",
    )  # fmt: skip


def test_pooled_intensities_are_those_of_all_voxels_together() -> None:
    draw = np.random.default_rng(0)
    parts = [draw.normal(mean, std, 4000) for mean, std in ((10.0, 5.0), (60.0, 20.0), (-30.0, 1.0))]
    prints = [one(intensity={"mean": float(part.mean()), "std": float(part.std())}) for part in parts]
    together = np.concatenate(parts)
    found = pool(prints).intensity
    assert found["mean"] == pytest.approx(together.mean())
    assert found["std"] == pytest.approx(together.std())


def test_a_class_that_a_study_has_not_does_not_count_in_its_volume() -> None:
    prints = [one(class_volumes_ml={"liver": volume}) for volume in (0.0, 100.0, 300.0, 200.0)]
    assert pool(prints).class_volumes_ml == {"liver": 200.0}


def test_the_same_data_have_no_drift() -> None:
    training = make_fingerprint()
    drift = drift_of([entry(n, one()) for n in range(6)], training, make_plan(), window=6, bound=0.1)
    assert drift.shift is not None
    assert drift.shift.score == pytest.approx(0.0, abs=1e-6)
    assert not drift.is_alarm


@pytest.mark.parametrize(("factor", "is_alarm"), [(1.9, False), (2.1, True), (1 / 2.1, True)])
def test_a_factor_of_two_is_the_bound_of_one(factor: float, is_alarm: bool) -> None:
    thick = one(spacing_mm_median=(2.0, 2.0, 5.0 * factor))
    drift = drift_of([entry(n, thick) for n in range(4)], make_fingerprint(), make_plan(), window=8, bound=1.0)
    assert drift.shift is not None
    assert drift.shift.largest == "voxel size S-I"
    assert drift.shift.score == pytest.approx(abs(np.log2(factor)), rel=1e-5)
    assert drift.is_alarm is is_alarm


def test_one_odd_study_is_no_drift_and_is_named() -> None:
    found = [entry(n, one()) for n in range(7)] + [entry(7, one(spacing_mm_median=(2.0, 2.0, 20.0)))]
    drift = drift_of(found, make_fingerprint(), make_plan(), window=8, bound=1.0)
    assert not drift.is_alarm
    assert max(drift.scores, key=lambda study: drift.scores[study]) == "study-7"
    assert drift.scores["study-7"] == pytest.approx(2.0)


def test_only_the_latest_count_and_few_give_no_alarm() -> None:
    odd = one(spacing_mm_median=(2.0, 2.0, 20.0))
    old = [entry(n, odd) for n in range(9)] + [entry(n, one()) for n in range(9, 13)]
    assert not drift_of(old, make_fingerprint(), make_plan(), window=4, bound=1.0).is_alarm
    few = [entry(n, odd) for n in range(3)]
    assert not drift_of(few, make_fingerprint(), make_plan(), window=7, bound=1.0).is_alarm
    assert drift_of(few, make_fingerprint(), make_plan(), window=6, bound=1.0).is_alarm


def test_without_a_fingerprint_of_the_training_nothing_is_claimed() -> None:
    drift = drift_of([entry(0, one())], None, make_plan(), window=1, bound=1.0)
    assert drift.shift is None
    assert not drift.is_alarm
    assert "nothing to compare" in drift.describe()


@pytest.mark.parametrize(("shift", "is_alarm"), [(0.9, False), (1.2, True), (-1.2, True)])
def test_a_model_that_is_less_or_more_sure_than_of_its_test_cases_is_a_drift(shift: float, is_alarm: bool) -> None:
    tested = [0.1, 0.2, 0.3, 0.2]
    certainty = sum_up(CaseCertainty(entropy=value) for value in tested)
    assert certainty is not None
    spread = statistics.stdev(tested)
    found = [entry(n, one(), 0.2 + shift * spread + wobble) for n, wobble in enumerate((-0.05, 0.05, 0.0, 0.0))]
    rules = {"window": 4, "bound": 1.0}
    drift = drift_of(found, make_fingerprint(), make_plan(), certainty=certainty, **rules)
    assert drift.shift is not None
    assert drift.shift.largest == "uncertainty of the prediction, entropy"
    assert drift.shift.score == pytest.approx(abs(shift), rel=1e-5)
    assert drift.is_alarm is is_alarm
    # without what it was on the test cases, or what it is now, nothing is claimed
    assert not drift_of(found, make_fingerprint(), make_plan(), **rules).is_alarm
    unknown = [entry(n, one()) for n in range(4)]
    assert not drift_of(unknown, make_fingerprint(), make_plan(), certainty=certainty, **rules).is_alarm


def test_of_one_test_case_or_equal_ones_no_deviation_is_known() -> None:
    assert sum_up([CaseCertainty(entropy=0.1)]) is None
    equal = sum_up([CaseCertainty(entropy=0.1), CaseCertainty(entropy=0.1)])
    drift = drift_of([entry(0, one(), 0.9)], make_fingerprint(), make_plan(), window=1, bound=1.0, certainty=equal)
    assert drift.shift is not None
    assert drift.shift.features[-1].distance is None
    assert not drift.is_alarm


def test_a_volume_measured_is_that_of_its_voxels_and_air_is_no_organ() -> None:
    image = np.full((8, 9, 10), -1000.0, dtype=np.float32)
    label = np.zeros(image.shape, dtype=np.uint8)
    image[2:5, 3:6, 4:8], label[2:5, 3:6, 4:8] = 50.0, 1
    affine = np.diag([2.0, 3.0, 4.0, 1.0])
    found = measure(image, affine, label, make_plan())
    assert found.class_volumes_ml == {"ball": pytest.approx(36 * 24 / 1000)}
    assert (found.intensity["mean"], found.intensity["std"]) == (50.0, 0.0)
    assert found.spacing_mm_median == (2.0, 3.0, 4.0)
    assert found.extent_mm_median == (6.0, 9.0, 16.0)
    nothing = measure(image, affine, np.zeros_like(label), make_plan())
    assert "mean" not in nothing.intensity
    assert nothing.intensity["body_min"] == -1000.0
