"""The only place that starts DVC: one stage at a time, nothing left behind, and what became of it."""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any, Literal

import yaml

from flows.disk import with_advice
from flows.inputs import check_inputs, pin_of
from flows.mending import backup_file, mend_after_kill
from flows.processes import run_supervised
from monai_tl.config import Params, load_params
from monai_tl.errors import ConfigError, MonaiTLError, StageError
from monai_tl.json_lines import MARK
from monai_tl.stages import STAGES, STATE_FOLDER, Stage, list_of

Outcome = Literal["ran", "restored", "unchanged"]
"""``restored``: DVC took the result of an earlier run from its cache."""

PIPELINE_FILE = "dvc.yaml"
_LOCK_WAIT_S, _STATUS_TIME_OUT_S, _TAIL_LINES = 10.0, 600.0, 12
_DVC_LOCK_PAUSES_S = (2.0, 8.0, 30.0)
"""Before further tries, while somebody's own command holds DVC's lock: a moment, for most of them."""
_AGAIN = "another DVC command works in this workspace; tried again in"
_CHATTER = (
    "To track the changes with git",
    "git add ",
    "To enable auto staging",
    "dvc config core.autostage",
    "Use `dvc push`",
    "Having any troubles?",
)
"""Advice that DVC gives after every command; nothing to act on in a run."""


class WorkspaceBusyError(MonaiTLError):
    """Another run holds the workspace."""


@dataclass(frozen=True)
class Step:
    """One thing DVC runs: a stage, or one combination of a stage's matrix.

    Attributes:
        stage: Name in its table.
        address: What DVC calls it, e.g. ``finetune@transfer-0-0`` or ``curve/dvc.yaml:curve_label@8-full-0``.
    """

    stage: str
    address: str

    @property
    def name(self) -> str:
        """The address without the file."""
        return self.address.rpartition(":")[2]


def steps(params: Params, stages: Sequence[Stage] = STAGES, file: str = PIPELINE_FILE) -> tuple[Step, ...]:
    """All steps of a pipeline in the order in which DVC runs them.

    Args:
        params: Hold the values of each matrix.
        stages: Its table.
        file: Its file; DVC puts the name of any but dvc.yaml before the step's.
    """
    found: list[Step] = []
    where = "" if file == PIPELINE_FILE else f"{file}:"
    for stage in stages:
        axes = [getattr(getattr(params, stage.section_name), list_of(key)) for key in stage.matrix]
        for values in product(*axes):
            suffix = "-".join(str(value) for value in values)
            found.append(Step(stage.name, f"{where}{stage.name}@{suffix}" if suffix else f"{where}{stage.name}"))
    return tuple(found)


@dataclass(frozen=True)
class Inspection:
    """A workspace held for one run, and what DVC found in it.

    Attributes:
        lock_handle: A file descriptor that carries the lock. Processes that inherit it keep the workspace locked until
            they end, so a run that follows a kill waits for what the dead one started.
        changes: What has changed, by step or ``.dvc`` file; empty when nothing has.
    """

    lock_handle: int
    changes: Mapping[str, list[Any]]


def lock_workspace(workspace: Path, name: str = "run.lock", wait_s: float | None = None) -> int:
    """Take the workspace, or with a lock of another name its clone, for one run; closing the descriptor gives it back.

    Raises:
        WorkspaceBusyError: Another run holds it.
    """
    path = workspace / STATE_FOLDER / name
    path.parent.mkdir(parents=True, exist_ok=True)
    handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    deadline = time.monotonic() + (_LOCK_WAIT_S if wait_s is None else wait_s)
    while not _try_lock(handle):
        if time.monotonic() >= deadline:
            os.close(handle)
            raise WorkspaceBusyError("another run of this workspace is going on; wait for its end, then run again")
        time.sleep(0.1)
    return handle


def _inspect(workspace: Path) -> Inspection:
    handle = lock_workspace(workspace)
    try:
        mend_after_kill(workspace)
        check_inputs(workspace / load_params(workspace).ingest.source)
        return Inspection(handle, status(workspace, handle))
    except BaseException:
        os.close(handle)
        raise


_begun: list[Future[Inspection]] = []


def begin(workspace: Path) -> None:
    """Start to inspect the workspace while this process goes on, e.g. imports Prefect; ``held`` takes the result."""
    future: Future[Inspection] = Future()
    _begun.append(future)

    def work() -> None:
        try:
            future.set_result(_inspect(workspace))
        except BaseException as error:  # raised again by whoever asks for the result
            future.set_exception(error)

    threading.Thread(target=work, daemon=True).start()


@contextmanager
def held(workspace: Path) -> Iterator[Inspection]:
    """Hold the workspace and know what has changed in it.

    Raises:
        WorkspaceBusyError: Another run holds it.
        DataError: The input holds what DVC cannot take.
        ConfigError: DVC cannot read the pipeline.
    """
    inspection = _begun.pop().result() if _begun else _inspect(workspace)
    try:
        yield inspection
    finally:
        os.close(inspection.lock_handle)


def _try_lock(handle: int) -> bool:
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def status(workspace: Path, lock_handle: int) -> dict[str, list[Any]]:
    """What DVC thinks has changed, by step or ``.dvc`` file; empty when nothing has.

    Raises:
        ConfigError: DVC cannot read the pipeline.
    """
    lines: list[str] = []
    code = _dvc(["status", "--json"], workspace, lock_handle, lines.append, _STATUS_TIME_OUT_S)
    if code == 0 and lines:
        try:
            found: dict[str, list[Any]] = json.loads(lines[-1])
        except ValueError:
            code = 1
        else:
            return found
    raise ConfigError(_reason(lines), "dvc status")


