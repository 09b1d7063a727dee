"""MONAI's networks: their layer groups and the sizes they accept."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from monai.networks.nets.basic_unet import BasicUNet
from monai.networks.nets.dynunet import DynUNet
from monai.networks.nets.segresnet import SegResNet
from monai.networks.nets.unet import UNet
from torch import nn

from monai_tl.networks.groups import LayerGroup
from monai_tl.networks.spec import Arguments, NetworkSpec
from monai_tl.records import SizeRule


def _unet_groups(module: nn.Module) -> list[LayerGroup]:
    n_levels = len(module.channels)  # type: ignore[arg-type]
    down, up = [LayerGroup("down0", ("model.0",))], [LayerGroup("head", ("model.2",))]
    path = "model.1.submodule"
    for level in range(1, n_levels - 1):
        down.append(LayerGroup(f"down{level}", (f"{path}.0",)))
        up.append(LayerGroup(f"up{level}", (f"{path}.2",)))
        path += ".1.submodule"
    return [*down, LayerGroup("bottom", (path,)), *reversed(up)]


def _basic_unet_groups(module: nn.Module) -> list[LayerGroup]:
    names = ["conv_0", *(f"down_{i}" for i in (1, 2, 3, 4)), *(f"upcat_{i}" for i in (4, 3, 2, 1))]
    return [*(LayerGroup(name, (name,)) for name in names), LayerGroup("head", ("final_conv",))]


def _segresnet_groups(module: nn.Module) -> list[LayerGroup]:
    n_down, n_up = len(module.down_layers), len(module.up_layers)  # type: ignore[arg-type]
    groups = [LayerGroup("stem", ("convInit",))]
    groups += [LayerGroup(f"down{i}", (f"down_layers.{i}",)) for i in range(n_down)]
    for i in range(n_up):
        # the last normalisation knows nothing of the classes, so it belongs to the body
        last = ("conv_final.0",) if i == n_up - 1 else ()
        groups.append(LayerGroup(f"up{i}", (f"up_samples.{i}", f"up_layers.{i}", *last)))
    return [*groups, LayerGroup("head", ("conv_final.2",))]


def _dynunet_groups(module: nn.Module) -> list[LayerGroup]:
    n_down, n_up = len(module.downsamples), len(module.upsamples)  # type: ignore[arg-type]
    return [
        LayerGroup("stem", ("input_block",)),
        *(LayerGroup(f"down{i}", (f"downsamples.{i}",)) for i in range(n_down)),
        LayerGroup("bottom", ("bottleneck",)),
        *(LayerGroup(f"up{i}", (f"upsamples.{i}",)) for i in range(n_up)),
        LayerGroup("head", ("output_block",)),
    ]


def _halving(divisor: int) -> SizeRule:
    """Sizes for networks that halve: twice the divisor, since instance normalisation needs two voxels at the bottom."""
    return SizeRule(divisor=divisor, min_vox=(2 * divisor, 2 * divisor, 2 * divisor))


def _per_axis(stride: int | Sequence[int]) -> tuple[int, int, int]:
    return (stride, stride, stride) if isinstance(stride, int) else (stride[0], stride[1], stride[2])


def _strided_size_rule(arguments: Arguments) -> SizeRule:
    strides = [_per_axis(stride) for stride in arguments["strides"]]
    return _halving(math.lcm(*(math.prod(stride[axis] for stride in strides) for axis in range(3))))


def _lengths_differ(arguments: Arguments, name: str, n_wanted: int, reason: str) -> list[str]:
    n_given = len(arguments[name])
    return [] if n_given == n_wanted else [f"{name}: has {n_given} entries, needs {n_wanted} ({reason})"]


def _unet_conflicts(arguments: Arguments) -> list[str]:
    return _lengths_differ(arguments, "strides", len(arguments["channels"]) - 1, "one less than channels")


def _segresnet_conflicts(arguments: Arguments) -> list[str]:
    return _lengths_differ(arguments, "blocks_up", len(arguments["blocks_down"]) - 1, "one less than blocks_down")


def _dynunet_conflicts(arguments: Arguments) -> list[str]:
    n_levels = len(arguments["strides"])
    faults = _lengths_differ(arguments, "kernel_size", n_levels, "as strides")
    faults += _lengths_differ(arguments, "upsample_kernel_size", n_levels - 1, "one less than strides")
    if set(_per_axis(arguments["strides"][0])) != {1}:
        faults.append("strides: the first must be 1, or the output is smaller than the input")
    return faults


_MONAI: dict[str, Any] = {
    "channel_argument": "in_channels",
    "output_argument": "out_channels",
    "constants": {"spatial_dims": 3},
}
MONAI_NETWORKS: dict[str, NetworkSpec] = {
    "unet": NetworkSpec(UNet, _unet_groups, _strided_size_rule, conflicts=_unet_conflicts, **_MONAI),
    "basic_unet": NetworkSpec(BasicUNet, _basic_unet_groups, lambda _: _halving(16), **_MONAI),
    "segresnet": NetworkSpec(
        SegResNet,
        _segresnet_groups,
        lambda arguments: _halving(2 ** (len(arguments["blocks_down"]) - 1)),
        withheld=("use_conv_final", "norm_name", "num_groups"),
        conflicts=_segresnet_conflicts,
        **_MONAI,
    ),
    "dynunet": NetworkSpec(
        DynUNet,
        _dynunet_groups,
        _strided_size_rule,
        withheld=("deep_supervision", "deep_supr_num"),
        conflicts=_dynunet_conflicts,
        **_MONAI,
    ),
}
"""Name → network."""
