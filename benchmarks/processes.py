"""A contestant that is a command: its child processes are timed and their memory is watched from outside."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.common import ROOT

_LOOK_EVERY_S = 0.02
CommandLine = list[str]
LinesOf = Callable[[Path, Path], list[CommandLine]]


@dataclass(frozen=True)
class Watched:
    """What was seen of processes that ran to their end.

    Attributes:
        wall_s: From before the first began until the last ended.
        work_s: What a Python peer says of its conversions alone, on its last line; None when it says nothing.
        peaks: Greatest resident bytes of each process, children included, largest first.
    """

    wall_s: float
    work_s: float | None
    peaks: tuple[int, ...]


def python_environment(hidden: Path | None = None) -> dict[str, str]:
    """The environment of a Python child: this checkout first.

    Args:
        hidden: A folder of modules that stand in the way of installed ones.
    """
    folders = [str(hidden)] if hidden else []
    paths = [*folders, str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(paths)}


def hide(module: str, folder: Path) -> Path:
    """Make a folder in which ``module`` cannot be imported, for ``python_environment``."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{module}.py").write_text(f'raise ImportError("{module} is hidden from this contestant")\n')
    return folder


def watch(lines: Sequence[CommandLine], environment: Mapping[str, str]) -> Watched:
    """Run commands at the same time, to their end.

    Raises:
        RuntimeError: One of them failed; with the end of what it said.
    """
    peaks: dict[int, int] = {}
    ended = threading.Event()
    started = time.perf_counter()
    running = [
        subprocess.Popen(line, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, env=dict(environment), text=True)
        for line in lines
    ]
    watcher = threading.Thread(target=_look, args=([one.pid for one in running], peaks, ended), daemon=True)
    watcher.start()
    said = [one.communicate()[0] for one in running]
    wall_s = time.perf_counter() - started
    ended.set()
    watcher.join()
    for one, line, text in zip(running, lines, said, strict=True):
        if one.returncode != 0:
            raise RuntimeError(f"{Path(line[0]).name} ended with {one.returncode}: {text[-2000:]}")
    return Watched(wall_s, _work_of(said[0]), tuple(sorted(peaks.values(), reverse=True)))


def run_alone(command: Sequence[str], folder: Path, environment: Mapping[str, str]) -> dict[str, float]:
    """Run a command to its end: seconds of ``wall`` and ``processor``, and MiB of its largest process (``peak``).

    The processes that it waits for count, as the system counts them.

    Raises:
        RuntimeError: It failed; its exit status, and the end of what it said.
    """
    with tempfile.TemporaryFile() as log:
        started = time.perf_counter()
        process = subprocess.Popen(
            command, cwd=folder, env=dict(environment), stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT
        )
        _, status, usage = os.wait4(process.pid, 0)
        wall = time.perf_counter() - started
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode != 0:
            log.seek(0)
            said = log.read().decode(errors="replace")[-4000:]
            raise RuntimeError(f"{' '.join(command)}: {process.returncode}\n{said}")
    return {"wall": wall, "processor": usage.ru_utime + usage.ru_stime, "peak": usage.ru_maxrss / 1024}


def _work_of(text: str) -> float | None:
    last = text.strip().rpartition("\n")[2]
    return float(json.loads(last)["work_s"]) if last.startswith('{"work_s"') else None


def _look(roots: list[int], peaks: dict[int, int], ended: threading.Event) -> None:
    while not ended.is_set():
        pending = list(roots)
        while pending:
            process = pending.pop()
            peaks[process] = max(peaks.get(process, 0), _peak_of(process))
            pending += _children_of(process)
        ended.wait(_LOOK_EVERY_S)


def _children_of(process: int) -> list[int]:
    found: list[int] = []
    try:
        for thread in Path(f"/proc/{process}/task").iterdir():
            found += map(int, (thread / "children").read_text().split())
    except OSError:
        # it has ended, or the kernel does not tell
        return found
    return found


def _peak_of(process: int) -> int:
    try:
        lines = Path(f"/proc/{process}/status").read_text().splitlines()
    except OSError:
        return 0
    return next((1024 * int(line.split()[1]) for line in lines if line.startswith("VmHWM")), 0)


class Command:
    """Takes turns as ``benchmarks.common.Worker`` does; a turn gives seconds a series.

    Args:
        lines_of: Command lines for a source and an output folder.
        source: What is converted.
        out: Emptied before each turn; what the last turn wrote stays.
        n_done: Series a turn converts.
        n_all: Series the time is told for: start-up is shared by so many. Larger than ``n_done`` only for a peer that
            says what its conversions took.
        start: What the command takes for next to no input: start-up and imports; None when that is not told.
        volume_bytes: Of one volume, int16.
        environment: Of the processes.
    """

    def __init__(
        self,
        lines_of: LinesOf,
        source: Path,
        out: Path,
        *,
        n_done: int,
        n_all: int,
        start: Watched | None = None,
        volume_bytes: int,
        environment: Mapping[str, str],
    ) -> None:
        self.remark = "" if n_done == n_all else f"{n_done} of {n_all} series, start-up shared by {n_all}"
        self.facts: dict[str, str] = {}
        self._lines_of, self._environment = lines_of, environment
        self.source, self.out = source, out
        self._n_done, self._n_all, self._volume_bytes = n_done, n_all, volume_bytes
        self.peak, self._start = 0, start
        if start is not None:
            self.facts["start-up, s"] = f"{start.wall_s:.2f}"

    def turn(self) -> float:
        shutil.rmtree(self.out, ignore_errors=True)
        # what others have written must not be on its way to the disk while this one works
        os.sync()
        seen = convert(self._lines_of, self.source, self.out, self._environment)
        self.peak = max(self.peak, seen.peaks[0])
        written = sum(path.stat().st_size for path in self.out.rglob("*.nii.gz"))
        self.facts["largest process, MB"] = f"{self.peak / 1e6:.0f}"
        self.facts["in volumes"] = f"{self.volumes:.2f}"
        if self._start is not None:
            self.facts["without imports"] = f"{self.volumes_without_imports:.2f}"
        self.facts["processes"] = str(len(seen.peaks))
        self.facts["MB out a series"] = f"{written / 1e6 / self._n_done:.1f}"
        if self._n_done == self._n_all:
            return seen.wall_s / self._n_all
        if seen.work_s is None:
            raise RuntimeError("a command that converts a part must say what its conversions took")
        return seen.work_s / self._n_done + (seen.wall_s - seen.work_s) / self._n_all

    @property
    def volumes(self) -> float:
        """Peak of the largest process, in volumes."""
        return self.peak / self._volume_bytes

    @property
    def volumes_without_imports(self) -> float:
        """Less what the largest process of the same command takes for next to no input."""
        base = self._start.peaks[0] if self._start is not None else 0
        return (self.peak - base) / self._volume_bytes

    def close(self) -> None:
        """Nothing waits: each turn's processes end with it."""


def convert(lines_of: LinesOf, source: Path, out: Path, environment: Mapping[str, str]) -> Watched:
    """Run a command once, from ``source`` to the new folder ``out``."""
    out.mkdir(parents=True)
    return watch(lines_of(source, out), environment)


def python_line(module: str, *arguments: object) -> CommandLine:
    """``python -m module arguments`` with this interpreter."""
    return [sys.executable, "-m", module, *map(str, arguments)]
