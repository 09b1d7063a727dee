"""Sizes that a network accepts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from pydantic import BaseModel, ConfigDict

IntTriple = tuple[int, int, int]


class SizeRule(BaseModel):
    """Sizes a network accepts: multiples, a minimum, and how a smaller image is padded.

    The output of a network always has the size of its input; one with unpadded convolutions pads inside.

    Attributes:
        divisor: Sizes are multiples of it; three numbers where the axes differ, as for anisotropic strides.
        min_vox: Smallest size.
        padding: What a smaller image is filled up with: zeros or its edge values.
        fixed: ``min_vox`` is the one size accepted, as with position embeddings that were learned for a grid.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    divisor: int | IntTriple = 1
    min_vox: IntTriple = (1, 1, 1)
    padding: Literal["constant", "edge"] = "constant"
    fixed: bool = False

    @property
    def divisors(self) -> IntTriple:
        """The divisor of each axis."""
        return (self.divisor,) * 3 if isinstance(self.divisor, int) else self.divisor

    def accepts(self, shape_vox: Sequence[int]) -> bool:
        """Whether a network takes an input of this size as it is."""
        if self.fixed:
            return tuple(shape_vox) == self.min_vox
        return all(
            size >= least and size % divisor == 0
            for size, least, divisor in zip(shape_vox, self.min_vox, self.divisors, strict=True)
        )

    def __str__(self) -> str:
        """In words, to follow "sizes are"."""
        least = " x ".join(map(str, self.min_vox))
        if self.fixed:
            return f"{least} voxels and no other"
        divisors = self.divisor if isinstance(self.divisor, int) else " x ".join(map(str, self.divisor))
        return f"multiples of {divisors} of at least {least} voxels"
