"""Pairs of masks with lesions that are found, missed, split, merged or false; integers alone decide, so any machine
makes the same."""

from __future__ import annotations

import numpy as np

SHAPE = (40, 36, 24)
CASES = tuple(range(8))


def mask_pair(seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Reference and prediction, (40, 36, 24) bool."""
    generator = np.random.default_rng(seed)
    masks = (np.zeros(SHAPE, dtype=bool), np.zeros(SHAPE, dtype=bool))
    grid = np.indices(SHAPE)
    for _ in range(18):
        centre = [int(generator.integers(3, size - 3)) for size in SHAPE]
        radius = int(generator.integers(1, 6))
        kind, shift = int(generator.integers(0, 8)), [int(step) for step in generator.integers(-1, 2, 3)]
        for index, mask in enumerate(masks):
            if kind == index:
                continue
            moved = [c + (step if index else 0) for c, step in zip(centre, shift, strict=True)]
            distance = sum((axis - c) ** 2 for axis, c in zip(grid, moved, strict=True))
            mask |= distance <= radius**2
    return masks
