"""Whether converters wrote the same images: who does less must not look faster."""

from __future__ import annotations

import multiprocessing
from collections.abc import Mapping
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path

_MEAN = 0.01
_CENTRE_MM = 0.05
# files that are read sooner than other processes start
_FEW = 10


@dataclass(frozen=True)
class Image:
    """What must be equal in two conversions of one series, whatever their orientation and number type.

    Attributes:
        centre_mm: Of mass, values above the least as weights, in RAS mm; a wrong axis, step or origin moves it.
    """

    n_voxels: int
    mean: float
    centre_mm: tuple[float, float, float]


def compare(outputs: Mapping[str, Path], whole: set[str]) -> str:
    """Say whether all wrote the same.

    Args:
        outputs: Contestant → folder with its files.
        whole: Those that converted every series; the others' images must be among theirs.
    """
    paths = [(name, path) for name, folder in outputs.items() for path in sorted(folder.rglob("*.nii.gz"))]
    if len(paths) < _FEW:
        images = [describe(path) for _, path in paths]
    else:
        with ProcessPoolExecutor(mp_context=multiprocessing.get_context("spawn")) as pool:
            images = list(pool.map(describe, (path for _, path in paths)))
    found: dict[str, list[Image]] = {name: [] for name in outputs}
    for (name, _), image in zip(paths, images, strict=True):
        found[name].append(image)
    reference = next(name for name in outputs if name in whole)
    odd = [
        f"{name} ({len(those)} files)"
        for name, those in found.items()
        if not those
        or (name in whole and len(those) != len(found[reference]))
        or not _are_among(those, found[reference])
    ]
    counts = ", ".join(f"{name} {len(those)}" for name, those in found.items())
    if odd:
        return f"Files written: {counts}. **Unlike those of {reference}: {', '.join(odd)}.**"
    return (
        f"Files written: {counts}. For each series all have the same number of voxels, the same mean, and the same "
        f"centre of mass in the world (within {_CENTRE_MM} mm)."
    )


def _are_among(images: list[Image], others: list[Image]) -> bool:
    left = list(others)
    for image in images:
        match = next((index for index, other in enumerate(left) if _are_same(image, other)), None)
        if match is None:
            return False
        del left[match]
    return True


def _are_same(one: Image, other: Image) -> bool:
    shift = max(abs(a - b) for a, b in zip(one.centre_mm, other.centre_mm, strict=True))
    return one.n_voxels == other.n_voxels and abs(one.mean - other.mean) < _MEAN and shift < _CENTRE_MM


def describe(path: Path) -> Image:
    """Read a NIfTI file and sum it up."""
    import nibabel
    import numpy as np

    image = nibabel.load(path)
    values = np.asarray(image.dataobj)
    # sums of whole numbers below 2^53: exact in float64, so equal images give equal means
    profiles = [
        values.sum(axis=tuple(other for other in range(3) if other != axis), dtype=np.float64) for axis in range(3)
    ]
    total, least = float(profiles[0].sum()), float(values.min())
    weight = total - least * values.size
    index = []
    for axis, profile in enumerate(profiles):
        above = profile - least * (values.size / values.shape[axis])
        index.append(float((above * np.arange(len(above))).sum() / weight) if weight > 0 else 0.0)
    centre = image.affine[:3, :3] @ np.array(index) + image.affine[:3, 3]
    return Image(values.size, total / values.size, (float(centre[0]), float(centre[1]), float(centre[2])))
