"""What a network's layers say of single voxels: features at sampled positions, window by window."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from monai_tl.errors import SourceError
from monai_tl.geometry import Shape
from monai_tl.networks.groups import LayerGroup, is_below
from monai_tl.networks.windows import window_size
from monai_tl.records import SizeRule

HEAD_INPUT = "head input"
"""What the head sees, beside the outputs of the layer groups."""
_OVERLAP = 0.25
"""Of neighbouring windows: a voxel is looked at in the window in which it lies most central."""

Positions = NDArray[np.int64]


@dataclass
class _Catch:
    """What the hooks saw of one window.

    Attributes:
        grid: (1, n, 1, 1, 3) where to look, in the coordinates of ``grid_sample``.
        n_voxels: Of the layer's output, for each layer.
    """

    grid: Tensor
    values: dict[str, Tensor] = field(default_factory=dict)
    n_voxels: dict[str, int] = field(default_factory=dict)

    def keep(self, layer: str, output: Any) -> None:
        """Sample a layer's output now: layers that work in place would change it later."""
        volume = _last_volume(output)
        if volume is not None:
            found = functional.grid_sample(
                volume.float().contiguous(), self.grid, mode="bilinear", padding_mode="border", align_corners=False
            )
            self.values[layer] = found[0, :, :, 0, 0].T.cpu()
            self.n_voxels[layer] = volume[0, 0].numel()


def _last_volume(output: Any) -> Tensor | None:
    """The last (1, C, I, J, K) in what a layer gives: some give several resolutions, and attention splits its heads."""
    if isinstance(output, Tensor):
        return output if output.ndim == 5 and len(output) == 1 else None
    if isinstance(output, Mapping):
        output = list(output.values())
    found = [_last_volume(item) for item in output] if isinstance(output, list | tuple) else []
    return next((item for item in reversed(found) if item is not None), None)


@dataclass(frozen=True)
class LayerFeatures:
    """Features of one case.

    Attributes:
        values: Layer → (n, d) float32, layers from input to output; the head's input last under HEAD_INPUT.
        n_voxels: Layer → voxels of its output in one window, which tells its resolution.
    """

    values: dict[str, NDArray[np.float32]]
    n_voxels: dict[str, int]


def decoder_layers(n_voxels: Mapping[str, int]) -> tuple[str, ...]:
    """The layers that lead from the coarsest one to the head.

    Args:
        n_voxels: As ``LayerFeatures`` has it.

    Returns:
        The groups after the (last) coarsest one, of which HEAD_INPUT stands for the last; HEAD_INPUT alone for a
        network without resolutions.
    """
    body = [name for name in n_voxels if name != HEAD_INPUT]
    coarsest = max((index for index, name in enumerate(body) if n_voxels[name] == min(n_voxels[b] for b in body)),
                   default=0)  # fmt: skip
    return (*body[coarsest + 1 : -1], HEAD_INPUT)


def sample_features(
    network: nn.Module,
    groups: Sequence[LayerGroup],
    image: NDArray[Any],
    positions: Positions,
    patch_size_vox: Shape,
    size_rule: SizeRule,
) -> LayerFeatures:
    """Features of voxels in each layer group's output, trilinearly interpolated where a layer is coarser.

    Only windows that hold a position are computed, and of each layer only the positions are kept.

    Args:
        network: In eval mode.
        groups: From input to output; the last is the head.
        image: (C, I, J, K) on the plan's grid and intensity scale; may be memory-mapped.
        positions: (n, 3) voxels of the image.
        patch_size_vox: As in prediction.
        size_rule: Likewise.

    Returns:
        Rows in the order of ``positions``. A group whose layers give no volume is left out.

    Raises:
        SourceError: The head is given no volume.
    """
    size = window_size(image.shape[1:], patch_size_vox, size_rule)
    starts = _nearest_starts(positions, image.shape[1:], size)
    members: dict[Shape, list[int]] = defaultdict(list)
    for row, (i, j, k) in enumerate(starts.tolist()):
        members[i, j, k].append(row)
    device = next(network.parameters()).device
    values: dict[str, NDArray[np.float32]] = {}
    n_voxels: dict[str, int] = {}
    for start, rows in sorted(members.items()):
        window = _cut_window(image, start, size, size_rule.padding)
        local = positions[rows] - np.asarray(start)
        catch = _Catch(_grid(local, size).to(device))
        with torch.inference_mode(), _watched(network, groups, catch):
            network(torch.from_numpy(window)[None].to(device))
        if HEAD_INPUT not in catch.values:
            raise SourceError(f"the head of {type(network).__name__} is given no volume, so no features can be taken")
        for layer, found in catch.values.items():
            values.setdefault(layer, np.empty((len(positions), found.shape[1]), np.float32))[rows] = found.numpy()
        n_voxels |= catch.n_voxels
    order = [group.name for group in groups[:-1] if group.name in values] + [HEAD_INPUT]
    return LayerFeatures({name: values[name] for name in order}, {name: n_voxels[name] for name in order})


@contextmanager
def _watched(network: nn.Module, groups: Sequence[LayerGroup], catch: _Catch) -> Iterator[None]:
    """Hooks on every module of the groups: the last to finish gives a group's output, the head's first its input."""
    body = [(group.name, group.prefixes) for group in groups[:-1]]
    handles = []

    def watch(layer: str) -> Any:
        return lambda _module, _inputs, output: catch.keep(layer, output)

    def see_head(_module: nn.Module, inputs: tuple[Any, ...]) -> None:
        if HEAD_INPUT not in catch.values:
            catch.keep(HEAD_INPUT, inputs)

    for name, module in network.named_modules():
        handles += [module.register_forward_hook(watch(layer)) for layer, prefixes in body if is_below(name, prefixes)]
        if is_below(name, groups[-1].prefixes):
            handles.append(module.register_forward_pre_hook(see_head))
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _grid(local: Positions, size: Shape) -> Tensor:
    """Voxels of a window as ``grid_sample`` counts them: last axis first, -1 to 1 from edge to edge."""
    scaled = (2.0 * local + 1.0) / np.asarray(size) - 1.0
    return torch.from_numpy(scaled[:, ::-1].astype(np.float32).copy()).reshape(1, -1, 1, 1, 3)


def _nearest_starts(positions: Positions, shape: Sequence[int], size: Shape) -> Positions:
    """First voxel of the window in which each position lies most central; below 0 where the window is larger."""
    starts = np.empty_like(positions)
    for axis in range(3):
        options = _axis_starts(shape[axis], size[axis])
        middle = options + (size[axis] - 1) / 2.0
        starts[:, axis] = options[np.abs(positions[:, axis, np.newaxis] - middle).argmin(axis=1)]
    return starts


def _axis_starts(length: int, size: int) -> Positions:
    if size >= length:
        return np.array([-((size - length) // 2)])
    n_windows = 1 + -(-(length - size) // max(1, round(size * (1.0 - _OVERLAP))))
    return np.linspace(0, length - size, n_windows).round().astype(np.int64)


def _cut_window(image: NDArray[Any], start: Shape, size: Shape, padding: str) -> NDArray[np.float32]:
    ends = [low + extent for low, extent in zip(start, size, strict=True)]
    inside = tuple(slice(max(0, low), min(high, full)) for low, high, full in zip(start, ends, image.shape[1:],
                                                                                strict=True))  # fmt: skip
    margins = [(part.start - low, high - part.stop) for part, low, high in zip(inside, start, ends, strict=True)]
    box = np.array(image[(slice(None), *inside)], dtype=np.float32)
    return np.pad(box, [(0, 0), *margins], mode="edge" if padding == "edge" else "constant")
