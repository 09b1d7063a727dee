"""The inbox under SIGKILL: at every moment of the work, at random ones, and with two processes at it."""

from __future__ import annotations

import hashlib
import os
import random
import signal
import sqlite3
import time
from pathlib import Path

import pytest
from inbox_kills import MOMENTS, context, work
from inbox_world import segs, series_uid, sources_of, write_model, write_study, write_workspace
from workspaces import until

pytestmark = [pytest.mark.pipeline, pytest.mark.long]

N_STUDIES = 3
PROCESSES = context()


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_model(tmp_path_factory.mktemp("model") / "model")


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory, model: Path) -> dict[str, str]:
    """What a run without faults leaves."""
    workspace = make(tmp_path_factory.mktemp("undisturbed"), model)
    assert run(workspace) == 0
    return products(workspace)


def make(home: Path, model: Path) -> Path:
    workspace = write_workspace(home, model, max_attempts=9)
    for number in range(N_STUDIES):
        write_study(workspace / f"inbox/{number}", number)
    return workspace


def run(workspace: Path, moment: str = "", which: int = 1) -> int | None:
    process = PROCESSES.Process(target=work, args=(workspace, moment, which))
    process.start()
    process.join(120)
    return process.exitcode


def products(workspace: Path) -> dict[str, str]:
    """Everything in the outbox but the ledger: path → digest."""
    root = workspace / "outbox"
    files = [path for path in root.rglob("*") if path.is_file() and ".ledger" not in path.parts]
    return {str(path.relative_to(root)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def check_end(workspace: Path, undisturbed: dict[str, str]) -> None:
    """Each study has its one SEG, all is as without faults, and nothing half-made or locked is left."""
    assert sources_of(segs(workspace)) == [series_uid(number) for number in range(N_STUDIES)]
    assert products(workspace) == undisturbed
    base = sqlite3.connect(workspace / "outbox/.ledger/ledger.sqlite")
    assert base.execute("SELECT state, owner FROM studies").fetchall() == [("done", "")] * N_STUDIES
    assert [path.name for path in (workspace / "outbox/.ledger").iterdir()] == ["ledger.sqlite"]
    assert not list((workspace / "outbox").glob(".study-*"))


def check_whole(workspace: Path, undisturbed: dict[str, str]) -> None:
    """What can be seen at any moment is whole: right after a kill too."""
    visible = {name: digest for name, digest in products(workspace).items() if not name.startswith(".")}
    assert visible.items() <= undisturbed.items()
    by_study: dict[str, set[str]] = {}
    for name in undisturbed:
        by_study.setdefault(name.split("/")[0], set()).add(name)
    for study, names in by_study.items():
        assert not {name for name in visible if name.startswith(study)} or names <= set(visible)


@pytest.mark.parametrize("moment", MOMENTS)
def test_a_kill_at_each_moment_of_each_study(
    tmp_path: Path, model: Path, undisturbed: dict[str, str], moment: str
) -> None:
    workspace = make(tmp_path, model)
    for which in range(1, N_STUDIES + 1):
        code = run(workspace, moment, which)
        assert code in (-signal.SIGKILL, 0)
        # the first kill of all is certain: the moment came
        assert which > 1 or code == -signal.SIGKILL
        check_whole(workspace, undisturbed)
    assert run(workspace) == 0
    check_end(workspace, undisturbed)


def test_kills_at_random_with_two_processes_at_once(tmp_path: Path, model: Path, undisturbed: dict[str, str]) -> None:
    workspace = make(tmp_path, model)
    draw = random.Random(7)
    n_killed = 0
    for _ in range(8):
        pair = [PROCESSES.Process(target=work, args=(workspace,)) for _ in range(2)]
        for process in pair:
            process.start()
        # from the moment on when one of them is at work
        owners = workspace / "outbox/.ledger"
        until(lambda: any(owners.glob("*.owner")) or not any(one.is_alive() for one in pair), 120, "work begins")  # noqa: B023
        time.sleep(draw.uniform(0.0, 0.4))
        for process in pair:
            if process.is_alive():
                os.kill(process.pid, signal.SIGKILL)
                n_killed += 1
            process.join()
        check_whole(workspace, undisturbed)
    assert n_killed >= 2
    assert run(workspace) == 0
    check_end(workspace, undisturbed)
