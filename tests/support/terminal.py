"""A command on a real pseudo-terminal: what it paints, and what Ctrl-C does to it."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import select
import signal
import struct
import sys
import termios
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

ROOT = Path(__file__).parents[2]
CTRL_C = b"\x03"
_CONTROL = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]|\r")


class TerminalRun:
    """A process whose standard streams are a terminal of its own, in a session of its own.

    Args:
        command: Program and arguments.
        cwd: Where it runs.
        env: Added to the environment.
        columns: Width of the terminal.
        stdout: A file in place of the terminal for standard output alone.
    """

    def __init__(
        self,
        command: Sequence[str],
        cwd: Path,
        env: Mapping[str, str] = {},
        columns: int = 120,
        stdout: Path | None = None,
    ) -> None:
        environment = {**os.environ, "PYTHONPATH": str(ROOT), "TERM": "xterm-256color", **env}
        for name in ("COLUMNS", "LINES", "NO_COLOR", "MONAI_TL_PROGRESS"):
            environment.pop(name, None)
        self.pid, self._master = pty.fork()
        if self.pid == 0:
            if stdout is not None:
                os.dup2(os.open(stdout, os.O_WRONLY | os.O_CREAT), 1)
            os.chdir(cwd)
            os.execvpe(command[0], list(command), environment)
        fcntl.ioctl(self._master, termios.TIOCSWINSZ, struct.pack("HHHH", 40, columns, 0, 0))
        self.painted = b""
        self.code: int | None = None

    @property
    def text(self) -> str:
        """All that was painted, without the control sequences."""
        return _CONTROL.sub("", self.painted.decode("utf-8", errors="replace"))

    def read_until(self, words: str, limit_s: float = 120.0) -> None:
        """Read until the words are painted."""
        deadline = time.monotonic() + limit_s
        while words not in self.text:
            assert time.monotonic() < deadline, self.text[-2000:]
            assert self._read(0.2), self.text[-2000:]

    def read_to_end(self, limit_s: float = 120.0) -> int:
        """Read until the process ends; its exit status."""
        deadline = time.monotonic() + limit_s
        while self._read(0.2):
            if time.monotonic() > deadline:
                os.kill(self.pid, signal.SIGKILL)
                raise AssertionError(self.text[-2000:])
        self.code = os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])
        os.close(self._master)
        return self.code

    def press(self, key: bytes) -> None:
        """Type a key."""
        os.write(self._master, key)

    def _read(self, wait_s: float) -> bool:
        """Whether more may come."""
        if not select.select([self._master], [], [], wait_s)[0]:
            return True
        try:
            found = os.read(self._master, 65536)
        except OSError:
            # Linux's end of file of a terminal whose last user has gone
            return False
        self.painted += found
        return bool(found)


def monai_tl(*arguments: str) -> list[str]:
    """The command line in this interpreter."""
    return [sys.executable, "-m", "monai_tl", *arguments]
