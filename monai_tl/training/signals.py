"""Being asked to stop: SIGTERM and SIGINT wait for the end of an optimiser step, so a checkpoint can be written."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType


class StopRequest:
    """Whether, and by which signal, this process was asked to stop."""

    def __init__(self) -> None:
        self._number: int | None = None
        self._is_immediate = False

    def note(self, number: int, frame: FrameType | None) -> None:
        """Signal handler."""
        self._number = number
        if self._is_immediate:
            raise SystemExit(128 + number)

    @property
    def number(self) -> int:
        """Of the signal; 0 when there was none."""
        return self._number or 0

    def raise_if_made(self, number: int | None = None) -> None:
        """Stop here if asked to.

        Args:
            number: Of the signal that was agreed on; None takes this process's own.

        Raises:
            SystemExit: 128 and the signal's number: 143 for SIGTERM.
        """
        number = self.number if number is None else number
        if number:
            raise SystemExit(128 + number)

    @contextmanager
    def immediate(self) -> Iterator[None]:
        """Within this block a signal stops at once: for long work that changes nothing."""
        self.raise_if_made()
        self._is_immediate = True
        try:
            yield
        finally:
            self._is_immediate = False


@contextmanager
def catch_signals() -> Iterator[StopRequest]:
    """Catch SIGTERM and SIGINT within the block; outside the main thread, where Python cannot, nothing is caught."""
    request = StopRequest()
    if threading.current_thread() is not threading.main_thread():
        yield request
        return
    previous = {number: signal.signal(number, request.note) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield request
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
