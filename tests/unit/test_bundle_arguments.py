"""What MONAI leaves out of a preprocessing, and arguments that change the contract: as MONAI has it, or refused."""

from __future__ import annotations

import json
from types import SimpleNamespace
from typing import Any

import monai.data
import monai.transforms as monai_transforms
import nibabel as nib
import numpy as np
import pytest
import torch
from monai.bundle import ConfigParser
from monai.data import MetaTensor

from monai_tl.sources.bundle_preprocessing import read_preprocessing
from monai_tl.sources.config_text import parse_config
from monai_tl.sources.drafts import Draft

IMAGE_WINDOW = {
    "_target_": "ScaleIntensityRanged",
    "keys": "image",
    "a_min": 0,
    "a_max": 9,
    "b_min": 0,
    "b_max": 1,
    "clip": True,
}


def _config(*steps: dict[str, Any], target: str = "Compose", **more: Any) -> dict[str, Any]:
    return {"preprocessing": {"_target_": target, "transforms": list(steps)}, **more}


def _read_all(content: dict[str, Any]) -> Draft:
    draft = Draft()
    config = parse_config("configs/inference.json", json.dumps(content).encode())
    read_preprocessing(config, ("preprocessing",), draft, 1)
    return draft


def _read(*steps: dict[str, Any], **more: Any) -> Draft:
    return _read_all(_config(*steps, **more))


def _turned(axes: str) -> dict[str, Any]:
    return {"_target_": "Orientationd", "keys": "image", "axcodes": axes}


def _spaced(*lengths: float) -> dict[str, Any]:
    return {"_target_": "Spacingd", "keys": "image", "pixdim": list(lengths)}


def _by_monai(*steps: dict[str, Any], **more: Any) -> Any:
    """MONAI's own ``Compose`` of the steps, which it may evaluate: they are ours."""
    return ConfigParser(json.loads(json.dumps(_config(*steps, **more)))).get_parsed_content("preprocessing")


@pytest.mark.parametrize(
    "given",
    [
        *(True, "true", "True", "TRUE", " true ", 1, "@skip", "@text", "%skip", "$True", "$@skip", "$'true'", [0]),
        *(False, "false", "yes", "", "1", 0, None, [], "@off", "$False", "$None", "$0 if @skip else 1"),
    ],
)
def test_a_transform_is_left_out_where_monai_leaves_it_out(given: Any) -> None:
    steps = [_turned("RAS"), {**_spaced(1, 1, 3), "_disabled_": given}, IMAGE_WINDOW]
    more = {"skip": True, "off": False, "text": "True"}
    kept = {type(step).__name__ for step in _by_monai(*steps, **more).transforms}
    assert ("input.spacing_mm" not in _read(*steps, **more).faults) is ("Spacingd" in kept)


@pytest.mark.parametrize("given", [True, "@skip"])
def test_a_preprocessing_that_is_switched_off_is_none(given: Any) -> None:
    content = _config(IMAGE_WINDOW, _turned("RAS"), _spaced(1, 1, 3), skip=True)
    content["preprocessing"]["_disabled_"] = given
    draft = _read_all(content)
    assert ConfigParser(content).get_parsed_content("preprocessing") is None
    assert len(draft.faults) == 3
    assert all("leaves the whole preprocessing out" in why for why in draft.faults.values())


def test_one_transform_of_several_is_no_preprocessing() -> None:
    content = _config(IMAGE_WINDOW, _turned("RAS"), _spaced(1, 1, 3), target="OneOf")
    draft = _read_all(content)
    assert len(draft.faults) == 3
    assert all("OneOf" in why for why in draft.faults.values())


@pytest.mark.parametrize(
    ("step", "keys"),
    [
        (_turned("IPR"), {"orientation", "spacing_mm"}),
        (_spaced(2, 2, 2), {"spacing_mm"}),
        (IMAGE_WINDOW, {"intensity"}),
        ({"_target_": "MedianSmoothd", "keys": "image"}, {"intensity"}),
        ({"_target_": "Lambdad", "keys": "image"}, {"orientation", "spacing_mm", "intensity"}),
        ({"_target_": "Lambdad", "keys": "label"}, set()),
        ({"_target_": "EnsureTyped", "keys": "image"}, set()),
    ],
)
@pytest.mark.parametrize("doubt", ["$not @off", "@missing", {"_target_": "bool"}])
def test_what_code_may_switch_off_leaves_its_lines_unknown(step: dict[str, Any], keys: set[str], doubt: Any) -> None:
    rest = [] if keys == {"intensity"} else [IMAGE_WINDOW]
    draft = _read(_turned("RAS"), _spaced(1, 1, 3), {**step, "_disabled_": doubt}, *rest, off=False)
    assert set(draft.faults) == {f"input.{key}" for key in keys}
    for key in keys - {"spacing_mm"}:
        assert "preprocessing.transforms.2._disabled_" in draft.faults[f"input.{key}"]
        assert "line" in draft.faults[f"input.{key}"]


