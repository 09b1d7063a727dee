"""The shift by hand: each feature's distance, the score, and what is not known."""

from __future__ import annotations

import math

import pytest
from targets import SCHEME, lines_of, make_fingerprint, make_source

from monai_tl.config import IntensityConfig, PlanConfig
from monai_tl.records import Shift, SizeRule
from monai_tl.transfer.planning import make_plan
from monai_tl.transfer.shift_words import describe_shift

CONFIG = PlanConfig.model_validate(
    {"source": "s", "accept_broken": ["field of view", "intensity", "spacing", "channels"]}
)
ZSCORE = IntensityConfig(rule="zscore", low=0.5, high=99.5)


def shift_to(target, source=None, **contract) -> Shift:
    plan = make_plan(target, SCHEME, CONFIG, make_source(fingerprint=source, **contract))
    assert plan.shift is not None
    return plan.shift


def distances(shift):
    return {feature.name: feature.distance for feature in shift.features}


def test_a_target_like_the_source_has_no_shift():
    shift = shift_to(make_fingerprint(), make_fingerprint())
    assert set(distances(shift).values()) == {0.0}
    assert (shift.score, shift.largest, shift.basis) == (0.0, "", "fingerprint")
    assert describe_shift(shift) == "In all 12 features that could be compared the target is like the source."


def test_distances_by_hand():
    source = make_fingerprint(class_volumes_ml={"Liver": 1000.0, "spleen": 150.0})
    target = make_fingerprint(
        spacing_mm_median=(4.0, 2.0, 2.5),
        extent_mm_median=(300.0, 100.0, 400.0),
        foreground_share=0.3,
        # window -150 to 250: 400 HU are 1 on the network's scale
        intensity={"mean": 100.0, "std": 60.0, "p00_5": -20.0, "p99_5": 140.0},
        class_volumes_ml={"liver": 4000.0, "tumour": 20.0},
    )
    found = distances(shift_to(target, source))
    assert found == {
        "input channels": 0.0,
        "voxel size R-L": 1.0,
        "voxel size A-P": 0.0,
        "voxel size S-I": 1.0,
        "field of view R-L": 0.0,
        "field of view A-P": 1.0,
        "field of view S-I": 1.0,
        "share of the image that the body fills": 1.0,
        # 40 HU apart, deviations 30 and 60
        "foreground intensity, mean": pytest.approx(40.0 / math.sqrt((30.0**2 + 60.0**2) / 2), rel=1e-5),
        "foreground intensity, deviation": 1.0,
        # names are compared without regard to case, as those of the head's rows
        "volume of liver": 2.0,
    }
    shift = shift_to(target, source)
    assert (shift.score, shift.largest) == (2.0, "volume of liver")
    assert "volume of liver: 4e+03 ml against 1e+03 ml, a distance of 2 (a factor of 4)" in describe_shift(shift)
    values = {feature.name: (feature.source, feature.target) for feature in shift.features}
    assert values["foreground intensity, mean"] == (pytest.approx(210 / 400), pytest.approx(250 / 400))


def test_channels_count():
    shift = shift_to(make_fingerprint(n_channels=4), make_fingerprint())
    assert distances(shift)["input channels"] == 2.0


def test_intensities_are_those_after_the_plan_s_rule():
    scaled = {"zscore_mean": 1.0, "zscore_std": 0.5, "minmax_mean": 0.4, "minmax_std": 0.1, "n_squashed": 0}
    brighter = {**scaled, "zscore_mean": 2.0, "minmax_mean": 0.6}
    contract = {"modality": "MR", "channels": ("T1",)}
    one, two = make_fingerprint(modality="MR", scaled=scaled), make_fingerprint(modality="MR", scaled=brighter)
    by_zscore = distances(shift_to(two, one, **contract, intensity=ZSCORE))
    by_minmax = distances(shift_to(two, one, **contract, intensity=IntensityConfig(rule="minmax")))
    assert by_zscore["foreground intensity, mean"] == pytest.approx(1.0 / 0.5)
    assert by_minmax["foreground intensity, mean"] == pytest.approx(0.2 / 0.1)
    without = distances(shift_to(two, make_fingerprint(modality="MR"), **contract, intensity=ZSCORE))
    assert without["foreground intensity, mean"] is None


def test_what_is_not_known_is_no_zero():
    """A card without a fingerprint: the contract alone, and its sizes only where they say something."""
    target = make_fingerprint(intensity={"p00_5": -50.0, "p99_5": 350.0}, spacing_mm_median=(5.0, 5.0, 10.0))
    shift = shift_to(target, size_rule=SizeRule(divisor=4, min_vox=(8, 8, 160)))
    assert shift.basis == "contract"
    assert distances(shift) == {
        "input channels": 0.0,
        "voxel size R-L": 0.0,
        "voxel size A-P": 0.0,
        "voxel size S-I": 1.0,
        # 200 mm of 5 mm are 40 voxels of 160
        "field of view, share of the source's smallest": 2.0,
        "share of the image that the body fills": None,
        # from -50 to 250 of -50 to 350
        "foreground inside the source's window": 0.25,
        "foreground intensity, mean": None,
        "foreground intensity, deviation": None,
        "volume of classes": None,
    }
    assert shift.score == 2.0
    sentence = describe_shift(shift)
    assert "4 of 10 features could not be compared" in sentence
    assert "only its contract was compared" in sentence
    bare = shift_to(target, size_rule=SizeRule(), intensity=ZSCORE)
    assert distances(bare)["field of view, share of the source's smallest"] is None
    assert distances(bare)["foreground inside the source's window"] is None


def test_spacing_of_the_contract_is_along_the_patient_s_axes():
    target = make_fingerprint(spacing_mm_median=(1.0, 2.0, 4.0))
    shift = shift_to(target, orientation="SRA", spacing_mm=(4.0, 1.0, 2.0), size_rule=SizeRule())
    assert [distances(shift)[f"voxel size {axis}"] for axis in ("R-L", "A-P", "S-I")] == [0.0, 0.0, 0.0]


def test_an_empty_class_or_a_flat_foreground_has_no_ratio():
    flat = {"mean": 5.0, "std": 0.0, "p00_5": 5.0, "p99_5": 5.0}
    target = make_fingerprint(intensity=flat, class_volumes_ml={"liver": 0.0, "tumour": 1.0})
    found = distances(shift_to(target, make_fingerprint(intensity=flat)))
    assert found["foreground intensity, mean"] is None
    assert found["foreground intensity, deviation"] is None
    assert found["volume of liver"] is None
    assert found["volume of tumour"] == pytest.approx(math.log2(20.0), rel=1e-5)


def test_it_is_written_and_read_with_the_plan(tmp_path):
    plan = make_plan(make_fingerprint(), SCHEME, CONFIG, make_source(fingerprint=make_fingerprint(n_cases=3)))
    plan.write(tmp_path / "plan.json")
    assert type(plan).read(tmp_path / "plan.json") == plan
    assert lines_of(plan)
