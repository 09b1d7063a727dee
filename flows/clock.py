"""A server for whom the clock on the wall may be set back: ``python -m flows.clock -- COMMAND …`` runs one.

Prefect plans by that clock: set back by an hour, each service of its server sleeps until the time at which it was due
next. So COMMAND is started anew when that happens; what it holds of a time to come is put right then, as at each start
(``flows.renewal``). PREFECT_API_URL and PREFECT_API_AUTH_STRING say where the server answers, PREFECT_HOME where its
leases are.
"""

from __future__ import annotations

import argparse
import logging
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from datetime import UTC, datetime

from prefect.settings import PREFECT_CLIENT_MAX_RETRIES, get_current_settings, temporary_settings

from flows.renewal import renew, shorten_leases
from flows.server import is_healthy

BACK_S = 10.0
"""A clock that is set back by less costs no more than this."""
_GRACE_S = 8.0
"""Less than whoever stops this process gives it."""
_SUPERVISED = (sys.executable, "-m", "monai_tl.supervise", "--grace", f"{_GRACE_S:g}", "--")
_TICK_S = 1.0
_LONGEST_PAUSE_S = 60.0
_logger = logging.getLogger(__name__)


class WallClock:
    """Tells whether the clock on the wall was set back since it was asked last."""

    def __init__(self) -> None:
        self._ahead = _ahead()

    def set_back_by(self) -> float:
        """Seconds; negative where it was set forward."""
        before, self._ahead = self._ahead, _ahead()
        return before - self._ahead


def _ahead() -> float:
    """How far the clock on the wall is ahead of the one that nobody sets, s."""
    return time.time() - time.monotonic()


def run(command: Sequence[str], api_url: str) -> int:
    """Run a server until it ends by itself, or this process is asked to end.

    Args:
        command: Program and arguments of the server.
        api_url: Of its API, to ask whether it answers.

    Returns:
        The server's exit status.
    """
    clock, was_set_back = WallClock(), False
    while True:
        shorten_leases(get_current_settings().home / "concurrency_leases", datetime.now(UTC))
        # ends with this block or this process, with all that it started
        with subprocess.Popen([*_SUPERVISED, *command], stdin=subprocess.PIPE) as server:
            status = _watch(server, clock, _Renewal(api_url, was_set_back))
        if status is not None:
            return status
        _logger.warning("the clock was set back: the server starts anew")
        was_set_back = True


def _watch(server: subprocess.Popen[bytes], clock: WallClock, renewal: _Renewal) -> int | None:
    """The status with which the server ended; None when the clock was set back."""
    while (status := server.poll()) is None:
        time.sleep(_TICK_S)
        if clock.set_back_by() > BACK_S:
            return None
        renewal.go_on()
    return status


class _Renewal:
    """Tried until it is done, more and more seldom; a server that cannot be asked goes on without."""

    def __init__(self, api_url: str, was_set_back: bool) -> None:
        self._api_url, self._was_set_back = api_url, was_set_back
        self._is_done, self._pause_s, self._next = False, _TICK_S, 0.0

    def go_on(self) -> None:
        if self._is_done or time.monotonic() < self._next or not is_healthy(self._api_url):
            return
        try:
            with temporary_settings({PREFECT_CLIENT_MAX_RETRIES: 0}):
                renewed = renew(datetime.now(UTC), self._was_set_back)
        except Exception as error:
            self._pause_s = min(2 * self._pause_s, _LONGEST_PAUSE_S)
            self._next = time.monotonic() + self._pause_s
            status = getattr(getattr(error, "response", None), "status_code", "")
            _logger.warning("schedules could not be looked at: %s %s", type(error).__name__, status)
            return
        self._is_done = True
        if renewed:
            _logger.warning("schedules renewed, as their runs are of a time to come: %s", ", ".join(renewed))


def _end(number: int, frame: object) -> None:
    # whoever asks a second time would cut short the end that goes on
    for one in (signal.SIGTERM, signal.SIGINT):
        signal.signal(one, signal.SIG_IGN)
    raise SystemExit(128 + number)


def main() -> int:
    """Entry point."""
    parser = argparse.ArgumentParser(prog="python -m flows.clock")
    parser.add_argument("command", nargs="+", help="program and arguments of the server, after --")
    given = parser.parse_args()
    url = os.environ.get("PREFECT_API_URL")
    if not url:
        parser.error("set PREFECT_API_URL to the address of the server's API")
    logging.basicConfig(format="%(message)s", stream=sys.stdout)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, _end)
    return run(given.command, url)


if __name__ == "__main__":
    sys.exit(main())
