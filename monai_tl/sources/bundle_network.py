"""A bundle's ``network_def`` as a network of our table."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from monai_tl.errors import SourceError
from monai_tl.networks.builders import find_network, network_names
from monai_tl.sources.config_text import ConfigText, Key, NeedsCodeError

_CLASSES = {
    "unet": ("unet", ("UNet", "Unet")),
    "basic_unet": ("basic_unet", ("BasicUNet", "BasicUnet", "Basicunet", "basicunet")),
    "dynunet": ("dynunet", ("DynUNet", "DynUnet", "Dynunet")),
    "segresnet": ("segresnet", ("SegResNet",)),
    "segresnet_ds": ("segresnet_ds", ("SegResNetDS",)),
    "swin_unetr": ("swin_unetr", ("SwinUNETR",)),
    "unetr": ("unetr", ("UNETR",)),
    "attention_unet": ("attentionunet", ("AttentionUnet",)),
    "vnet": ("vnet", ("VNet",)),
    "flexible_unet": ("flexible_unet", ("FlexibleUNet", "FlexUNet")),
}
"""Network of our table → MONAI's module and the names its class has there."""
TARGETS = {
    path: name
    for name, (module, classes) in _CLASSES.items()
    for one in classes
    for path in (one, f"monai.networks.nets.{one}", f"monai.networks.nets.{module}.{one}")
}
"""What ``_target_`` may be → network of our table."""
_WITHOUT_EFFECT = {
    "deep_supervision": "the extra outputs exist in training alone",
    "deep_supr_num": "the extra outputs exist in training alone",
    "dsdepth": "the extra outputs exist in training alone",
    "use_checkpoint": "a way to save memory in training",
    "pretrained": "the weights are the bundle's",
    "img_size": "MONAI 1.6 takes any size",
}
"""Arguments that change neither weights nor output; left out where our network does not take them."""
_CONSTANT = {"spatial_dims": 3, "use_conv_final": True}
"""Arguments that our networks do not take, because only this value makes them what they are."""
_LANGUAGE = ("_requires_", "_desc_", "_mode_", "_disabled_")


def read_network(config: ConfigText, *path: Key) -> tuple[dict[str, Any], list[str]]:
    """The network as a card states it.

    Args:
        config: The bundle's configuration.
        path: Where its definition is, e.g. ``network_def``.

    Returns:
        Content of the card's ``network``, and notes on what was left out.

    Raises:
        NeedsCodeError: The class is not in the table, or an argument is no data.
        SourceError: It is no 3-D network, or has an argument that our network cannot have.
    """
    definition, path = config.follow(*path)
    if not isinstance(definition, Mapping) or "_target_" not in definition:
        raise config.needs_code(*path, why="is no definition of a network")
    name = _network_name(config, definition["_target_"], (*path, "_target_"))
    spec = find_network(name)
    given = {
        str(key): config.resolve(*path, key)
        for key in definition
        if key != "_target_" and key not in _LANGUAGE and key not in _WITHOUT_EFFECT
    }
    # left out, it is what MONAI takes then: two dimensions for some
    meant = spec.with_defaults(given)
    for key, wanted in _CONSTANT.items():
        given.pop(key, None)
        if meant.get(key, wanted) != wanted:
            raise SourceError(f"{config.at(*path, key)} is {meant[key]!r}; only networks with {key} {wanted} are read")
    sizes = {}
    for line, argument in (("n_channels", spec.channel_argument), ("n_outputs", spec.output_argument)):
        size = given.pop(argument, None)
        if not isinstance(size, int) or isinstance(size, bool):
            raise SourceError(f"{config.at(*path, argument)}: is no number; the network's {line} must be known")
        sizes[line] = size
    arguments, notes = _optional(config, definition, path, given, name)
    faults = spec.faults_of(arguments)
    if faults:
        listed = "; ".join(faults)
        raise SourceError(f"{config.at(*path)}: is no {name} that can be built: {listed}")
    return {"name": name, "arguments": arguments, **sizes}, notes


def _network_name(config: ConfigText, target: Any, path: tuple[Key, ...]) -> str:
    if isinstance(target, str) and target in TARGETS:
        name = TARGETS[target]
        if name not in network_names():
            raise SourceError(f"{config.at(*path)}: {target} is not among our networks ({', '.join(network_names())})")
        return name
    # a plug-in that is installed here; the bundle only chooses among them
    for name in network_names():
        if isinstance(target, str) and find_network(name).target == target:
            return name
    raise config.needs_code(
        *path, why=f"names a class that is not in the table ({', '.join(sorted(_CLASSES))}), so it would have to be run"
    )


def _optional(
    config: ConfigText, definition: Mapping[str, Any], path: tuple[Key, ...], given: dict[str, Any], name: str
) -> tuple[dict[str, Any], list[str]]:
    """Arguments without effect are kept where the network must have them, and only if they can be read."""
    notes = []
    for key, reason in _WITHOUT_EFFECT.items():
        if key not in definition:
            continue
        try:
            value = config.resolve(*path, key)
        except (NeedsCodeError, KeyError):
            value = None
        kept = {**given, key: value}
        if value is not None and not any(fault.startswith(f"{key}:") for fault in find_network(name).faults_of(kept)):
            given = kept
        else:
            notes.append(f"network argument {key} left out: {reason}")
    return given, notes
