"""Plans: what is adopted, what is adapted, what is refused; patch sizes by hand."""

from __future__ import annotations

import dataclasses

import pytest
from targets import SCHEME, UNET, WINDOW, lines_of, make_fingerprint, make_source

from monai_tl.config import IntensityConfig, NetworkConfig, PlanConfig
from monai_tl.errors import ConfigError, ContractError, LabelError
from monai_tl.records import SizeRule
from monai_tl.transfer.planning import derive_patch_size, make_plan, on_own_network

CONFIG = PlanConfig(source="sources/organs")


def accepting(*items, **changes):
    return CONFIG.model_copy(update={"accept_broken": items, **changes})


def test_the_source_decides_by_default():
    plan = make_plan(make_fingerprint(), SCHEME, CONFIG, make_source(orientation="LPS"))
    assert (plan.orientation, plan.spacing_mm, plan.intensity) == ("LPS", (5.0, 5.0, 5.0), WINDOW)
    assert plan.network == UNET
    assert plan.source_sha256 == "a" * 64
    assert (plan.foreground, plan.foreground_threshold) == ("above", -500.0)
    # the architecture itself asks for less than the card's 8 or more: the stricter of both
    assert plan.size_rule.divisor == 4
    assert plan.size_rule.min_vox == (8, 8, 8)
    assert plan.patch_size_vox == (60, 40, 40)


def test_every_line_of_the_contract_is_stated():
    lines = lines_of(make_plan(make_fingerprint(), SCHEME, CONFIG, make_source()))
    assert {item: line.status for item, line in lines.items()} == {
        "modality": "equal",
        "channels": "equal",
        "orientation": "equal",
        "spacing": "adapted",
        "intensity": "equal",
        "window": "equal",
        "field of view": "equal",
        "classes": "adapted",
    }
    assert "rows reused for liver" in lines["classes"].reason
    assert all(line.reason and line.source and line.target for line in lines.values())


def test_another_modality_is_refused():
    with pytest.raises(ContractError, match=r"the source learned on CT, the target is MR(.|\n)*from scratch"):
        make_plan(make_fingerprint(modality="MR"), SCHEME, CONFIG, make_source())


def test_a_sequence_named_on_one_side_only_is_pointed_out():
    source = make_source(modality="MR T1", intensity=IntensityConfig(rule="zscore", low=1.0, high=99.5))
    plan = make_plan(make_fingerprint(modality="MR"), SCHEME, CONFIG, source)
    lines = lines_of(plan)
    assert lines["modality"].status == "equal"
    assert lines["channels"].status == "adapted"
    assert "learned on T1, and nothing says which sequence" in lines["channels"].reason
    # statistics of the case were taken of the whole case
    assert plan.foreground == "none"


def test_other_channels_are_adapted():
    plan = make_plan(make_fingerprint(n_channels=2), SCHEME, CONFIG, make_source())
    assert plan.n_channels == 2
    assert lines_of(plan)["channels"].status == "adapted"
    assert "from 1 to 2" in lines_of(plan)["channels"].reason


@pytest.mark.parametrize(
    ("least", "status"), [((60, 40, 40), "equal"), ((80, 60, 44), "adapted"), ((124, 40, 40), "broken")]
)
def test_small_cases_are_padded_and_too_small_ones_said(least, status):
    source = make_source(size_rule=SizeRule(divisor=4, min_vox=least, padding="edge"))
    plan = make_plan(make_fingerprint(), SCHEME, accepting("field of view"), source)
    line = lines_of(plan)["field of view"]
    assert line.status == status
    assert ("edge values" in line.reason) == (status == "adapted")
    fits = all(size >= minimum for size, minimum in zip(plan.patch_size_vox, least, strict=True))
    # a broken field of view is accepted without the window that would only be padded
    assert fits == (status != "broken")