def test_equal_lengths_are_known_whether_or_not_axes_are_turned() -> None:
    draft = _read(
        _turned("RAS"), _spaced(2, 2, 2), {**_turned("IPR"), "_disabled_": "$not @off"}, IMAGE_WINDOW, off=False
    )
    assert set(draft.faults) == {"input.orientation"}


def test_axes_that_may_have_been_turned_are_not_those_of_before() -> None:
    """A Spacingd between the two lies along axes that only code would tell."""
    doubtful = {**_turned("IPR"), "_disabled_": "$not @off"}
    draft = _read(_turned("RAS"), doubtful, _spaced(1, 1, 3), _turned("RAS"), IMAGE_WINDOW, off=False)
    assert set(draft.faults) == {"input.orientation", "input.spacing_mm"}


ALIGNED = np.diag([-0.9, -0.9, 2.5, 1.0])
SWAPPED = np.array([[0, 0, -2.5, 0], [0, 0.9, 0, 0], [0.9, 0, 0, 0], [0, 0, 0, 1.0]])


@pytest.mark.parametrize(
    ("turn", "space", "keys"),
    [
        ({}, {}, set()),
        ({"labels": None}, {"min_pixdim": None, "max_pixdim": None, "diagonal": False}, set()),
        ({"labels": [["L", "R"], ["P", "A"], ["I", "S"]]}, {"align_corners": True, "recompute_affine": False}, set()),
        ({"labels": "$(('L', 'R'), ('P', 'A'), ('I', 'S'))"}, {"mode": "nearest", "dtype": "$torch.float64"}, set()),
        ({"labels": [["R", "L"], ["A", "P"], ["I", "S"]]}, {}, {"orientation"}),
        ({}, {"min_pixdim": [0.5, 0.5, 0.5]}, {"spacing_mm"}),
        ({}, {"max_pixdim": 5.0}, {"spacing_mm"}),
        ({}, {"min_pixdim": "@finest"}, {"spacing_mm"}),
        ({}, {"diagonal": True}, {"orientation", "spacing_mm"}),
        ({}, {"diagonal": "@yes"}, {"orientation", "spacing_mm"}),
    ],
)
def test_arguments_that_leave_another_grid_than_is_stated(turn: Any, space: Any, keys: set[str]) -> None:
    """What MONAI makes of two images either is as stated, or is refused."""
    steps = [{**_turned("LPI"), **turn}, {**_spaced(1.0, 2.0, 3.0), **space}, IMAGE_WINDOW]
    more = {"finest": [0.5, 0.5, 0.5], "yes": True}
    theirs = set()
    for affine in (ALIGNED, SWAPPED):
        image = MetaTensor(torch.rand(1, 8, 8, 8), affine=torch.tensor(affine))
        made = _by_monai(*steps, **more)({"image": image})["image"]
        theirs.add(("".join(nib.aff2axcodes(made.affine.numpy())), tuple(made.pixdim.numpy().round(6).tolist())))
    draft = _read(*steps, **more)
    assert set(draft.faults) == {f"input.{key}" for key in keys}
    assert (theirs == {("LPI", (1.0, 2.0, 3.0))}) is (not keys)
    for key in keys:
        assert "line" in draft.faults[f"input.{key}"]


def test_labels_of_axes_turned_after_spacing_leave_its_lengths_unknown() -> None:
    labels = [["R", "L"], ["A", "P"], ["I", "S"]]
    draft = _read(_turned("RAS"), _spaced(1, 1, 3), {**_turned("RAS"), "labels": labels}, IMAGE_WINDOW)
    assert set(draft.faults) == {"input.orientation", "input.spacing_mm"}


TYPES = [
    *("float32", "float", "half", "double", "float64", "$torch.float32", "$torch.float", "$np.float32", "$torch.half"),
    *("$torch.bfloat16", "$numpy.float64", "$float", "@type", None, "uint8", "int", "bool", "$torch.uint8"),
    *("$torch.int16", "$torch.long", "$torch.bool", "$np.int32", "$int", "@whole", "$@whole"),
]
NAMES = {"type": "$torch.float32", "whole": "$torch.uint8"}


