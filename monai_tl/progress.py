"""Progress of a piece of work: told by whoever does it, shown in the form that suits whoever watches."""

from __future__ import annotations

import os
import sys
import time

from monai_tl.json_lines import MARK as MARK
from monai_tl.json_lines import VARIABLE, are_events_on
from monai_tl.progress_views import EachLine, Events, FewLines, Marks, Terminal, View, Work

PLAIN = "plain"
"""Value of ``VARIABLE``: lines also on a terminal."""
ALL = "all"
"""Value of ``VARIABLE``: a line for every case, on standard output."""
SECONDS_BETWEEN_TICKS = 0.5
"""Steps of training are told to a program or a bar at most so often."""


class Progress(Work):
    """Counts the work of one stage, and tells whoever watches."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self._ticked_s = 0.0
        if self.total > self.done:
            _view().begin(self)

    def begin(self, total: int) -> None:
        """Say how much there is to do, where that was not known at first."""
        self.total = total
        self.start_clock()
        if total > self.done:
            _view().begin(self)

    def advance(self, note: str = "", steps: int = 1, *, is_warning: bool = False) -> None:
        """Report that work was done.

        Args:
            note: Holds pseudonymous ids and numbers only.
            steps: How much.
            is_warning: The note says that something went wrong with it: told in every form of output.
        """
        self.done += steps
        _view().state(self, note, is_warning=is_warning)

    def show(self, note: str = "") -> None:
        """Tell something that is worth a line of its own."""
        _view().message(self, note, is_warning=False)

    def warn(self, note: str) -> None:
        """Tell that something is not as it should be."""
        _view().message(self, note, is_warning=True)

    def measure(self, done: int, note: str = "", **values: float) -> None:
        """Report where the work stands and what was measured there.

        Args:
            done: Steps done in all.
            note: The same in words.
            **values: See ``values``; those not given stay as they are.
        """
        self.done = done
        self.values |= values
        _view().state(self, note, is_score="dice" in values)

    def tick(self, done: int, epoch: tuple[int, int, int, int] | tuple[()] = ()) -> None:
        """Report a step too small for a line; most are passed over, so it may be called after each."""
        self.done, self.epoch = done, epoch
        now = time.monotonic()
        if now - self._ticked_s >= SECONDS_BETWEEN_TICKS:
            self._ticked_s = now
            _view().tick(self)

    def resume(self, done: int) -> None:
        """Go on from where an earlier process stopped, whose work says nothing of this one's speed."""
        self.done = done
        self.start_clock()

    def end(self) -> None:
        """The work is over, though it may have taken fewer steps than planned."""
        _view().end(self)


_chosen: list[View] = []


def _view() -> View:
    if not _chosen:
        _chosen.append(_choose())
    return _chosen[0]


def _choose() -> View:
    asked = os.environ.get(VARIABLE)
    if are_events_on():
        return Events()
    if asked == "json":
        return Marks()
    if asked == ALL:
        return EachLine()
    if asked != PLAIN and sys.stderr.isatty() and os.environ.get("TERM") != "dumb":
        return Terminal()
    return FewLines()


def use_view(view: View | None) -> None:
    """Show the progress of this process by ``view``; None chooses anew by environment and terminal."""
    finish_view()
    _chosen[:] = [view] if view is not None else []


def finish_view() -> None:
    """Leave the terminal as it was found."""
    for view in _chosen:
        view.finish()