def test_extent_follows_the_orientation():
    found = make_fingerprint(extent_mm_median=(300.0, 200.0, 100.0))
    source = make_source(orientation="SPL", spacing_mm=(5.0, 5.0, 5.0))
    assert make_plan(found, SCHEME, CONFIG, source).patch_size_vox == (20, 40, 60)
    # spacing too is along the stored axes: the target's 5 mm slices lie along the first one
    near = make_fingerprint(spacing_mm_min=(2.0, 2.0, 5.0), spacing_mm_max=(2.0, 2.0, 5.0))
    plan = make_plan(near, SCHEME, CONFIG, make_source(orientation="SPL", spacing_mm=(5.0, 2.0, 2.0)))
    assert lines_of(plan)["spacing"].status == "equal"


@pytest.mark.parametrize(
    ("spacing", "status"), [((5.1, 5.0, 5.0), "adapted"), ((4.0, 4.0, 4.0), "adapted"), ((5.0, 5.0, 2.0), "broken")]
)
def test_spacing_set_by_hand_is_judged(spacing, status):
    config = accepting("spacing", spacing_mm=spacing)
    plan = make_plan(make_fingerprint(), SCHEME, config, make_source())
    assert plan.spacing_mm == spacing
    assert lines_of(plan)["spacing"].status == status


@pytest.mark.parametrize(
    ("low", "high", "status"), [(-20.0, 140.0, "equal"), (-400.0, 200.0, "adapted"), (300.0, 900.0, "broken")]
)
def test_a_window_that_misses_the_foreground_is_said(low, high, status):
    found = make_fingerprint(intensity={"p00_5": low, "p99_5": high})
    assert lines_of(make_plan(found, SCHEME, accepting("intensity"), make_source()))["intensity"].status == status


def test_an_intensity_rule_of_another_kind_breaks_the_contract_and_is_obeyed_when_accepted():
    config = accepting("intensity", intensity=IntensityConfig(rule="minmax"))
    plan = make_plan(make_fingerprint(), SCHEME, config, make_source())
    assert plan.intensity.rule == "minmax"
    assert lines_of(plan)["intensity"].status == "broken"


def test_without_a_source_the_fingerprint_decides():
    config = PlanConfig(source=None, network=UNET)
    plan = make_plan(make_fingerprint(), SCHEME, config, None)
    assert plan.spacing_mm == (2.0, 2.0, 5.0)
    assert plan.intensity == IntensityConfig(rule="window", low=-21, high=141)
    assert plan.adaptations == ()
    assert plan.source is plan.source_sha256 is None
    mr = make_plan(make_fingerprint(modality="MR", foreground_share=0.95), SCHEME, config, None)
    assert mr.intensity == IntensityConfig(rule="zscore", low=0.5, high=99.5)
    assert mr.foreground == "none"
    cut_out = make_plan(make_fingerprint(modality="MR", foreground_share=0.5), SCHEME, config, None)
    assert (cut_out.foreground, cut_out.foreground_threshold) == ("above", 0.0)


def test_a_patch_set_by_hand_must_suit_the_network():
    config = CONFIG.model_copy(update={"patch_size_vox": (30, 4, 40)})
    with pytest.raises(ConfigError) as caught:
        make_plan(make_fingerprint(), SCHEME, config, make_source())
    assert [fault.split(":")[0] for fault in caught.value.faults] == ["plan.patch_size_vox.0", "plan.patch_size_vox.1"]
    good = CONFIG.model_copy(update={"patch_size_vox": (32, 8, 40)})
    assert make_plan(make_fingerprint(), SCHEME, good, make_source()).patch_size_vox == (32, 8, 40)


def test_a_window_smaller_than_the_sources_is_used_everywhere_and_said():
    source = make_source(size_rule=SizeRule(divisor=4, min_vox=(48, 72, 64), padding="edge"))
    config = CONFIG.model_copy(update={"patch_size_vox": (40, 80, 40)})
    plan = make_plan(make_fingerprint(), SCHEME, config, source)
    assert plan.patch_size_vox == (40, 80, 40)
    assert plan.size_rule.min_vox == (40, 72, 40)
    line = lines_of(plan)["window"]
    assert (line.status, line.source, line.target) == ("adapted", "at least 48 x 72 x 64 voxels", "40 x 80 x 40 voxels")
    # the cases are held against what the source knew, not against the window of the target
    assert "48 x 72 x 64" in lines_of(plan)["field of view"].source


