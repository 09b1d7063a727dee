"""Blocks of nnU-Net's networks under the tensor names of its checkpoints.

Each convolution, normalisation and the whole encoder is registered twice, as in the package that nnU-Net v2 takes its
networks from, so that a checkpoint fits name by name, and a tuned network can go back.

References:
    Isensee et al. 2021, doi:10.1038/s41592-020-01008-z; dynamic_network_architectures 0.4 (Apache-2.0).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from monai_tl.networks.size_rules import per_axis

Kernel = int | Sequence[int]
_LAYERS: dict[str, type[nn.Module]] = {
    "Conv3d": nn.Conv3d,
    "InstanceNorm3d": nn.InstanceNorm3d,
    "BatchNorm3d": nn.BatchNorm3d,
    "Dropout3d": nn.Dropout3d,
    "Dropout": nn.Dropout,
    "LeakyReLU": nn.LeakyReLU,
    "ReLU": nn.ReLU,
    "ELU": nn.ELU,
    "GELU": nn.GELU,
    "SiLU": nn.SiLU,
}
"""What a plan may name; nothing else is looked up, so a plan runs no code."""
_NEGATIVE_SLOPE = 0.01


def find_layer(name: str) -> type[nn.Module]:
    """The layer that a plan names by its dotted path, such as ``torch.nn.modules.conv.Conv3d``.

    Raises:
        ValueError: It is two-dimensional, or none of nnU-Net's.
    """
    path, _, short = name.rpartition(".")
    if short.endswith(("1d", "2d")):
        raise ValueError(f"{name!r} is of a {short[-2]}-D configuration; only 3d_fullres and 3d_lowres ones are built")
    if short not in _LAYERS or not (path == "" or path == "torch.nn" or path.startswith("torch.nn.modules.")):
        raise ValueError(f"{name!r} is no layer known here; there are {', '.join(_LAYERS)}")
    return _LAYERS[short]


@dataclass(frozen=True)
class Style:
    """What all convolution blocks of a network have in common.

    Attributes:
        bias: Of convolutions.
        norm, dropout, nonlin: Make a layer (the first from its number of channels), or None for none.
        nonlin_first: Normalise after the nonlinearity.
    """

    bias: bool
    norm: Callable[[int], nn.Module] | None
    dropout: Callable[[], nn.Module] | None
    nonlin: Callable[[], nn.Module] | None
    nonlin_first: bool = False


class Levels(NamedTuple):
    """Shape of a network, finest level first.

    Attributes:
        features: Channels.
        kernels: Kernel sizes.
        strides: With which the level is reached from the one above.
    """

    features: list[int]
    kernels: list[Kernel]
    strides: list[Kernel]


def read_style(
    conv_bias: bool,
    norm: tuple[str | None, Mapping[str, Any] | None],
    dropout: tuple[str | None, Mapping[str, Any] | None],
    nonlin: tuple[str | None, Mapping[str, Any] | None],
    nonlin_first: bool = False,
) -> Style:
    """A style from the names and arguments in a plan.

    Raises:
        ValueError: A layer is unknown.
    """

    def maker(named: tuple[str | None, Mapping[str, Any] | None]) -> Callable[..., nn.Module] | None:
        if named[0] is None:
            return None
        layer, arguments = find_layer(named[0]), dict(named[1] or {})
        return lambda *sizes: layer(*sizes, **arguments)

    return Style(conv_bias, maker(norm), maker(dropout), maker(nonlin), nonlin_first)


class ConvBlock(nn.Module):
    """Convolution, dropout, normalisation, nonlinearity.

    Args:
        n_in: Input channels.
        n_out: Output channels.
        kernel: Size, odd.
        stride: Of the convolution.
        style: Layers around it.
    """

    def __init__(self, n_in: int, n_out: int, kernel: Kernel, stride: Kernel, style: Style) -> None:
        super().__init__()
        size = per_axis(kernel)
        padding = (size[0] // 2, size[1] // 2, size[2] // 2)
        self.conv = nn.Conv3d(n_in, n_out, size, per_axis(stride), padding, bias=style.bias)
        order = ["conv"]
        if style.dropout is not None:
            self.dropout = style.dropout()
            order.append("dropout")
        if style.norm is not None:
            self.norm = style.norm(n_out)
            order.append("norm")
        if style.nonlin is not None:
            self.nonlin = style.nonlin()
            order.append("nonlin")
        if style.nonlin_first and order[-2:] == ["norm", "nonlin"]:
            order[-2:] = ["nonlin", "norm"]
        self._order = tuple(order)
        # the second name of each layer in checkpoints
        self.all_modules = nn.Sequential(*(getattr(self, name) for name in order))

    def forward(self, x: Tensor) -> Tensor:
        """Feature map of (B, n_in, I, J, K)."""
        # by the first names, so that a layer that is put in the place of another is used
        for name in self._order:
            x = getattr(self, name)(x)
        return x


class StackedConvs(nn.Module):
    """Convolution blocks in a row; the first one strides."""

    def __init__(self, n_blocks: int, n_in: int, n_out: int, kernel: Kernel, stride: Kernel, style: Style) -> None:
        super().__init__()
        first = ConvBlock(n_in, n_out, kernel, stride, style)
        self.convs = nn.Sequential(first, *(ConvBlock(n_out, n_out, kernel, 1, style) for _ in range(n_blocks - 1)))

    def forward(self, x: Tensor) -> Tensor:
        """Feature map of (B, n_in, I, J, K)."""
        result: Tensor = self.convs(x)
        return result


class ResidualBlock(nn.Module):
    """Two convolutions and a shortcut that is pooled and projected where shapes differ (ResNet-D).

    References:
        He et al. 2019, arXiv:1812.01187.
    """

    def __init__(self, n_in: int, n_out: int, kernel: Kernel, stride: Kernel, style: Style) -> None:
        super().__init__()
        self.conv1 = ConvBlock(n_in, n_out, kernel, stride, style)
        bare = Style(style.bias, style.norm, None, None)
        self.conv2 = ConvBlock(n_out, n_out, kernel, 1, bare)
        self.nonlin2 = style.nonlin() if style.nonlin is not None else nn.Identity()
        steps = per_axis(stride)
        skip: list[nn.Module] = [nn.AvgPool3d(steps, steps)] if steps != (1, 1, 1) else []
        if n_in != n_out:
            skip.append(ConvBlock(n_in, n_out, 1, 1, Style(False, style.norm, None, None)))
        self.skip = nn.Sequential(*skip)

    def forward(self, x: Tensor) -> Tensor:
        """Feature map of (B, n_in, I, J, K)."""
        result: Tensor = self.nonlin2(self.conv2(self.conv1(x)) + self.skip(x))
        return result


class StackedResiduals(nn.Module):
    """Residual blocks in a row; the first one strides."""

    def __init__(self, n_blocks: int, n_in: int, n_out: int, kernel: Kernel, stride: Kernel, style: Style) -> None:
        super().__init__()
        first = ResidualBlock(n_in, n_out, kernel, stride, style)
        rest = (ResidualBlock(n_out, n_out, kernel, 1, style) for _ in range(n_blocks - 1))
        self.blocks = nn.Sequential(first, *rest)

    def forward(self, x: Tensor) -> Tensor:
        """Feature map of (B, n_in, I, J, K)."""
        result: Tensor = self.blocks(x)
        return result


class LevelHeads(nn.ModuleList):
    """A head for each level, coarsest first, of which the last one is used."""

    def forward(self, x: Tensor) -> Tensor:
        """Logits of the finest level's feature map."""
        result: Tensor = self[-1](x)
        return result


