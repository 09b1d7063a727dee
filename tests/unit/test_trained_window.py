"""The window that a source was trained on: said where cases are smaller, and never more than that."""

from __future__ import annotations

import math

import pytest
from targets import SCHEME, lines_of, make_fingerprint, make_source

from monai_tl.config import IntensityConfig, PlanConfig
from monai_tl.errors import ContractError
from monai_tl.records import SizeRule
from monai_tl.transfer.planning import make_plan

CONFIG = PlanConfig(source="sources/organs")
ACCEPTING = CONFIG.model_copy(update={"accept_broken": ("field of view",)})
BARE = {"size_rule": SizeRule(), "spacing_mm": (1.0, 1.0, 1.0)}
SHARE = "field of view, share of the source's window"


def cases_of(*sizes, **changes):
    """Cases of so many voxels of 1 mm."""
    return make_fingerprint(
        spacing_mm_median=(1, 1, 1), spacing_mm_min=(1, 1, 1), spacing_mm_max=(1, 1, 1), shape_median=sizes,
        extent_mm_median=sizes, foreground_share=1.0, **changes,
    )  # fmt: skip


CROPS = cases_of(35, 50, 35)


def plan_of(found, window, config=ACCEPTING, **contract):
    return make_plan(found, SCHEME, config, make_source(**{**BARE, **contract}, trained_window_vox=window))


def field_of_view(*arguments, **contract):
    return lines_of(plan_of(*arguments, **contract))["field of view"]


def distance(plan):
    return {feature.name: feature.distance for feature in plan.shift.features}.get(SHARE)


# ---- what refuses


def test_crops_are_refused_for_a_source_of_whole_heads_and_heads_are_not():
    with pytest.raises(ContractError, match=r"256 voxels along axis R, a typical case has 35 \(14%") as caught:
        plan_of(CROPS, (256, 256, 256), CONFIG)
    assert "trained on 256 x 256 x 256 voxels of 1 x 1 x 1 mm" in str(caught.value)
    assert "plan.accept_broken: [field of view]" in str(caught.value)
    heads = plan_of(cases_of(256, 256, 256), (256, 256, 256), CONFIG)
    assert lines_of(heads)["field of view"].status == "equal"
    assert distance(heads) == 0.0


def test_accepted_the_plan_is_the_one_without_a_window():
    """It judges, and never decides how windows are cut: not here, and not where a smallest size is stated too."""
    for rule in (SizeRule(), SizeRule(divisor=4, min_vox=(20, 48, 20))):
        with_window = plan_of(CROPS, (256, 256, 256), size_rule=rule)
        without = plan_of(CROPS, None, size_rule=rule)
        assert lines_of(with_window)["field of view"].accepted
        assert with_window.patch_size_vox == without.patch_size_vox
        assert with_window.size_rule == without.size_rule
    assert distance(with_window) == pytest.approx(math.log2(256 / 35), rel=1e-4)


def test_the_axes_of_the_window_are_those_of_the_source():
    found = cases_of(60, 100, 200)
    assert field_of_view(found, (200, 60, 100), orientation="SRA").status == "equal"
    assert "axis S" in field_of_view(found, (60, 100, 500), orientation="RAS").reason


def test_statistics_of_a_crop_are_not_those_of_the_window():
    zscore = {"modality": "MR", "channels": ("T1",), "intensity": IntensityConfig(rule="zscore")}
    found = cases_of(35, 50, 35, modality="MR")
    told = lines_of(plan_of(found, (256, 256, 256), **zscore))["intensity"]
    assert (told.status, "only 14% of the source's field of view" in told.reason) == ("adapted", True)
    assert lines_of(plan_of(found, (48, 48, 48), **zscore))["intensity"].status == "equal"


# ---- what does not


@pytest.mark.parametrize(
    ("window", "status"), [((35, 50, 35), "equal"), ((36, 52, 36), "adapted"), ((70, 72, 64), "adapted"),
                           ((72, 52, 36), "broken")],
)  # fmt: skip
def test_cases_of_half_a_patch_and_more_are_padded(window, status):
    assert field_of_view(CROPS, window).status == status


def test_a_smaller_case_among_large_ones_is_said():
    told = field_of_view(cases_of(64, 64, 64, extent_mm_min=(64, 48, 64)), (64, 64, 64))
    assert (told.status, "the smallest fills 75%" in told.reason) == ("adapted", True)


def test_what_the_network_itself_pads_to_breaks_nothing():
    """A model of this pipeline, trained on such cases and read again: its patch is the case, rounded up.

    The U-Net takes 8 voxels at least, in steps of 4.
    """
    thin = cases_of(35, 50, 3)
    own = make_plan(thin, SCHEME, CONFIG.model_copy(update={"source": None, "network": plan_of(thin, None).network,
                                                            "spacing_mm": (1.0, 1.0, 1.0)}), None)  # fmt: skip
    assert own.patch_size_vox == (36, 52, 8)
    again = plan_of(thin, own.patch_size_vox, CONFIG)
    told = lines_of(again)["field of view"]
    assert (told.status, "fills 38%" in told.reason) == ("adapted", True)
    assert "the network itself takes no less" in told.reason
    assert lines_of(again)["window"].status == "equal"
    assert distance(again) == 0.0
    # a window that the network does not ask for
    assert field_of_view(thin, (36, 52, 12)).status == "broken"


def test_one_size_of_the_network_is_no_rounding():
    fixed = SizeRule(min_vox=(64, 64, 64), fixed=True)
    assert field_of_view(cases_of(24, 64, 64), (64, 64, 64), size_rule=fixed).status == "broken"


# ---- the window of the training


def test_smaller_windows_than_the_source_s_are_told():
    heads = plan_of(cases_of(256, 256, 256), (256, 256, 256), CONFIG)
    told = lines_of(heads)["window"]
    # the budget cuts patches of 64 x 64 x 64
    assert heads.patch_size_vox == (64, 64, 64)
    assert (told.status, told.source) == ("adapted", "trained on 256 x 256 x 256 voxels")
    assert "1.6% of the volume" in told.reason
    assert lines_of(plan_of(cases_of(256, 256, 256), (64, 64, 64), CONFIG))["window"].status == "equal"
    # what is longer along one axis makes up for nothing along another
    told = lines_of(plan_of(cases_of(64, 64, 64), (128, 32, 32)))["window"]
    assert "50.0% of the volume" in told.reason


# ---- nothing stated


def test_a_source_that_states_no_window_is_not_called_equal():
    plan = plan_of(CROPS, None, CONFIG)
    told = lines_of(plan)["field of view"]
    assert (told.status, told.source) == ("adapted", "not stated")
    assert "does not state on what window it was trained" in told.reason
    assert distance(plan) is None
    unknown = {one.name: one.distance for one in plan.shift.features}
    assert unknown["field of view, share of the source's smallest"] is None


def test_a_smallest_size_is_judged_beside_the_window():
    rule = SizeRule(divisor=4, min_vox=(40, 40, 40))
    told = field_of_view(CROPS, (36, 52, 36), size_rule=rule)
    assert told.source == "at least 40 x 40 x 40 voxels, trained on 36 x 52 x 36 voxels of 1 x 1 x 1 mm"
    assert (told.status, "fills 88%" in told.reason) == ("adapted", True)
