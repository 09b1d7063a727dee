"""Masks to closed outlines along pixel edges: filling an outline gives back its mask, pixel for pixel."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Corner = tuple[int, int]
"""(row, column) of a pixel corner; corner (r, c) lies half a pixel before the centre of pixel (r, c) on both axes."""
_TURNS = {(0, 1): (1, 0), (1, 0): (0, -1), (0, -1): (-1, 0), (-1, 0): (0, 1)}
"""Direction of walking → the same turned right (rows grow downwards)."""


def mask_to_outlines(mask: NDArray[np.bool_]) -> list[NDArray[np.float64]]:
    """Outlines of one slice.

    Pixels that touch only at a corner belong to different outlines. A hole is joined to the outline around it by a
    channel of no width along pixel edges, so that every reader, whether it knows holes or not, fills the same pixels;
    no pixel centre ever lies on an outline.

    Args:
        mask: (rows, columns) bool.

    Returns:
        Each (P, 2) float64, (row, column) index of its corners where pixel centres are integers; open (the first point
        is not repeated); empty for an empty mask.
    """
    rings = _trace(_edges(mask))
    outer = [ring for ring in rings if _signed_area(ring) > 0]
    holes = sorted((ring for ring in rings if _signed_area(ring) < 0), key=lambda ring: min((c, r) for r, c in ring))
    for hole in holes:
        _join(outer, hole)
    return [np.asarray(_without_straight(ring), dtype=np.float64) - 0.5 for ring in outer]


def _edges(mask: NDArray[np.bool_]) -> dict[Corner, list[Corner]]:
    """Corner → directions of the edges that leave it, with the mask on the right hand."""
    padded = np.pad(mask, 1)
    leaving: dict[Corner, list[Corner]] = {}
    inside = padded[1:-1, 1:-1]
    sides = (
        (padded[:-2, 1:-1], (0, 0), (0, 1)),
        (padded[1:-1, 2:], (0, 1), (1, 0)),
        (padded[2:, 1:-1], (1, 1), (0, -1)),
        (padded[1:-1, :-2], (1, 0), (-1, 0)),
    )
    for neighbour, (down, right), direction in sides:
        for row, column in np.argwhere(inside & ~neighbour).tolist():
            leaving.setdefault((row + down, column + right), []).append(direction)
    return leaving


def _trace(leaving: dict[Corner, list[Corner]]) -> list[list[Corner]]:
    rings = []
    for start in sorted(leaving):
        while leaving[start]:
            ring, corner = [start], start
            step = leaving[start].pop(0)
            while True:
                corner = (corner[0] + step[0], corner[1] + step[1])
                if corner == start:
                    break
                ring.append(corner)
                choices = leaving[corner]
                # where two pixels touch at a corner, turning right stays with the same pixel
                right = _TURNS[step]
                step = right if right in choices else choices[0]
                choices.remove(step)
            rings.append(ring)
    return rings


def _signed_area(ring: list[Corner]) -> int:
    following = [*ring[1:], ring[0]]
    return sum(c * next_r - next_c * r for (r, c), (next_r, next_c) in zip(ring, following, strict=True))


def _join(outer: list[list[Corner]], hole: list[Corner]) -> None:
    """Splice a hole into the outline to its left, through a channel along one line of corners."""
    start = min(range(len(hole)), key=lambda index: (hole[index][1], hole[index][0]))
    row, column = hole[start]
    for left in range(column - 1, -1, -1):
        for ring in outer:
            if (row, left) in ring:
                place = ring.index((row, left))
                channel = [(row, between) for between in range(left + 1, column)]
                around = [*hole[start:], *hole[:start], hole[start]]
                ring[place + 1 : place + 1] = [*channel, *around, *reversed(channel), (row, left)]
                return


def _without_straight(ring: list[Corner]) -> list[Corner]:
    """Drop corners in the middle of a straight run; turning points stay, those of a channel too."""
    kept = []
    for before, here, after in zip([ring[-1], *ring[:-1]], ring, [*ring[1:], ring[0]], strict=True):
        first = (here[0] - before[0], here[1] - before[1])
        second = (after[0] - here[0], after[1] - here[1])
        if first != second:
            kept.append(here)
    return kept
