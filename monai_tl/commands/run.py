"""``monai-tl run``: the workspace's flow once, with live progress and the results at the end."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections import deque
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import IO

from rich.console import Console

from monai_tl.commands.run_views import EventView, LiveView, PlainView, View
from monai_tl.config import load_params
from monai_tl.effort import describe_effort, read_effort
from monai_tl.json_lines import MARK, OUTCOME_MARK, VARIABLE, are_events_on, parse_marked, write_event
from monai_tl.pipeline_file import check_sections
from monai_tl.report.terminal import show_results
from monai_tl.stages import STATE_FOLDER
from monai_tl.supervise import supervised
from monai_tl.workspace import check_installed_version, python_path

_TAIL_LINES = 40
_PATIENCE_S = 0.7
"""After Ctrl-C; with the time to notice and to say how to go on it makes a second."""


def run(workspace: Path, *, plain: bool = False) -> int:
    """Run the workspace's own training flow in a process that leaves nothing behind, however this one ends.

    Args:
        workspace: Folder that holds params.yaml.
        plain: Lines instead of live bars; also chosen when standard output is no terminal.

    Returns:
        The flow's exit status: 0, or the exit code of the error it ended with.

    Raises:
        ConfigError: The workspace has faults.
    """
    check_installed_version(workspace)
    load_params(workspace)
    check_sections(workspace)
    console = choose_console(plain)
    code = run_flow(workspace, "flows", console, plain=plain)
    if code == 0:
        show_results(workspace, console)
        if text := describe_effort(read_effort(workspace / STATE_FOLDER)):
            console.print(f"Each stage's last run took {text}.", highlight=False)
    return code


def choose_console(plain: bool) -> Console:
    """Where a run's progress and results go."""
    return Console(soft_wrap=True) if plain or not sys.stdout.isatty() else Console()


def run_flow(workspace: Path, module: str, console: Console, *, plain: bool) -> int:
    """Run a flow of the workspace and show its progress; what failed is told.

    Args:
        workspace: Checked.
        module: ``python -m`` starts it there.
        console: For progress and failures.
        plain: Lines instead of live bars.

    Returns:
        The flow's exit status.
    """
    view = _choose_view(console, plain)
    log = workspace / STATE_FOLDER / "run.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    environment = {**os.environ, VARIABLE: "json", "PYTHONUNBUFFERED": "1", "PYTHONPATH": python_path()}
    previous = signal.signal(signal.SIGTERM, _interrupt)
    command = [sys.executable, "-m", module]
    try:
        with (
            log.open("w", encoding="utf-8") as record,
            view,
            supervised(
                command, cwd=workspace, env=environment, stdout=subprocess.PIPE, patience_s=_PATIENCE_S
            ) as process,
        ):
            last = follow(process.stdout or (), view, record)
            code = process.wait()
    except KeyboardInterrupt:
        return 130
    finally:
        signal.signal(signal.SIGTERM, previous)
    if code != 0:
        words = failure(last) + f"\nThe whole log: {log}"
        if are_events_on():
            write_event("error", text=words, exit_code=code)
        else:
            console.print(words, style="red", highlight=False, markup=False)
    return code


def _choose_view(console: Console, plain: bool) -> View:
    if are_events_on():
        return EventView()
    return PlainView(console) if plain or not console.is_terminal else LiveView(console)


def _interrupt(number: int, frame: object) -> None:
    raise KeyboardInterrupt


def follow(stream: Iterable[bytes], view: View, record: IO[str]) -> list[str]:
    """Show the flow's progress as it comes and keep all other output in a log.

    Args:
        stream: The flow's output.
        view: Shows it.
        record: Gets what is no progress.

    Returns:
        The last lines of that output.
    """
    tail: deque[str] = deque(maxlen=_TAIL_LINES)
    running = ""
    for line in _lines(stream):
        outcome, progress = parse_marked(line, OUTCOME_MARK), parse_marked(line, MARK)
        if outcome is not None and "n_steps" in outcome:
            view.plan(int(outcome["n_steps"]))
        elif outcome is not None:
            running = str(outcome.get("stage", ""))
            view.outcome(running, str(outcome.get("outcome", "")))
        elif progress is not None:
            view.progress(running or str(progress.get("stage", "")), progress)
        else:
            tail.append(line)
            record.write(line + "\n")
            view.line(line)
    return list(tail)


def _lines(stream: Iterable[bytes]) -> Iterator[str]:
    for line in stream:
        yield line.decode("utf-8", errors="replace").rstrip()


def failure(last: list[str]) -> str:
    """The message the flow ended with: from the last line that begins with ``monai-tl:`` on, else the last lines."""
    starts = [index for index, line in enumerate(last) if line.startswith("monai-tl:")]
    return "\n".join(last[starts[-1] :] if starts else last[-10:])
