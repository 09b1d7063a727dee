"""An nnU-Net results folder and one configuration of its plans: network and normalisation as ours."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from monai_tl.errors import SourceError

PLANS, DATASET = "plans.json", "dataset.json"
FOLD = re.compile(r"fold_(all|\d{1,3})")
_NETWORKS = {"PlainConvUNet": "nnunet_plain", "ResidualEncoderUNet": "nnunet_residual"}
_PLACES = tuple(f"dynamic_network_architectures.architectures.{module}." for module in ("unet", "residual_unet"))
_PREFERRED = ("3d_fullres", "3d_lowres")
_MAX_PARENTS = 8
_PROPERTIES = ("foreground_intensity_properties_per_channel", "foreground_intensity_properties_by_modality")
_LEGACY = {
    "conv_op": "torch.nn.modules.conv.Conv3d",
    "conv_bias": True,
    "norm_op": "torch.nn.modules.instancenorm.InstanceNorm3d",
    "norm_op_kwargs": {"eps": 1e-5, "affine": True},
    "dropout_op": None,
    "dropout_op_kwargs": None,
    "nonlin": "torch.nn.LeakyReLU",
    "nonlin_kwargs": {"inplace": True},
}
"""What plans before nnU-Net 2.4 left unsaid."""


@dataclass(frozen=True)
class Results:
    """A results folder.

    Attributes:
        folder: That of the trainer, with plans.json and dataset.json.
        fold: Name of the fold that was asked for; None for any.
    """

    folder: Path
    fold: str | None


def find_results(path: Path) -> Results | None:
    """The results folder that a path is, or that the fold it is belongs to; None for anything else."""
    if all((path / name).is_file() for name in (PLANS, DATASET)):
        return Results(path, None)
    absolute = path.resolve()
    if FOLD.fullmatch(absolute.name) and all((absolute.parent / name).is_file() for name in (PLANS, DATASET)):
        return Results(path.parent if path.name else absolute.parent, absolute.name)
    return None


def find_configuration(plans: Mapping[str, Any], folder: Path) -> tuple[str, dict[str, Any]]:
    """The configuration a results folder was trained with.

    Args:
        plans: Content of plans.json.
        folder: ``TRAINER__PLANS__CONFIGURATION``; under another name the full, then the low resolution is taken.

    Raises:
        SourceError: It is 2-D, a cascade's second stage (whose input is another network's output), or not in the plans.
    """
    configurations = plans.get("configurations")
    if not isinstance(configurations, dict):
        raise SourceError(f"{folder / 'plans.json'}: has no configurations; is it of nnU-Net 2?")
    parts = folder.resolve().name.split("__")
    named = parts[2] if len(parts) == 3 else next((name for name in _PREFERRED if name in configurations), "")
    if named not in configurations:
        raise SourceError(f"{folder / 'plans.json'}: has no configuration {named!r}, there are {list(configurations)}")
    found = _inherited(configurations, named, folder)
    if found.get("previous_stage"):
        raise SourceError(
            f"{folder}: {named} is the second stage of a cascade and needs the first one's output; give 3d_lowres or "
            "3d_fullres"
        )
    patch = found.get("patch_size")
    if not isinstance(patch, list) or len(patch) != 3:
        raise SourceError(f"{folder}: {named} is a 2-D network; give the folder of 3d_fullres or 3d_lowres")
    return named, found


def _inherited(configurations: Mapping[str, Any], name: str, folder: Path) -> dict[str, Any]:
    chain: list[Mapping[str, Any]] = []
    current: Any = name
    while current is not None:
        item = configurations.get(current) if isinstance(current, str) else None
        if not isinstance(item, dict) or len(chain) > _MAX_PARENTS:
            raise SourceError(f"{folder / 'plans.json'}: configuration {name!r} inherits from {current!r} without end")
        chain.append(item)
        current = item.get("inherits_from")
    return {key: value for item in reversed(chain) for key, value in item.items()}


def read_architecture(configuration: Mapping[str, Any], where: str) -> dict[str, Any]:
    """Name and arguments of the network.

    Raises:
        SourceError: It is none of nnU-Net's two U-Nets.
    """
    architecture = configuration.get("architecture")
    if not isinstance(architecture, dict):
        return _legacy_architecture(configuration, where)
    target = architecture.get("network_class_name")
    name = next((name for one, name in _NETWORKS.items() if target in [f"{place}{one}" for place in _PLACES]), None)
    arguments = architecture.get("arch_kwargs")
    if name is None or not isinstance(arguments, dict):
        raise SourceError(
            f"{where}: its network {target!r} is not in the table ({', '.join(_NETWORKS)}), so it would have to be run"
        )
    return {"name": name, "arguments": {key: value for key, value in arguments.items() if key != "deep_supervision"}}


def _legacy_architecture(configuration: Mapping[str, Any], where: str) -> dict[str, Any]:
    name = _NETWORKS.get(str(configuration.get("UNet_class_name")))
    try:
        n_stages = len(configuration["n_conv_per_stage_encoder"])
        base, most = configuration["UNet_base_num_features"], configuration["unet_max_num_features"]
        convs = "n_blocks_per_stage" if name == "nnunet_residual" else "n_conv_per_stage"
        arguments = {
            "n_stages": n_stages,
            "features_per_stage": [min(base * 2**level, most) for level in range(n_stages)],
            "kernel_sizes": configuration["conv_kernel_sizes"],
            "strides": configuration["pool_op_kernel_sizes"],
            convs: configuration["n_conv_per_stage_encoder"],
            "n_conv_per_stage_decoder": configuration["n_conv_per_stage_decoder"],
            **_LEGACY,
        }
    except (KeyError, TypeError):
        name, arguments = None, {}
    if name is None:
        raise SourceError(f"{where}: states no network of the table ({', '.join(_NETWORKS)}); is it of nnU-Net 2?")
    return {"name": name, "arguments": arguments}


def read_intensity(
    plans: Mapping[str, Any], configuration: Mapping[str, Any], n_channels: int
) -> tuple[dict[str, Any], list[str]]:
    """nnU-Net's normalisation as an intensity rule.

    ``CTNormalization`` clips to percentiles of the training data and subtracts their mean and divides by their sd; both
    are fixed numbers, so it is a window whose ends become (end − mean) / sd.

    Returns:
        Content of a card's ``intensity``, and notes on what is not quite the same.

    Raises:
        SourceError: It is none of our rules, or the channels differ.
    """
    schemes = configuration.get("normalization_schemes")
    if not isinstance(schemes, list) or len(schemes) != n_channels or len(set(map(str, schemes))) != 1:
        raise SourceError(f"plans.json normalises {n_channels} channels by {schemes}, and one rule must hold for all")
    scheme = schemes[0]
    if scheme == "CTNormalization":
        rules = [_window(plans, channel) for channel in range(n_channels)]
        if any(rule != rules[0] for rule in rules):
            raise SourceError("plans.json clips each channel to another window, and one rule must hold for all")
        return rules[0], []
    if scheme == "ZScoreNormalization":
        masks = configuration.get("use_mask_for_norm", [False])
        masked = {bool(mask) for mask in masks} if isinstance(masks, list) else set()
        if len(masked) != 1:
            raise SourceError("plans.json takes some channels' statistics over a mask, and one rule must hold for all")
        note = "nnU-Net takes a case's mean and sd in the box of its voxels that are not 0"
        return {"rule": "zscore", "nonzero": masked.pop()}, [note]
    if scheme == "RescaleTo01Normalization":
        return {"rule": "minmax"}, ["nnU-Net takes a case's range in the box of its voxels that are not 0"]
    raise SourceError(f"plans.json normalises by {scheme}, which is no intensity rule")


def _window(plans: Mapping[str, Any], channel: int) -> dict[str, Any]:
    try:
        key = next(key for key in _PROPERTIES if key in plans)
        found = plans[key][str(channel)]
        low, high = float(found["percentile_00_5"]), float(found["percentile_99_5"])
        mean, spread = float(found["mean"]), max(float(found["std"]), 1e-8)
    except (KeyError, TypeError, ValueError, OverflowError, StopIteration):
        raise SourceError(f"plans.json has no intensity properties of channel {channel}") from None
    return {"rule": "window", "low": low, "high": high, "output": [(low - mean) / spread, (high - mean) / spread]}
