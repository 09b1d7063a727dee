"""Sizes that strided networks accept, and the faults that all builders look for in their arguments."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any

from monai_tl.networks.spec import Arguments
from monai_tl.records import IntTriple, SizeRule


def per_axis(value: int | Sequence[int]) -> IntTriple:
    """A number or three of them as three.

    Raises:
        ValueError: There are not three.
    """
    if isinstance(value, int):
        return value, value, value
    i, j, k = value
    return i, j, k


def halving(*divisors: int) -> SizeRule:
    """Sizes for networks that shrink their input.

    The minimum is twice the divisor along each axis, since instance and batch normalisation need more than one voxel at
    the bottom.

    Args:
        divisors: One for all axes, or one each.
    """
    i, j, k = divisors if len(divisors) == 3 else divisors * 3
    return SizeRule(divisor=i if i == j == k else (i, j, k), min_vox=(2 * i, 2 * j, 2 * k))


def strided(strides: Iterable[int | Sequence[int]]) -> SizeRule:
    """Sizes for a network whose levels have these strides.

    Raises:
        ValueError: One is below 1.
    """
    levels = [per_axis(stride) for stride in strides]
    low = sorted({step for level in levels for step in level if step < 1})
    if low:
        raise ValueError(f"strides hold {', '.join(map(str, low))}, and 1 is the least")
    return halving(*(math.prod(level[axis] for level in levels) for axis in range(3)))


def lengths_differ(arguments: Arguments, name: str, n_wanted: int, reason: str) -> list[str]:
    """A fault when an argument has another number of entries than wanted."""
    n_given = len(arguments[name])
    return [] if n_given == n_wanted else [f"{name}: has {n_given} entries, needs {n_wanted} ({reason})"]


def even_kernels(arguments: Arguments, name: str) -> list[str]:
    """A fault when a kernel has an even size anywhere: it would shift the output by half a voxel, or shrink it."""

    def numbers(value: Any) -> list[int]:
        if isinstance(value, str):
            # each letter of a text is a text again
            raise TypeError(f"{name} holds {value!r}, which is no number")
        return [value] if isinstance(value, int) else [one for item in value for one in numbers(item)]

    wrong = sorted({size for size in numbers(arguments[name]) if size < 1 or size % 2 == 0})
    return [f"{name}: has {', '.join(map(str, wrong))}, only odd sizes keep the grid"] if wrong else []