def _differs(step: dict[str, Any], **more: Any) -> bool:
    """Whether the arguments of a transform lead MONAI to other values than it has without a type."""
    generator = torch.Generator().manual_seed(0)
    data = {key: MetaTensor(torch.rand(1, 6, 6, 6, generator=generator)) for key in ("image", "label")}
    plain = {key: value for key, value in step.items() if key != "dtype"}
    made, expected = (_by_monai(one, **more)(dict(data))["image"] for one in (step, plain))
    return not torch.allclose(made.double(), expected.double(), atol=0.01)


@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("name", ["CastToTyped", "EnsureTyped", "ToTensord"])
def test_a_cast_to_whole_numbers_leaves_the_rule_unknown(name: str, dtype: Any) -> None:
    step = {"_target_": name, "keys": ["image"], "dtype": dtype}
    draft = _read(_turned("RAS"), _spaced(1, 1, 3), IMAGE_WINDOW, step, **NAMES)
    assert set(draft.faults) == ({"input.intensity"} if _differs(step, **NAMES) else set())


@pytest.mark.parametrize("name", ["CastToTyped", "EnsureTyped"])
@pytest.mark.parametrize("keys", [["image", "label"], ["label", "image"], "$['image', 'label']"])
@pytest.mark.parametrize(
    "dtype",
    [
        *(["float32", "uint8"], ["$torch.uint8", "$torch.float32"], ["@whole", "@type"], ["$torch.half", "float32"]),
        *("$[torch.float32, torch.uint8]", "$(np.uint8, np.float32)"),
    ],
)
def test_of_a_type_for_each_key_that_of_the_image_counts(name: str, keys: Any, dtype: Any) -> None:
    step = {"_target_": name, "keys": keys, "dtype": dtype}
    draft = _read(_turned("RAS"), _spaced(1, 1, 3), IMAGE_WINDOW, step, **NAMES)
    assert ("input.intensity" in draft.faults) is _differs(step, **NAMES)


@pytest.mark.parametrize("dtype", ["$scripts.types.mine", "$torch.float32 if @amp else torch.uint8", "@missing", 3])
def test_a_type_that_its_text_does_not_tell_leaves_the_rule_unknown(dtype: Any) -> None:
    draft = _read(
        _turned("RAS"), _spaced(1, 1, 3), IMAGE_WINDOW, {"_target_": "CastToTyped", "keys": "image", "dtype": dtype}
    )
    assert "transforms.3.dtype" in draft.faults["input.intensity"]
    assert set(draft.faults) == {"input.intensity"}


def test_whole_numbers_for_labels_do_no_harm() -> None:
    for keys in ("label", ["label", "seg"]):
        step = {"_target_": "CastToTyped", "keys": keys, "dtype": "$torch.uint8"}
        assert not _read(_turned("RAS"), _spaced(1, 1, 3), IMAGE_WINDOW, step).faults


SCALERS = [
    {"_target_": "ScaleIntensityRanged", "a_min": 0, "a_max": 1, "b_min": 0, "b_max": 1, "clip": True},
    {"_target_": "ScaleIntensityRangePercentilesd", "lower": 1, "upper": 99, "b_min": 0, "b_max": 1, "clip": True},
    {"_target_": "NormalizeIntensityd"},
    {"_target_": "ScaleIntensityd"},
]


@pytest.mark.parametrize("dtype", ["float32", "$torch.float32", "$np.float64", "uint8", "$torch.int16", "$np.int32"])
@pytest.mark.parametrize("step", SCALERS)
def test_a_scaling_that_rounds_is_no_rule(step: dict[str, Any], dtype: str) -> None:
    step = {**step, "keys": "image", "dtype": dtype}
    draft = _read(_turned("RAS"), _spaced(1, 1, 3), step)
    assert set(draft.faults) == ({"input.intensity"} if _differs(step) else set())


@pytest.mark.parametrize("step", SCALERS)
def test_a_scaling_to_the_type_of_the_file_is_no_rule(step: dict[str, Any]) -> None:
    """MONAI then rounds what files hold as whole numbers, or refuses these (percentiles)."""
    whole = MetaTensor(torch.arange(64, dtype=torch.int16).reshape(1, 4, 4, 4))
    step = {**step, "keys": "image", "dtype": None}
    try:
        rounds = not _by_monai(step)({"image": whole})["image"].dtype.is_floating_point
    except RuntimeError:
        rounds = False
    assert rounds is (step["_target_"] != "ScaleIntensityRangePercentilesd")
    assert set(_read(_turned("RAS"), _spaced(1, 1, 3), step).faults) == ({"input.intensity"} if rounds else set())


