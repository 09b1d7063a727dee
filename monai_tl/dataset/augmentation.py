"""Random changes of a training patch: pure functions of the arrays and a generator, without hidden state.

No preset mirrors the patient: left and right differ in anatomy, and sources trained on one side only break.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from monai_tl.dataset.warping import draw_points, warped_grid
from monai_tl.geometry import Shape, Spacing

Image = NDArray[np.float32]
"""(C, I, J, K)."""
Label = NDArray[np.uint8]
"""(I, J, K)."""


@dataclass(frozen=True)
class Preset:
    """Strengths of a preset; each change happens with its own chance.

    Attributes:
        p_spatial: Chance of one rotation and scaling together.
        rotation_deg: Largest angle about each axis.
        scale: Smallest and largest zoom.
        p_noise, noise: Gaussian noise, its largest standard deviation in units of the patch's own.
        p_blur, blur_vox: Gaussian blur, its largest sigma.
        p_brightness, brightness: Largest shift, in units of the patch's standard deviation.
        p_contrast, contrast: Largest relative change of the distance to the mean.
        p_gamma, gamma: Largest change of the exponent on the patch's range, as a factor.
        p_low_resolution, low_resolution: A slice direction is sampled coarser by up to this factor and brought back.
        stretch: Largest zoom of one axis beside the others.
        shift_vox: Largest shift along each axis.
        warp_vox: Largest standard deviation of a smooth random displacement, in voxels of the finest axis. Stretch,
            shift and warp come with the rotation, where it happens.
    """

    p_spatial: float
    rotation_deg: float
    scale: tuple[float, float]
    p_noise: float
    noise: float
    p_blur: float
    blur_vox: float
    p_brightness: float
    brightness: float
    p_contrast: float
    contrast: float
    p_gamma: float
    gamma: float
    p_low_resolution: float
    low_resolution: float
    stretch: float = 1.0
    shift_vox: float = 0.0
    warp_vox: float = 0.0


PRESETS: dict[str, Preset | None] = {
    "none": None,
    "light": Preset(0.5, 10.0, (0.9, 1.1), 0.2, 0.15, 0.0, 0.0, 0.2, 0.2, 0.2, 0.2, 0.2, 1.3, 0.0, 1.0),
    "elastic": Preset(
        0.8, 10.0, (1 / 1.1, 1.1), 0.2, 0.15, 0.0, 0.0, 0.2, 0.2, 0.2, 0.2, 0.2, 1.3, 0.0, 1.0, 1.1, 2.0, 1.3
    ),
    "strong": Preset(0.7, 20.0, (0.75, 1.3), 0.3, 0.3, 0.2, 1.0, 0.3, 0.4, 0.3, 0.4, 0.3, 1.6, 0.25, 2.5),
}
"""By the name in params.yaml."""

PresetName = Literal["none", "light", "elastic", "strong"]


@dataclass(frozen=True)
class Movement:
    """Where a patch is read.

    Attributes:
        matrix, offset: (3, 3) and (3,), voxel of the patch → voxel of what was read for it.
        points: Control points of a smooth displacement beside it; see ``warping.draw_points``.
    """

    matrix: NDArray[np.float64]
    offset: NDArray[np.float64]
    points: NDArray[np.float32] | None


@dataclass(frozen=True)
class Change:
    """What happens to the values of a channel: a number in [0, 1) and one in [-1, 1) for each of six changes.

    In this order: low resolution (along ``axis``), blur, contrast, brightness, gamma, noise.
    """

    chance: NDArray[np.float64]
    amount: NDArray[np.float64]
    axis: int


def reading_size(patch_size_vox: Shape, preset: PresetName) -> Shape:
    """Size to cut from the case so that a rotated or shrunken patch still finds voxels at its corners.

    Args:
        patch_size_vox: (I, J, K) the network is given.
        preset: Name in ``PRESETS``.

    Returns:
        The patch size and a margin: a quarter for spatial presets. Corners beyond it repeat the edge.
    """
    if PRESETS[preset] is None:
        return patch_size_vox
    i, j, k = (size + 2 * (size // 8) for size in patch_size_vox)
    return i, j, k


def augment(
    image: Image,
    label: Label,
    patch_size_vox: Shape,
    spacing_mm: Spacing,
    preset: PresetName,
    generator: np.random.Generator,
) -> tuple[Image, Label]:
    """Change one patch at random.

    Args:
        image: (C, I, J, K) of ``reading_size``.
        label: (I, J, K), same grid.
        patch_size_vox: Size of the result, the centre of the input.
        spacing_mm: So that a rotation is one in the world, also with thick slices.
        preset: Name in ``PRESETS``.
        generator: The sample's own; its whole state decides the result.

    Returns:
        The patch and its label, new arrays; the input is not touched.
    """
    strengths = PRESETS[preset]
    if strengths is None:
        cut = _centre(label.shape, patch_size_vox)
        return image[(slice(None), *cut)].copy(), label[cut].copy()
    movement = draw_movement(label.shape, patch_size_vox, spacing_mm, strengths, generator)
    patch, patch_label = _move(image, label, patch_size_vox, spacing_mm, movement)
    for channel in patch:
        _change_intensity(channel, strengths, draw_change(generator), generator)
    return patch, patch_label


def _centre(shape: Sequence[int], size: Shape) -> tuple[slice, ...]:
    starts = [(full - part) // 2 for full, part in zip(shape, size, strict=True)]
    return tuple(slice(start, start + part) for start, part in zip(starts, size, strict=True))


def draw_movement(
    shape: Sequence[int], size: Shape, spacing_mm: Spacing, strengths: Preset, generator: np.random.Generator
) -> Movement | None:
    """How a patch of ``size`` is read from the middle of ``shape``; None where it is read as it is."""
    moved = generator.random() < strengths.p_spatial
    angles = np.deg2rad(generator.uniform(-strengths.rotation_deg, strengths.rotation_deg, 3))
    # drawn in the logarithm, so that shrinking and growing are equally likely
    zoom = float(np.exp(generator.uniform(*np.log(strengths.scale))))
    if not moved:
        return None
    spacing = np.asarray(spacing_mm)
    zooms = zoom * np.exp(generator.uniform(-1.0, 1.0, 3) * np.log(strengths.stretch)) if strengths.warp_vox else zoom
    # voxel of the patch → voxel of the input: to mm, turned and scaled there, and back
    matrix = (rotation_matrix(angles) / zooms) * spacing[None, :] / spacing[:, None]
    offset = (np.asarray(shape) - 1) / 2 - matrix @ ((np.asarray(size) - 1) / 2)
    if not strengths.warp_vox:
        return Movement(matrix, offset, None)
    offset = offset + generator.uniform(-strengths.shift_vox, strengths.shift_vox, 3)
    points = draw_points(size, spacing_mm, strengths.warp_vox * generator.random(), generator)
    return Movement(matrix, offset, points)


def draw_change(generator: np.random.Generator) -> Change:
    """Every number is drawn, used or not, so one chance does not shift the others."""
    return Change(generator.random(6), generator.uniform(-1.0, 1.0, 6), int(generator.integers(3)))


def _move(
    image: Image, label: Label, size: Shape, spacing_mm: Spacing, movement: Movement | None
) -> tuple[Image, Label]:
    if movement is None:
        cut = _centre(label.shape, size)
        return image[(slice(None), *cut)].astype(np.float32), label[cut].copy()
    if movement.points is not None:
        places = warped_grid(size, spacing_mm, movement.matrix, movement.offset, movement.points)
        return _look_up(image, label, places)
    options: dict[str, Any] = {
        "offset": movement.offset, "output_shape": size, "mode": "nearest", "prefilter": False
    }  # fmt: skip
    patch = np.empty((image.shape[0], *size), dtype=np.float32)
    for channel, values in enumerate(image):
        ndimage.affine_transform(values, movement.matrix, order=1, output=patch[channel], **options)
    patch_label: Label = ndimage.affine_transform(label, movement.matrix, order=0, **options)
    return patch, patch_label


def _look_up(image: Image, label: Label, places: NDArray[np.float32]) -> tuple[Image, Label]:
    patch = np.empty((image.shape[0], *places.shape[1:]), dtype=np.float32)
    for channel, values in enumerate(image):
        ndimage.map_coordinates(values, places, order=1, output=patch[channel], mode="nearest", prefilter=False)
    patch_label: Label = ndimage.map_coordinates(label, places, order=0, mode="nearest", prefilter=False)
    return patch, patch_label


def rotation_matrix(angles: NDArray[np.float64]) -> NDArray[np.float64]:
    """(3, 3) rotation about I, then J, then K by angles in radians."""
    result = np.eye(3)
    for axis, angle in enumerate(angles):
        first, second = (other for other in range(3) if other != axis)
        turn = np.eye(3)
        turn[first, first] = turn[second, second] = np.cos(angle)
        turn[first, second], turn[second, first] = -np.sin(angle), np.sin(angle)
        result = turn @ result
    return result


def _change_intensity(
    values: NDArray[np.float32], strengths: Preset, change: Change, generator: np.random.Generator
) -> None:
    """Change one channel in place; the generator is asked for noise alone."""
    chance, amount = change.chance, change.amount
    deviation = float(values.std())
    if deviation <= 0.0:
        return
    if chance[0] < strengths.p_low_resolution:
        values[...] = _coarsen(values, change.axis, 1.0 + abs(amount[0]) * (strengths.low_resolution - 1.0))
    if chance[1] < strengths.p_blur:
        ndimage.gaussian_filter(values, abs(amount[1]) * strengths.blur_vox, output=values, truncate=2.0)
    if chance[2] < strengths.p_contrast:
        mean = float(values.mean())
        values -= mean
        values *= np.float32(1.0 + amount[2] * strengths.contrast)
        values += np.float32(mean)
    if chance[3] < strengths.p_brightness:
        values += np.float32(amount[3] * strengths.brightness * deviation)
    if chance[4] < strengths.p_gamma:
        low, span = float(values.min()), float(np.ptp(values))
        values -= np.float32(low)
        values /= np.float32(span)
        # the subtraction can leave a value a rounding error below 0, which has no power
        np.clip(values, 0.0, 1.0, out=values)
        np.power(values, np.float32(strengths.gamma ** amount[4]), out=values)
        values *= np.float32(span)
        values += np.float32(low)
    if chance[5] < strengths.p_noise:
        noise = generator.standard_normal(values.shape, dtype=np.float32)
        noise *= np.float32(abs(amount[5]) * strengths.noise * deviation)
        values += noise


def _coarsen(values: NDArray[np.float32], axis: int, factor: float) -> NDArray[np.float32]:
    """Sample one axis coarser by nearest neighbour, then linearly back to the same size."""
    places = coarse_places(values.shape[axis], factor)
    if places is None:
        return values
    below, above, weight = places
    lower, upper = np.take(values, below, axis=axis), np.take(values, above, axis=axis)
    result: NDArray[np.float32] = lower + weight.reshape([-1 if other == axis else 1 for other in range(3)]) * (
        upper - lower
    )
    return result


def coarse_places(
    n_fine: int, factor: float
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float32]] | None:
    """For each place along an axis the two that are kept of it around there, and the weight of the second.

    None where so small a factor leaves all.
    """
    n_coarse = max(2, round(n_fine / factor))
    if n_coarse >= n_fine:
        return None
    kept = np.rint(np.linspace(0, n_fine - 1, n_coarse)).astype(np.int64)
    position = np.linspace(0, n_coarse - 1, n_fine)
    below = np.minimum(position.astype(np.int64), n_coarse - 2)
    return kept[below], kept[below + 1], (position - below).astype(np.float32)
