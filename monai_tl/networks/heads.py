"""Heads for other classes, and first layers for other channels: surgery on weight tensors."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn

from monai_tl.config import NetworkConfig
from monai_tl.errors import ConfigError
from monai_tl.networks.builders import build_network
from monai_tl.networks.groups import named_tensors

BACKGROUND = "background"
Axes = dict[str, tuple[int, ...]]
"""Tensor name → its axes that have one entry a class (or an input channel)."""
Shapes = dict[str, tuple[int, ...]]


class ReusedRows(NamedTuple):
    """Class rows brought to another head.

    Attributes:
        tensor: Of the target's shape: reused rows from the source, the others as they were.
        n_reused: Entries that came from the source.
    """

    tensor: Tensor
    n_reused: int


def output_rows(classes: Sequence[str], output: Literal["softmax", "sigmoid", "features"]) -> tuple[str, ...]:
    """What each output channel stands for; softmax has the background first, features stand for no class."""
    if output == "features":
        return ()
    return ((BACKGROUND,) if output == "softmax" else ()) + tuple(classes)


def find_axes(config: NetworkConfig, n_channels: int, n_outputs: int) -> tuple[Axes, Axes]:
    """Which axes of which tensors follow the number of input channels and of outputs.

    Found by building the network with twice as many of each (without memory) and comparing shapes, so it holds for
    plug-ins and for heads that are more than one convolution. Twice, not one more, because group normalisation asks for
    multiples; thrice as well where a tensor is then lost, as a shortcut is whose inputs become as many as its outputs.

    A network that cannot be built with more channels has no channel axes.

    Returns:
        Channel axes and class axes.
    """
    plain = _shapes(config, n_channels, n_outputs)
    return (
        _following(plain, lambda factor: _shapes(config, factor * n_channels, n_outputs)),
        _following(plain, lambda factor: _shapes(config, n_channels, factor * n_outputs)),
    )


def _following(plain: Shapes, multiply: Callable[[int], Shapes]) -> Axes:
    axes: Axes = {}
    for factor in (2, 3):
        # what a network refuses is too many channels, or outputs, for its other arguments
        with suppress(ConfigError):
            larger = multiply(factor)
            axes = _grown(plain, larger) | axes
            if plain.keys() <= larger.keys():
                break
    return axes


def sketch_network(config: NetworkConfig, n_channels: int, n_outputs: int) -> nn.Module:
    """A network whose shapes are right and whose values are not to be used; it takes no memory where that can be.

    Raises:
        ConfigError, SourceError: See ``build_network``.
    """
    try:
        return build_network(config, n_channels, n_outputs, seed=0, weightless=True)
    except ConfigError:
        # a constructor that looks at its own values needs real memory
        return build_network(config, n_channels, n_outputs, seed=0)


def _shapes(config: NetworkConfig, n_channels: int, n_outputs: int) -> Shapes:
    module = sketch_network(config, n_channels, n_outputs)
    return {name: tuple(tensor.shape) for name, tensor in named_tensors(module).items()}


def _grown(plain: Shapes, other: Shapes) -> Axes:
    pairs = {name: (shape, other.get(name, shape)) for name, shape in plain.items()}
    return {
        name: tuple(axis for axis in range(len(one)) if one[axis] != two[axis])
        for name, (one, two) in pairs.items()
        if one != two and len(one) == len(two)
    }


def reuse_rows(
    source: Tensor, target: Tensor, axes: Sequence[int], source_rows: Sequence[str], target_rows: Sequence[str]
) -> ReusedRows | None:
    """Copy the entries of classes that both heads name.

    Args:
        source: A tensor of the source's head.
        target: The same tensor of the new head, with fresh values.
        axes: Axes with one entry a class.
        source_rows: Class of each of the source's entries; names are compared without regard to case.
        target_rows: Class of each of the target's entries.

    Returns:
        None when no foreground class agrees or another axis differs. The background alone is not reused: it means
        something else beside other classes.
    """
    wanted = [name.casefold() for name in source_rows]
    pairs = [(wanted.index(name.casefold()), k) for k, name in enumerate(target_rows) if name.casefold() in wanted]
    other_axes = [axis for axis in range(target.ndim) if axis not in axes]
    agreeing = {wanted[here] for here, _ in pairs} - {BACKGROUND}
    if (
        not agreeing
        or source.ndim != target.ndim
        or any(source.shape[axis] != target.shape[axis] for axis in other_axes)
    ):
        return None
    result, rows = target.detach().clone(), source.to(target.dtype)
    here, there = torch.tensor([pair[0] for pair in pairs]), torch.tensor([pair[1] for pair in pairs])
    for axis in axes:
        rows = rows.index_select(axis, here)
    grids = torch.meshgrid(*([there] * len(axes)), indexing="ij")
    moved = result.movedim(tuple(axes), tuple(range(len(axes))))
    moved[tuple(grids)] = rows.movedim(tuple(axes), tuple(range(len(axes))))
    return ReusedRows(result, rows.numel())


def keep_sigmoids(rows: Tensor, source_rows: Sequence[str], target_rows: Sequence[str]) -> bool:
    """Set the background's row to zero, in place, where the source has sigmoids and so no such row.

    Softmax of (0, z) is the sigmoid of z, so a reused row gives the probability that it gave; beside a random row it
    would not.

    Args:
        rows: (n_target, …) weight or bias of a last layer, of ``reuse_rows``.
        source_rows: Class of each of the source's rows.
        target_rows: Class of each row.

    Returns:
        Whether there was anything to do.
    """
    if BACKGROUND in (name.casefold() for name in source_rows) or target_rows[0].casefold() != BACKGROUND:
        return False
    rows[0] = 0.0
    return True


def adapt_channels(weight: Tensor, axis: int, n_channels: int) -> Tensor:
    """Change the number of input channels of a convolution so that its response to a grey image stays.

    More channels: each source channel is dealt out in turn and divided by how often it occurs. Fewer: the channels that
    fall on the same place are added. Either way the sum over the channel axis is unchanged, and with it the response to
    an image whose channels are all equal.

    Args:
        weight: Any shape; the channel axis has n entries.
        axis: The channel axis.
        n_channels: Entries wanted, m.

    Returns:
        Like ``weight`` with m entries along ``axis``.
    """
    n_source = weight.shape[axis]
    longest = max(n_source, n_channels)
    deal = torch.arange(longest)
    share = torch.bincount(deal % n_source, minlength=n_source).to(weight.dtype)
    mixing = torch.zeros(n_channels, n_source, dtype=weight.dtype)
    for position in range(longest):
        origin = position % n_source
        mixing[position % n_channels, origin] += 1 / share[origin]
    mixed: Tensor = torch.tensordot(mixing, weight, dims=([1], [axis]))
    return mixed.movedim(0, axis).contiguous()


def adapt_pixels(weight: Tensor, n_pixels: int, n_channels: int) -> Tensor:
    """Change the input channels of a linear patch embedding; see ``adapt_channels``.

    Args:
        weight: (C, n_pixels · n), for each pixel its n channels.
        n_pixels: Of a patch.
        n_channels: Wanted, m.

    Returns:
        (C, n_pixels · m).
    """
    return adapt_channels(weight.reshape(weight.shape[0], n_pixels, -1), 2, n_channels).flatten(1)


def repeat_outputs(tensor: Tensor, axis: int, n_channels: int) -> Tensor:
    """Give a layer that treats each input channel by itself more of them: the outputs are repeated in turn.

    The layer that mixes them divides (``adapt_channels`` deals them out in the same order), so this one must not.

    Args:
        tensor: Any shape, n entries along ``axis``.
        axis: Counts outputs.
        n_channels: Wanted, m > n.
    """
    return tensor.index_select(axis, torch.arange(n_channels) % tensor.shape[axis])
