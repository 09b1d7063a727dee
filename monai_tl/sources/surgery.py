"""What becomes of each tensor: taken over, adapted to another shape, or left fresh."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import Tensor

from monai_tl.networks.heads import Axes, adapt_channels, adapt_pixels, keep_sigmoids, repeat_outputs, reuse_rows
from monai_tl.networks.inflation import inflate_kernel
from monai_tl.networks.layout import Layout
from monai_tl.networks.positions import Grid, guess_grid, guess_window, resize_positions, resize_window_table

FLAT = "2-D kernel brought to 3-D along axis K, taps inside the volume"
"""Said of each convolution of a 2-D source."""


@dataclass(frozen=True)
class Heads:
    """What the outputs of source and target stand for, row by row; background first where there is one."""

    source: tuple[str, ...]
    target: tuple[str, ...]

    @property
    def agree(self) -> bool:
        """Whether both have the same classes in the same order."""
        return [row.casefold() for row in self.source] == [row.casefold() for row in self.target]


@dataclass
class Line:
    """A tensor of the network and what it is to hold.

    Attributes:
        n_parameters: Its size; 0 for a buffer, so that shares count parameters.
        n_bytes: Its size in memory.
        value: What will be written; None leaves it fresh.
        share: Of its entries, how many come from the source.
    """

    name: str
    group: str
    n_parameters: int
    n_bytes: int = 0
    status: Literal["matched", "adapted", "fresh"] = "fresh"
    detail: str = "not in the source"
    source_name: str = ""
    value: Tensor | None = None
    share: float = 0.0

    @property
    def n_came(self) -> float:
        """Parameters that come from the source."""
        return self.n_parameters * self.share

    def leave_fresh(self, reason: str) -> None:
        """Let the tensor keep its fresh values."""
        self.status, self.value, self.share, self.detail = "fresh", None, 0.0, reason


class _Refused(Exception):
    """A tensor cannot be adapted; the text says why."""


@dataclass(frozen=True)
class Surgery:
    """All that decides about one tensor.

    Attributes:
        state: The source's tensors.
        n_channels: Input channels of the network.
        layout: Of the network.
        source_layout: Of the network that the source's card names; None where it is not known.
        is_flat: The source's convolutions are 2-D.
    """

    state: Mapping[str, Tensor]
    n_channels: int
    channel_axes: Axes
    class_axes: Axes
    head: str
    heads: Heads
    layout: Layout = field(default_factory=Layout)
    source_layout: Layout | None = None
    is_flat: bool = False
    reused: set[str] = field(default_factory=set)

    def decide(self, line: Line, fresh: Tensor) -> None:
        """Fill in a line whose tensor was found in the source."""
        try:
            source, converted = _convert(self.state[line.source_name], fresh)
            if line.name in self.class_axes and not self.heads.agree:
                self._decide_rows(line, source, fresh)
                return
            value, done = self._adapt(line.name, source, fresh)
        except _Refused as reason:
            line.detail = str(reason)
            return
        line.status, line.share = "adapted" if done else "matched", 1.0
        line.value, line.detail = value, "; ".join([*done, *converted])

    def _decide_rows(self, line: Line, source: Tensor, fresh: Tensor) -> None:
        rows = reuse_rows(source, fresh, self.class_axes[line.name], self.heads.source, self.heads.target)
        if rows is None:
            raise _Refused(f"other classes: {', '.join(self.heads.source)}" if self.heads.source else "a new head")
        known = {name.casefold() for name in self.heads.source}
        reused = [name for name in self.heads.target if name.casefold() in known]
        self.reused.update(reused)
        line.status, line.value, line.share = "adapted", rows.tensor, rows.n_reused / fresh.numel()
        line.detail = f"class rows reused by name: {', '.join(reused)}"
        if self._is_projection() and keep_sigmoids(rows.tensor, self.heads.source, self.heads.target):
            line.detail += "; background zero, so that softmax gives the source's sigmoid"

    def _is_projection(self) -> bool:
        """Whether the class rows are those of one last layer, so that they give the logits themselves."""
        layers = {name.rpartition(".")[0] for name in self.class_axes}
        return len(layers) == 1 and all(axes == (0,) for axes in self.class_axes.values())

    def _adapt(self, name: str, source: Tensor, fresh: Tensor) -> tuple[Tensor, list[str]]:
        """The tensor in the network's shape, and what was done to it."""
        if name in self.layout.computed:
            if torch.equal(source, fresh):
                return source, []
            raise _Refused("is computed from the network's arguments, not taken over")
        if name in self.layout.windows:
            return self._resize_window(name, source, fresh)
        if name in self.layout.token_grids:
            return self._resize_tokens(name, source, fresh)
        value, done = source, []
        convolution = self.layout.convolutions.get(name)
        if convolution is not None and source.ndim == 4:
            if source.shape[2:] != fresh.shape[2:4]:
                raise _Refused(
                    f"kernel {_by(source.shape[2:])} in the source, {_by(fresh.shape[2:])} here: not adapted"
                )
            value = inflate_kernel(source, convolution)
            done.append(FLAT)
        if value.shape != fresh.shape or self._other_patch(name):
            value, words = self._adapt_channels(name, value, fresh)
            done.append(words)
        return value, done

    def _other_patch(self, name: str) -> bool:
        """Pixels times channels may agree where neither does."""
        known = self.source_layout.patches if self.source_layout else {}
        return name in known and known[name] != self.layout.patches.get(name)

    def _adapt_channels(self, name: str, source: Tensor, fresh: Tensor) -> tuple[Tensor, str]:
        axes = self.channel_axes.get(name, ())
        unlike = f"shape {tuple(source.shape)} in the source, {tuple(fresh.shape)} here"
        if source.ndim != fresh.ndim or any(
            source.shape[axis] != fresh.shape[axis] for axis in range(fresh.ndim) if axis not in axes
        ):
            if name in self.layout.convolutions and source.shape[:2] == fresh.shape[:2] and source.ndim == fresh.ndim:
                raise _Refused(
                    f"kernel {_by(source.shape[2:])} in the source, {_by(fresh.shape[2:])} here: not adapted"
                )
            raise _Refused(unlike)
        if name in self.layout.patches:
            return self._adapt_patch(name, source, fresh)
        words = ""
        for axis in axes:
            n_source, n_target = source.shape[axis], fresh.shape[axis]
            words = f"input channels {n_source} to {n_target}, sum kept"
            if self.layout.output_axes.get(name) != axis:
                source = adapt_channels(source, axis, n_target)
            elif n_target == self.n_channels and n_source < n_target:
                source, words = repeat_outputs(source, axis, n_target), f"channels {n_source} to {n_target}, repeated"
            else:
                raise _Refused(f"{unlike}: filters of single channels cannot be merged")
        if source.shape != fresh.shape:
            raise _Refused(unlike)
        return source, words

    def _adapt_patch(self, name: str, source: Tensor, fresh: Tensor) -> tuple[Tensor, str]:
        n_pixels = math.prod(self.layout.patches[name])
        if self._other_patch(name) or source.shape[1] % n_pixels:
            raise _Refused(f"patches of other size than {_by(self.layout.patches[name])}: not adapted")
        words = f"input channels {source.shape[1] // n_pixels} to {self.n_channels}, sum kept"
        return adapt_pixels(source, n_pixels, self.n_channels), words

    def _resize_window(self, name: str, source: Tensor, fresh: Tensor) -> tuple[Tensor, list[str]]:
        window = self.layout.windows[name]
        known = self.source_layout.windows.get(name) if self.source_layout and not self.is_flat else None
        if known is None and source.shape == fresh.shape:
            known = window
        known = known or guess_window(source.shape[0], 2 if self.is_flat else 3)
        rows = math.prod(2 * size - 1 for size in known) if known else 0
        if known is None or source.shape != (rows, fresh.shape[-1]):
            raise _Refused(
                f"shape {tuple(source.shape)} in the source, {tuple(fresh.shape)} here; its window is unknown"
            )
        if known == window:
            return source, []
        return resize_window_table(source, known, window), [f"window {_by(known)} to {_by(window)}, interpolated"]

    def _resize_tokens(self, name: str, source: Tensor, fresh: Tensor) -> tuple[Tensor, list[str]]:
        grid = self.layout.token_grids[name]
        known = self.source_layout.token_grids.get(name) if self.source_layout and not self.is_flat else None
        if source.ndim != 3 or source.shape[0] != 1 or source.shape[2] != fresh.shape[2]:
            raise _Refused(f"shape {tuple(source.shape)} in the source, {tuple(fresh.shape)} here")
        if known is None and source.shape == fresh.shape and not self.is_flat:
            known = grid
        known, source, done = _split_class_token(source, known, 2 if self.is_flat else 3)
        if known != grid:
            source = resize_positions(source, known, grid)
            done.append(f"tokens {_by(known)} to {_by(grid)}, interpolated")
        return source, done


