"""Bars on a terminal: pieces of work with rate and remaining time, the epoch below, the validation Dice beside them."""

from __future__ import annotations

import sys
import threading
from collections.abc import Hashable, Mapping, Sequence

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    ProgressColumn,
    SpinnerColumn,
    Task,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.progress import Progress as RichProgress
from rich.table import Column
from rich.text import Text

_REFRESH_S = 0.2
_RATE_WINDOW_S = 3600.0
"""Long: a case may take minutes, and a rate needs two of them."""
_NAMES = {"loss": "loss", "dice": "Dice", "best_dice": "best"}


class RateColumn(ProgressColumn):
    """Steps a second, or a minute where they are slow."""

    def render(self, task: Task) -> Text:
        """The rate of a task; nothing before it is known, or where its steps take very different times."""
        speed = task.finished_speed or task.speed
        if not speed or not task.fields.get("is_even", True):
            return Text("")
        return Text(f"{speed:.1f}/s" if speed >= 1.0 else f"{60 * speed:.1f}/min", style="progress.data.speed")


class RemainingColumn(TimeRemainingColumn):
    """Time that remains, where the steps take about the same time each."""

    def render(self, task: Task) -> Text:
        """Nothing for a task that is over, or of uneven steps."""
        return super().render(task) if task.fields.get("is_even", True) and not task.finished else Text("")


def describe_values(values: Mapping[str, float]) -> str:
    """Measurements in one short line: ``loss 0.412  Dice 0.813  best 0.824``."""
    return "  ".join(f"{word} {values[key]:.3f}" for key, word in _NAMES.items() if key in values)


class Bars:
    """One bar a piece of work, and one below it for its epoch.

    The thread that keeps the clock going lives only while there is work under way, and not before its first result:
    worker processes can only be forked while a process has one thread.

    Args:
        console: A terminal.
    """

    def __init__(self, console: Console) -> None:
        self.console = console
        self._bars = RichProgress(
            SpinnerColumn(finished_text="[green]✓"),
            TextColumn("{task.description}", table_column=Column(no_wrap=True)),
            BarColumn(bar_width=16 if console.width < 110 else 30),
            MofNCompleteColumn(),
            RateColumn(),
            RemainingColumn(compact=True),
            TimeElapsedColumn(),
            # plain text: a note with brackets is no markup
            TextColumn(
                "{task.fields[note]}", "dim", markup=False, table_column=Column(no_wrap=True, overflow="ellipsis")
            ),
            console=console,
            auto_refresh=False,
            speed_estimate_period=_RATE_WINDOW_S,
            # results go where the caller sent them
            redirect_stdout=sys.stdout.isatty(),
        )
        self._tasks: dict[Hashable, TaskID] = {}
        self._clock: threading.Thread | None = None
        self._over = threading.Event()
        self._is_live = False

    def begin(self, key: Hashable, name: str, total: float, *, is_even: bool = True) -> None:
        """Show a bar that has not moved yet; ``is_even``: its steps take about the same time each."""
        if not self._is_live:
            self._is_live = True
            self._over.clear()
            self._bars.start()
        if key not in self._tasks:
            self._bars.update(self._task(key, name), total=total or None, is_even=is_even)
            self._bars.refresh()

    def update(
        self, key: Hashable, name: str, done: float, total: float, note: str = "", values: Mapping[str, float] = {}
    ) -> None:
        """Move a bar; the first time it appears."""
        self.begin(key, name, total)
        words = describe_values(values)
        task = self._task(key, name)
        # a step without words leaves those that are there
        if words or note:
            self._bars.update(task, note=words or note)
        self._bars.update(task, completed=done, total=total or None)
        self._tick()

    def update_epoch(self, key: Hashable, epoch: Sequence[int]) -> None:
        """Move the bar below a bar: number of the epoch, of how many, steps done in it, its steps."""
        number, count, done, steps = epoch
        task = self._task((key, "epoch"), "")
        if self._bars.tasks[self._bars.task_ids.index(task)].completed > done:
            self._bars.reset(task, total=steps)
        self._bars.update(task, description=f"  epoch {number}/{count}", completed=done, total=steps)

    def end(self, key: Hashable, note: str | None = None) -> None:
        """The work is over: its clock stops, its epoch goes; ``note`` fills the bar and says what became of it."""
        below = self._tasks.pop((key, "epoch"), None)
        if below is not None:
            self._bars.remove_task(below)
        task = self._tasks.get(key)
        if task is None:
            return
        if note is not None:
            total = self._bars.tasks[self._bars.task_ids.index(task)].total or 1
            self._bars.update(task, total=total, completed=total, note=note)
        self._bars.stop_task(task)
        self._bars.refresh()

    def message(self, text: str, *, is_warning: bool = False) -> None:
        """Print a line above the bars."""
        style = "yellow" if is_warning else ""
        self.console.print(text, style=style, highlight=False, markup=False, soft_wrap=True)

    def stop(self) -> None:
        """Leave the bars as they stand and give the terminal back."""
        if self._clock is not None:
            self._over.set()
            self._clock.join()
            self._clock = None
        if self._is_live:
            self._is_live = False
            self._bars.stop()

    def _task(self, key: Hashable, name: str) -> TaskID:
        if key not in self._tasks:
            self._tasks[key] = self._bars.add_task(name, total=None, note="")
        return self._tasks[key]

    def _tick(self) -> None:
        if self._clock is None:
            self._clock = threading.Thread(target=self._keep_time, daemon=True)
            self._clock.start()

    def _keep_time(self) -> None:
        while not self._over.wait(_REFRESH_S):
            self._bars.refresh()
