"""The contract: what is refused, what can be accepted, and no line that is called equal and is not."""

from __future__ import annotations

import math
from itertools import permutations, product

import numpy as np
import pytest
from targets import SCHEME, UNET, WINDOW, lines_of, make_fingerprint, make_source

from monai_tl.config import CONTRACT_ITEMS, IntensityConfig, PlanConfig, parse_params
from monai_tl.errors import ConfigError, ContractError
from monai_tl.labels import ClassSpec, LabelScheme
from monai_tl.records import SizeRule
from monai_tl.sources.card import Source
from monai_tl.transfer.contract_content import sequence_of
from monai_tl.transfer.contract_geometry import compare_orientation
from monai_tl.transfer.contract_intensity import write_rule
from monai_tl.transfer.planning import make_plan

CONFIG = PlanConfig(source="sources/organs")
ZSCORE = IntensityConfig(rule="zscore", low=0.5, high=99.5)
MINMAX = IntensityConfig(rule="minmax")
WHOLE_HEAD = SizeRule(divisor=1, min_vox=(256, 256, 256))
MR = {"modality": "MR", "channels": ("T1",), "intensity": ZSCORE}


def accepting(*items, **changes):
    return PlanConfig.model_validate({"source": "sources/organs", "accept_broken": items, **changes})


def line(item, *, found=None, config=None, **contract):
    """One line, whatever is broken."""
    config = config or accepting(*CONTRACT_ITEMS[1:])
    return lines_of(make_plan(found or make_fingerprint(), SCHEME, config, make_source(**contract)))[item]


# ---- what refuses


def test_a_broken_line_refuses_with_numbers_and_what_to_do():
    with pytest.raises(ContractError) as caught:
        make_plan(make_fingerprint(), SCHEME, CONFIG, make_source(size_rule=WHOLE_HEAD))
    text = str(caught.value)
    # 300, 200, 200 mm of 5 mm
    for words in (
        "source organs", "one line is broken", "256 voxels along axis A", "40 (16%", "at least 256 x 256 x 256 voxels",
        "median 60 x 40 x 40 voxels", "to mend it:", "plan.accept_broken: [field of view]", "plan.source: null",
    ):  # fmt: skip
        assert words in text


def test_all_broken_lines_are_told_at_once_and_the_accepted_ones_marked():
    found = make_fingerprint(intensity={"p00_5": 300.0, "p99_5": 900.0})
    source = make_source(size_rule=WHOLE_HEAD)
    with pytest.raises(ContractError) as caught:
        make_plan(found, SCHEME, accepting("intensity"), source)
    text = str(caught.value)
    assert "2 lines are broken" in text
    assert "intensity (accepted): only 0% of the foreground's range" in text
    assert "field of view: the source looks at" in text
    # what must be written so that the next run goes on
    assert "plan.accept_broken: [intensity, field of view]" in text
    plan = make_plan(found, SCHEME, accepting("intensity", "field of view"), source)
    marked = {item for item, one in lines_of(plan).items() if one.accepted}
    assert marked == {item for item, one in lines_of(plan).items() if one.status == "broken"}
    assert marked == {"intensity", "field of view"}


def test_another_modality_cannot_be_accepted():
    with pytest.raises(ConfigError, match="another modality cannot be accepted"):
        parse_params({"ingest": {"source": "d", "classes": [{"name": "a"}]},
                      "plan": {"source": "s", "accept_broken": ["modality"]}})  # fmt: skip
    # not even by a configuration that was never checked
    config = CONFIG.model_copy(update={"accept_broken": ("modality", "intensity")})
    with pytest.raises(ContractError, match="modality cannot be accepted"):
        make_plan(make_fingerprint(modality="MR"), SCHEME, config, make_source())


@pytest.mark.parametrize(
    ("items", "fault"),
    [
        (["fov"], "'fov' is no line of the contract"),
        (["window", "window"], "given twice"),
        (["Spacing"], "choose from channels, orientation, spacing, intensity, window, field of view, classes"),
    ],
)
def test_names_of_lines_are_checked_before_anything_starts(items, fault):
    content = {"ingest": {"source": "d", "classes": [{"name": "a"}]}, "plan": {"source": "s", "accept_broken": items}}
    with pytest.raises(ConfigError) as caught:
        parse_params(content)
    assert caught.value.faults[0].startswith("plan.accept_broken: ")
    assert fault in caught.value.faults[0]


