"""MONAI's convolutional networks: their layer groups and the sizes they accept."""

from __future__ import annotations

from typing import Any

from monai.networks.nets.attentionunet import AttentionUnet
from monai.networks.nets.basic_unet import BasicUNet
from monai.networks.nets.dynunet import DynUNet
from monai.networks.nets.segresnet import SegResNet
from monai.networks.nets.segresnet_ds import SegResNetDS, scales_for_resolution
from monai.networks.nets.unet import UNet
from monai.networks.nets.vnet import VNet
from torch import nn

from monai_tl.networks.groups import LayerGroup
from monai_tl.networks.size_rules import even_kernels, halving, lengths_differ, per_axis, strided
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


def _segresnet_ds_groups(module: nn.Module) -> list[LayerGroup]:
    n_down, n_up = len(module.encoder.layers), len(module.up_layers)  # type: ignore[union-attr,arg-type]
    return [
        LayerGroup("stem", ("encoder.conv_init",)),
        *(LayerGroup(f"down{i}", (f"encoder.layers.{i}",)) for i in range(n_down - 1)),
        LayerGroup("bottom", (f"encoder.layers.{n_down - 1}",)),
        *(LayerGroup(f"up{i}", (f"up_layers.{i}.upsample", f"up_layers.{i}.blocks")) for i in range(n_up)),
        LayerGroup("head", (f"up_layers.{n_up - 1}.head",)),
    ]


def _attention_unet_groups(module: nn.Module) -> list[LayerGroup]:
    n_levels = len(module.channels)  # type: ignore[arg-type]
    down, up, path = [LayerGroup("down0", ("model.0",))], [], "model.1"
    for level in range(n_levels - 1):
        # the layer that brings level + 1 back up to this one
        up.append(LayerGroup(f"up{level}", tuple(f"{path}.{part}" for part in ("upconv", "attention", "merge"))))
        if level < n_levels - 2:
            down.append(LayerGroup(f"down{level + 1}", (f"{path}.submodule.0",)))
            path += ".submodule.1"
    return [*down, LayerGroup("bottom", (f"{path}.submodule",)), *reversed(up), LayerGroup("head", ("model.2",))]


def _vnet_groups(module: nn.Module) -> list[LayerGroup]:
    names = ["in_tr", *(f"down_tr{i}" for i in (32, 64, 128, 256)), *(f"up_tr{i}" for i in (256, 128, 64, 32))]
    # its last block works on the classes from its first convolution on, so all of it is the head
    return [*(LayerGroup(name, (name,)) for name in names), LayerGroup("head", ("out_tr",))]


def _strides_rule(arguments: Arguments) -> SizeRule:
    return strided(arguments["strides"])


def _unet_conflicts(arguments: Arguments) -> list[str]:
    return lengths_differ(arguments, "strides", len(arguments["channels"]) - 1, "one less than channels")


def _few_levels(arguments: Arguments) -> list[str]:
    return [] if len(arguments["blocks_down"]) > 1 else ["blocks_down: needs at least two levels"]


def _segresnet_conflicts(arguments: Arguments) -> list[str]:
    n_up = len(arguments["blocks_down"]) - 1
    return _few_levels(arguments) + lengths_differ(arguments, "blocks_up", n_up, "one less than blocks_down")


def _dynunet_conflicts(arguments: Arguments) -> list[str]:
    n_levels = len(arguments["strides"])
    faults = lengths_differ(arguments, "kernel_size", n_levels, "as strides")
    faults += lengths_differ(arguments, "upsample_kernel_size", n_levels - 1, "one less than strides")
    if set(per_axis(arguments["strides"][0])) != {1}:
        faults.append("strides: the first must be 1, or the output is smaller than the input")
    return faults


def _segresnet_ds_rule(arguments: Arguments) -> SizeRule:
    n_levels = len(arguments["blocks_down"])
    if arguments["resolution"] is None:
        return halving(2 ** (n_levels - 1))
    scales = scales_for_resolution(tuple(arguments["resolution"]), n_levels)[:-1]
    return strided([int(factor) for factor in scale] for scale in scales)


def _segresnet_ds_conflicts(arguments: Arguments) -> list[str]:
    n_levels = len(arguments["blocks_down"])
    faults = _few_levels(arguments)
    if any(n_blocks < 1 for n_blocks in arguments["blocks_down"]):
        faults.append("blocks_down: needs at least one block a level")
    if arguments["blocks_up"] is not None:
        faults += lengths_differ(arguments, "blocks_up", n_levels - 1, "one less than blocks_down")
    return faults


def _attention_unet_conflicts(arguments: Arguments) -> list[str]:
    faults = lengths_differ(arguments, "strides", len(arguments["channels"]) - 1, "one less than channels")
    if len(arguments["channels"]) < 2 or min(arguments["channels"]) < 2:
        faults.append("channels: needs at least two levels of at least two channels, for the gates have half as many")
    return faults + even_kernels(arguments, "kernel_size") + even_kernels(arguments, "up_kernel_size")


MONAI_CALL: dict[str, Any] = {
    "channel_argument": "in_channels",
    "output_argument": "out_channels",
    "constants": {"spatial_dims": 3},
}
"""How MONAI's constructors are called."""
MONAI_NETWORKS: dict[str, NetworkSpec] = {
    "unet": NetworkSpec(UNet, _unet_groups, _strides_rule, conflicts=_unet_conflicts, **MONAI_CALL),
    "basic_unet": NetworkSpec(BasicUNet, _basic_unet_groups, lambda _: halving(16), **MONAI_CALL),
    "segresnet": NetworkSpec(
        SegResNet,
        _segresnet_groups,
        lambda arguments: halving(2 ** (len(arguments["blocks_down"]) - 1)),
        withheld=("use_conv_final", "norm_name", "num_groups"),
        conflicts=_segresnet_conflicts,
        **MONAI_CALL,
    ),
    "dynunet": NetworkSpec(
        DynUNet,
        _dynunet_groups,
        _strides_rule,
        withheld=("deep_supervision", "deep_supr_num"),
        conflicts=_dynunet_conflicts,
        **MONAI_CALL,
    ),
    "segresnet_ds": NetworkSpec(
        SegResNetDS,
        _segresnet_ds_groups,
        _segresnet_ds_rule,
        # with one output it gives a tensor in training too, not a list
        withheld=("dsdepth", "preprocess"),
        conflicts=_segresnet_ds_conflicts,
        **MONAI_CALL,
    ),
    "attention_unet": NetworkSpec(
        AttentionUnet, _attention_unet_groups, _strides_rule, conflicts=_attention_unet_conflicts, **MONAI_CALL
    ),
    "vnet": NetworkSpec(VNet, _vnet_groups, lambda _: halving(16), withheld=("dropout_prob",), **MONAI_CALL),
}
"""Name → network."""
