"""MONAI's intensity transforms as rules of ours: both give the same numbers, or ours refuses."""

from __future__ import annotations

import json
from typing import Any

import monai.transforms as monai_transforms
import numpy as np
import pytest
import torch
from monai.data import MetaTensor

from monai_tl.config import IntensityConfig
from monai_tl.dataset.intensity import clip_limits, scale_intensity
from monai_tl.errors import SourceError
from monai_tl.sources.bundle_preprocessing import intensity_rule, read_preprocessing
from monai_tl.sources.config_text import parse_config
from monai_tl.sources.drafts import Draft

CLASSES = {
    "range": "ScaleIntensityRange",
    "percentiles": "ScaleIntensityRangePercentiles",
    "clip": "ClipIntensityPercentiles",
    "zscore": "NormalizeIntensity",
    "minmax": "ScaleIntensity",
}
Steps = list[tuple[str, dict[str, Any]]]
SAME: dict[str, Steps] = {
    "spleen": [("range", {"a_min": -57, "a_max": 164, "b_min": 0, "b_max": 1, "clip": True})],
    "symmetric": [("range", {"a_min": -175, "a_max": 250, "b_min": -1.0, "b_max": 1.0, "clip": True})],
    "brats": [("zscore", {"nonzero": True, "channel_wise": True})],
    "whole image": [("zscore", {})],
    "minmax": [("minmax", {})],
    "minmax to a range": [("minmax", {"minv": -1.0, "maxv": 1.0, "channel_wise": True})],
    "prostate": [("minmax", {"minv": 0, "maxv": 1}), ("zscore", {})],
    "wholeBody without nonzero": [("zscore", {}), ("minmax", {"minv": -1.0, "maxv": 1.0})],
    "percentiles": [("percentiles", {"lower": 1, "upper": 99, "b_min": 0, "b_max": 1, "clip": True})],
    "percentiles to a range": [("percentiles", {"lower": 5, "upper": 95, "b_min": -1, "b_max": 2, "clip": True})],
    "clipped zscore": [("clip", {"lower": 1.0, "upper": 99.5}), ("zscore", {})],
    "clipped minmax": [("clip", {"lower": 2.0, "upper": 98.0}), ("minmax", {})],
}


def _ours(image: np.ndarray, rule: dict[str, Any]) -> np.ndarray:
    config = IntensityConfig.model_validate(rule)
    limits = clip_limits(image, config)
    return scale_intensity(image if limits is None else np.clip(image, *limits).astype(np.float32), config)


@pytest.mark.parametrize("name", sorted(SAME))
def test_the_rule_gives_what_monai_gives(name: str) -> None:
    generator = np.random.default_rng(0)
    image = generator.normal(30, 120, (24, 20, 18)).astype(np.float32)
    image[:6] = 0
    theirs = torch.from_numpy(image)[None]
    for kind, arguments in SAME[name]:
        theirs = getattr(monai_transforms, CLASSES[kind])(**arguments)(theirs)
    rule, notes = intensity_rule(SAME[name], 1)
    assert not notes
    assert np.allclose(_ours(image, rule), theirs[0].numpy(), atol=2e-4)


def test_an_earlier_transform_that_spares_zeros_is_told() -> None:
    rule, notes = intensity_rule([("zscore", {"nonzero": True}), ("minmax", {"minv": -1.0, "maxv": 1.0})], 1)
    assert rule == {"rule": "minmax", "output": [-1.0, 1.0]}
    assert "spares voxels that are 0" in notes[0]


@pytest.mark.parametrize(
    ("steps", "n_channels", "why"),
    [
        ([("range", {"a_min": 0, "a_max": 1, "b_min": 0, "b_max": 1})], 1, "does not clip"),
        ([("percentiles", {"lower": 1, "upper": 99, "b_min": 0, "b_max": 1})], 1, "does not clip"),
        ([("range", {"a_min": 0, "a_max": 1, "b_min": 0, "clip": True})], 1, "does not clip"),
        ([("range", {"a_min": 0, "a_max": 1, "clip": True})], 1, "does not clip"),
        ([("percentiles", {"lower": 1, "upper": 99, "b_min": None, "b_max": 1, "clip": True})], 1, "does not clip"),
        ([("percentiles", {"lower": 1, "upper": 9, "clip": True, "relative": True})], 1, "of the output range"),
        ([("zscore", {"subtrahend": 3.0, "divisor": 2.0})], 1, "fixed subtrahend"),
        ([("minmax", {"factor": 0.1})], 1, "fixed factor"),
        ([("minmax", {"minv": None, "maxv": None})], 1, "no range"),
        ([("zscore", {})], 2, "all channels together"),
        ([("clip", {"lower": 1, "upper": 99}), ("zscore", {"channel_wise": True})], 2, "all channels together"),
        ([("clip", {"lower": 1, "upper": 99})], 1, "only clips"),
        ([("clip", {"lower": 1, "upper": 99, "sharpness_factor": 5.0}), ("zscore", {})], 1, "softly"),
        ([("clip", {"lower": None, "upper": 99}), ("zscore", {})], 1, "one side"),
        ([("range", {"a_min": 0, "a_max": 1, "b_min": 0, "b_max": 1, "clip": True}), ("zscore", {})], 1, "2 times"),
    ],
)
def test_what_no_rule_can_do_is_refused(steps: Steps, n_channels: int, why: str) -> None:
    with pytest.raises(SourceError, match=why):
        intensity_rule(steps, n_channels)


