from __future__ import annotations

import numpy as np
import pytest
from scipy import ndimage

from monai_tl.dataset.augmentation import (
    PRESETS,
    PresetName,
    _move,
    augment,
    draw_movement,
    reading_size,
    rotation_matrix,
)

SIZE = (16, 20, 12)
SPACING = (1.0, 1.0, 3.0)


def _patch(seed: int = 0, preset: str = "light", channels: int = 2) -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(seed)
    size = reading_size(SIZE, preset)  # type: ignore[arg-type]
    label = (ndimage.gaussian_filter(generator.normal(size=size), 2.0) > 0.05).astype(np.uint8)
    image = generator.normal(size=(channels, *size)).astype(np.float32) + label
    return image, label


@pytest.mark.parametrize("preset", list(PRESETS))
def test_a_sample_is_a_function_of_its_generator(preset: str) -> None:
    image, label = _patch(preset=preset)
    kept = image.copy(), label.copy()
    first, second, other = (
        augment(image, label, SIZE, SPACING, preset, np.random.default_rng(seed))  # type: ignore[arg-type]
        for seed in (5, 5, 6)
    )
    assert np.array_equal(first[0], second[0])
    assert np.array_equal(first[1], second[1])
    assert np.array_equal(first[0], other[0]) == (preset == "none")
    assert first[0].shape == (2, *SIZE)
    assert first[1].shape == SIZE
    assert first[0].dtype == np.float32
    assert first[1].dtype == np.uint8
    # the input stays as it was, also where the result is a plain cut
    first[0][...] = 0
    assert np.array_equal(image, kept[0])
    assert np.array_equal(label, kept[1])


@pytest.mark.parametrize("preset", ["light", "elastic", "strong"])
def test_numbers_stay_finite_and_labels_stay_labels(preset: str) -> None:
    image, label = _patch(preset=preset)
    label = label * 3
    for seed in range(60):
        changed, moved = augment(image, label, SIZE, SPACING, preset, np.random.default_rng(seed))  # type: ignore[arg-type]
        assert np.isfinite(changed).all()
        assert set(np.unique(moved)) <= {0, 3}


@pytest.mark.parametrize("preset", ["elastic", "strong"])
def test_image_and_label_move_together(preset: PresetName) -> None:
    # an image that is its own label, without any change of intensity, must still be its label after the move
    size = reading_size(SIZE, preset)
    label = np.zeros(size, dtype=np.uint8)
    label[5:13, 6:15, 4:9] = 1
    image = label[np.newaxis].astype(np.float32)
    moved = 0
    for seed in range(40):
        generator = np.random.default_rng(seed)
        strengths = PRESETS[preset]
        assert strengths is not None
        patch, patch_label = _move(
            image, label, SIZE, SPACING, draw_movement(label.shape, SIZE, SPACING, strengths, generator)
        )
        inside, outside = patch[0][patch_label == 1], patch[0][patch_label == 0]
        assert inside.min() >= 0.124  # the nearest voxel is the label's: at least an eighth of the linear weights
        assert outside.max() <= 0.876
        moved += not np.isin(patch, (0.0, 1.0)).all()
    assert moved > 15


def test_rotation_is_one_in_millimetres_with_thick_slices() -> None:
    # 90 degrees about I turn J into K; a rod of 18 mm has 18 voxels along J and, slices being 3 mm, 6 along K
    matrix = rotation_matrix(np.deg2rad([90.0, 0.0, 0.0]))
    assert matrix @ [0, 1, 0] == pytest.approx([0, 0, 1])
    spacing = np.asarray(SPACING)
    in_voxels = matrix * spacing[None, :] / spacing[:, None]
    assert in_voxels @ [0, 18, 0] == pytest.approx([0, 0, 6])


def test_rotation_matrices_are_rotations() -> None:
    for angles in np.random.default_rng(0).uniform(-3, 3, (10, 3)):
        matrix = rotation_matrix(angles)
        assert matrix @ matrix.T == pytest.approx(np.eye(3))
        assert np.linalg.det(matrix) == pytest.approx(1.0)


@pytest.mark.parametrize("preset", ["elastic", "strong"])
def test_left_and_right_are_never_exchanged(preset: PresetName) -> None:
    size = reading_size(SIZE, preset)
    label = np.zeros(size, dtype=np.uint8)
    label[: size[0] // 2] = 1
    image = label[np.newaxis].astype(np.float32)
    for seed in range(60):
        _, moved = augment(image, label, SIZE, (1.0, 1.0, 1.0), preset, np.random.default_rng(seed))
        assert moved[:4].mean() > 0.6 > 0.4 > moved[-4:].mean()


def test_a_constant_patch_passes() -> None:
    size = reading_size(SIZE, "strong")
    image, label = np.full((1, *size), 0.5, dtype=np.float32), np.zeros(size, dtype=np.uint8)
    for seed in range(30):
        changed, _ = augment(image, label, SIZE, SPACING, "strong", np.random.default_rng(seed))
        assert changed == pytest.approx(0.5)