def test_an_acceptance_that_nothing_needs_is_a_note():
    plan = make_plan(make_fingerprint(), SCHEME, accepting("field of view", "spacing"), make_source())
    assert not any(one.accepted for one in plan.adaptations)
    assert [note.split(", which")[0] for note in plan.notes] == [
        "plan.accept_broken names field of view", "plan.accept_broken names spacing",
    ]  # fmt: skip
    assert make_plan(make_fingerprint(), SCHEME, CONFIG, make_source()).notes == ()


def test_the_lines_are_those_that_can_be_named():
    plan = make_plan(make_fingerprint(), SCHEME, CONFIG, make_source())
    assert tuple(one.item for one in plan.adaptations) == CONTRACT_ITEMS
    assert all(one.reason and not one.advice for one in plan.adaptations)


# ---- field of view and window


def test_an_accepted_field_of_view_gives_up_the_window_that_would_be_padding():
    source = make_source(size_rule=WHOLE_HEAD)
    plan = make_plan(make_fingerprint(), SCHEME, accepting("field of view"), source)
    # 60 x 40 x 40 rounded up to the network's own divisor, 4 for two strides of 2
    assert plan.patch_size_vox == (60, 40, 40)
    assert plan.size_rule.min_vox == (8, 8, 8)
    assert math.prod(plan.patch_size_vox) <= CONFIG.max_patch_voxels
    lines = lines_of(plan)
    assert (lines["window"].status, lines["field of view"].status) == ("adapted", "broken")
    # 60 * 40 * 40 / 256^3
    assert "0.6% of the volume" in lines["window"].reason


def test_only_the_network_s_own_fixed_size_is_kept():
    """A card may ask for one size and no other; that the weights do is given up, that the network does is not."""
    # the card says nothing of multiples, the network needs those of 4: 42 voxels become 44
    fixed = SizeRule(min_vox=(128, 128, 128), fixed=True)
    odd = make_fingerprint(extent_mm_median=(300.0, 200.0, 210.0))
    plan = make_plan(odd, SCHEME, accepting("field of view"), make_source(size_rule=fixed))
    assert plan.patch_size_vox == (60, 40, 44)
    plan = make_plan(make_fingerprint(), SCHEME, accepting("field of view"), make_source(size_rule=fixed))
    assert (plan.size_rule.fixed, plan.patch_size_vox) == (False, (60, 40, 40))
    assert lines_of(plan)["window"].source == "exactly 128 x 128 x 128 voxels"
    learned = {"img_size": [128, 128, 128], "feature_size": 4, "hidden_size": 48, "mlp_dim": 96, "num_heads": 4}
    source = make_source(size_rule=fixed)
    network = source.card.network.model_copy(update={"name": "unetr", "arguments": learned})
    source = Source(source.card.model_copy(update={"network": network}), source.folder)
    plan = make_plan(make_fingerprint(), SCHEME, accepting("field of view"), source)
    assert (plan.size_rule.fixed, plan.patch_size_vox) == (True, (128, 128, 128))
    assert lines_of(plan)["field of view"].accepted


def test_the_window_is_kept_where_the_cases_fill_it():
    found = make_fingerprint(extent_mm_median=(1280.0, 1280.0, 1300.0))
    plan = make_plan(found, SCHEME, accepting("field of view"), make_source(size_rule=WHOLE_HEAD))
    assert plan.patch_size_vox == (256, 256, 256)
    window = lines_of(plan)["window"]
    assert window.status == "equal"
    assert "16.8 million voxels, more than plan.max_patch_voxels (0.262 million)" in window.reason


