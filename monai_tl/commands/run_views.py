"""What a run shows of its flow: bars for a person at a terminal, a few lines for a log, JSON objects for a program."""

from __future__ import annotations

import time
from collections.abc import Mapping
from types import TracebackType
from typing import Any, Protocol, Self

from rich.console import Console

from monai_tl.json_lines import write_event
from monai_tl.progress_bars import Bars
from monai_tl.progress_views import SECONDS_BETWEEN_LINES

_VALUES = ("loss", "dice", "best_dice")


class View(Protocol):
    """What shows the progress of the steps."""

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...

    def plan(self, n_steps: int) -> None:
        """The flow says how many steps the run has."""

    def outcome(self, step: str, outcome: str) -> None:
        """A step has begun (``running``) or ended."""

    def progress(self, step: str, record: Mapping[str, Any]) -> None:
        """A step reports work: stage, done, total, note, and what it measured."""

    def line(self, text: str) -> None:
        """Other output of the flow, which goes to its log."""


class _Always:
    """Nothing to begin or to end."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        return None

    def plan(self, n_steps: int) -> None:
        """Nothing."""

    def line(self, text: str) -> None:
        """Nothing."""


class PlainView(_Always):
    """Lines, for a log: beginnings, endings, each further tenth of a step, each minute, scores and warnings.

    Args:
        console: Where they go.
    """

    def __init__(self, console: Console) -> None:
        self._console = console
        self._tenth: dict[str, int] = {}
        self._dice: dict[str, Any] = {}
        self._told_s = time.monotonic()

    def outcome(self, step: str, outcome: str) -> None:
        """Print it."""
        self._print(f"{step}: {outcome}")

    def progress(self, step: str, record: Mapping[str, Any]) -> None:
        """Print what a reader of a log wants to know."""
        done, total, note = _number(record, "done"), _number(record, "total"), str(record.get("note", ""))
        warning = "warning: " if record.get("warning") else ""
        if record.get("message"):
            self._print(f"{warning}{step}: {note}")
            return
        tenth = int(10 * done / total) if total > 0 else 0
        is_further = tenth > self._tenth.get(step, 0)
        is_score = "dice" in record and record["dice"] != self._dice.get(step)
        is_late = time.monotonic() - self._told_s >= SECONDS_BETWEEN_LINES
        if is_further or is_score or is_late or warning:
            self._tenth[step] = max(tenth, self._tenth.get(step, 0))
            self._dice[step] = record.get("dice")
            self._print(f"{warning}{step}: {done:g}/{total:g} {note}".rstrip())

    def _print(self, text: str) -> None:
        self._told_s = time.monotonic()
        self._console.print(text, highlight=False, markup=False)


class LiveView(_Always):
    """A bar for the run, one for each step, one for the epoch of a training.

    Args:
        console: A terminal.
    """

    def __init__(self, console: Console) -> None:
        self._bars = Bars(console)
        self._n_steps = 0
        self._ended: set[str] = set()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bars.stop()

    def plan(self, n_steps: int) -> None:
        """Show the bar of the whole run."""
        self._n_steps = n_steps
        self._bars.begin(self, "stages", n_steps, is_even=False)

    def outcome(self, step: str, outcome: str) -> None:
        """Begin or fill the step's bar."""
        self._bars.begin(step, step, 0)
        if outcome == "running":
            return
        self._bars.end(step, outcome)
        self._ended.add(step)
        if self._n_steps:
            self._bars.update(self, "stages", len(self._ended), self._n_steps)

    def progress(self, step: str, record: Mapping[str, Any]) -> None:
        """Move the step's bar."""
        note = str(record.get("note", ""))
        if record.get("warning"):
            self._bars.message(f"{step}: {note}", is_warning=True)
        values = {key: float(record[key]) for key in _VALUES if isinstance(record.get(key), int | float)}
        self._bars.update(step, step, _number(record, "done"), _number(record, "total"), note, values)
        epoch = record.get("epoch")
        if isinstance(epoch, list) and len(epoch) == 4:
            self._bars.update_epoch(step, [int(one) for one in epoch])


class EventView(_Always):
    """JSON objects on standard output."""

    def outcome(self, step: str, outcome: str) -> None:
        """Write a ``step``."""
        write_event("step", step=step, outcome=outcome)

    def plan(self, n_steps: int) -> None:
        """Write a ``plan``."""
        write_event("plan", n_steps=n_steps)

    def progress(self, step: str, record: Mapping[str, Any]) -> None:
        """Write a ``progress`` or a ``message``, as the stage itself would."""
        fields = {key: value for key, value in record.items() if key not in ("message", "warning", "note")}
        is_warning, note = bool(record.get("warning")), str(record.get("note", ""))
        if record.get("message"):
            write_event("message", step=step, stage=str(record.get("stage", "")), text=note, warning=is_warning)
        else:
            write_event("progress", step=step, **fields, note=note, warning=is_warning)


def _number(record: Mapping[str, Any], key: str) -> float:
    value = record.get(key, 0)
    return float(value) if isinstance(value, int | float) else 0.0
