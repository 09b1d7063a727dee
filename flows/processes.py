"""Processes a flow starts: their lines as they come, an end in time, and nothing left of them."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from types import MappingProxyType
from typing import IO, Literal, cast

from flows.disk import with_advice
from monai_tl.errors import ConfigError
from monai_tl.json_lines import VARIABLE

HELPER_VARIABLE = "MONAI_TL_HELPER_TIME_OUT_S"
"""How long a helper may take, seconds: what DVC moves, git, a promotion; six hours unless it says otherwise."""
_HELPER_S, _GRACE_S = 21_600.0, 3.0
_SUPERVISED = (sys.executable, "-m", "monai_tl.supervise", "--grace", f"{_GRACE_S:g}", "--")


def _environment(more: Mapping[str, str], progress: str) -> dict[str, str]:
    environment = {**os.environ, **more}
    # `python` in a stage's command is this one
    environment["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), environment.get("PATH", os.defpath)])
    environment |= {"PYTHONUNBUFFERED": "1", "DVC_NO_ANALYTICS": "1", VARIABLE: progress, "NO_COLOR": "1"}
    return environment


def helper_time_out() -> float:
    """Seconds after which a helper is ended: it does no work of its own that could take that long, so it hangs."""
    try:
        return max(float(os.environ.get(HELPER_VARIABLE, "")), 1.0)
    except ValueError:
        return _HELPER_S


def run_supervised(
    module: Sequence[str],
    workspace: Path,
    on_line: Callable[[str], None],
    time_out_s: float | Literal["helper"] | None = "helper",
    pass_fds: Sequence[int] = (),
    chatter: tuple[str, ...] = (),
    more: Mapping[str, str] = MappingProxyType({}),
    progress: str = "json",
) -> int | None:
    """Run ``python -m MODULE …`` in a workspace. All it started is gone when this returns or raises.

    Args:
        module: Its name and its arguments.
        workspace: Where it runs.
        on_line: Gets each line of output, as it comes.
        time_out_s: It is ended after so many seconds, with all that it started; None sets no limit. A helper has that
            of ``helper_time_out``, and its last line then says so.
        pass_fds: File descriptors it inherits.
        chatter: Lines that begin so are dropped.
        more: Into its environment.
        progress: The form in which it tells its progress.

    Returns:
        Its exit status, or None when time ran out.
    """
    process = subprocess.Popen(
        [*_SUPERVISED, sys.executable, "-m", *module],
        cwd=workspace,
        env=_environment(more, progress),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        encoding="utf-8",
        errors="replace",
        start_new_session=True,
        pass_fds=pass_fds,
    )
    # both are pipes, as asked for above
    order, output = cast("IO[str]", process.stdin), cast("IO[str]", process.stdout)
    late = threading.Event()
    limit = helper_time_out() if time_out_s == "helper" else time_out_s

    def stop() -> None:
        late.set()
        process.terminate()

    timer = threading.Timer(limit, stop) if limit else None
    try:
        if timer:
            timer.start()
        for line in output:
            if line.strip() and not (chatter and line.strip().startswith(chatter)):
                on_line(line.rstrip())
        code = process.wait()
    finally:
        if timer:
            timer.cancel()
        # end-of-file is the order to end everything; whatever comes, wait until it is done
        order.close()
        _wait_for_certain(process)
        output.close()
    if not late.is_set():
        return code
    if time_out_s == "helper":
        on_line(f"monai-tl: {_stopped(limit)}")
    return None


def _stopped(limit: float | None) -> str:
    return f"stopped after {limit:g} s without an end; look at network and disk, or raise {HELPER_VARIABLE}"


def run_git(arguments: Sequence[str], folder: Path, more: Mapping[str, str]) -> subprocess.CompletedProcess[str]:
    """Run git as a helper; a time-out ends what it started too.

    Args:
        arguments: Its own.
        folder: Where it runs.
        more: Into its environment.

    Returns:
        With a non-zero status and the reason as its error where time ran out.
    """
    limit = helper_time_out()
    with ExitStack() as ends:
        # closing the pipe is the order to end everything; communicate() would close one of its own at once
        held, order = os.pipe()
        for end in (held, order):
            ends.callback(os.close, end)
        process = subprocess.Popen(
            [*_SUPERVISED, "git", *arguments],
            cwd=folder,
            env={**os.environ, **more},
            stdin=held,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        try:
            said, complained = process.communicate(timeout=limit)
        except subprocess.TimeoutExpired:
            said, complained = "", _stopped(limit)
        finally:
            ends.close()
            _wait_for_certain(process)
            for pipe in (process.stdout, process.stderr):
                cast("IO[str]", pipe).close()
    return subprocess.CompletedProcess(process.args, process.returncode, said, complained)


def git_said(arguments: Sequence[str], folder: Path, more: Mapping[str, str]) -> str:
    """What git says, without the end of its last line; see ``run_git``.

    Raises:
        ConfigError: It failed; with its last line.
    """
    done = run_git(arguments, folder, more)
    if done.returncode != 0:
        said = (done.stderr.strip().splitlines() or ["it ended without a word"])[-1]
        raise ConfigError(f"git {arguments[0]}: {said}", "git")
    return done.stdout.removesuffix("\n")


def last_words(lines: Sequence[str], code: int | None) -> str:
    """Why a process of this package failed, by what it said last; a killed one says nothing.

    Args:
        lines: The last ones.
        code: Its exit status; None where time ran out.
    """
    own = "\n".join(line for line in lines if line.startswith("monai-tl: "))
    said = own or with_advice("\n".join(lines))
    ended = f"it ended without a word (exit status {code}: killed, perhaps for its memory)"
    return said or f"{ended}; the next run goes on with what is left"


def _wait_for_certain(process: subprocess.Popen[str]) -> None:
    try:
        process.wait(_GRACE_S + 10.0)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
