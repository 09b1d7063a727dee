"""``python -m monai_tl.supervise -- COMMAND …``: a command that never outlives its caller, nor its own children it.

The caller keeps the write end of this process's standard input open. When the caller ends, however it ends, the kernel
closes that pipe: this process reads end-of-file, asks COMMAND to stop (SIGTERM), waits a little, and then ends every
process that descends from it. What COMMAND leaves behind when it ends by itself goes the same way. Nothing here relies
on the caller being able to act, so it holds for ``kill -9``. Standard library only: it must start at once.
"""

from __future__ import annotations

import argparse
import ctypes
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

_PR_SET_PDEATHSIG = 1
_PR_SET_CHILD_SUBREAPER = 36
_TICK_S = 0.05
_TERMINATION_S = 2.0
_IS_LINUX = sys.platform.startswith("linux")


def _prctl(option: int, value: int) -> None:
    if _IS_LINUX:
        ctypes.CDLL(None, use_errno=True).prctl(option, value, 0, 0, 0)


def _die_with_supervisor() -> None:
    _prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def descendants(of: int) -> list[int]:
    """Process ids of all living descendants of a process, parents first; empty where there is no /proc.

    Args:
        of: Process id; not part of the answer.
    """
    children: dict[int, list[int]] = {}
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            # the command's name is in parentheses and may hold anything; state and parent follow the last one
            state, parent = (entry / "stat").read_text().rpartition(")")[2].split()[:2]
        except (OSError, ValueError):
            continue
        if state != "Z":
            children.setdefault(int(parent), []).append(int(entry.name))
    found: list[int] = []
    waiting = [of]
    while waiting:
        below = children.get(waiting.pop(), [])
        found += below
        waiting += below
    return found


def _send(pids: Sequence[int], number: int) -> None:
    for pid in pids:
        try:
            os.kill(pid, number)
        except ProcessLookupError:
            continue


def _reap() -> None:
    """Collect every ended child, among them orphans handed over by the kernel."""
    while True:
        try:
            if os.waitpid(-1, os.WNOHANG)[0] == 0:
                return
        except ChildProcessError:
            return


def _end_descendants() -> None:
    """End all that is left: politely first, for certain afterwards."""
    me = os.getpid()
    deadline = time.monotonic() + _TERMINATION_S
    _send(descendants(me), signal.SIGTERM)
    while descendants(me):
        _reap()
        if time.monotonic() > deadline:
            # repeated, because a process may be forking while it is looked at
            _send(descendants(me), signal.SIGKILL)
        time.sleep(_TICK_S)
    _reap()


class _Stop(Exception):
    """The caller is gone or asked to stop."""


def _raise_stop(number: int, frame: object) -> None:
    raise _Stop


def _wait(child: subprocess.Popen[bytes]) -> None:
    """Return when the child ends.

    Raises:
        _Stop: Standard input was closed.
    """
    try:
        handle = os.pidfd_open(child.pid)
    except (AttributeError, OSError):  # not Linux, or an old kernel: look now and then
        while child.poll() is None:
            if select.select([0], [], [], _TICK_S)[0] and not os.read(0, 1):
                raise _Stop from None
        return
    try:
        while child.poll() is None:
            ready = select.select([0, handle], [], [])[0]
            if 0 in ready and not os.read(0, 1):
                raise _Stop
    finally:
        os.close(handle)


def supervise(command: Sequence[str], grace_s: float) -> int:
    """Run a command until it ends or standard input does, then end all its descendants.

    Args:
        command: Program and arguments.
        grace_s: Time between SIGTERM and SIGKILL for the command itself, seconds.

    Returns:
        The command's exit status; 128 + n when signal n ended it.
    """
    if _IS_LINUX:
        _prctl(_PR_SET_CHILD_SUBREAPER, 1)
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, _raise_stop)
    child: subprocess.Popen[bytes] | None = None
    try:
        # this process has one thread, so code between fork and exec is safe here
        child = subprocess.Popen(command, stdin=subprocess.DEVNULL, preexec_fn=_die_with_supervisor)
        _wait(child)
    except _Stop:
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(number, signal.SIG_IGN)
        if child is not None and child.poll() is None:
            child.terminate()
            try:
                child.wait(grace_s)
            except subprocess.TimeoutExpired:
                child.kill()
                child.wait()
    finally:
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(number, signal.SIG_IGN)
        _end_descendants()
    if child is None:
        return 128 + signal.SIGTERM
    return child.returncode if child.returncode >= 0 else 128 - child.returncode


@contextmanager
def supervised(
    command: Sequence[str],
    *,
    cwd: Path,
    env: Mapping[str, str],
    stdout: int | IO[bytes],
    grace_s: float = 5.0,
    patience_s: float | None = None,
) -> Iterator[subprocess.Popen[bytes]]:
    """A command in its own session that ends with this block, or with this process, together with all its children.

    Args:
        command: Program and arguments.
        cwd: Where it runs.
        env: Its whole environment.
        stdout: For its standard output and standard error: a file, or ``subprocess.PIPE``.
        grace_s: Time between SIGTERM and SIGKILL, seconds.
        patience_s: Seconds that whoever pressed Ctrl-C waits at most; what is not done by then ends by itself within
            the grace. None waits for the end.

    Yields:
        The process that supervises it; its exit status is the command's.
    """
    process = subprocess.Popen(
        [sys.executable, "-m", "monai_tl.supervise", "--grace", f"{grace_s:g}", "--", *command],
        cwd=cwd,
        env=dict(env),
        stdin=subprocess.PIPE,
        stdout=stdout,
        stderr=subprocess.STDOUT,
        start_new_session=True,
    )
    limit_s: float | None = None
    try:
        yield process
    except KeyboardInterrupt:
        # all at once: from parent to child each would wait for the one before
        _send(descendants(process.pid), signal.SIGTERM)
        limit_s = patience_s
        raise
    finally:
        if process.stdin is not None:
            process.stdin.close()
        with suppress(subprocess.TimeoutExpired):
            process.wait(limit_s)
        if process.stdout is not None:
            process.stdout.close()


def main() -> int:
    """Entry point."""
    parser = argparse.ArgumentParser(prog="python -m monai_tl.supervise")
    parser.add_argument("--grace", type=float, default=5.0, help="seconds between SIGTERM and SIGKILL")
    parser.add_argument("command", nargs="+")
    given = parser.parse_args()
    return supervise(given.command, given.grace)


if __name__ == "__main__":
    sys.exit(main())
