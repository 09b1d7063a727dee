"""Slabs of probabilities → native label map: the slabs are the whole, whatever axis, direction and thickness."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.interpolate import RegularGridInterpolator

from monai_tl.config import IntensityConfig, NetworkConfig, PreprocessConfig
from monai_tl.dataset.restoring import Restoring, restore_probabilities
from monai_tl.dataset.transforms import prepare_image
from monai_tl.errors import GeometryError
from monai_tl.labels import ClassSpec, LabelScheme
from monai_tl.records import Plan, PreparedCase

AFFINE = np.diag([1.0, 1.3, 2.0, 1.0])


def _record(spacing: tuple[float, float, float], orientation: str) -> PreparedCase:
    plan = Plan(
        modality="MR",
        n_channels=1,
        scheme=LabelScheme(classes=(ClassSpec(name="a"),)),
        orientation=orientation,
        spacing_mm=spacing,
        intensity=IntensityConfig(rule="window", low=0.0, high=1.0),
        foreground="above",
        foreground_threshold=0.5,
        patch_size_vox=(8, 8, 8),
        network=NetworkConfig(name="unet"),
        source=None,
    )
    image = np.zeros((23, 14, 17))
    image[2:20, 1:12, 3:16] = 1.0
    return prepare_image(image, AFFINE, plan, PreprocessConfig(crop_margin_mm=0.0))[1]


def _reference(probabilities: np.ndarray, record: PreparedCase) -> np.ndarray:
    """Each native voxel by its world position, edges going on, as scipy interpolates."""
    label = np.zeros(record.native_shape, dtype=np.uint8)
    low, high = record.crop_start, record.crop_stop
    voxels = np.stack(np.meshgrid(*[np.arange(a, b) for a, b in zip(low, high, strict=True)], indexing="ij"), axis=-1)
    to_stored = np.linalg.inv(np.array(record.affine)) @ np.array(record.native_affine)
    places = voxels @ to_stored[:3, :3].T + to_stored[:3, 3]
    places = np.clip(places, 0, np.array(record.spatial_shape) - 1)
    grid = [np.arange(size) for size in record.spatial_shape]
    scores = np.stack([RegularGridInterpolator(grid, channel)(places) for channel in probabilities])
    label[tuple(slice(a, b) for a, b in zip(low, high, strict=True))] = scores.argmax(axis=0)
    return label


@pytest.mark.parametrize("orientation", ["RAS", "SPL", "ILA"])
@pytest.mark.parametrize("spacing", [(1.7, 0.8, 1.1), (0.6, 3.1, 2.0), (1.0, 1.3, 2.0)])
@pytest.mark.parametrize("axis", [0, 1, 2])
def test_slabs_give_the_whole_s_label_and_both_are_the_interpolated_one(
    orientation: str, spacing: tuple[float, float, float], axis: int
) -> None:
    record = _record(spacing, orientation)
    rng = np.random.default_rng(3)
    probabilities = rng.random((3, *record.spatial_shape), dtype=np.float32)
    whole = restore_probabilities(probabilities, record)
    assert np.mean(whole != _reference(probabilities, record)) < 1e-3, "ties to the last bit apart"
    restoring, start, size = Restoring(record), 0, record.spatial_shape[axis]
    while start < size:
        stop = min(size, start + int(rng.integers(1, 5)))
        slab = np.take(probabilities, range(start, stop), axis=1 + axis)
        restoring.add(axis, start, slab)
        slab[:] = np.nan
        start = stop
    assert np.array_equal(restoring.finish(), whole)


def test_a_missing_slab_is_told() -> None:
    record = _record((1.0, 1.3, 2.0), "RAS")
    i, j, k = record.spatial_shape
    restoring = Restoring(record)
    restoring.add(0, 0, np.zeros((2, 3, j, k), dtype=np.float32))
    with pytest.raises(GeometryError, match="first 3 planes only"):
        restoring.finish()
    with pytest.raises(GeometryError, match="run preprocess again"):
        restoring.add(0, 4, np.zeros((2, 3, j, k), dtype=np.float32))
    with pytest.raises(GeometryError, match="run preprocess again"):
        restoring.add(0, 3, np.zeros((2, i, j, k), dtype=np.float32))
