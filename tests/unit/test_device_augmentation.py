"""What a device makes of a patch against what NumPy and SciPy make of it, from the same draws."""

from __future__ import annotations

from dataclasses import fields, replace
from typing import Any

import numpy as np
import pytest
import torch
from scipy import ndimage

from monai_tl.dataset.augmentation import PRESETS, augment, reading_size
from monai_tl.training.device_augmentation import augment_tensors, draw

SIZE, SPACING = (20, 24, 12), (1.0, 1.25, 3.0)
CHANCES = [one.name for one in fields(PRESETS["strong"]) if one.name.startswith("p_")]


def _read(preset: Any, n_channels: int = 2) -> tuple[np.ndarray, np.ndarray]:
    shape = reading_size(SIZE, preset)
    rng = np.random.default_rng(0)
    image = np.stack([ndimage.gaussian_filter(rng.normal(size=shape), 1.5) * 50 + 7 for _ in range(n_channels)])
    return image.astype(np.float32), np.digitize(image[0], [4.0, 10.0]).astype(np.uint8)


def _both(preset: Any, seed: int) -> tuple[Any, Any]:
    image, label = _read(preset)
    expected = augment(image, label, SIZE, SPACING, preset, np.random.default_rng(seed))
    draws = draw(image.shape, SIZE, SPACING, preset, np.random.default_rng(seed))
    before = image.copy()
    found = augment_tensors(torch.from_numpy(image), torch.from_numpy(label), SIZE, SPACING, preset, draws)
    assert np.array_equal(image, before)
    return expected, (found[0].numpy(), found[1].numpy())


def _agree(expected: Any, found: Any) -> None:
    assert (found[0].shape, found[0].dtype) == (expected[0].shape, np.float32)
    assert (found[1].shape, found[1].dtype) == (SIZE, np.uint8)
    assert np.abs(found[0] - expected[0]).max() < 1e-3 * expected[0].std()
    # a place half-way between two voxels may be rounded to the other
    assert np.mean(found[1] != expected[1]) < 1e-3


@pytest.mark.parametrize("preset", ["none", "light", "elastic", "strong"])
def test_each_preset_gives_the_same_patch_but_for_noise(preset: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    if PRESETS[preset] is not None:
        monkeypatch.setitem(PRESETS, preset, replace(PRESETS[preset], p_noise=0.0))
    for seed in range(20):
        _agree(*_both(preset, seed))


@pytest.mark.parametrize("chance", [name for name in CHANCES if name != "p_noise"])
@pytest.mark.parametrize("preset", ["elastic", "strong"])
def test_each_change_alone(preset: Any, chance: str, monkeypatch: pytest.MonkeyPatch) -> None:
    alone = {name: float(name == chance) for name in CHANCES}
    monkeypatch.setitem(PRESETS, preset, replace(PRESETS[preset], **alone))
    untouched = _read(preset)[0]
    for seed in range(3):
        expected, found = _both(preset, seed)
        _agree(expected, found)
    cut = tuple(slice((a - b) // 2, (a - b) // 2 + b) for a, b in zip(untouched.shape[1:], SIZE, strict=True))
    strengths = PRESETS[preset]
    is_nothing = (chance, strengths.blur_vox) == ("p_blur", 0.0) or (chance, strengths.low_resolution) == (
        "p_low_resolution",
        1.0,
    )
    assert np.array_equal(found[0], untouched[(slice(None), *cut)]) == is_nothing


def test_noise_is_as_strong_as_drawn_and_belongs_to_the_sample(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(PRESETS, "strong", replace(PRESETS["strong"], **{n: float(n == "p_noise") for n in CHANCES}))
    image, label = (torch.from_numpy(array) for array in _read("strong"))
    patches = []
    for seed in (1, 1, 2):
        draws = draw(tuple(image.shape), SIZE, SPACING, "strong", np.random.default_rng(seed))
        patch, _ = augment_tensors(image, label, SIZE, SPACING, "strong", draws)
        start = [(a - b) // 2 for a, b in zip(label.shape, SIZE, strict=True)]
        still = image[:, start[0] :, start[1] :, start[2] :][:, : SIZE[0], : SIZE[1], : SIZE[2]]
        for channel, change in enumerate(draws.changes):
            drawn = (patch - still)[channel]
            wanted = abs(change.amount[5]) * PRESETS["strong"].noise * float(still[channel].std(correction=0))
            assert float(drawn.std()) == pytest.approx(wanted, rel=0.05)
            assert abs(float(drawn.mean())) < 5 * wanted / drawn.numel() ** 0.5
        patches.append(patch)
    assert torch.equal(patches[0], patches[1])
    assert not torch.equal(patches[0], patches[2])


def test_a_channel_without_contrast_stays_finite(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(PRESETS, "strong", replace(PRESETS["strong"], **dict.fromkeys(CHANCES, 1.0)))
    shape = (1, *reading_size(SIZE, "strong"))
    for seed in range(5):
        draws = draw(shape, SIZE, SPACING, "strong", np.random.default_rng(seed))
        label = torch.zeros(shape[1:], dtype=torch.uint8)
        patch, _ = augment_tensors(torch.full(shape, 3.0), label, SIZE, SPACING, "strong", draws)
        assert torch.allclose(patch, torch.full_like(patch, 3.0))
