"""What a bundle's transforms do beside what is read from them: switched off, for labels alone, or by an argument.

A transform that is read, or that changes nothing as it usually stands, may have an argument that does change values,
axes or lengths. Each of these is named here with the values that do no harm.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

from monai_tl.errors import SourceError
from monai_tl.sources.config_text import ConfigText, Key

_AXES = ("orientation", "spacing_mm")
_ALL = ("intensity", *_AXES)
_LABELS = ("label", "seg", "mask")
_COMPOSE = ("Compose", "monai.transforms.Compose", "monai.transforms.compose.Compose")
_LETTERS = [["L", "R"], ["P", "A"], ["I", "S"]]
_FLOATS = ("float", "float16", "float32", "float64", "bfloat16", "half", "single", "double")
_TYPE = re.compile(r"\$?\s*(?:(?:torch|np|numpy)\.)?(\w+)\s*")
_LISTED = re.compile(r"\$\s*[\[(](.*)[\])]\s*")
_READER = re.compile(r"\$?\s*(?:monai\.data\.(?:image_reader\.)?)?(\w+)(?:\(\))?\s*")
_READERS = ("itkreader", "nibabelreader", "nrrdreader", "pydicomreader")


class _Argument(NamedTuple):
    """One that may matter: the values that do not, the lines of the contract that others change, and how."""

    is_harmless: Callable[[Any], bool]
    keys: tuple[str, ...]
    why: str


_LIMIT = _Argument(lambda value: value is None, ("spacing_mm",), "leaves some images at the spacing that they have")
# a stack of files, and files of several channels, have theirs first or last; any other place is an axis of space
_CHANNEL = _Argument(
    lambda value: value in (None, "no_channel", 0, -1, 3), _AXES, "takes an axis of space for the channels"
)
_ARGUMENTS: dict[str, dict[str, _Argument]] = {
    "LoadImage": {
        "reverse_indexing": _Argument(lambda value: not value, _AXES, "turns the axes, and not what is said of them"),
        "affine_lps_to_ras": _Argument(bool, ("orientation",), "may count axes the other way than their letters say"),
        "channel_dim": _CHANNEL,
    },
    "EnsureChannelFirst": {"channel_dim": _CHANNEL},
    "AsChannelFirst": {"channel_dim": _CHANNEL},
    "Spacing": {
        "min_pixdim": _LIMIT,
        "max_pixdim": _LIMIT,
        # MONAI resamples to a diagonal affine: the axes become those of the world
        "diagonal": _Argument(lambda value: not value, _AXES, "turns the image to the axes of the world"),
    },
    "Orientation": {
        "labels": _Argument(
            lambda value: value in (None, _LETTERS), ("orientation",), "gives the letters of axcodes another meaning"
        ),
    },
}


def _is_reader(text: Any) -> bool:
    """``$monai.data.ITKReader`` included; where there are several, MONAI tries one after the other."""
    found = _READER.fullmatch(text) if isinstance(text, str) else None
    return text is None or (found is not None and found[1].lower() in _READERS)


def _is_float(text: Any) -> bool:
    """``float32`` and ``$torch.float32`` are the same."""
    found = _TYPE.fullmatch(text) if isinstance(text, str) else None
    return found is not None and found[1] in _FLOATS


def _is_float_or_none(text: Any) -> bool:
    return text is None or _is_float(text)


_ROUNDS = "may round values to whole numbers, for it is no float type by its name"
_CAST = {"dtype": _Argument(_is_float_or_none, ("intensity",), _ROUNDS)}
# to these, no type is that of the image, and files may have whole numbers
_SCALED = {"dtype": _Argument(_is_float, ("intensity",), _ROUNDS)}
_NAMED: dict[str, dict[str, _Argument]] = {
    "LoadImage": {**_CAST, "reader": _Argument(_is_reader, _ALL, "is none of MONAI's readers of medical images")},
    # MONAI takes percentiles of floats alone
    **dict.fromkeys(("EnsureType", "ToTensor", "CastToType", "Spacing", "ScaleIntensityRangePercentiles"), _CAST),
    **dict.fromkeys(("ScaleIntensityRange", "NormalizeIntensity", "ScaleIntensity"), _SCALED),
}
"""Arguments that are classes, which nothing here looks up: they are judged by their text."""


def is_disabled(config: ConfigText, definition: dict[str, Any], path: tuple[Key, ...]) -> bool:
    """Whether MONAI leaves a component out, as its ``ConfigComponent.is_disabled`` has it.

    Raises:
        SourceError: Only code would tell; says the line.
    """
    value = config.resolve(*path, "_disabled_") if "_disabled_" in definition else False
    return value.lower().strip() == "true" if isinstance(value, str) else bool(value)


def check_compose(config: ConfigText, definition: dict[str, Any], path: tuple[Key, ...]) -> None:
    """Refuse what does not run all of its transforms in their order, as MONAI's OneOf and SomeOf do not.

    Raises:
        SourceError: It is another, is switched off, or only code would tell; says the line.
    """
    if definition.get("_target_", "Compose") not in _COMPOSE:
        raise config.needs_code(*path, "_target_", why="is no Compose, so which transforms run is not known")
    if is_disabled(config, definition, path):
        raise config.needs_code(*path, "_disabled_", why="leaves the whole preprocessing out")


def is_for_labels(config: ConfigText, definition: dict[str, Any], path: tuple[Key, ...]) -> bool:
    """Whether a transform takes no image.

    Raises:
        SourceError: Only code would tell; says the line.
    """
    if "keys" not in definition:
        return False
    keys = config.resolve(*path, "keys")
    return all(key in _LABELS for key in (keys if isinstance(keys, list) else [keys]))


def faults_of_arguments(
    config: ConfigText, name: str, definition: dict[str, Any], path: tuple[Key, ...]
) -> Iterator[tuple[str, str]]:
    """What the arguments of a transform change beside what is read from it.

    Args:
        config: The bundle's configuration.
        name: MONAI's, without the ending of dictionary transforms.
        definition: Of the transform.
        path: Where it is written.

    Yields:
        A key below ``input`` that is not known thereby, and why, with the line.
    """
    for argument, (is_harmless, keys, why) in _ARGUMENTS.get(name, {}).items():
        if argument in definition:
            reason = _reason(config, (*path, argument), is_harmless, why)
            yield from ((key, reason) for key in keys if reason)
    for argument, one in _NAMED.get(name, {}).items():
        if argument in definition and not _are_harmless(config, definition, (*path, argument), one.is_harmless):
            reason = str(config.needs_code(*path, argument, why=one.why))
            yield from ((key, reason) for key in one.keys)


def _reason(config: ConfigText, path: tuple[Key, ...], is_harmless: Callable[[Any], bool], why: str) -> str:
    """Why the value of an argument is not taken; nothing where it is."""
    try:
        return "" if is_harmless(config.resolve(*path)) else str(config.needs_code(*path, why=why))
    except SourceError as error:
        return str(error)


def _are_harmless(
    config: ConfigText, definition: dict[str, Any], path: tuple[Key, ...], is_harmless: Callable[[Any], bool]
) -> bool:
    """Whether all texts of an argument are that are for images, where each of the keys has its own."""
    try:
        given, place = config.follow(*path)
        listed = _LISTED.fullmatch(given) if isinstance(given, str) else None
        if listed is not None:
            given = [f"${one}" for one in listed[1].split(",") if one.strip()]
        elif isinstance(given, list):
            given = [config.follow(*place, index)[0] for index in range(len(given))]
        else:
            return is_harmless(given)
        keys = config.resolve(*path[:-1], "keys") if "keys" in definition else []
    except (SourceError, KeyError):
        return False
    if path[-1] == "dtype" and isinstance(keys, list) and len(keys) == len(given):
        given = [one for one, key in zip(given, keys, strict=True) if key not in _LABELS]
    return all(is_harmless(one) for one in given)
