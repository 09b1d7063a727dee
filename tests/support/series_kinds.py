"""Kinds of series that scanners, archives and anonymisers make, each with what has to come of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from series_writer import CT, MR, SeriesWriter
from world_fields import Grid

AXIS_MM = 1e-3
"""Corners of an accepted volume lie where DICOM says to this many mm."""


@dataclass(frozen=True)
class Expected:
    """One volume that has to come out.

    Attributes:
        grid: Its slices.
        part: Which field its values follow.
        tells: A key and value of ``part`` in the index; an empty key takes any key whose value holds the text.
        note: A word that one of its notes holds.
        tolerance_mm: Of its corners.
        optional: It may also stay behind with what is refused beside it.
    """

    grid: Grid
    part: int = 0
    tells: tuple[str, str] | None = None
    note: str = ""
    tolerance_mm: float = AXIS_MM
    optional: bool = False


@dataclass(frozen=True)
class Refusal:
    """One entry of rejected.json.

    Attributes:
        codes: Any of these.
        numbers: All of these are in the reason; a tuple stands for any of its own.
        word: In the reason, in any case of letters.
        optional: It may also come out right instead.
    """

    codes: tuple[str, ...]
    numbers: tuple[float | tuple[float, ...], ...] = ()
    word: str = ""
    optional: bool = False


@dataclass(frozen=True)
class Kind:
    """A series and its outcome: these volumes and these refusals, and nothing else."""

    name: str
    write_slices: Callable[[SeriesWriter], None]
    volumes: tuple[Expected, ...]
    refusals: tuple[Refusal, ...]
    base: Mapping[str, Any]

    def write(self, folder: Path, number: int = 1) -> None:
        self.write_slices(SeriesWriter(folder, number, self.base))

    @property
    def has_choice(self) -> bool:
        """Whether more than one outcome is right."""
        return any(one.optional for one in (*self.volumes, *self.refusals))


@dataclass
class Kinds:
    """A table that writers enter by decorating."""

    entries: list[Kind] = field(default_factory=list)

    def ct(self, *outcome: Expected | Refusal) -> Callable[[Callable[[SeriesWriter], None]], Kind]:
        return self._enter(outcome, CT)

    def mr(self, *outcome: Expected | Refusal) -> Callable[[Callable[[SeriesWriter], None]], Kind]:
        return self._enter(outcome, MR)

    def _enter(
        self, outcome: tuple[Expected | Refusal, ...], base: Mapping[str, Any]
    ) -> Callable[[Callable[[SeriesWriter], None]], Kind]:
        volumes = tuple(one for one in outcome if isinstance(one, Expected))
        refusals = tuple(one for one in outcome if isinstance(one, Refusal))

        def enter(write_slices: Callable[[SeriesWriter], None]) -> Kind:
            kind = Kind(write_slices.__name__, write_slices, volumes, refusals, base)
            self.entries.append(kind)
            return kind

        return enter
