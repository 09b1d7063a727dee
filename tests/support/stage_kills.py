"""A stage, killed at random moments again and again, in forked processes that need not import anything.

As a program: ``stage_kills.py WORKSPACE STAGE N_KILLS SEED [KEY=VALUE …]``; the workspace holds all inputs of the
stage. The stage runs once to its end, is undone, and is then killed at moments drawn over the time that took; what a
killed run left is what the next one finds. Prints as JSON what was seen.
"""

from __future__ import annotations

import hashlib
import json
import os
import random
import shutil
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

os.environ |= {"MONAI_TL_EXECUTOR": "sequential", "OMP_NUM_THREADS": "1"}

from monai_tl.config import load_params
from monai_tl.errors import MonaiTLError
from monai_tl.integrity import MANIFEST, check_sealed
from monai_tl.looks import LOOKS_FILE
from monai_tl.stages import CURVE, STAGES, STATE_FOLDER
from monai_tl.stages.sealing import run_sealed_stage

UNTIMED = {"effort.json"}
"""Beside SHA256SUMS, which names it: how long a run took is no result."""


def preload() -> None:
    """What the stages import when they run; nothing is computed, for a forked child has one thread."""
    import importlib

    for name in (*(f"monai_tl.stages.{stage.name}" for stage in (*STAGES, *CURVE)), "highdicom", "matplotlib.pyplot"):
        importlib.import_module(name)


def start(workspace: Path, stage: str, matrix: dict[str, str], *, interrupted: bool = False) -> int:
    """The process number of a child that runs the stage in a process group of its own.

    Interrupted: by a signal every five milliseconds, so that calls of the system end early (EINTR) again and again.
    """
    child = os.fork()
    if child:
        return child
    os.setsid()
    if interrupted:
        signal.signal(signal.SIGALRM, lambda *_: None)
        signal.setitimer(signal.ITIMER_REAL, 0.005, 0.005)
    with Path(os.devnull).open("w") as nowhere:
        os.dup2(nowhere.fileno(), 1)
        os.dup2(nowhere.fileno(), 2)
    code = 1
    try:
        run_sealed_stage(stage, workspace, load_params(workspace), matrix)
        code = 0
    finally:
        os._exit(code)


def outputs(workspace: Path, stage: str, matrix: dict[str, str]) -> list[Path]:
    found = next(one for one in (*STAGES, *CURVE) if one.name == stage)
    return [workspace / item.format(**matrix) for item in (*found.outs, *found.metrics, *found.plots)]


def undo(workspace: Path, stage: str, matrix: dict[str, str]) -> None:
    """As if the stage had never run: no outputs, no cache, no checkpoints."""
    for path in outputs(workspace, stage, matrix):
        shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
    shutil.rmtree(workspace / STATE_FOLDER, ignore_errors=True)
    if stage in ("evaluate", "curve_label", "curve_step"):
        (workspace / LOOKS_FILE).unlink(missing_ok=True)


def contents(folders: list[Path]) -> dict[str, str]:
    """Path → sha256 of each file, but for what tells the time."""
    files = [path for folder in folders for path in (folder.rglob("*") if folder.is_dir() else [folder])]
    return {
        str(path): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(files)
        if path.is_file() and path.name not in UNTIMED and path.name != MANIFEST
    }


def taken_for_whole(folder: Path) -> bool:
    """Whether the next stage would read a folder."""
    try:
        check_sealed(folder)
    except MonaiTLError:
        return False
    return True


def faults_of(workspace: Path, stage: str, matrix: dict[str, str], whole: dict[str, str]) -> Iterator[str]:
    """An output that the next stage would take, though it is not what an undisturbed run makes."""
    for folder in outputs(workspace, stage, matrix):
        if folder.is_dir() and taken_for_whole(folder):
            found = contents([folder])
            expected = {path: digest for path, digest in whole.items() if Path(path).is_relative_to(folder)}
            if found != expected:
                yield f"{folder.name}: {sorted(set(found.items()) ^ set(expected.items()))[:3]}"


def names_in(workspace: Path) -> set[str]:
    """Everything in the workspace but its state and what stands in folders of outputs by name."""
    names = ("", "artifacts", "artifacts/models", "artifacts/curve/labels", "artifacts/curve/steps", "reports")
    places = [workspace / name for name in (*names, "reports/curve")]
    return {str(path) for place in places if place.is_dir() for path in place.iterdir()}


def main(workspace: Path, stage: str, n_kills: int, seed: int, matrix: dict[str, str]) -> dict[str, Any]:
    preload()
    inputs = contents([path for path in workspace.iterdir() if path.name not in (STATE_FOLDER, LOOKS_FILE)])
    started = time.monotonic()
    _, status = os.waitpid(start(workspace, stage, matrix), 0)
    seconds = time.monotonic() - started
    if status:
        return {"error": f"the undisturbed run ended with {status}"}
    made = outputs(workspace, stage, matrix)
    whole, names = contents(made), names_in(workspace)
    undo(workspace, stage, matrix)
    generator = random.Random(seed)
    faults: list[str] = []
    n_killed = n_finished = 0
    while n_killed < n_kills:
        child = start(workspace, stage, matrix)
        time.sleep(generator.uniform(0.0, 1.1 * seconds))
        ended, status = os.waitpid(child, os.WNOHANG)
        if ended:
            n_finished += 1
            faults += [f"a run by itself ended with {status}"] if status else []
            faults += faults_of(workspace, stage, matrix, whole)
            undo(workspace, stage, matrix)
            continue
        with suppress(ProcessLookupError):
            os.killpg(child, signal.SIGKILL)
        # one that has not come to make its group yet
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        n_killed += 1
        faults += faults_of(workspace, stage, matrix, whole)
    _, status = os.waitpid(start(workspace, stage, matrix), 0)
    found = contents(made)
    left_behind = names_in(workspace) ^ names
    undo(workspace, stage, matrix)
    _, status_interrupted = os.waitpid(start(workspace, stage, matrix, interrupted=True), 0)
    differ_interrupted = contents(made) != whole
    differ = sorted(str(Path(path).relative_to(workspace)) for path, _ in set(found.items()) ^ set(whole.items()))
    after = contents([path for path in workspace.iterdir() if path.name not in (STATE_FOLDER, LOOKS_FILE)])
    return {
        "stage": stage,
        "seconds": round(seconds, 2),
        "n_killed": n_killed,
        "n_finished": n_finished,
        "last_status": status,
        "faults": faults[:5],
        "differ": differ[:5],
        "left_behind": sorted(left_behind),
        "interrupted": {"status": status_interrupted, "differs": differ_interrupted},
        "inputs_changed": sorted(path for path, digest in inputs.items() if after.get(path) != digest)[:5],
    }


if __name__ == "__main__":
    given = dict(item.split("=") for item in sys.argv[5:])
    print(json.dumps(main(Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]), int(sys.argv[4]), given)))
