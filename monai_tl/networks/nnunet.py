"""nnU-Net v2's two networks, built from the arguments in plans.json with the tensor names of its checkpoints."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor, nn

from monai_tl.networks.groups import LayerGroup
from monai_tl.networks.nnunet_blocks import (
    Decoder,
    Kernel,
    Levels,
    StackedConvs,
    StackedResiduals,
    Style,
    find_layer,
    initialise,
    read_style,
)
from monai_tl.networks.size_rules import even_kernels, per_axis, strided
from monai_tl.networks.spec import Arguments, NetworkSpec

PerStage = int | Sequence[int]
LayerArguments = Mapping[str, Any] | None
_CONV = "torch.nn.modules.conv.Conv3d"


def _each(value: Any, n: int) -> list[Any]:
    return [value] * n if isinstance(value, int) else list(value)


class _PlainEncoder(nn.Module):
    def __init__(
        self,
        n_channels: int,
        levels: Levels,
        n_convs: Sequence[int],
        style: Style,
    ) -> None:
        super().__init__()
        stages, n_in = [], n_channels
        for n_blocks, n_out, kernel, stride in zip(n_convs, *levels, strict=True):
            stages.append(nn.Sequential(StackedConvs(n_blocks, n_in, n_out, kernel, stride, style)))
            n_in = n_out
        self.stages = nn.Sequential(*stages)

    def forward(self, x: Tensor) -> list[Tensor]:
        maps = []
        for stage in self.stages:
            x = stage(x)
            maps.append(x)
        return maps


class _ResidualEncoder(nn.Module):
    def __init__(
        self,
        n_channels: int,
        levels: Levels,
        n_blocks: Sequence[int],
        stem_channels: int,
        style: Style,
    ) -> None:
        super().__init__()
        self.stem = StackedConvs(1, n_channels, stem_channels, levels.kernels[0], 1, style)
        stages, n_in = [], stem_channels
        for n, n_out, kernel, stride in zip(n_blocks, *levels, strict=True):
            stages.append(StackedResiduals(n, n_in, n_out, kernel, stride, style))
            n_in = n_out
        self.stages = nn.Sequential(*stages)

    def forward(self, x: Tensor) -> list[Tensor]:
        x = self.stem(x)
        maps = []
        for stage in self.stages:
            x = stage(x)
            maps.append(x)
        return maps


class PlainConvUNet(nn.Module):
    """nnU-Net's plain U-Net, 3-D.

    Args:
        input_channels: Channels of the image.
        num_classes: Outputs, background included.
        n_stages: Levels; an argument given once holds for each of them.
        features_per_stage, kernel_sizes, strides, n_conv_per_stage: Of the encoder, finest level first.
        n_conv_per_stage_decoder: Of the decoder, coarsest level first; one entry less.
        conv_op, norm_op, dropout_op, nonlin: Dotted names of layers, as plans.json gives them.
        conv_bias, norm_op_kwargs, dropout_op_kwargs, nonlin_kwargs: Their arguments.
        nonlin_first: Normalise after the nonlinearity.

    Raises:
        ValueError: A layer is unknown or not 3-D.
    """

    def __init__(
        self,
        input_channels: int,
        num_classes: int,
        n_stages: int,
        features_per_stage: PerStage,
        kernel_sizes: int | Sequence[Kernel],
        strides: int | Sequence[Kernel],
        n_conv_per_stage: PerStage,
        n_conv_per_stage_decoder: PerStage,
        conv_op: str = _CONV,
        conv_bias: bool = False,
        norm_op: str | None = None,
        norm_op_kwargs: LayerArguments = None,
        dropout_op: str | None = None,
        dropout_op_kwargs: LayerArguments = None,
        nonlin: str | None = None,
        nonlin_kwargs: LayerArguments = None,
        nonlin_first: bool = False,
    ) -> None:
        super().__init__()
        find_layer(conv_op)
        layers = ((norm_op, norm_op_kwargs), (dropout_op, dropout_op_kwargs), (nonlin, nonlin_kwargs))
        style = read_style(conv_bias, *layers, nonlin_first)
        levels = Levels(*(_each(value, n_stages) for value in (features_per_stage, kernel_sizes, strides)))
        self.encoder = _PlainEncoder(input_channels, levels, _each(n_conv_per_stage, n_stages), style)
        n_convs = _each(n_conv_per_stage_decoder, n_stages - 1)
        self.decoder = Decoder(self.encoder, levels, n_convs, num_classes, style)
        initialise(self)

    def forward(self, x: Tensor) -> Tensor:
        """Logits (B, num_classes, I, J, K) of (B, input_channels, I, J, K)."""
        result: Tensor = self.decoder(self.encoder(x))
        return result


class ResidualEncoderUNet(nn.Module):
    """nnU-Net's U-Net with a residual encoder, 3-D.

    Args:
        input_channels: Channels of the image.
        num_classes: Outputs, background included.
        n_stages: Levels; an argument given once holds for each of them.
        features_per_stage, kernel_sizes, strides, n_blocks_per_stage: Of the encoder, finest level first.
        n_conv_per_stage_decoder: Of the decoder, coarsest level first; one entry less.
        conv_op, norm_op, dropout_op, nonlin: Dotted names of layers, as plans.json gives them.
        conv_bias, norm_op_kwargs, dropout_op_kwargs, nonlin_kwargs: Their arguments.
        stem_channels: Channels of the first convolution; the first level's where none are given.

    Raises:
        ValueError: A layer is unknown or not 3-D.
    """

    def __init__(
        self,
        input_channels: int,
        num_classes: int,
        n_stages: int,
        features_per_stage: PerStage,
        kernel_sizes: int | Sequence[Kernel],
        strides: int | Sequence[Kernel],
        n_blocks_per_stage: PerStage,
        n_conv_per_stage_decoder: PerStage,
        conv_op: str = _CONV,
        conv_bias: bool = False,
        norm_op: str | None = None,
        norm_op_kwargs: LayerArguments = None,
        dropout_op: str | None = None,
        dropout_op_kwargs: LayerArguments = None,
        nonlin: str | None = None,
        nonlin_kwargs: LayerArguments = None,
        stem_channels: int | None = None,
    ) -> None:
        super().__init__()
        find_layer(conv_op)
        layers = ((norm_op, norm_op_kwargs), (dropout_op, dropout_op_kwargs), (nonlin, nonlin_kwargs))
        style = read_style(conv_bias, *layers)
        levels = Levels(*(_each(value, n_stages) for value in (features_per_stage, kernel_sizes, strides)))
        n_blocks, n_stem = _each(n_blocks_per_stage, n_stages), stem_channels or levels.features[0]
        self.encoder = _ResidualEncoder(input_channels, levels, n_blocks, n_stem, style)
        n_convs = _each(n_conv_per_stage_decoder, n_stages - 1)
        self.decoder = Decoder(self.encoder, levels, n_convs, num_classes, style)
        initialise(self)

    def forward(self, x: Tensor) -> Tensor:
        """Logits (B, num_classes, I, J, K) of (B, input_channels, I, J, K)."""
        result: Tensor = self.decoder(self.encoder(x))
        return result


def _groups(module: nn.Module) -> list[LayerGroup]:
    n_levels = len(module.encoder.stages)  # type: ignore[union-attr,arg-type]
    stem = [LayerGroup("stem", ("encoder.stem",))] if hasattr(module.encoder, "stem") else []
    return [
        *stem,
        *(LayerGroup(f"down{i}", (f"encoder.stages.{i}",)) for i in range(n_levels - 1)),
        LayerGroup("bottom", (f"encoder.stages.{n_levels - 1}",)),
        *(LayerGroup(f"up{i}", (f"decoder.transpconvs.{i}", f"decoder.stages.{i}")) for i in range(n_levels - 1)),
        # those of the lower levels too: they have a row a class, and nothing but the loss of their makers used them
        LayerGroup("head", ("decoder.seg_layers",)),
    ]


_ENCODER_LISTS = ("features_per_stage", "kernel_sizes", "strides", "n_conv_per_stage", "n_blocks_per_stage")


def _conflicts(arguments: Arguments) -> list[str]:
    faults, n_stages = [], arguments["n_stages"]
    for name in ("conv_op", "norm_op", "dropout_op", "nonlin"):
        try:
            find_layer(arguments[name] or _CONV)
        except ValueError as error:
            faults.append(f"{name}: {error}")
    if n_stages < 2:
        faults.append(f"n_stages: is {n_stages}, needs at least 2")
    lengths = [(name, n_stages) for name in _ENCODER_LISTS if name in arguments]
    for name, n_wanted in [*lengths, ("n_conv_per_stage_decoder", n_stages - 1)]:
        given = arguments[name]
        if not isinstance(given, int) and len(given) != n_wanted:
            faults.append(f"{name}: has {len(given)} entries, needs {n_wanted} (n_stages is {n_stages})")
    flat = [value for name in ("kernel_sizes", "strides") for value in _each(arguments[name], 1)]
    if any(not isinstance(value, int) and len(value) != 3 for value in flat):
        return [*faults, "kernel_sizes, strides: need three numbers a level; a 2-D configuration is not built"]
    if per_axis(_each(arguments["strides"], 1)[0]) != (1, 1, 1):
        faults.append("strides: the first must be 1, or the output is smaller than the input")
    return faults + even_kernels(arguments, "kernel_sizes")


_CALL: dict[str, Any] = {
    "channel_argument": "input_channels",
    "output_argument": "num_classes",
    "conflicts": _conflicts,
}
NNUNET_NETWORKS: dict[str, NetworkSpec] = {
    name: NetworkSpec(
        network,
        _groups,
        lambda arguments: strided(_each(arguments["strides"], arguments["n_stages"])),
        **_CALL,
    )
    for name, network in (("nnunet_plain", PlainConvUNet), ("nnunet_residual", ResidualEncoderUNet))
}
"""Name → network."""
