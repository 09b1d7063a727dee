"""What a damaged kind is: how it is written, and what must happen to it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from dicom_bytes import Elements, Grid, Series, new_series, write_series

Outcome = tuple["Refusal | Grid", ...]
"""All that must be refused and all volumes that must come out."""
Maker = Callable[[Path, np.random.Generator], Sequence[Outcome]]


@dataclass(frozen=True)
class Refusal:
    """Items that must be in rejected.json.

    Attributes:
        kind: ``file``, ``series`` or ``label``.
        codes: Each of the items has one of them.
        says: A pattern that the reason holds: the cause in words, not that of something else.
        n_items: How many there are.
    """

    kind: str
    codes: frozenset[str]
    says: str
    n_items: int = 1


@dataclass(frozen=True)
class Kind:
    """One way in which input is damaged.

    Attributes:
        make: Writes it into an empty folder and says which outcomes are right; mostly one.
    """

    name: str
    make: Maker


KINDS: dict[str, Kind] = {}


def damaged(make: Maker) -> Maker:
    """Enter a function into the table under its name."""
    name = make.__name__
    if name in KINDS:
        raise ValueError(f"two kinds are called {name}")
    KINDS[name] = Kind(name, make)
    return make


def refused(kind: str, codes: str, says: str, n_items: int = 1) -> Refusal:
    """``codes`` separated by blanks."""
    return Refusal(kind, frozenset(codes.split()), says, n_items)


GAP = refused("series", "missing_slice", r"gap of 5\.00 mm")
"""A series of which one slice in the middle could not be read."""


def spoil_one(folder: Path, rng: np.random.Generator, change: Callable[[Elements], bytes | None], k: int = 2) -> Series:
    """A series of which one slice is changed in place, or replaced by bytes."""
    series = new_series(rng)
    slices: list[Elements | bytes] = list(series.slices)
    slices[k] = _changed(series.elements(k), change)
    write_series(folder, slices)
    return series


def spoil_all(folder: Path, rng: np.random.Generator, change: Callable[[Elements], bytes | None]) -> Series:
    """A series of which every slice is changed in the same way."""
    series = new_series(rng)
    write_series(folder, [_changed(one, change) for one in series.slices])
    return series


def _changed(elements: Elements, change: Callable[[Elements], bytes | None]) -> Elements | bytes:
    replaced = change(elements)
    return elements if replaced is None else replaced


def setting(**values: tuple[str, bytes] | None) -> Callable[[Elements], None]:
    """A change that sets elements, named ``x`` and eight hex digits; None removes."""

    def change(elements: Elements) -> None:
        for name, value in values.items():
            tag = int(name[1:], 16)
            if value is None:
                elements.pop(tag, None)
            else:
                elements[tag] = value

    return change


def one_file(codes: str, says: str) -> Sequence[Outcome]:
    """A slice in the middle cannot be read: it is named and its series has a gap, or the series is named for it."""
    return (refused("file", codes, says), GAP), (refused("series", codes, says),)


def whole_series(codes: str, says: str, n_files: int = 6) -> Sequence[Outcome]:
    """A series that is no volume for what all its files say: named once, or each file is."""
    return (refused("series", codes, says),), (refused("file", codes, says, n_files),)
