"""Random changes of a training patch where the network is: the presets of ``dataset.augmentation`` in tensors.

On a GPU a network's step takes less time than a processor needs to change its patches. What is drawn and what it means
are the same; noise comes from the device's own generator, whose seed the sample's draws.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from monai_tl.dataset.augmentation import (
    PRESETS,
    Change,
    Movement,
    Preset,
    PresetName,
    coarse_places,
    draw_change,
    draw_movement,
)
from monai_tl.dataset.warping import bases
from monai_tl.geometry import Shape, Spacing


@dataclass(frozen=True)
class Draws:
    """All that a sample's generator decides.

    Attributes:
        movement: None where the patch is the middle of what was read.
        changes: Of each channel's values.
        noise_seed: Of the device's generator.
    """

    movement: Movement | None
    changes: tuple[Change, ...]
    noise_seed: int


def draw(
    shape: tuple[int, ...], size: Shape, spacing_mm: Spacing, preset: PresetName, generator: np.random.Generator
) -> Draws:
    """Draw what happens to a sample.

    Args:
        shape: (C, I, J, K) of what was read.
        size: Of the patch.
        spacing_mm: Of its voxels.
        preset: Name in ``PRESETS``.
        generator: The sample's own.
    """
    strengths = PRESETS[preset]
    if strengths is None:
        return Draws(None, (), 0)
    movement = draw_movement(shape[1:], size, spacing_mm, strengths, generator)
    changes = tuple(draw_change(generator) for _ in range(shape[0]))
    return Draws(movement, changes, int(generator.integers(2**63)))


@torch.no_grad()
def augment_tensors(
    image: Tensor, label: Tensor, size: Shape, spacing_mm: Spacing, preset: PresetName, draws: Draws
) -> tuple[Tensor, Tensor]:
    """``dataset.augmentation.augment`` on the device of the tensors; nothing waits for the device.

    Args:
        image: (C, I, J, K) float32 of ``reading_size``; not touched.
        label: (I, J, K) uint8, same grid.
        size: Of the patch.
        spacing_mm: Of its voxels.
        preset: Name in ``PRESETS``.
        draws: Of ``draw``.

    Returns:
        (C, *size) float32 and (*size) uint8.
    """
    strengths = PRESETS[preset]
    if draws.movement is None:
        starts = [(full - part) // 2 for full, part in zip(label.shape, size, strict=True)]
        cut = tuple(slice(start, start + part) for start, part in zip(starts, size, strict=True))
        patch, patch_label = image[(slice(None), *cut)].clone(), label[cut].clone()
    else:
        places = _places(draws.movement, size, spacing_mm, image.device)
        patch, patch_label = _look_up(image, places), _nearest(label, places)
    if strengths is None:
        return patch, patch_label
    noise = torch.Generator(image.device).manual_seed(draws.noise_seed)
    channels = [_change(values, strengths, one, noise) for values, one in zip(patch, draws.changes, strict=True)]
    return torch.stack(channels), patch_label


def _places(movement: Movement, size: Shape, spacing_mm: Spacing, device: torch.device) -> Tensor:
    """(3, *size) indices into what was read; see ``warping.warped_grid``."""
    lines = [torch.arange(length, device=device, dtype=torch.float32) for length in size]
    rows = []
    for factors, offset in zip(movement.matrix.tolist(), movement.offset.tolist(), strict=True):
        i, j, k = (factor * line for factor, line in zip(factors, lines, strict=True))
        rows.append(i[:, None, None] + j[None, :, None] + (k + offset)[None, None, :])
    places = torch.stack(rows)
    if movement.points is None:
        return places
    moved = torch.from_numpy(movement.points).to(device)
    for axis, basis in enumerate(bases(size, spacing_mm), start=1):
        moved = torch.movedim(torch.tensordot(moved, torch.from_numpy(basis).to(device), dims=([axis], [1])), -1, axis)
    return places + moved / torch.tensor(spacing_mm, device=device, dtype=torch.float32)[:, None, None, None]


def _look_up(image: Tensor, places: Tensor) -> Tensor:
    """Linear between voxels; beyond the edge the edge is repeated."""
    # the sampler wants -1 to 1 from the first voxel's centre to the last's, fastest axis first
    last = torch.tensor(image.shape[1:], device=image.device, dtype=torch.float32).sub(1).clamp(min=1)
    grid = (2.0 * places / last[:, None, None, None] - 1.0).movedim(0, -1).flip(-1)
    sampled = torch.nn.functional.grid_sample(image[None], grid[None], "bilinear", "border", align_corners=True)
    return sampled[0]


def _nearest(label: Tensor, places: Tensor) -> Tensor:
    index = [
        torch.floor(row + 0.5).long().clamp(0, length - 1) for row, length in zip(places, label.shape, strict=True)
    ]
    return label[index[0], index[1], index[2]]


def _change(values: Tensor, strengths: Preset, change: Change, noise: torch.Generator) -> Tensor:
    """One channel, (I, J, K)."""
    chance, amount = change.chance.tolist(), change.amount.tolist()
    deviation = values.std(correction=0)
    if chance[0] < strengths.p_low_resolution:
        values = _coarsen(values, change.axis, 1.0 + abs(amount[0]) * (strengths.low_resolution - 1.0))
    if chance[1] < strengths.p_blur:
        values = _blur(values, abs(amount[1]) * strengths.blur_vox)
    if chance[2] < strengths.p_contrast:
        mean = values.mean()
        values = (values - mean) * (1.0 + amount[2] * strengths.contrast) + mean
    if chance[3] < strengths.p_brightness:
        values = values + amount[3] * strengths.brightness * deviation
    if chance[4] < strengths.p_gamma:
        low, high = torch.aminmax(values)
        span = high - low
        # a channel without contrast stays as it is
        share = ((values - low) / torch.where(span > 0, span, 1.0)).clamp(0.0, 1.0)
        values = share.pow(strengths.gamma ** amount[4]) * span + low
    if chance[5] < strengths.p_noise:
        drawn = torch.randn(values.shape, generator=noise, device=values.device)
        values = values + drawn * (abs(amount[5]) * strengths.noise * deviation)
    return values


def _coarsen(values: Tensor, axis: int, factor: float) -> Tensor:
    places = coarse_places(values.shape[axis], factor)
    if places is None:
        return values
    below, above, weight = (torch.from_numpy(array).to(values.device) for array in places)
    lower, upper = values.index_select(axis, below), values.index_select(axis, above)
    return lower + weight.reshape([-1 if other == axis else 1 for other in range(3)]) * (upper - lower)


def _blur(values: Tensor, sigma: float) -> Tensor:
    """Gaussian, cut off at two sigma, mirrored at the edges, as ``scipy.ndimage.gaussian_filter`` has it."""
    radius = int(2.0 * sigma + 0.5)
    if radius == 0:
        return values
    weights = np.exp(-0.5 * (np.arange(-radius, radius + 1) / sigma) ** 2)
    weights /= weights.sum()
    for axis in range(3):
        length = values.shape[axis]
        mirrored = torch.from_numpy(np.pad(np.arange(length), radius, mode="symmetric")).to(values.device)
        values = torch.stack(
            [
                float(weight) * values.index_select(axis, mirrored[start : start + length])
                for start, weight in enumerate(weights)
            ]
        ).sum(dim=0)
    return values
