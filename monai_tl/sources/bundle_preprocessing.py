"""A bundle's preprocessing transforms as an input contract."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from monai_tl.errors import SourceError
from monai_tl.sources.bundle_arguments import check_compose, faults_of_arguments, is_disabled, is_for_labels
from monai_tl.sources.config_text import ConfigText, Key
from monai_tl.sources.drafts import Draft

_NEUTRAL = (
    *("LoadImage", "EnsureChannelFirst", "AddChannel", "AsChannelFirst", "EnsureType", "ToTensor", "CastToType"),
    *("Identity", "CopyItems", "SelectItems", "DeleteItems", "EnsureSameShape", "ToDevice", "FlattenSubKeys"),
    *("CropForeground", "SpatialPad", "DivisiblePad", "BorderPad"),
)
"""Transforms that change neither values of voxels nor the grid's axes, arguments apart; boxes are the plan's own."""
_VALUES_ALONE = (
    *("AdjustContrast", "ForegroundMask", "GaussianSharpen", "GaussianSmooth", "HistogramNormalize", "MaskIntensity"),
    *("MedianSmooth", "SavitzkyGolaySmooth", "ShiftIntensity", "StdShiftIntensity", "ThresholdIntensity"),
)
"""Transforms that are not read and leave the grid alone; any other may turn or resample it."""
_PLACES = (
    "monai.transforms.",
    *(f"monai.transforms.{part}.dictionary." for part in ("intensity", "spatial", "utility", "croppad", "io")),
)
_LONGEST_MM = 1e6
Steps = list[tuple[str, dict[str, Any]]]


@dataclass
class _Reading:
    config: ConfigText
    draft: Draft
    n_channels: int
    steps: Steps = field(default_factory=list)
    turned_after: str = ""
    places: list[tuple[Key, ...]] = field(default_factory=list)


def read_preprocessing(config: ConfigText, path: tuple[Key, ...], draft: Draft, n_channels: int) -> None:
    """Put orientation, spacing and intensity rule into a draft; what cannot be read is said there.

    Args:
        config: The bundle's configuration.
        path: Of the ``Compose`` or of the list of transforms.
        draft: Gets ``input.orientation``, ``input.spacing_mm`` and ``input.intensity``.
        n_channels: Input channels of the network.
    """
    reading = _Reading(config, draft, n_channels)
    try:
        transforms, path = config.follow(*path)
        if isinstance(transforms, dict):
            check_compose(config, transforms, path)
            transforms, path = config.follow(*path, "transforms")
        if not isinstance(transforms, list):
            raise config.needs_code(*path)
        for index in range(len(transforms)):
            _read_transform(reading, (*path, index))
    except (SourceError, KeyError) as error:
        why = str(error) if isinstance(error, SourceError) else f"{config.name} has no {'.'.join(map(str, path))}"
        for key in ("orientation", "spacing_mm", "intensity"):
            draft.lack(f"input.{key}", why)
        return
    for key, name in (("orientation", "Orientationd"), ("spacing_mm", "Spacingd")):
        if key not in draft.content.get("input", {}):
            draft.lack(f"input.{key}", f"{config.name} has no {name} in its preprocessing")
    _check_axes_of_spacing(reading)
    if "input.intensity" not in draft.faults:
        _put_intensity(reading)


def _read_transform(reading: _Reading, path: tuple[Key, ...]) -> None:
    definition, path = reading.config.follow(*path)
    target = definition.get("_target_") if isinstance(definition, dict) else None
    if not isinstance(target, str) or not isinstance(definition, dict):
        raise reading.config.needs_code(*path, why="is no transform")
    try:
        if is_disabled(reading.config, definition, path):
            return
        doubt = ""
    except SourceError as error:
        doubt = str(error)
    place = max((start for start in _PLACES if target.startswith(start)), key=len, default="")
    name = target.removeprefix(place)
    name = next((name.removesuffix(end) for end in ("Dict", "d", "D") if name.endswith(end)), "")
    if name not in _NEUTRAL and name not in _READERS:
        why = "may change values and is none of the transforms that are read"
        doubt = doubt or str(reading.config.needs_code(*path, "_target_", why=why))
    faults = list(faults_of_arguments(reading.config, name, definition, path))
    faults += [(key, doubt) for key in _changed_by(name) if doubt]
    if (name in _NEUTRAL and not faults) or is_for_labels(reading.config, definition, path):
        return
    for key, reason in faults:
        reading.draft.lack(f"input.{key}", reason)
    lost = {key for key, _ in faults}
    if "orientation" in lost:
        _lose_axes(reading, path)
    if name in _READERS and lost.isdisjoint(_changed_by(name)):
        _READERS[name](reading, path)


def _changed_by(name: str) -> tuple[str, ...]:
    """The lines that a transform of that name may change, as it usually stands."""
    if name in _NEUTRAL:
        return ()
    if name in ("Orientation", "Spacing"):
        return ("orientation" if name == "Orientation" else "spacing_mm",)
    return ("intensity",) if name in _VALUES_ALONE or name in _READERS else ("intensity", "spacing_mm", "orientation")


def _arguments(reading: _Reading, path: tuple[Key, ...], *names: str) -> dict[str, Any]:
    definition, path = reading.config.follow(*path)
    return {name: reading.config.resolve(*path, name) for name in names if name in definition}


def _orientation(reading: _Reading, path: tuple[Key, ...]) -> None:
    codes = _arguments(reading, path, "axcodes", "as_closest_canonical")
    axes = "RAS" if codes.get("as_closest_canonical") else codes.get("axcodes")
    if "spacing_mm" in reading.draft.content.get("input", {}):
        before = reading.draft.content["input"].get("orientation", "")
        reading.turned_after = "" if _same_axes(before, axes) else f"{reading.config.at(*path)}: turns"
    if isinstance(axes, str) and len(axes) == 3:
        reading.draft.put("input.orientation", axes)
    else:
        reading.draft.lack("input.orientation", f"{reading.config.at(*path)}: axcodes {axes!r} are no three letters")


def _lose_axes(reading: _Reading, path: tuple[Key, ...]) -> None:
    """Forget axes that may have been turned, for those that come later are compared with them."""
    known = reading.draft.content.get("input", {})
    known.pop("orientation", None)
    if "spacing_mm" in known:
        reading.turned_after = f"{reading.config.at(*path)}: may turn"


def _spacing(reading: _Reading, path: tuple[Key, ...]) -> None:
    steps = _arguments(reading, path, "pixdim").get("pixdim")
    values = [steps] * 3 if isinstance(steps, int | float) else steps
    if isinstance(values, list) and len(values) == 3 and all(is_length(value) for value in values):
        reading.draft.put("input.spacing_mm", [float(value) for value in values])
        reading.turned_after = ""
    else:
        reading.draft.lack("input.spacing_mm", f"{reading.config.at(*path)}: pixdim {steps!r} are no three lengths")


def is_length(value: Any) -> bool:
    """Whether parsed JSON is a length in mm: its integers and its Infinity may be larger than any."""
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 < value <= _LONGEST_MM


def _same_axes(before: Any, after: Any) -> bool:
    """Whether two orientations have the same axes in the same order, whichever way these run."""
    axes = [
        [next((one for one in ("LR", "PA", "IS") if letter in one), "") for letter in str(o)] for o in (before, after)
    ]
    return axes[0] == axes[1]


def _check_axes_of_spacing(reading: _Reading) -> None:
    """Three lengths belong to the axes of their moment; turned afterwards, they lie along other ones."""
    if reading.turned_after and len(set(reading.draft.content["input"]["spacing_mm"])) > 1:
        reading.draft.lack(
            "input.spacing_mm",
            f"{reading.turned_after} the axes after Spacingd, so its pixdim lies along axes that are not known",
        )


def _intensity(name: str, *arguments: str) -> Callable[[_Reading, tuple[Key, ...]], None]:
    def read(reading: _Reading, path: tuple[Key, ...]) -> None:
        reading.steps.append((name, _arguments(reading, path, *arguments)))
        reading.places.append(path)

    return read


_READERS: dict[str, Callable[[_Reading, tuple[Key, ...]], None]] = {
    "Orientation": _orientation,
    "Spacing": _spacing,
    "ScaleIntensityRange": _intensity("range", "a_min", "a_max", "b_min", "b_max", "clip"),
    "ScaleIntensityRangePercentiles": _intensity(
        "percentiles", "lower", "upper", "b_min", "b_max", "clip", "relative", "channel_wise"
    ),
    "ClipIntensityPercentiles": _intensity("clip", "lower", "upper", "sharpness_factor", "channel_wise"),
    "NormalizeIntensity": _intensity("zscore", "subtrahend", "divisor", "nonzero", "channel_wise"),
    "ScaleIntensity": _intensity("minmax", "minv", "maxv", "factor", "channel_wise"),
}


def _put_intensity(reading: _Reading) -> None:
    if not reading.steps:
        reading.draft.lack("input.intensity", f"{reading.config.name} has no transform that scales intensities")
        return
    where = reading.config.at(*reading.places[-1])
    try:
        rule, notes = intensity_rule(reading.steps, reading.n_channels)
    except SourceError as error:
        reading.draft.lack("input.intensity", f"{where}: {error}")
        return
    reading.draft.put("input.intensity", rule)
    reading.draft.notes += notes


def intensity_rule(steps: Steps, n_channels: int) -> tuple[dict[str, Any], list[str]]:
    """The intensity rule that a chain of MONAI's transforms is.

    Rules that take statistics of the case undo any scaling before them, so of ``ScaleIntensity`` and
    ``NormalizeIntensity`` the last one counts.

    Args:
        steps: Kind of each transform and the arguments that were given.
        n_channels: Statistics over several channels together are no rule of ours.

    Returns:
        Content of a card's ``intensity``, and notes on what is not quite the same.

    Raises:
        SourceError: The chain is none of our rules; says why.
    """
    (last, arguments), before = steps[-1], list(steps[:-1])
    notes = []
    if any(kind != "clip" and kind in ("zscore", "minmax") and one.get("nonzero") for kind, one in before):
        notes.append("an earlier NormalizeIntensityd spares voxels that are 0, which the rule read here does not")
    while before and before[-1][0] in ("zscore", "minmax") and last in ("zscore", "minmax"):
        _check_statistics(*before[-1], n_channels)
        before.pop()
    limits = None
    if before and before[-1][0] == "clip" and last in ("zscore", "minmax"):
        limits = before.pop()[1]
        if limits.get("sharpness_factor") is not None or None in (limits.get("lower"), limits.get("upper")):
            raise SourceError("clips softly or on one side, which no intensity rule does")
        if n_channels > 1 and not limits.get("channel_wise"):
            raise SourceError("takes percentiles over all channels together, which no intensity rule does")
    if before:
        raise SourceError(f"scales intensities {len(steps)} times, which no intensity rule does")
    return {**_one_rule(last, arguments, n_channels), **_percentiles(limits)}, notes


def _percentiles(limits: dict[str, Any] | None) -> dict[str, Any]:
    return {} if limits is None else {"low": limits["lower"], "high": limits["upper"]}


def _check_statistics(kind: str, arguments: dict[str, Any], n_channels: int) -> None:
    if n_channels > 1 and not arguments.get("channel_wise"):
        raise SourceError("takes statistics over all channels together, which no intensity rule does")
    fixed = [name for name in ("subtrahend", "divisor", "factor") if arguments.get(name) is not None]
    if kind in ("zscore", "minmax") and fixed:
        raise SourceError(f"scales by a fixed {fixed[0]}, which only a window can (clip first, state its output)")


def _one_rule(kind: str, arguments: dict[str, Any], n_channels: int) -> dict[str, Any]:
    if kind == "range":
        output = _output(arguments)
        return {"rule": "window", "low": arguments.get("a_min"), "high": arguments.get("a_max"), "output": output}
    if kind == "percentiles":
        _check_statistics(kind, arguments, n_channels)
        if arguments.get("relative"):
            raise SourceError("scales to percentiles of the output range, which no intensity rule does")
        limits = {"low": arguments.get("lower"), "high": arguments.get("upper")}
        return {"rule": "minmax", **limits, "output": _output(arguments)}
    if kind == "clip":
        raise SourceError("only clips intensities and scales nothing, which no intensity rule does")
    _check_statistics(kind, arguments, n_channels)
    if kind == "minmax":
        low, high = arguments.get("minv", 0.0), arguments.get("maxv", 1.0)
        if low is None or high is None:
            raise SourceError("scales by no range, which no intensity rule does")
        return {"rule": "minmax", "output": [low, high]}
    return {"rule": "zscore", "nonzero": bool(arguments.get("nonzero", False))}


def _output(arguments: dict[str, Any]) -> list[Any]:
    """The range that a transform scales to; without one MONAI clips nothing, whatever ``clip`` says."""
    if not arguments.get("clip"):
        raise SourceError("does not clip, and every intensity rule does (state clip: true if the training had it)")
    output = [arguments.get("b_min"), arguments.get("b_max")]
    if None in output:
        raise SourceError("states no b_min and b_max, without which it does not clip, and every intensity rule does")
    return output