def test_small_cases_beside_large_ones_are_seen():
    rule = SizeRule(divisor=4, min_vox=(40, 40, 40))
    large = make_fingerprint(extent_mm_min=(200.0, 200.0, 200.0))
    assert line("field of view", found=large, size_rule=rule).status == "equal"
    small = make_fingerprint(extent_mm_min=(200.0, 150.0, 200.0))
    told = line("field of view", found=small, size_rule=rule)
    assert told.status == "adapted"
    assert "the smallest fills 75%" in told.reason
    # an axis of the patient, not of the array
    assert line("field of view", found=small, size_rule=SizeRule(divisor=4, min_vox=(40, 30, 40))).status == "equal"
    turned = line("field of view", found=small, size_rule=SizeRule(divisor=4, min_vox=(30, 40, 40)), orientation="PRS")
    assert turned.status == "equal"


def test_a_card_that_asks_for_no_size_says_nothing():
    told = line("field of view", size_rule=SizeRule(divisor=4, min_vox=(0, 0, 0)))
    assert (told.status, told.source) == ("adapted", "not stated")


# ---- orientation


_TOWARDS = {"R": (1, 0, 0), "L": (-1, 0, 0), "A": (0, 1, 0), "P": (0, -1, 0), "S": (0, 0, 1), "I": (0, 0, -1)}
ORIENTATIONS = ["".join(codes) for axes in permutations(("LR", "PA", "IS")) for codes in product(*axes)]


def test_a_source_of_the_other_handedness_is_told():
    """By the sign of the determinant of the directions that the letters name."""
    assert len(ORIENTATIONS) == 48
    plan = make_plan(make_fingerprint(), SCHEME, CONFIG, make_source())
    for codes in ORIENTATIONS:
        turned = plan.model_copy(update={"orientation": codes})
        told = compare_orientation(make_source(orientation=codes).card, turned)
        assert told.status == ("equal" if codes == "RAS" else "adapted")
        mirrored = np.linalg.det([_TOWARDS[code] for code in codes]) < 0
        assert ("mirror images" in told.reason) == mirrored
        plain = codes.replace("R", "L").replace("A", "P").replace("S", "I")
        assert ("axes are exchanged" in told.reason) == (plain != "LPI")
        backwards = [code for code in codes if code in "LPI"]
        assert (f"reversed towards {' and '.join(backwards)})" in told.reason) == bool(backwards)


# ---- values that are on another scale


def on_scale(lowest, low=980.0, high=1180.0):
    return {"mean": 1080.0, "std": 30.0, "p00_5": low, "p99_5": high, "body_min": lowest}


def test_ct_without_a_value_below_zero_is_not_in_hounsfield_units():
    """Stored values without the intercept of -1024 lie inside a wide window, so its cover alone says equal."""
    wide = IntensityConfig(rule="window", low=-1024.0, high=3071.0)
    told = line("intensity", found=make_fingerprint(intensity=on_scale(0.0)), intensity=wide)
    assert told.status == "broken"
    assert "lowest value of all training cases is 0" in told.reason
    assert line("intensity", found=make_fingerprint(intensity=on_scale(-1000.0)), intensity=wide).status == "equal"
    # a source whose own window begins at 0 learned on such values; and only CT has Hounsfield units
    raw = IntensityConfig(rule="window", low=0.0, high=4095.0)
    assert line("intensity", found=make_fingerprint(intensity=on_scale(0.0)), intensity=raw).status == "equal"
    signed = IntensityConfig(rule="window", low=-1.0, high=2000.0)
    found = make_fingerprint(modality="MR", intensity=on_scale(0.0))
    assert line("intensity", found=found, **{**MR, "intensity": signed}).status == "equal"


def test_statistics_of_what_is_not_zero_need_a_zero():
    cut_out = {**MR, "intensity": ZSCORE.model_copy(update={"nonzero": True})}
    background = make_fingerprint(modality="MR", intensity=on_scale(3.0))
    told = line("intensity", found=background, **cut_out)
    assert told.status == "adapted"
    assert "no voxel of the target is 0" in told.reason
    masked = make_fingerprint(modality="MR", intensity=on_scale(0.0))
    assert line("intensity", found=masked, **cut_out).status == "equal"
    assert line("intensity", found=background, **MR).status == "equal"


# ---- spacing