def test_an_axis_with_few_strides_keeps_its_thin_patch():
    """The least common multiple of all axes would ask 16 voxels of a stack of 6 slices."""
    thin = {"channels": [4, 8, 8], "strides": [[4, 4, 1], [4, 4, 1]], "kernel_size": 3}
    config = PlanConfig(source=None, network=NetworkConfig(name="unet", arguments=thin))
    found = make_fingerprint(extent_mm_median=(200.0, 200.0, 30.0))
    plan = make_plan(found, SCHEME, config, None)
    assert plan.size_rule.divisors == (16, 16, 1)
    assert plan.patch_size_vox == (112, 112, 6)
    # a card's rule joins in axis by axis
    source = make_source(size_rule=SizeRule(divisor=(3, 4, 5), min_vox=(8, 8, 8)))
    assert make_plan(found, SCHEME, CONFIG, source).size_rule.divisors == (12, 4, 20)


def test_a_network_of_one_size_gets_it_and_no_other():
    unetr = NetworkConfig(name="unetr", arguments={"img_size": [48, 32, 32], "hidden_size": 24, "num_heads": 2})
    config = PlanConfig(source=None, network=unetr)
    for extent in ((300.0, 200.0, 200.0), (20.0, 20.0, 20.0)):
        plan = make_plan(make_fingerprint(extent_mm_median=extent), SCHEME, config, None)
        assert plan.patch_size_vox == plan.size_rule.min_vox == (48, 32, 32)
        assert plan.size_rule.fixed
    with pytest.raises(ConfigError, match=r"patch_size_vox.0: the network takes 48 and no other size, not 64"):
        make_plan(make_fingerprint(), SCHEME, config.model_copy(update={"patch_size_vox": (64, 32, 32)}), None)
    source = make_source(size_rule=SizeRule(divisor=2, min_vox=(8, 8, 8), padding="edge", fixed=True))
    plan = make_plan(make_fingerprint(), SCHEME, CONFIG, source)
    assert (plan.patch_size_vox, plan.size_rule.padding) == ((8, 8, 8), "edge")


def test_the_window_of_the_source_is_equal():
    assert lines_of(make_plan(make_fingerprint(), SCHEME, CONFIG, make_source()))["window"].status == "equal"


RULE = SizeRule(divisor=8, min_vox=(16, 16, 16))


@pytest.mark.parametrize(
    ("sizes", "spacing", "budget", "expected"),
    [
        # fits: rounded up to the divisor
        ((60.0, 41.0, 40.0), (1.0, 1.0, 1.0), 10**9, (64, 48, 40)),
        # a typical case smaller than the minimum
        ((5.0, 20.0, 16.0), (1.0, 1.0, 1.0), 10**9, (16, 24, 16)),
        # shortened to a cube
        ((100.0, 100.0, 100.0), (1.0, 1.0, 1.0), 64**3, (64, 64, 64)),
        # the longest in millimetres goes first, though it has the fewest voxels
        ((64.0, 64.0, 40.0), (1.0, 1.0, 4.0), 64 * 64 * 24, (64, 64, 24)),
        # the network's minimum wins over the budget
        ((90.0, 90.0, 90.0), (1.0, 1.0, 1.0), 100, (16, 16, 16)),
        # 60.0004 is 60 measured with noise, not 64
        ((56.0004, 56.0, 56.0), (1.0, 1.0, 1.0), 10**9, (56, 56, 56)),
    ],
)
def test_patch_sizes_by_hand(sizes, spacing, budget, expected):
    assert derive_patch_size(sizes, spacing, RULE, budget) == expected


