"""MONAI's networks whose encoder stands for itself and is often pretrained alone: transformers, 3-D ResNets."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from monai.networks.nets.flexible_unet import FLEXUNET_BACKBONE, FlexibleUNet
from monai.networks.nets.swin_unetr import SwinUNETR
from monai.networks.nets.unetr import UNETR
from torch import nn

from monai_tl.networks.groups import LayerGroup
from monai_tl.networks.monai_networks import MONAI_CALL
from monai_tl.networks.size_rules import halving, per_axis
from monai_tl.networks.spec import Arguments, NetworkSpec
from monai_tl.records import SizeRule

_PATCH = 16
"""Edge of UNETR's patches, voxels; MONAI fixes it."""
_SWIN_LEVELS = 4


def _swin_unetr_groups(_: nn.Module) -> list[LayerGroup]:
    # the skip connections' convolutions are no part of what is pretrained by itself, so they are a group of their own
    return [
        LayerGroup("stem", ("swinViT.patch_embed",)),
        *(LayerGroup(f"stage{i}", (f"swinViT.layers{i}", f"swinViT.layers{i}c")) for i in (1, 2, 3, 4)),
        LayerGroup("skips", tuple(f"encoder{i}" for i in (1, 2, 3, 4, 10))),
        *(LayerGroup(f"up{i}", (f"decoder{i}",)) for i in (5, 4, 3, 2, 1)),
        LayerGroup("head", ("out",)),
    ]


def _unetr_groups(_: nn.Module) -> list[LayerGroup]:
    # a stage ends where a skip connection branches off
    stages = [range(4), range(4, 7), range(7, 10), range(10, 12)]
    blocks = [[f"vit.blocks.{block}" for block in stage] for stage in stages]
    blocks[-1].append("vit.norm")
    return [
        LayerGroup("stem", ("vit.patch_embedding",)),
        *(LayerGroup(f"stage{i}", tuple(names)) for i, names in enumerate(blocks, start=1)),
        LayerGroup("skips", tuple(f"encoder{i}" for i in (1, 2, 3, 4))),
        *(LayerGroup(f"up{i}", (f"decoder{i}",)) for i in (5, 4, 3, 2)),
        LayerGroup("head", ("out",)),
    ]


def _flexible_unet_groups(module: nn.Module) -> list[LayerGroup]:
    n_up = len(module.decoder.blocks)  # type: ignore[union-attr,arg-type]
    if hasattr(module.encoder, "layer1"):
        encoder = [LayerGroup("stem", ("encoder.conv1", "encoder.bn1"))]
        encoder += [LayerGroup(f"stage{i}", (f"encoder.layer{i}",)) for i in (1, 2, 3, 4)]
    else:
        n_stages = len(module.encoder._blocks)  # type: ignore[attr-defined]
        encoder = [LayerGroup("stem", ("encoder._conv_stem", "encoder._bn0"))]
        encoder += [LayerGroup(f"stage{i}", (f"encoder._blocks.{i}",)) for i in range(n_stages - 1)]
        # MONAI keeps EfficientNet's classifier, which nothing calls
        rest = tuple(f"encoder.{name}" for name in ("_conv_head", "_bn1", "_fc"))
        encoder.append(LayerGroup(f"stage{n_stages - 1}", (f"encoder._blocks.{n_stages - 1}", *rest)))
    decoder = [LayerGroup(f"up{i}", (f"decoder.blocks.{i}",)) for i in range(n_up)]
    return [*encoder, *decoder, LayerGroup("head", ("segmentation_head",))]


def _unetr_rule(arguments: Arguments) -> SizeRule:
    return SizeRule(divisor=_PATCH, min_vox=per_axis(arguments["img_size"]), fixed=True)


def _unetr_conflicts(arguments: Arguments) -> list[str]:
    sizes = per_axis(arguments["img_size"])
    wrong = [size for size in sizes if size < _PATCH or size % _PATCH]
    faults = [f"img_size: has {', '.join(map(str, wrong))}, needs multiples of {_PATCH}"] if wrong else []
    return faults + _heads_conflict("hidden_size", arguments["hidden_size"], [arguments["num_heads"]])


def _swin_unetr_conflicts(arguments: Arguments) -> list[str]:
    faults = []
    for name in ("depths", "num_heads"):
        if len(arguments[name]) != _SWIN_LEVELS:
            faults.append(f"{name}: has {len(arguments[name])} entries, needs {_SWIN_LEVELS}")
    if min(per_axis(arguments["window_size"])) < 2:
        faults.append("window_size: needs at least 2")
    return faults + _heads_conflict("feature_size", arguments["feature_size"], arguments["num_heads"])


def _heads_conflict(name: str, features: int, heads: Sequence[int]) -> list[str]:
    wrong = [n for level, n in enumerate(heads) if features * 2**level % n]
    return [f"{name}: {features} cannot be shared out among {wrong[0]} attention heads"] if wrong else []


def _flexible_unet_conflicts(arguments: Arguments) -> list[str]:
    known: dict[str, Any] = FLEXUNET_BACKBONE.register_dict
    if arguments["backbone"] not in known:
        return [f"backbone: {arguments['backbone']!r} is none of {', '.join(known)}"]
    n_levels = known[arguments["backbone"]]["feature_number"]
    n_given = len(arguments["decoder_channels"])
    return [] if n_given == n_levels else [f"decoder_channels: has {n_given} entries, needs {n_levels}"]


_HYENA = (
    "use_hyena",
    "hyena_stages",
    "hyena_kernel_size",
    "hyena_kernel_mlp_dim",
    "hyena_kernel_layers",
    "hyena_mask_max_attenuation",
    "hyena_fft_padding",
    "hyena_grid_type",
    "hyena_use_chunked_fft",
    "hyena_use_fft_short_conv",
    "hyena_omega_0",
    "hyena_l_cache",
    "hyena_short_conv_fft_chunks",
)
"""Arguments that ask for a package which is not installed."""

ENCODER_NETWORKS: dict[str, NetworkSpec] = {
    "swin_unetr": NetworkSpec(
        SwinUNETR,
        _swin_unetr_groups,
        lambda _: halving(2 ** (_SWIN_LEVELS + 1)),
        # other patches would need another decoder; a class cannot be written in a card
        withheld=("patch_size", "norm_layer", *_HYENA),
        conflicts=_swin_unetr_conflicts,
        **MONAI_CALL,
    ),
    "unetr": NetworkSpec(UNETR, _unetr_groups, _unetr_rule, conflicts=_unetr_conflicts, **MONAI_CALL),
    "flexible_unet": NetworkSpec(
        FlexibleUNet,
        _flexible_unet_groups,
        lambda arguments: halving(2 ** len(arguments["decoder_channels"])),
        conflicts=_flexible_unet_conflicts,
        # it would fetch weights over the network
        **{**MONAI_CALL, "constants": {"spatial_dims": 3, "pretrained": False}},
    ),
}
"""Name → network."""
