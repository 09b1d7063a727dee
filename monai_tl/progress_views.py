"""Forms in which the progress of a process is shown: bars, a few lines, records for the flow, objects for a program."""

from __future__ import annotations

import sys
import time
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol

from monai_tl.json_lines import MARK, mark_line, write_event

if TYPE_CHECKING:
    from monai_tl.progress_bars import Bars

SECONDS_BETWEEN_LINES = 60.0
"""A log shows that slow work is alive at least so often."""


@dataclass(eq=False)
class Work:
    """A piece of work and where it stands.

    Args:
        stage: The stage's name, with arm and fold where it has them.
        total: Steps of work; 0 when not yet known.

    Attributes:
        values: The newest measurements: ``loss``, ``dice`` (of the validation), ``best_dice``.
        epoch: Number of the present epoch from 1, how many there are, steps done in it, its steps; empty where the work
            has none.
    """

    stage: str
    total: int = 0
    done: int = 0
    values: dict[str, float] = field(default_factory=dict)
    epoch: tuple[int, int, int, int] | tuple[()] = ()

    def __post_init__(self) -> None:
        self.start_clock()

    def start_clock(self) -> None:
        """Measure the speed from here on."""
        self._began_s = time.monotonic()
        self._began_at = self.done

    @property
    def elapsed_s(self) -> float:
        """Seconds since the beginning."""
        return time.monotonic() - self._began_s

    @property
    def rate_per_s(self) -> float | None:
        """Steps a second so far; None before the first."""
        done = self.done - self._began_at
        return done / self.elapsed_s if done > 0 and self.elapsed_s > 0 else None

    @property
    def remaining_s(self) -> float | None:
        """Seconds that the rest takes at this rate; None where that is not known."""
        rate = self.rate_per_s
        return max(0, self.total - self.done) / rate if rate and self.total else None

    def record(self, note: str) -> dict[str, Any]:
        """All of it for a program; docs/json-output.md gives the fields."""
        fields: dict[str, Any] = {"stage": self.stage, "done": self.done, "total": self.total, "note": note}
        return fields | self.values | ({"epoch": list(self.epoch)} if self.epoch else {})


class View(Protocol):
    """What shows the progress of this process."""

    def begin(self, work: Work) -> None:
        """It is known how much there is to do."""

    def state(self, work: Work, note: str, *, is_warning: bool = False, is_score: bool = False) -> None:
        """Work was done."""

    def tick(self, work: Work) -> None:
        """A step too small for a line was done."""

    def message(self, work: Work, note: str, *, is_warning: bool) -> None:
        """Something is to be said."""

    def end(self, work: Work) -> None:
        """A piece of work is over."""

    def finish(self) -> None:
        """No more will come; called once more than needed it does nothing."""


class Silent:
    """Says nothing: another process tells of the same work."""

    def begin(self, work: Work) -> None:
        """Nothing."""

    def state(self, work: Work, note: str, *, is_warning: bool = False, is_score: bool = False) -> None:
        """Nothing."""

    def tick(self, work: Work) -> None:
        """Nothing."""

    def message(self, work: Work, note: str, *, is_warning: bool) -> None:
        """Nothing."""

    def end(self, work: Work) -> None:
        """Nothing."""

    def finish(self) -> None:
        """Nothing."""


class Marks:
    """A record a line on standard output, for the flow that watches."""

    def begin(self, work: Work) -> None:
        """Nothing: the flow itself tells that a step runs."""

    def state(self, work: Work, note: str, *, is_warning: bool = False, is_score: bool = False) -> None:
        """Print it."""
        record = work.record(note) | ({"warning": True} if is_warning else {})
        print(mark_line(MARK, record), file=sys.stdout, flush=True)

    def tick(self, work: Work) -> None:
        """As any state."""
        self.state(work, "")

    def message(self, work: Work, note: str, *, is_warning: bool) -> None:
        """Print it."""
        record = work.record(note) | {"message": True} | ({"warning": True} if is_warning else {})
        print(mark_line(MARK, record), file=sys.stdout, flush=True)

    def end(self, work: Work) -> None:
        """Nothing: the flow sees the end of the process."""

    def finish(self) -> None:
        """Nothing is held back."""


class Events:
    """JSON objects for the program that called with ``--json``."""

    def begin(self, work: Work) -> None:
        """Write how much there is to do."""
        self.state(work, "")

    def state(self, work: Work, note: str, *, is_warning: bool = False, is_score: bool = False) -> None:
        """Write it with its rate and the time that remains."""
        times = {"elapsed_s": work.elapsed_s, "rate_per_s": work.rate_per_s}
        times["remaining_s"] = work.remaining_s
        rounded = {key: None if value is None else round(value, 3) for key, value in times.items()}
        write_event("progress", **work.record(note), **rounded, warning=is_warning)

    def tick(self, work: Work) -> None:
        """As any state."""
        self.state(work, "")

    def message(self, work: Work, note: str, *, is_warning: bool) -> None:
        """Write it."""
        write_event("message", stage=work.stage, text=note, warning=is_warning)

    def end(self, work: Work) -> None:
        """Nothing: the last state is known."""

    def finish(self) -> None:
        """Nothing is held back."""