def test_a_plan_of_another_grid_is_not_called_the_sources():
    near = make_fingerprint(spacing_mm_min=(5.0, 5.0, 5.0), spacing_mm_median=(5.1,) * 3, spacing_mm_max=(5.2,) * 3)
    assert line("spacing", found=near).status == "equal"
    assert "5.1 x 5.1 x 5.1 mm" in line("spacing", found=near, config=accepting(spacing_mm=(5.1,) * 3)).reason
    one_axis = make_fingerprint(spacing_mm_min=(5.0,) * 3, spacing_mm_median=(5.0,) * 3, spacing_mm_max=(5, 5, 5.3))
    assert line("spacing", found=one_axis).status == "adapted"


@pytest.mark.parametrize(
    ("thickness", "status"), [(3.0, "adapted"), (5.0, "adapted"), (5.1, "broken"), (8.0, "broken")]
)
def test_slices_much_thicker_than_the_sources_break_the_contract(thickness, status):
    found = make_fingerprint(
        spacing_mm_median=(1.0, 1.0, thickness), spacing_mm_min=(1.0, 1.0, 3.0), spacing_mm_max=(1.0, 1.0, 8.0)
    )
    told = line("spacing", found=found, spacing_mm=(1.0, 1.0, 1.0), size_rule=SizeRule())
    assert told.status == status
    assert "8 times longer" in told.reason or f"{thickness:g} times longer" in told.reason
    # the thick axis of the patient is compared with the same axis of the source
    told = line("spacing", found=found, spacing_mm=(8.0, 1.0, 1.0), size_rule=SizeRule(), orientation="SRA")
    assert told.status == "adapted"


# ---- channels


@pytest.mark.parametrize(
    ("name", "sequence"),
    [
        ("T1", "T1"), ("T1w", "T1"), ("mri T1", "T1"), ("T1 SPACE", "T1"), ("T1gd", "T1 with contrast"),
        ("t1ce", "T1 with contrast"), ("T1c", "T1 with contrast"), ("T2w", "T2"), ("T2-FLAIR", "FLAIR"),
        ("FLAIR", "FLAIR"), ("T2*", "T2*"), ("PDw", "PD"), ("ADC", "diffusion"), ("CT", ""), ("MR", ""),
        ("channel 0", ""),
    ],
)  # fmt: skip
def test_names_of_sequences(name, sequence):
    assert sequence_of(name) == sequence


@pytest.mark.parametrize(
    ("source", "target", "status", "words"),
    [
        (("T1",), ("T1w",), "equal", "named alike"),
        (("T1",), ("T2",), "broken", "T2 where the source learned on T1"),
        (("FLAIR", "T1"), ("FLAIR", "T1"), "equal", "named alike"),
        (("FLAIR", "T1"), ("T1", "FLAIR"), "broken", "another order: the source would take T1 for FLAIR"),
        (("FLAIR", "T1"), (), "adapted", "the order FLAIR, T1"),
        (("MR",), ("MRI",), "adapted", "not all names say"),
    ],
)
def test_channels_are_compared_by_what_they_hold(source, target, status, words):
    found = make_fingerprint(modality="MR", n_channels=len(source), channels=target)
    told = line("channels", found=found, modality="MR", channels=source, intensity=ZSCORE)
    assert told.status == status
    assert words in told.reason


@pytest.mark.parametrize(
    ("sequence", "low", "median", "high", "status", "words"),
    [
        ("T1", 2.9, 3.1, 4.0, "adapted", "do not contradict T1"),
        ("T1", 90.0, 100.0, 120.0, "broken", "those of T2-weighted images"),
        ("T2", 2.9, 3.1, 4.0, "broken", "those of not T2-weighted images"),
        ("FLAIR", 90.0, 100.0, 120.0, "adapted", "do not contradict FLAIR"),
        ("T1", 3.0, 4.0, 110.0, "adapted", "those of several sequences"),
    ],
)
def test_echo_times_tell_t2_from_t1(sequence, low, median, high, status, words):
    times = {"n": 7, "min": low, "median": median, "max": high}
    found = make_fingerprint(modality="MR", echo_time_ms=times)
    told = line("channels", found=found, **{**MR, "channels": (sequence,)})
    assert (told.status, words in told.reason) == (status, True)
    assert f"median {median:g}, of 7 cases" in told.reason
    # the card may name it with the modality instead
    told = line("channels", found=found, **{**MR, "modality": f"MR {sequence}", "channels": ("MR",)})
    assert told.status == status


