"""``monai-tl run``: the workspace's flow once, with live progress and the results at the end."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections import deque
from collections.abc import Iterable, Iterator
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Protocol, Self

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TaskID, TextColumn, TimeElapsedColumn

from monai_tl.config import load_params
from monai_tl.pipeline_file import check_sections
from monai_tl.progress import MARK, VARIABLE
from monai_tl.report.terminal import show_results
from monai_tl.stages import STATE_FOLDER
from monai_tl.supervise import supervised
from monai_tl.workspace import check_installed_version, python_path

OUTCOME_MARK = "@outcome "
"""The flow's line on what became of a step: JSON with stage and outcome (running, ran, restored, unchanged)."""

_TAIL_LINES = 40


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
    view: View = PlainView(console) if plain or not console.is_terminal else LiveView(console)
    log = workspace / STATE_FOLDER / "run.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    environment = {**os.environ, VARIABLE: "json", "PYTHONUNBUFFERED": "1", "PYTHONPATH": python_path()}
    previous = signal.signal(signal.SIGTERM, _interrupt)
    command = [sys.executable, "-m", module]
    try:
        with (
            log.open("w", encoding="utf-8") as record,
            view,
            supervised(command, cwd=workspace, env=environment, stdout=subprocess.PIPE) as process,
        ):
            last = follow(process.stdout or (), view, record)
            code = process.wait()
    except KeyboardInterrupt:
        console.print("Stopped; the next run goes on from here.")
        return 130
    finally:
        signal.signal(signal.SIGTERM, previous)
    if code != 0:
        console.print(failure(last) + f"\nThe whole log: {log}", style="red", highlight=False, markup=False)
    return code


def _interrupt(number: int, frame: object) -> None:
    raise KeyboardInterrupt


class View(Protocol):
    """What shows the progress of the steps."""

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...

    def outcome(self, step: str, outcome: str) -> None:
        """A step has begun (``running``) or ended."""

    def progress(self, step: str, done: float, total: float, note: str) -> None:
        """A step reports work."""


class PlainView:
    """Lines, for a log: beginnings, endings, and each further tenth of a step."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._tenth: dict[str, int] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        return None

    def outcome(self, step: str, outcome: str) -> None:
        """Print it."""
        self._console.print(f"{step}: {outcome}", highlight=False, markup=False)

    def progress(self, step: str, done: float, total: float, note: str) -> None:
        """Print every tenth of the work."""
        tenth = int(10 * done / total) if total > 0 else 0
        if tenth > self._tenth.get(step, 0):
            self._tenth[step] = tenth
            self._console.print(f"{step}: {done:g}/{total:g} {note}".rstrip(), highlight=False, markup=False)


class LiveView:
    """A bar a step."""

    def __init__(self, console: Console) -> None:
        self._bars = Progress(
            SpinnerColumn(finished_text="[green]✓"),
            TextColumn("{task.description}"),
            BarColumn(bar_width=30),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("[dim]{task.fields[note]}", markup=True),
            console=console,
        )
        self._tasks: dict[str, TaskID] = {}

    def __enter__(self) -> Self:
        self._bars.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bars.stop()

    def _task(self, step: str) -> TaskID:
        if step not in self._tasks:
            self._tasks[step] = self._bars.add_task(step, total=None, note="")
        return self._tasks[step]

    def outcome(self, step: str, outcome: str) -> None:
        """Begin or fill the step's bar."""
        task = self._task(step)
        if outcome == "running":
            return
        total = self._bars.tasks[self._bars.task_ids.index(task)].total or 1
        self._bars.update(task, total=total, completed=total, note=outcome)
        self._bars.stop_task(task)

    def progress(self, step: str, done: float, total: float, note: str) -> None:
        """Move the step's bar."""
        self._bars.update(self._task(step), completed=done, total=total or None, note=note)


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
        outcome, progress = _parsed(line, OUTCOME_MARK), _parsed(line, MARK)
        if outcome is not None:
            running = str(outcome.get("stage", ""))
            view.outcome(running, str(outcome.get("outcome", "")))
        elif progress is not None:
            done, total = float(progress.get("done", 0)), float(progress.get("total", 0))
            view.progress(running or str(progress.get("stage", "")), done, total, str(progress.get("note", "")))
        else:
            tail.append(line)
            record.write(line + "\n")
    return list(tail)


def _lines(stream: Iterable[bytes]) -> Iterator[str]:
    for line in stream:
        yield line.decode("utf-8", errors="replace").rstrip()


def _parsed(line: str, mark: str) -> dict[str, Any] | None:
    if not line.startswith(mark):
        return None
    try:
        content = json.loads(line[len(mark) :])
    except ValueError:
        return None
    return content if isinstance(content, dict) else None


def failure(last: list[str]) -> str:
    """The message the flow ended with: from the last line that begins with ``monai-tl:`` on, else the last lines."""
    starts = [index for index, line in enumerate(last) if line.startswith("monai-tl:")]
    return "\n".join(last[starts[-1] :] if starts else last[-10:])