class FewLines:
    """Lines on standard error for a log: each tenth of the work, each minute, scores and warnings."""

    def __init__(self) -> None:
        self._tenth: dict[Work, int] = {}
        self._told_s: dict[Work, float] = {}

    def begin(self, work: Work) -> None:
        """Print how much there is to do."""
        self._told_s[work] = time.monotonic()
        self._print(f"{work.stage}: {work.total} to do", is_warning=False)

    def state(self, work: Work, note: str, *, is_warning: bool = False, is_score: bool = False) -> None:
        """Print what a reader of a log wants to know, with the time that remains."""
        now = time.monotonic()
        began = self._told_s.setdefault(work, now - work.elapsed_s)
        tenth = int(10 * work.done / work.total) if work.total > 0 else 0
        is_further = tenth > self._tenth.get(work, 0)
        if not (is_further or is_warning or is_score or now - began >= SECONDS_BETWEEN_LINES):
            return
        self._told_s[work] = now
        self._tenth[work] = max(tenth, self._tenth.get(work, 0))
        left = work.remaining_s
        ahead = f" ({duration(left)} left)" if left and left >= 1.0 else ""
        self._print(f"{work.stage}: {work.done}/{work.total}{ahead} {note}", is_warning)

    def tick(self, work: Work) -> None:
        """As any state."""
        self.state(work, "")

    def message(self, work: Work, note: str, *, is_warning: bool) -> None:
        """Print it."""
        self._print(f"{work.stage}: {note}", is_warning)

    def end(self, work: Work) -> None:
        """Forget it."""
        self._tenth.pop(work, None)
        self._told_s.pop(work, None)

    def finish(self) -> None:
        """Nothing is held back."""

    def _print(self, line: str, is_warning: bool) -> None:
        print(f"warning: {line}" if is_warning else line.rstrip(), file=sys.stderr, flush=True)


class EachLine:
    """A line on standard output for every case, for who wants to read them all."""

    def begin(self, work: Work) -> None:
        """Nothing: the first line tells how much there is."""

    def state(self, work: Work, note: str, *, is_warning: bool = False, is_score: bool = False) -> None:
        """Print it."""
        print(f"{work.stage}: {work.done}/{work.total} {note}".rstrip(), flush=True)

    def tick(self, work: Work) -> None:
        """Nothing: a step of training is no case."""

    def message(self, work: Work, note: str, *, is_warning: bool) -> None:
        """Print it."""
        self.state(work, note)

    def end(self, work: Work) -> None:
        """Nothing is held back."""

    def finish(self) -> None:
        """Nothing is held back."""


def duration(seconds: float) -> str:
    """In words that fit the size: ``40 s``, ``12 min``, ``3.5 h``."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


class Terminal:
    """Work of this process as bars on standard error, so that results on standard output stay alone."""

    def __init__(self) -> None:
        # rich is not loaded where nobody looks
        from rich.console import Console

        from monai_tl.progress_bars import Bars

        self._make = partial(Bars, Console(stderr=True))
        self._bars: Bars | None = None
        self._under_way: set[Work] = set()

    def begin(self, work: Work) -> None:
        """Show the bar."""
        self._under_way.add(work)
        self._shown().begin(work, work.stage, work.total)

    def state(self, work: Work, note: str, *, is_warning: bool = False, is_score: bool = False) -> None:
        """Move the bar; a warning is printed above it as well."""
        bars = self._shown()
        self._under_way.add(work)
        bars.update(work, work.stage, work.done, work.total, note, work.values)
        if work.epoch:
            bars.update_epoch(work, work.epoch)
        if is_warning:
            bars.message(f"{work.stage}: {note}", is_warning=True)
        if work.total and work.done >= work.total and not work.epoch:
            self.end(work)

    def tick(self, work: Work) -> None:
        """As any state."""
        self.state(work, "")

    def message(self, work: Work, note: str, *, is_warning: bool) -> None:
        """Print it above the bars."""
        shown = self._bars or self._make()
        shown.message(f"{work.stage}: {note}", is_warning=is_warning)

    def end(self, work: Work) -> None:
        """Stop its clock; after the last the terminal is free for results."""
        if self._bars is None:
            return
        self._bars.end(work)
        self._under_way.discard(work)
        if not self._under_way:
            self.finish()

    def finish(self) -> None:
        """Give the terminal back."""
        if self._bars is not None:
            self._bars.stop()
            self._bars = None

    def _shown(self) -> Bars:
        if self._bars is None:
            self._bars = self._make()
        return self._bars