def _read(*steps: dict[str, Any], **more: Any) -> Draft:
    content = {"preprocessing": {"_target_": "Compose", "transforms": list(steps)}, **more}
    draft = Draft()
    read_preprocessing(
        parse_config("configs/inference.json", json.dumps(content).encode()), ("preprocessing",), draft, 1
    )
    return draft


WINDOW = {"_target_": "ScaleIntensityRanged", "a_min": 0, "a_max": 9, "b_min": 0, "b_max": 1, "clip": True}


@pytest.mark.parametrize("prefix", ["", "monai.transforms.", "monai.transforms.intensity.dictionary."])
@pytest.mark.parametrize("end", ["d", "D", "Dict"])
def test_all_of_monais_names_of_a_transform_are_known(prefix: str, end: str) -> None:
    step = {**WINDOW, "_target_": f"{prefix}ScaleIntensityRange{end}", "keys": ["image"]}
    assert _read(step).content["input"]["intensity"]["rule"] == "window"


@pytest.mark.parametrize(
    "target",
    [
        "os.system",
        "scripts.ScaleIntensityRanged",
        "monai.transforms.Lambdad",
        "ScaleIntensityRange",
        "HistogramNormalized",
    ],
)
def test_a_transform_that_is_not_known_leaves_the_rule_unknown(target: str) -> None:
    draft = _read(WINDOW, {"_target_": target, "keys": "image"})
    assert target in draft.faults["input.intensity"]
    assert "line" in draft.faults["input.intensity"]


def test_transforms_of_labels_and_disabled_ones_do_not_count() -> None:
    steps = [
        {"_target_": "Lambdad", "keys": ["label"], "func": "$exit"},
        {"_target_": "Lambdad", "keys": "image", "_disabled_": True},
        {**WINDOW, "keys": ["image"]},
    ]
    assert "input.intensity" not in _read(*steps).faults


def test_a_resize_leaves_the_spacing_unknown() -> None:
    draft = _read(WINDOW, {"_target_": "Resized", "keys": "image", "spatial_size": [96, 96, 96]})
    assert "Resized" in draft.faults["input.spacing_mm"]


@pytest.mark.parametrize("name", ["Flipd", "Rotate90d", "Transposed", "Affined", "Lambdad", "Resized"])
def test_what_may_turn_or_resample_the_grid_leaves_orientation_and_spacing_unknown(name: str) -> None:
    """Whoever then states the intensity rule alone must not be given axes that were turned since."""
    draft = _read(_turned("RAS"), _spaced(1, 1, 3), {"_target_": name, "keys": "image"}, WINDOW)
    assert {"input.orientation", "input.spacing_mm", "input.intensity"} <= draft.faults.keys()


def test_a_filter_of_values_leaves_the_grid_known() -> None:
    draft = _read(_turned("RAS"), _spaced(1, 1, 3), {"_target_": "MedianSmoothd", "keys": "image"}, WINDOW)
    assert set(draft.faults) == {"input.intensity"}


def _turned(axes: str) -> dict[str, Any]:
    return {"_target_": "Orientationd", "keys": "image", "axcodes": axes}


def _spaced(*lengths: float) -> dict[str, Any]:
    return {"_target_": "Spacingd", "keys": "image", "pixdim": list(lengths)}


def test_lengths_along_axes_that_are_turned_afterwards_are_not_known() -> None:
    """MONAI itself says that they lie elsewhere in the end."""
    affine = torch.diag(torch.tensor([2.0, 2.0, 2.0, 1.0]))
    stored = monai_transforms.Compose([
        monai_transforms.Spacing((1.0, 2.0, 3.0)), monai_transforms.Orientation("IPR", labels=None)
    ])(MetaTensor(torch.zeros(1, 8, 8, 8), affine=affine))  # fmt: skip
    assert stored.pixdim.tolist() == [3.0, 2.0, 1.0]
    draft = _read(_spaced(1, 2, 3), _turned("IPR"), WINDOW)
    assert "turns the axes after Spacingd" in draft.faults["input.spacing_mm"]


