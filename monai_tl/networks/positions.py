"""Position embeddings and window tables brought to other grids."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from monai.networks.blocks.patchembedding import PatchEmbeddingBlock
from torch import Tensor, nn
from torch.nn import functional

Grid = tuple[int, ...]
TABLE, INDEX = "relative_position_bias_table", "relative_position_index"


def _resample(volume: Tensor, source: Grid, target: Grid, corners: bool) -> Tensor:
    """(C, *source) → (C, *target), trilinear; a 2-D source is constant along the last axis of the target."""
    flat = volume.reshape(1, -1, *source, *([1] * (len(target) - len(source))))
    if flat.ndim == 4:
        return functional.interpolate(flat, size=target, mode="bilinear", align_corners=corners)[0]
    return functional.interpolate(flat, size=target, mode="trilinear", align_corners=corners)[0]


def resize_positions(tokens: Tensor, source: Grid, target: Grid) -> Tensor:
    """Interpolate position embeddings on the grid of tokens.

    A token stands for a cell, so cell centres are what is interpolated between; beyond the outermost centres the
    nearest embedding holds.

    Args:
        tokens: (1, N, C), N the product of ``source``, the last axis running fastest.
        source: Grid of the tokens, 2 or 3 axes; of 2 axes, the embeddings are repeated along the third.
        target: Grid wanted.

    Returns:
        (1, M, C), M the product of ``target``.
    """
    resized = _resample(tokens[0].T, source, target, corners=False)
    return resized.flatten(1).T.unsqueeze(0).contiguous()


def resize_window_table(table: Tensor, source: Grid, target: Grid) -> Tensor:
    """Interpolate a table of relative position biases.

    Its entries belong to the offsets −(w−1) … w−1 along each axis; offsets are compared as a share of the largest, so
    the largest stays the largest and no offset stays none. A 2-D table is repeated along the third axis.

    Args:
        table: (product of 2w−1 over the axes, heads), the last axis running fastest.
        source: Window, 2 or 3 axes.
        target: Window wanted.

    Returns:
        (product of 2w'−1, heads).
    """
    old, new = (tuple(2 * size - 1 for size in window) for window in (source, target))
    return _resample(table.T, old, new, corners=True).flatten(1).T.contiguous()


def guess_grid(n_entries: int, n_axes: int) -> Grid | None:
    """The grid of equal sides with so many entries; None where there is none."""
    side = round(n_entries ** (1 / n_axes))
    return (side,) * n_axes if side**n_axes == n_entries else None


def guess_window(n_rows: int, n_axes: int) -> Grid | None:
    """The window of equal sides whose table has so many rows; None where there is none."""
    widths = guess_grid(n_rows, n_axes)
    return None if widths is None or widths[0] % 2 == 0 else tuple((width + 1) // 2 for width in widths)


def windows_of(module: nn.Module) -> dict[str, Grid]:
    """Name of each window table → its window."""
    return {
        f"{name}.{TABLE}": tuple(int(size) for size in part.window_size)
        for name, part in module.named_modules()
        if isinstance(getattr(part, TABLE, None), nn.Parameter)
        and isinstance(getattr(part, "window_size", None), Sequence)
    }


def _patch_size(block: PatchEmbeddingBlock) -> Grid:
    if isinstance(block.patch_embeddings, nn.Conv3d):
        return tuple(block.patch_embeddings.kernel_size)
    lengths: Mapping[str, int] = block.patch_embeddings[0].axes_lengths
    return tuple(lengths[axis] for axis in sorted(lengths))


def token_grids_of(module: nn.Module, arguments: Mapping[str, Any]) -> dict[str, Grid]:
    """Name of each table of position embeddings → the grid of its tokens, where the image size or a cube tells it."""
    size = arguments.get("img_size")
    grids = {}
    for name, part in module.named_modules():
        if isinstance(part, PatchEmbeddingBlock):
            grid, n_tokens = guess_grid(int(part.n_patches), 3), int(part.n_patches)
            if size is not None:
                sides = (size,) * 3 if isinstance(size, int) else tuple(size)
                by_size = tuple(side // patch for side, patch in zip(sides, _patch_size(part), strict=True))
                grid = by_size if math.prod(by_size) == n_tokens else None
            if grid is not None:
                grids[f"{name}.position_embeddings" if name else "position_embeddings"] = grid
    return grids


def pixel_axes_of(module: nn.Module) -> dict[str, Grid]:
    """Name of each linear patch embedding's weight → the patch whose pixels lie along its axis 1, channels fastest."""
    return {
        f"{name}.patch_embeddings.1.weight" if name else "patch_embeddings.1.weight": _patch_size(part)
        for name, part in module.named_modules()
        if isinstance(part, PatchEmbeddingBlock) and isinstance(part.patch_embeddings, nn.Sequential)
    }
