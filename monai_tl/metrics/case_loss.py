"""The training loss of a whole case, summed while its probabilities pass by."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

SMOOTH = 1e-5
"""Added to both sides of each Dice, as MONAI's loss does."""
_LEAST = 1e-7
"""A probability of 0 in float32 would be an infinite loss."""


class CaseLoss:
    """Soft Dice of the foreground classes plus cross-entropy, as training minimises it, over a case instead of a patch.

    Args:
        reference: (I, J, K) classes on the network's grid.
        n_outputs: Classes with background.
    """

    def __init__(self, reference: NDArray[np.uint8], n_outputs: int) -> None:
        self.reference, self.n_outputs = reference, n_outputs
        self.both = np.zeros(n_outputs)
        self.predicted = np.zeros(n_outputs)
        self.drawn = np.zeros(n_outputs)
        self.surprise = 0.0
        self.n_voxels = 0

    def add(self, axis: int, start: int, values: NDArray[Any]) -> None:
        """Sum a slab.

        Args:
            axis: Along which slabs follow each other.
            start: First plane.
            values: (n_outputs, I, J, K) probabilities.
        """
        planes = [slice(None)] * 3
        planes[axis] = slice(start, start + values.shape[1 + axis])
        reference = self.reference[tuple(planes)]
        for value in range(self.n_outputs):
            probabilities, inside = values[value], reference == value
            of_class = probabilities[inside].astype(np.float64)
            self.both[value] += of_class.sum()
            self.predicted[value] += probabilities.sum(dtype=np.float64)
            self.drawn[value] += inside.sum()
            self.surprise -= float(np.log(np.maximum(of_class, _LEAST)).sum())
        self.n_voxels += reference.size

    def finish(self) -> float:
        """The loss; 0 for a certain and correct prediction."""
        dice = (2.0 * self.both + SMOOTH) / (self.predicted + self.drawn + SMOOTH)
        return float((1.0 - dice[1:]).mean() + self.surprise / self.n_voxels)
