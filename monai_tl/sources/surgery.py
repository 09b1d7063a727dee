"""What becomes of each tensor: taken over, adapted to other channels or classes, or left fresh."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from torch import Tensor

from monai_tl.networks.heads import Axes, adapt_channels, reuse_rows


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
        value: What will be written; None leaves it fresh.
        share: Of its entries, how many come from the source.
    """

    name: str
    group: str
    n_parameters: int
    status: Literal["matched", "adapted", "fresh"] = "fresh"
    detail: str = "not in the source"
    source_name: str = ""
    value: Tensor | None = None
    share: float = 0.0

    @property
    def n_came(self) -> float:
        """Parameters that come from the source."""
        return self.n_parameters * self.share


@dataclass(frozen=True)
class Surgery:
    """All that decides about one tensor."""

    state: Mapping[str, Tensor]
    channel_axes: Axes
    class_axes: Axes
    head: str
    heads: Heads
    reused: set[str] = field(default_factory=set)

    def decide(self, line: Line, fresh: Tensor) -> None:
        """Fill in a line whose tensor was found in the source."""
        source = self.state[line.source_name]
        dtype = "" if source.dtype == fresh.dtype else f"{source.dtype} to {fresh.dtype}".replace("torch.", "")
        if line.name in self.class_axes and not self.heads.agree:
            self._decide_rows(line, source, fresh)
        elif source.shape == fresh.shape:
            line.status, line.detail, line.value, line.share = "matched", dtype, source.to(fresh.dtype), 1.0
        elif self._only_channels_differ(line.name, source, fresh):
            axis = self.channel_axes[line.name][0]
            line.value = adapt_channels(source.to(fresh.dtype), axis, fresh.shape[axis])
            line.status, line.share = "adapted", 1.0
            line.detail = f"input channels {source.shape[axis]} to {fresh.shape[axis]}, sum kept"
        else:
            line.detail = f"shape {tuple(source.shape)} in the source, {tuple(fresh.shape)} here"

    def _decide_rows(self, line: Line, source: Tensor, fresh: Tensor) -> None:
        rows = reuse_rows(source, fresh, self.class_axes[line.name], self.heads.source, self.heads.target)
        if rows is None:
            line.detail = f"other classes: {', '.join(self.heads.source)}"
            return
        known = {name.casefold() for name in self.heads.source}
        reused = [name for name in self.heads.target if name.casefold() in known]
        self.reused.update(reused)
        line.status, line.value, line.share = "adapted", rows.tensor, rows.n_reused / fresh.numel()
        line.detail = f"class rows reused by name: {', '.join(reused)}"

    def _only_channels_differ(self, name: str, source: Tensor, fresh: Tensor) -> bool:
        axes = self.channel_axes.get(name, ())
        if len(axes) != 1 or source.ndim != fresh.ndim or fresh.ndim < 3:
            return False
        return all(source.shape[axis] == fresh.shape[axis] for axis in range(fresh.ndim) if axis not in axes)
