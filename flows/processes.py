"""Processes a flow starts: their lines as they come, an end in time, and nothing left of them."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import IO, cast

from flows.disk import with_advice
from monai_tl.json_lines import VARIABLE

_GRACE_S = 3.0


def _environment(more: Mapping[str, str], progress: str) -> dict[str, str]:
    environment = {**os.environ, **more}
    # `python` in a stage's command is this one
    environment["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), environment.get("PATH", os.defpath)])
    environment |= {"PYTHONUNBUFFERED": "1", "DVC_NO_ANALYTICS": "1", VARIABLE: progress, "NO_COLOR": "1"}
    return environment


def run_supervised(
    module: Sequence[str],
    workspace: Path,
    on_line: Callable[[str], None],
    time_out_s: float | None = None,
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
        time_out_s: It is ended after so many seconds.
        pass_fds: File descriptors it inherits.
        chatter: Lines that begin so are dropped.
        more: Into its environment.
        progress: The form in which it tells its progress.

    Returns:
        Its exit status, or None when time ran out.
    """
    command = [sys.executable, "-m", "monai_tl.supervise", "--grace", f"{_GRACE_S:g}", "--"]
    process = subprocess.Popen(
        [*command, sys.executable, "-m", *module],
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

    def stop() -> None:
        late.set()
        process.terminate()

    timer = threading.Timer(time_out_s, stop) if time_out_s else None
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
    return None if late.is_set() else code


def last_words(lines: Sequence[str], code: int) -> str:
    """Why a process of this package failed, by what it said last; a killed one says nothing.

    Args:
        lines: The last ones.
        code: Its exit status.
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
