"""Work for processes of a cluster; a module of its own, so that they load little."""

from __future__ import annotations

import os
import signal
import time


def work_of(number: int) -> tuple[int, int]:
    """The number, and in which process."""
    time.sleep(0.01)
    return number, os.getpid()


def end_itself(number: int) -> int:
    """The number; but for 2 the process is killed."""
    if number == 2:
        os.kill(os.getpid(), signal.SIGKILL)
    return number