def test_a_class_that_no_training_case_has_is_refused():
    found = make_fingerprint(class_present={"liver": 9, "tumour": 0})
    with pytest.raises(LabelError, match=r"tumour is in none of the 9 training cases") as caught:
        make_plan(found, SCHEME, PlanConfig(source=None, network=UNET), None)
    for word in ("structures", "values", "ingest.classes", "split.seed"):
        assert word in str(caught.value)
    assert "liver" not in str(caught.value)
    found = make_fingerprint(class_present={"liver": 0, "tumour": 0})
    with pytest.raises(LabelError, match="liver, tumour"):
        make_plan(found, SCHEME, PlanConfig(source=None, network=UNET), None)


def test_images_with_values_below_zero_are_not_cropped_to_what_lies_above() -> None:
    """MR may be stored with an offset; then a voxel below 0 is no background, and a crop would cut off the organ."""
    values = {"mean": -200.0, "std": 30.0, "p00_5": -240.0, "p99_5": -150.0}
    config = PlanConfig(source=None, network=UNET)
    for lowest, expected in ((-500.0, "none"), (0.0, "above")):
        found = make_fingerprint(modality="MR", intensity={**values, "body_min": lowest}, foreground_share=0.1)
        assert make_plan(found, SCHEME, config, None).foreground == expected
    ct = make_fingerprint(intensity={**values, "body_min": -1000.0})
    assert make_plan(ct, SCHEME, config, None).foreground == "above"


def test_a_network_named_beside_a_source_is_the_one_that_trains():
    deeper = NetworkConfig(name="unet", arguments={"channels": [4, 8, 16, 16], "strides": [2, 2, 2]})
    source = make_source()
    plan = make_plan(make_fingerprint(), SCHEME, CONFIG.model_copy(update={"network": deeper}), source)
    assert plan.network == deeper
    # its own steps, beside what the card asks for
    assert plan.size_rule.divisor == 8
    assert [note for note in plan.notes if "in place of the network" in note]
    assert (plan.orientation, plan.spacing_mm) == (source.card.input.orientation, source.card.input.spacing_mm)
    same = make_plan(make_fingerprint(), SCHEME, CONFIG.model_copy(update={"network": UNET}), source)
    assert same == make_plan(make_fingerprint(), SCHEME, CONFIG, source)
    back = on_own_network(source, plan)
    assert (back.network, back.n_channels, back.size_rule.divisor) == (UNET, 1, 4)


def test_a_network_whose_levels_do_not_fit_together_is_refused_with_the_plan():
    """DynUNet builds with them and fails on its first window."""
    arguments = {"kernel_size": [3, 3, 3], "strides": [1, 2, 2], "filters": [4, 8, 8]}
    config = PlanConfig(
        source=None, network=NetworkConfig(name="dynunet", arguments={**arguments, "upsample_kernel_size": [1, 2]})
    )
    with pytest.raises(ConfigError, match=r"network 'dynunet'(.|\n)*fails on a window"):
        make_plan(make_fingerprint(), SCHEME, config, None)
    good = NetworkConfig(name="dynunet", arguments={**arguments, "upsample_kernel_size": [2, 2]})
    assert make_plan(make_fingerprint(), SCHEME, config.model_copy(update={"network": good}), None).network == good


def test_the_one_size_of_a_network_that_is_not_trained_holds_nobody():
    """The source takes 48 voxels and no others; the network beside it takes multiples of 4."""
    rule = SizeRule(divisor=16, min_vox=(48, 48, 48), fixed=True)
    unetr = {"name": "unetr", "arguments": {"img_size": [48, 48, 48]}, "n_channels": 1, "n_outputs": 3}
    source = make_source(size_rule=rule)
    card = source.card.model_copy(update={"network": type(source.card.network).model_validate(unetr)})
    source = dataclasses.replace(source, card=card)
    config = CONFIG.model_copy(update={"network": UNET, "patch_size_vox": (32, 32, 32)})
    plan = make_plan(make_fingerprint(), SCHEME, config, source)
    assert (plan.patch_size_vox, plan.size_rule.fixed, plan.size_rule.divisor) == ((32, 32, 32), False, 4)
    assert lines_of(plan)["window"].status == "adapted"
    assert "which differs in name" in plan.notes[-1]