def reproduce(
    step: Step | str,
    workspace: Path,
    lock_handle: int,
    on_line: Callable[[str], None],
    *,
    time_out_s: float | None = None,
    was_changed: Sequence[Any] = (),
) -> Outcome:
    """Let DVC bring one step up to date.

    Args:
        step: What to bring up to date; a string names a ``.dvc`` file.
        workspace: Folder of dvc.yaml.
        lock_handle: That of ``held``.
        on_line: Gets each line of output, as it comes.
        time_out_s: The step is ended after so many seconds.
        was_changed: The step's entry in ``status``.

    Returns:
        Judged by dvc.lock before and after and by whether the stage reported work, never by DVC's words.

    Raises:
        StageError: The stage failed or took too long.
    """
    address = step if isinstance(step, str) else step.address
    before = lock_entry(workspace, address)
    lock = _lock_of(address)[0]
    if (workspace / lock).is_file():
        shutil.copyfile(workspace / lock, backup_file(workspace, lock))
    tail: deque[str] = deque(maxlen=_TAIL_LINES)
    worked = False

    def take(line: str) -> None:
        nonlocal worked
        if line.startswith(MARK):
            worked = True
        else:
            tail.append(line)
        on_line(line)

    code = _dvc(["repro", "--single-item", address], workspace, lock_handle, take, time_out_s)
    if code is None:
        raise StageError(
            address, f"stopped after {time_out_s:g} s, the time-out of a stage; raise it, or ask for less work"
        )
    if code != 0:
        raise StageError(address, _reason(list(tail)))
    if worked:
        return "ran"
    outputs_changed = any("changed outs" in item for item in was_changed if isinstance(item, dict))
    return "restored" if outputs_changed or lock_entry(workspace, address) != before else "unchanged"


def lock_entry(workspace: Path, address: str) -> Mapping[str, Any] | None:
    """What DVC records for a step in its pipeline's lock file; None when nothing."""
    lock, name = _lock_of(address)
    path = workspace / lock
    if not path.is_file():
        return None
    content = yaml.load(path.read_text(encoding="utf-8"), Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))  # noqa: S506
    entry: Mapping[str, Any] | None = (content or {}).get("stages", {}).get(name)
    return entry


def _lock_of(address: str) -> tuple[str, str]:
    """The lock file that a step is recorded in, relative to the workspace, and the step's name there."""
    file, _, name = address.rpartition(":")
    return str(Path(file or PIPELINE_FILE).with_suffix(".lock")), name


def _is_locked_out(lines: Sequence[str]) -> bool:
    """Whether DVC ended before it did anything; a stage may say such words too, but only once it runs."""
    if any(line.startswith("Running stage") for line in lines):
        return False
    return any("Unable to acquire lock" in line or "is busy, it is being blocked by" in line for line in lines)


def _reason(lines: Sequence[str]) -> str:
    tries = [number for number, line in enumerate(lines) if line.startswith(_AGAIN)]
    last = lines[tries[-1] + 1 :] if tries else lines
    text = "\n".join(line for line in last if line.strip())
    if _is_locked_out(last):
        return "another DVC command works in this workspace; wait for it to end, then run again"
    silent = "DVC ended without a message (killed, perhaps for its memory); run again, or see 'monai-tl doctor'"
    return with_advice(text) or silent


def add_data(workspace: Path, source: str, lock_handle: int) -> str:
    """Let DVC know what lies in the data now; the file that pins them.

    Args:
        workspace: Held.
        source: What the pipeline reads, in or below what is pinned.
        lock_handle: Of the workspace.

    Raises:
        ConfigError: Nothing pins the data, or DVC failed.
    """
    pin = pin_of(workspace, source)
    if pin is None:
        raise ConfigError(f"no .dvc file pins {source}; run 'dvc add' once for its folder, and commit it", "dvc add")
    lines: list[str] = []
    command = ["dvc", "add", pin.removesuffix(".dvc")]
    if run_supervised(command, workspace, lines.append, "helper", [lock_handle], _CHATTER) != 0:
        raise ConfigError(_reason(lines), "dvc add")
    return pin


def run_alone(arguments: Sequence[str], workspace: Path) -> list[str]:
    """A command of DVC outside any run; its lines. See ``flows.remotes`` for those that need the network.

    Raises:
        ConfigError: It failed.
    """
    lines: list[str] = []
    if run_supervised(["dvc", *arguments], workspace, lines.append, chatter=_CHATTER) != 0:
        raise ConfigError(_reason(lines), f"dvc {arguments[0]}")
    return lines


def _dvc(
    arguments: Sequence[str],
    workspace: Path,
    lock_handle: int,
    on_line: Callable[[str], None],
    time_out_s: float | None,
) -> int | None:
    """Run DVC; its exit status, or None when time ran out. All it started is gone when this returns or raises.

    A lock that another command of DVC holds is waited for: a few more tries, each of which is told.
    """
    for pause_s in (*_DVC_LOCK_PAUSES_S, None):
        # its first words tell; a stage may go on for hours
        said: list[str] = []

        def take(line: str, said: list[str] = said) -> None:
            if len(said) < _TAIL_LINES:
                said.append(line)
            on_line(line)

        code = run_supervised(
            ["dvc", *arguments], workspace, take, time_out_s, pass_fds=[lock_handle], chatter=_CHATTER
        )
        if not code or pause_s is None or not _is_locked_out(said):
            break
        on_line(f"{_AGAIN} {pause_s:g} s")
        time.sleep(pause_s)
    return code
