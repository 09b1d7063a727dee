"""Being asked to stop: a process ends through its context managers, so that nothing half-made stays, workers first."""

from __future__ import annotations

import os
import signal
import sys
import time
from contextlib import suppress
from types import FrameType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sys import UnraisableHookArgs

_WORKERS_S = 2.0
_AGAIN_S = 0.01
"""By then the finaliser that swallowed the order is over."""
_asked: list[int] = []
"""Signals that have come."""


def stop_tidily() -> None:
    """From now on SIGTERM and SIGINT end this process as an exception does. Call in the main thread.

    Without it SIGTERM ends a process on the spot, and half-written images of patients stay where they were being made.
    """
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, _stop)
    signal.signal(signal.SIGALRM, _raise_again)
    sys.unraisablehook = _note_swallowed


def stop_if_asked() -> None:
    """End here if an order to end came before: a library may have swallowed it, or made an error of its own of it.

    Raises:
        SystemExit: 143 for SIGTERM, 130 for SIGINT.
    """
    if _asked:
        # not once more into the tidying up
        signal.setitimer(signal.ITIMER_REAL, 0)
        sys.exit(128 + _asked[0])


def _stop(number: int, frame: FrameType | None) -> None:
    """Signal handler.

    Raises:
        SystemExit: 143, for SIGTERM.
        KeyboardInterrupt: For SIGINT.
    """
    _asked.append(number)
    # a second order, e.g. the kernel's when the parent ends, must not break into the tidying up
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    # they write into this process's folders, which are about to be removed
    _end_workers()
    if number == signal.SIGINT:
        raise KeyboardInterrupt
    raise SystemExit(128 + number)


def _note_swallowed(fault: UnraisableHookArgs) -> None:
    """Python drops what is raised in a finaliser or a C library's callback, an order to end too: give it once more."""
    if _asked and issubclass(fault.exc_type, (KeyboardInterrupt, SystemExit)):
        signal.setitimer(signal.ITIMER_REAL, _AGAIN_S)
    else:
        sys.__unraisablehook__(fault)


def _raise_again(number: int, frame: FrameType | None) -> None:
    """Signal handler.

    Raises:
        SystemExit: 143 for SIGTERM, 130 for SIGINT.
    """
    stop_if_asked()


def _end_workers() -> None:
    """End the processes that work over cases: politely, so that they tidy up too, then for certain."""
    # not imported here: a command without workers must not pay for it
    processes: Any = sys.modules.get("multiprocessing.process")
    workers = processes.active_children() if processes else []
    for worker in workers:
        worker.terminate()
    deadline = time.monotonic() + _WORKERS_S
    for worker in workers:
        worker.join(max(0.0, deadline - time.monotonic()))
        if worker.is_alive():
            # not worker.kill(): joblib's processes have no such method. One that another thread has reaped is gone
            with suppress(ProcessLookupError):
                os.kill(worker.pid, signal.SIGKILL)
            worker.join()