def test_modalities_are_compared_by_dicom_s_terms():
    assert line("modality", found=make_fingerprint(modality="MR"), **{**MR, "modality": "MRI"}).status == "equal"
    assert line("modality", found=make_fingerprint(modality="MR"), **{**MR, "modality": "CT/MR"}).status == "equal"
    with pytest.raises(ContractError, match="learned on CT/MR, the target is PT"):
        make_plan(make_fingerprint(modality="PT"), SCHEME, CONFIG, make_source(**{**MR, "modality": "CT/MR"}))


# ---- intensity


@pytest.mark.parametrize(
    ("rule", "status", "words"),
    [
        ({"rule": "window", "low": -150, "high": 250}, "equal", "fills 40% of it"),
        # -20.4 HU: 130/400 becomes 80/500; 140.2 HU: 290/400 becomes 240/500
        ({"rule": "window", "low": -100, "high": 400}, "adapted", "move by up to 25% of the source's range"),
        # 140.2 HU: 290/400 becomes 140/3000
        ({"rule": "window", "low": 0, "high": 3000}, "broken", "move by up to 68%"),
        # the same values, only cut off elsewhere
        ({"rule": "window", "low": -350, "high": 650, "output": [-0.5, 2.0]}, "adapted", "move by up to 0%"),
        # the same window, another scale: -20.4 HU is 0.324 there and -0.352 here
        ({"rule": "window", "low": -150, "high": 250, "output": [-1.0, 1.0]}, "broken", "move by up to 68%"),
        ({"rule": "zscore"}, "broken", "never saw values on this scale"),
    ],
)
def test_a_rule_of_one_s_own_is_judged_by_where_it_puts_the_foreground(rule, status, words):
    told = line("intensity", config=accepting("intensity", intensity=rule))
    assert (told.status, words in told.reason) == (status, True)


@pytest.mark.parametrize(
    ("rule", "own", "status"),
    [
        (ZSCORE, {"rule": "zscore", "low": 1.0, "high": 99.0}, "adapted"),
        (ZSCORE, {"rule": "zscore", "low": 0.5, "high": 99.5, "nonzero": True}, "broken"),
        (MINMAX, {"rule": "minmax", "low": 1.0, "high": 99.0}, "adapted"),
        (MINMAX, {"rule": "minmax", "output": [-1.0, 1.0]}, "broken"),
    ],
)
def test_other_forms_of_a_rule_by_case(rule, own, status):
    told = line("intensity", config=accepting("intensity", intensity=own), intensity=rule)
    assert told.status == status


def test_rules_are_written_in_full():
    texts = {
        "window, -160 to 240": {"rule": "window", "low": -160, "high": 240},
        "window, 0 to 9, to -1 to 1": {"rule": "window", "low": 0, "high": 9, "output": [-1, 1]},
        "zscore, percentiles 1 to 99.5, of voxels that are not 0": {
            "rule": "zscore", "low": 1, "high": 99.5, "nonzero": True,
        },
        "minmax, percentiles 1 to 99": {"rule": "minmax", "low": 1, "high": 99},
        "minmax": {"rule": "minmax"},
    }  # fmt: skip
    assert [write_rule(IntensityConfig.model_validate(rule)) for rule in texts.values()] == list(texts)


def test_a_foreground_that_the_window_flattens_is_broken():
    # 4 HU of 400
    found = make_fingerprint(intensity={"p00_5": 50.0, "p99_5": 54.0})
    assert line("intensity", found=found).status == "broken"
    assert "fills 1.0% of the source's window" in line("intensity", found=found).reason
    found = make_fingerprint(intensity={"p00_5": 50.0, "p99_5": 60.0})
    assert line("intensity", found=found).status == "equal"


