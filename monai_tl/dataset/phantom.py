"""CT-like abdomens as arrays: the same bytes on every machine.

Only integers and exactly rounded float64 (+ - * / and comparisons, element by element) are used: no sine, no matrix
product, no float sum over an axis, because their last bit differs between machines. Random numbers are integers from
the raw stream of PCG64, which numpy promises never to change.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from monai_tl.dataset.anatomy import IntegerDraws, Part
from monai_tl.geometry import Affine

Floats = NDArray[np.float64]

AIR_HU = -1000
_SUB = 2
"""Sub-samples along each axis of a voxel; their mean is the partial volume."""
_REACH = 1.25
"""A part lies inside this many radii from its centre; nothing is evaluated further out."""


@dataclass(frozen=True)
class Scan:
    """How an abdomen is sampled.

    Attributes:
        rows, columns, n_slices: Of the image.
        affine_lps: (column, row, slice) index → LPS mm; may be sheared (tilted gantry).
        kernel: ``soft`` blurs more and correlates the noise.
        noise_hu: Standard deviation of the noise.
        offset_hu: Error of the scanner's calibration, added to everything but air.
        prone: The couch lies on the front of the patient.
    """

    rows: int
    columns: int
    n_slices: int
    affine_lps: Affine
    kernel: Literal["soft", "sharp"]
    noise_hu: int
    offset_hu: int
    prone: bool = False


@dataclass(frozen=True)
class _Grid:
    """World coordinates of the sub-samples; each array has size 1 along the axes it does not depend on."""

    shape: tuple[int, int, int]
    world: tuple[Floats, Floats, Floats]


def _fine_grid(scan: Scan) -> _Grid:
    shape = (scan.n_slices * _SUB, scan.rows * _SUB, scan.columns * _SUB)
    # sub-samples lie at -1/4 and +1/4 of a voxel from its centre
    slices, rows, columns = ((np.arange(size, dtype=np.float64) - 0.5) / _SUB for size in shape)
    steps = (columns[None, None, :], rows[None, :, None], slices[:, None, None])
    world = []
    for axis in range(3):
        total = np.full((1, 1, 1), float(scan.affine_lps[axis, 3]))
        for step, factor in zip(steps, scan.affine_lps[axis, :3].tolist(), strict=True):
            if factor != 0.0:
                total = total + step * factor
        world.append(total)
    return _Grid(shape, (world[0], world[1], world[2]))


def _box(grid: _Grid, part: Part) -> tuple[slice, slice, slice]:
    """Index box that holds the part, from the coordinates alone."""
    widest = max(part.radii[:2]) if part.turn else 0.0
    reach = (max(part.radii[0], widest) * _REACH, max(part.radii[1], widest) * _REACH, part.radii[2] * _REACH)
    near = [
        np.abs(values - middle) <= limit
        for values, middle, limit, radius in zip(grid.world, part.centre, reach, part.radii, strict=True)
        if radius > 0.0
    ]
    bounds = []
    for axis, size in enumerate(grid.shape):
        others = tuple(other for other in range(3) if other != axis)
        keep = np.ones(size, dtype=bool)
        for one in near:
            keep &= one.any(axis=others)
        found = np.flatnonzero(keep)
        bounds.append(slice(int(found[0]), int(found[-1]) + 1) if found.size else slice(0, 0))
    return bounds[0], bounds[1], bounds[2]


def _within(grid: _Grid, box: tuple[slice, slice, slice], part: Part) -> NDArray[np.bool_]:
    x, y, z = (
        values[tuple(cut if size > 1 else slice(None) for cut, size in zip(box, values.shape, strict=True))] - middle
        for values, middle in zip(grid.world, part.centre, strict=True)
    )
    if part.turn:
        square = part.turn * part.turn
        cosine, sine = (1.0 - square) / (1.0 + square), 2.0 * part.turn / (1.0 + square)
        x, y = x * cosine + y * sine, y * cosine - x * sine
    u, v = x / part.radii[0], y / part.radii[1]
    form = u * u + v * v
    if part.radii[2] > 0.0:
        w = z / part.radii[2]
        form = form + w * w
        if part.bump:
            form = form + (u * v) * (w * part.bump)
        form = np.where(np.abs(w) <= _REACH, form, 2.0)
    shape = tuple(cut.stop - cut.start for cut in box)
    return np.broadcast_to(form <= 1.0, shape)


def _paint(scan: Scan, anatomy: tuple[Part, ...]) -> tuple[NDArray[np.int32], NDArray[np.uint8], dict[str, int]]:
    grid = _fine_grid(scan)
    numbers = {name: index + 1 for index, name in enumerate(dict.fromkeys(part.name for part in anatomy))}
    values = np.full(grid.shape, AIR_HU, dtype=np.int32)
    owners = np.zeros(grid.shape, dtype=np.uint8)
    couch = -1.0 if scan.prone else 1.0
    x, y = np.abs(grid.world[0]), grid.world[1] * couch
    on_couch = (y >= 136.0) & (y <= 148.0) & (x <= 170.0)
    values[np.broadcast_to(on_couch, grid.shape)] = -150
    for part in anatomy:
        box = _box(grid, part)
        where = _within(grid, box, part)
        if part.inside:
            allowed = np.zeros(len(numbers) + 1, dtype=bool)
            allowed[[numbers[name] for name in (*part.inside, part.name) if name in numbers]] = True
            where = where & allowed[owners[box]]
        values[box][where] = part.hu
        owners[box][where] = numbers[part.name]
    return values, owners, numbers


def _sum_of_cells(fine: NDArray[Any]) -> NDArray[np.int32]:
    """Integer sum over the sub-samples of each voxel."""
    total = np.zeros(tuple(size // _SUB for size in fine.shape), dtype=np.int32)
    for k in range(_SUB):
        for r in range(_SUB):
            for c in range(_SUB):
                total += fine[k::_SUB, r::_SUB, c::_SUB]
    return total


def _convolve(image: NDArray[np.int64], weights: tuple[int, int]) -> NDArray[np.int64]:
    """Integer 3-tap blur along rows and columns: middle and side weight; the sum of weights stays as a factor."""
    middle, side = weights
    for axis in (1, 2):
        ends = np.pad(image, [(1, 1) if each == axis else (0, 0) for each in range(3)], mode="edge")
        first = np.take(ends, range(image.shape[axis]), axis=axis)
        last = np.take(ends, range(2, image.shape[axis] + 2), axis=axis)
        image = middle * image + side * (first + last)
    return image


def render(
    anatomy: tuple[Part, ...], scan: Scan, draws: IntegerDraws, wanted: Sequence[str] = ("body", "liver", "tumour")
) -> tuple[NDArray[np.int16], dict[str, NDArray[np.bool_]]]:
    """Sample an abdomen with partial volume, blur, noise and offset.

    Args:
        anatomy: From ``build_anatomy``.
        scan: The grid and the scanner.
        draws: Noise.
        wanted: Names of parts to return masks of; ``body`` is all of them together.

    Returns:
        (K, rows, columns) int16, Hounsfield units, and for each name a bool array of the same shape: at least half of
        the voxel belongs to it. ``liver`` includes its vessels and the tumour; a part the patient lacks is empty.
    """
    fine, owners, numbers = _paint(scan, anatomy)
    weights = (2, 1) if scan.kernel == "soft" else (6, 1)
    cells = _SUB**3
    divisor = cells * (weights[0] + 2 * weights[1]) ** 2
    blurred = _convolve(_sum_of_cells(fine).astype(np.int64), weights)
    image = (2 * blurred + divisor) // (2 * divisor)
    raw = draws.noise(image.shape)
    # 209 is the standard deviation of one draw; the kernel (1, 2, 1) in both directions keeps 6 of its 16
    noise = _convolve(raw, (2, 1)) * scan.noise_hu // (209 * 6) if scan.kernel == "soft" else raw * scan.noise_hu // 209
    image = image + noise + np.where(image > AIR_HU // 2, scan.offset_hu, 0)
    together = {"liver": ("liver", "liver_vessel", "tumour"), "body": tuple(numbers)}
    masks = {}
    for name in wanted:
        members = [numbers[member] for member in together.get(name, (name,)) if member in numbers]
        chosen = np.zeros(len(numbers) + 1, dtype=np.uint8)
        chosen[members] = 1
        masks[name] = 2 * _sum_of_cells(chosen[owners]) >= cells
    return np.clip(image, -1024, 3071).astype(np.int16), masks