class Decoder(nn.Module):
    """Back up to the input's grid.

    It holds the encoder under a second name, and a head for each level, because checkpoints do. Only the last head is
    used: the others come along unchanged, so that what was read can be written again.

    Args:
        encoder: Gives one feature map a level, finest first.
        levels: Of the encoder.
        n_convs: Blocks of each level, deepest first.
        n_outputs: Classes.
        style: Of convolution blocks.
    """

    def __init__(
        self,
        encoder: nn.Module,
        levels: Levels,
        n_convs: Sequence[int],
        n_outputs: int,
        style: Style,
    ) -> None:
        super().__init__()
        self.encoder = encoder
        upwards = range(len(levels.features) - 2, -1, -1)
        ups, convs = [], []
        for n_blocks, level in zip(n_convs, upwards, strict=True):
            step, n = per_axis(levels.strides[level + 1]), levels.features[level]
            ups.append(nn.ConvTranspose3d(levels.features[level + 1], n, step, step, bias=style.bias))
            convs.append(StackedConvs(n_blocks, 2 * n, n, levels.kernels[level], 1, style))
        self.stages = nn.ModuleList(convs)
        self.transpconvs = nn.ModuleList(ups)
        self.seg_layers = LevelHeads(nn.Conv3d(levels.features[level], n_outputs, 1) for level in upwards)

    def forward(self, maps: Sequence[Tensor]) -> Tensor:
        """Logits on the grid of the first map."""
        x = maps[-1]
        for up, convs, skip in zip(self.transpconvs, self.stages, reversed(maps[:-1]), strict=True):
            x = convs(torch.cat((up(x), skip), dim=1))
        result: Tensor = self.seg_layers(x)
        return result


def initialise(network: nn.Module) -> None:
    """Fresh weights as nnU-Net draws them: He's for convolutions, residual branches that begin at zero."""
    for part in network.modules():
        if isinstance(part, nn.Conv3d | nn.ConvTranspose3d):
            nn.init.kaiming_normal_(part.weight, a=_NEGATIVE_SLOPE)
            if part.bias is not None:
                nn.init.zeros_(part.bias)
    for part in network.modules():
        norm = getattr(part.conv2, "norm", None) if isinstance(part, ResidualBlock) else None
        if norm is not None and norm.weight is not None:
            nn.init.zeros_(norm.weight)
            nn.init.zeros_(norm.bias)