@pytest.mark.parametrize("rule", [WINDOW, ZSCORE, MINMAX])
def test_a_foreground_of_one_value_is_broken_under_any_rule(rule):
    found = make_fingerprint(intensity={"p00_5": 7.0, "p99_5": 7.0})
    assert line("intensity", found=found, intensity=rule).status == "broken"


@pytest.mark.parametrize(
    ("rule", "n_squashed", "status"),
    [
        (MINMAX, 0, "equal"), (MINMAX, 1, "adapted"), (MINMAX, 5, "broken"),
        (IntensityConfig(rule="zscore"), 5, "broken"), (ZSCORE, 5, "equal"),
        (IntensityConfig(rule="minmax", low=0.5, high=99.5), 5, "equal"),
        (IntensityConfig(rule="minmax", low=0.0, high=100.0), 5, "broken"),
    ],
)  # fmt: skip
def test_bright_outliers_break_rules_that_take_the_whole_range(rule, n_squashed, status):
    found = make_fingerprint(scaled={"n_squashed": n_squashed})
    told = line("intensity", found=found, intensity=rule)
    assert told.status == status
    assert (f"in {n_squashed} of 9 cases" in told.reason) == (status != "equal")


# ---- classes


def scheme(*names):
    return LabelScheme(classes=tuple(ClassSpec(name=name) for name in names))


def classes_line(source, target, output="softmax"):
    found = make_fingerprint(class_volumes_ml=dict.fromkeys(target, 1.0), class_present=dict.fromkeys(target, 9))
    made = make_plan(found, scheme(*target), CONFIG, make_source(classes=source, output=output))
    return lines_of(made)["classes"]


@pytest.mark.parametrize(
    ("source", "target", "output", "status", "words"),
    [
        (("liver", "spleen"), ("Liver", "spleen"), "softmax", "equal", "same order"),
        (("liver", "spleen"), ("spleen", "liver"), "softmax", "adapted", "spleen, liver in another order"),
        (("liver", "spleen"), ("liver", "spleen"), "sigmoid", "adapted", "its own sigmoid"),
        (("liver",), ("liver", "cyst"), "sigmoid", "adapted", "the background has none there"),
        (("Left-Kidney",), ("kidney_left",), "softmax", "adapted", "the source writes Left-Kidney; write it so"),
        (("kidney",), ("kidney_left",), "softmax", "adapted", "by name a part of the source's kidney"),
        (("kidney left", "kidney right"), ("kidney",), "softmax", "adapted", "the whole of the source's kidney left"),
        (("spleen",), ("liver",), "softmax", "adapted", "the head is made anew"),
    ],
)  # fmt: skip
def test_classes_are_compared_by_name(source, target, output, status, words):
    told = classes_line(source, target, output)
    assert told.status == status
    assert words in told.reason


def test_a_self_supervised_source_has_no_classes():
    source = make_source()
    card = source.card.model_copy(update={"output": "features", "classes": ()})
    told = lines_of(make_plan(make_fingerprint(), SCHEME, CONFIG, Source(card, source.folder)))["classes"]
    assert (told.status, told.source) == ("adapted", "none")
    assert "learned without labels" in told.reason


def test_what_the_line_says_of_rows_is_what_loading_does(tmp_path):
    """Against the loader itself: only the rows that the line names come across."""
    import torch

    from monai_tl.networks.builders import build_network
    from monai_tl.networks.groups import named_tensors
    from monai_tl.sources.audit import load_source
    from monai_tl.sources.card import write_source

    source = make_source(classes=("Left-Kidney", "liver"))
    weights = named_tensors(build_network(UNET, 1, 3, seed=1))
    written = write_source(tmp_path, source.card, weights)
    module = build_network(UNET, 1, 3, seed=0)
    before = {name: tensor.detach().clone() for name, tensor in named_tensors(module).items()}
    load_source(module, UNET, 1, ["kidney_left", "liver"], written, 0.5)
    assert "rows reused for liver;" in classes_line(("Left-Kidney", "liver"), ("kidney_left", "liver")).reason
    (name,) = [name for name, tensor in before.items() if tensor.shape == (3,)]
    after = dict(module.named_parameters())[name]
    assert torch.equal(after[1], before[name][1])
    assert torch.equal(after[2], weights[name][2])