@pytest.mark.parametrize(
    ("steps", "spacing"),
    [
        ([_spaced(2, 2, 2), _turned("IPR")], [2.0, 2.0, 2.0]),
        ([_turned("RAS"), _spaced(1, 2, 3), _turned("LPI")], [1.0, 2.0, 3.0]),
        ([_spaced(9, 1, 1), _turned("IPR"), _spaced(1, 2, 3)], [1.0, 2.0, 3.0]),
    ],
)
def test_lengths_that_no_turn_moves_are_known(steps: list[dict[str, Any]], spacing: list[float]) -> None:
    draft = _read(*steps, WINDOW)
    assert draft.content["input"]["spacing_mm"] == spacing
    assert not draft.faults


@pytest.mark.parametrize("length", [10**400, float("inf"), float("nan"), True, 0, -1])
def test_what_is_no_length_is_no_spacing(length: Any) -> None:
    assert "input.spacing_mm" in _read(_turned("RAS"), _spaced(1, 1, length), WINDOW).faults


def test_values_behind_references_are_found() -> None:
    draft = _read(
        {"_target_": "Orientationd", "keys": "@key", "axcodes": "LPS"},
        {"_target_": "Spacingd", "keys": "@key", "pixdim": "@pixdim"},
        {**WINDOW, "a_min": "$-5"},
        key="image",
        fine=True,
        pixdim="$(1.0, 2.0, 3.0) if @fine else (3, 3, 3)",
    )
    assert draft.content["input"]["orientation"] == "LPS"
    assert draft.content["input"]["intensity"]["low"] == -5
    assert draft.content["input"]["spacing_mm"] == [1.0, 2.0, 3.0]


def test_a_list_of_transforms_made_by_code_is_refused_with_its_line() -> None:
    draft = Draft()
    text = b'{\n"one": [],\n"preprocessing": {"_target_": "Compose",\n"transforms": "$@one + @one"}}'
    read_preprocessing(parse_config("configs/inference.json", text), ("preprocessing",), draft, 1)
    assert set(draft.faults) == {"input.orientation", "input.spacing_mm", "input.intensity"}
    assert "line 4" in draft.faults["input.intensity"]


def test_a_window_ends_where_it_says() -> None:
    """A fixed z-score as a window, worked by hand: clip to 0..200, then (value - 50) / 25."""
    rule = IntensityConfig(rule="window", low=0.0, high=200.0, output=((0 - 50) / 25, (200 - 50) / 25))
    values = np.array([[[-10.0, 0.0, 50.0, 75.0, 200.0, 900.0]]], dtype=np.float32)
    expected = np.array([-2.0, -2.0, 0.0, 1.0, 6.0, 6.0])
    assert np.allclose(_ours(values, rule.model_dump()), expected, atol=1e-6)


def test_zeros_stay_zeros_where_they_do_not_count() -> None:
    values = np.array([[[0.0, 0.0, 3.0, 5.0]]], dtype=np.float32)
    assert np.array_equal(_ours(values, {"rule": "zscore", "nonzero": True}), [[[0.0, 0.0, -1.0, 1.0]]])
    assert np.array_equal(_ours(values[..., :3], {"rule": "zscore", "nonzero": True}), [[[0.0, 0.0, 0.0]]])


@pytest.mark.parametrize(
    "rule",
    [
        {"rule": "minmax", "low": 1.0},
        {"rule": "minmax", "low": 5.0, "high": 101.0},
        {"rule": "window", "low": 0, "high": 1, "output": [1.0, 0.0]},
        {"rule": "zscore", "output": [0.0, 2.0]},
        {"rule": "window", "low": 0, "high": 1, "nonzero": True},
    ],
)
def test_rules_that_say_nothing_are_refused(rule: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"minmax|output|nonzero"):
        IntensityConfig.model_validate(rule)


def test_monai_clips_to_no_range_that_is_not_stated() -> None:
    values = torch.tensor([[0.0, 1.0, 7.0]])
    scaled = monai_transforms.ScaleIntensityRange(0, 1, b_min=0, clip=True)(values)
    assert float(scaled.max()) == 7.0
    with pytest.raises(RuntimeError, match="must not be None"):
        monai_transforms.ScaleIntensityRange(0, 1, clip=True)(values)