@pytest.mark.parametrize("dtype", ["$torch.float32", None, "$torch.int16"])
def test_a_resampling_that_rounds_leaves_the_rule_unknown_and_the_spacing_known(dtype: Any) -> None:
    step = {**_spaced(2, 2, 2), "mode": 1, "dtype": dtype}
    draft = _read(_turned("RAS"), step, IMAGE_WINDOW)
    assert set(draft.faults) == ({"input.intensity"} if _differs(step) else set())
    assert draft.content["input"]["spacing_mm"] == [2.0, 2.0, 2.0]


def _loaded(**arguments: Any) -> set[str]:
    step = {"_target_": "LoadImaged", "keys": "image", **arguments}
    faults = _read(step, _turned("RAS"), _spaced(1, 1, 3), IMAGE_WINDOW, reader="ITKReader").faults
    assert all("preprocessing.transforms.0." in why for why in faults.values())
    return {key.removeprefix("input.") for key in faults}


@pytest.mark.parametrize("name", ["ITKReader", "NibabelReader", "PydicomReader", "NrrdReader"])
def test_monais_readers_of_medical_images_do_no_harm(name: str) -> None:
    assert issubclass(getattr(monai.data, name), monai.data.ImageReader)
    for given in (name, name.lower(), f"monai.data.{name}", f"$monai.data.{name}", f"$monai.data.{name}()", [name]):
        assert _loaded(reader=given) == set()
    assert _loaded(reader="@reader") == _loaded(reader=None) == set()
    harmless = {"image_only": True, "ensure_channel_first": True, "simple_keys": True, "dtype": "$np.float32"}
    assert _loaded(**harmless, reverse_indexing=False, affine_lps_to_ras=True, channel_dim="no_channel") == set()


@pytest.mark.parametrize(
    "given", ["scripts.reader.Mine", "NumpyReader", ["ITKReader", "PILReader"], "$mine()", {"_target_": "ITKReader"}]
)
def test_images_of_other_readers_are_not_known(given: Any) -> None:
    assert _loaded(reader=given) == {"intensity", "orientation", "spacing_mm"}


@pytest.mark.parametrize("turned", [False, True])
def test_a_reader_that_turns_axes_leaves_them_unknown(turned: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """MONAI turns the array alone; what it says of its axes stays that of the file."""
    stored = np.zeros((7, 6, 5), np.float32)
    itk = SimpleNamespace(array_view_from_image=lambda image, **_: image)
    monkeypatch.setattr("monai.data.image_reader.itk", itk)
    image = SimpleNamespace(GetNumberOfComponentsPerPixel=lambda: 1)
    monkeypatch.setattr(itk, "array_view_from_image", lambda *_, **__: stored)
    reader: Any = SimpleNamespace(reverse_indexing=turned)
    made = monai.data.ITKReader._get_array_data(reader, image)
    # ITK's images, and the affine that MONAI takes from them, have the first axis where numpy has the last
    assert (made.shape == (5, 6, 7)) is not turned
    assert _loaded(reader="ITKReader", reverse_indexing=turned) == ({"orientation", "spacing_mm"} if turned else set())


def test_axes_that_a_reader_counts_the_other_way_are_not_known() -> None:
    """Of an affine that MONAI leaves in ITK's system, its canonical axes are not RAS."""
    image = MetaTensor(torch.zeros(1, 4, 4, 4), affine=torch.eye(4), meta={"space": "LPS"})
    made = monai_transforms.Orientation(as_closest_canonical=True)(image)
    labels = (("R", "L"), ("A", "P"), ("I", "S"))
    assert "".join(nib.aff2axcodes(made.affine.numpy(), labels=labels)) == "LPS"
    assert _loaded(affine_lps_to_ras=False) == {"orientation"}


@pytest.mark.parametrize("given", [None, "no_channel", 0, -1, 3, 1, 2, -2, -3])
def test_an_axis_of_space_taken_for_channels_leaves_the_axes_unknown(given: Any) -> None:
    shapes = [(5, 6, 7)] if given == "no_channel" else [(5, 6, 7, 2), (2, 5, 6, 7)]
    made = [
        tuple(
            monai_transforms.EnsureChannelFirst(channel_dim=0 if given is None else given)(
                MetaTensor(torch.zeros(s))
            ).shape
        )
        for s in shapes
    ]
    right = any(shape[1:] == (5, 6, 7) for shape in made)
    step = {"_target_": "EnsureChannelFirstd", "keys": "image", "channel_dim": given}
    draft = _read(step, _turned("RAS"), _spaced(1, 1, 3), IMAGE_WINDOW)
    assert set(draft.faults) == (set() if right else {"input.orientation", "input.spacing_mm"})
    assert _loaded(channel_dim=given) == (set() if right else {"orientation", "spacing_mm"})