def _split_class_token(source: Tensor, known: Grid | None, n_axes: int) -> tuple[Grid, Tensor, list[str]]:
    """Grid of the tokens, and the tokens without that of a class, which published ViTs put first."""
    n_tokens = source.shape[1]
    grid = known or guess_grid(n_tokens, n_axes)
    if grid is not None and math.prod(grid) == n_tokens:
        return grid, source, []
    grid = known or guess_grid(n_tokens - 1, n_axes)
    if grid is not None and math.prod(grid) == n_tokens - 1:
        return grid, source[:, 1:], ["class token left out"]
    raise _Refused(
        f"{n_tokens} tokens in the source, whose grid is unknown: state the img_size of its "
        "training in the card, and yours in plan.network"
    )


def _convert(source: Tensor, fresh: Tensor) -> tuple[Tensor, list[str]]:
    """The source's numbers in the network's type; refused where they would not be the same numbers any more."""
    if source.dtype == fresh.dtype:
        return source, []
    words = f"{source.dtype} to {fresh.dtype}".replace("torch.", "")
    if source.is_complex() or source.dtype == torch.bool:
        raise _Refused(f"{words} would not keep the numbers")
    # a counter of batches may be stored as a float; weights stored as integers lack their scale
    other_kind = source.is_floating_point() != fresh.is_floating_point()
    if other_kind and (source.ndim or not torch.equal(source, source.to(fresh.dtype).to(source.dtype))):
        raise _Refused(f"{words} would not keep the numbers")
    value = source.to(fresh.dtype)
    if value.is_floating_point() and not bool(torch.isfinite(value).all()):
        raise _Refused(f"{words} overflows")
    return value, [words]


def _by(sizes: torch.Size | Grid) -> str:
    return "×".join(str(size) for size in sizes)
