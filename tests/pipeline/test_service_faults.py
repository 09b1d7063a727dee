"""Disk full, nothing may be written, a clock that jumps, a server or a PACS that is away: told, and over by itself.

One service, whose worker has a small disk of its own and whose clock on the wall is the test's. Each fault is seen as
the state of a run on the dashboard, and the next run by the schedule does the work once the fault is gone.
"""

from __future__ import annotations

import itertools
import shutil
import sqlite3
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml
from service_kills import ledger_rows, make_workspace, study_of
from service_world import World, service_in
from workspaces import ROOT, until

pytestmark = [pytest.mark.pipeline, pytest.mark.long]

SIZE = "96m"
_NUMBERS = itertools.count(1)
_MOUNTED = 'mount -t tmpfs -o size="$1" t "$2" && cp -a "$3/." "$2" && echo ready && exec sleep infinity'


@dataclass
class Faulty:
    """A running service and its faults.

    Attributes:
        mounted: The workspace, as the worker and nobody else has it.
        disk: Holds it; the worker may end and start again.
        clock: Holds by how many seconds the clock on the wall is wrong.
    """

    world: World
    mounted: Path
    disk: int
    clock: Path
    studies: Path

    @property
    def workspace(self) -> Path:
        """The same, from outside."""
        return Path(f"/proc/{self.disk}/root{self.mounted}")

    def ask_for_work(self) -> int:
        """Two stages of the training get new parameters, and a new study comes; the study's number."""
        number = next(_NUMBERS)
        path = self.workspace / "params.yaml"
        params = yaml.safe_load(path.read_text())
        params["evaluate"]["n_bootstrap"] += 1
        path.write_text(yaml.safe_dump(params, sort_keys=False))
        return number

    def deliver(self, number: int) -> None:
        self.world.deliver(study_of(number, self.studies))

    def await_work(self, before: dict[str, list[dict[str, Any]]], number: int) -> None:
        """By itself: a run completes, what was asked of it is done, and so are all studies that have come."""
        self.world.next_run("training", before["training"], "COMPLETED", 420)
        wanted = yaml.safe_load((self.workspace / "params.yaml").read_text())["evaluate"]["n_bootstrap"]
        lock = yaml.safe_load((self.workspace / "dvc.lock").read_text())["stages"]
        assert lock["evaluate"]["params"]["params.yaml"]["evaluate"]["n_bootstrap"] == wanted
        assert "export" in lock
        until(lambda: self.n_done() == number, 300, f"{number} studies are segmented and stored")
        self.world.next_run("inbox", before["inbox"], "COMPLETED")

    def n_done(self) -> int:
        """By a copy of the ledger: SQLite finds no file under a path that leads through another process."""
        copy = self.studies.parent / "looked_at/outbox/.ledger/ledger.sqlite"
        copy.parent.mkdir(parents=True, exist_ok=True)
        try:
            shutil.copyfile(self.workspace / "outbox/.ledger/ledger.sqlite", copy)
            rows = ledger_rows(copy.parents[2])
        except (FileNotFoundError, sqlite3.DatabaseError):
            # not there yet, or copied while it was written
            return 0
        assert all(row[3] != "quarantined" for row in rows), rows
        return sum(row[3] == "done" and row[-1] == "stored" for row in rows)

    def runs(self) -> dict[str, list[dict[str, Any]]]:
        return {flow: self.world.runs(flow) for flow in ("training", "inbox")}

    def inside(self, *command: str) -> None:
        """A command where the worker's disk is."""
        done = subprocess.run([*_into(self.disk), *command], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr


def _into(disk: int) -> list[str]:
    return ["nsenter", "--target", str(disk), "--user", "--mount", "--preserve-credentials"]


@contextmanager
def _small_disk(mounted: Path, content: Path) -> Iterator[int]:
    """A process that holds a file system of its own, with a copy of a folder."""
    command = ["unshare", "-rm", "sh", "-c", _MOUNTED, "sh", SIZE, str(mounted), str(content)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as holder:
        try:
            assert holder.stdout is not None
            assert holder.stdout.readline() == "ready\n"
            yield holder.pid
        finally:
            holder.kill()


def _can_mount(folder: Path) -> bool:
    words = ["unshare", "-rm", "sh", "-c", f"mount -t tmpfs -o size=64k t {folder}"]
    return all(map(shutil.which, ("unshare", "nsenter"))) and subprocess.run(words, check=False).returncode == 0


@pytest.fixture(scope="module")
def faulty(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Faulty]:
    home = tmp_path_factory.mktemp("faults")
    mounted, clock = home / "mounted", home / "clock"
    mounted.mkdir()
    if not _can_mount(mounted) or shutil.which("gcc") is None:
        pytest.skip("needs user namespaces, nsenter and a C compiler")
    clock.write_text("0")
    library = home / "shifted_clock.so"
    source = ROOT / "tests/support/shifted_clock.c"
    subprocess.run(["gcc", "-shared", "-fPIC", "-O2", "-o", str(library), str(source)], check=True)
    place, port = make_workspace(home, n_attempts=50)
    place.run("monai_tl", "run", "--plain")
    shutil.rmtree(place.folder / ".monai_tl/prefect")
    more = {"LD_PRELOAD": str(library), "SHIFTED_CLOCK_FILE": str(clock), "MONAI_TL_WORKSPACE": str(mounted)}
    with (
        _small_disk(mounted, place.folder) as disk,
        service_in(home, place.folder, place.site, port, around=_into(disk), **more) as world,
    ):
        found = Faulty(world, mounted, disk, clock, home / "studies")
        world.next_run("inbox", [], "COMPLETED")
        yield found


@contextmanager
def full(folder: Path) -> Iterator[None]:
    """Not one byte more fits on its disk."""
    path = folder / "filler"
    with path.open("wb", buffering=0) as stream:
        for size in (1 << 20, 1 << 12, 1):
            try:
                while True:
                    stream.write(b"x" * size)
            except OSError:
                continue
    try:
        yield
    finally:
        path.unlink()


def test_a_full_disk_is_told_and_over_once_there_is_room(faulty: Faulty) -> None:
    before, number = faulty.runs(), faulty.ask_for_work()
    with full(faulty.workspace):
        faulty.deliver(number)
        failed = {flow: faulty.world.next_run(flow, before[flow], "FAILED") for flow in before}
    for run in failed.values():
        assert "No space left" in run["state"]["message"] or "disk is full" in run["state"]["message"], run["state"]
        assert "disk space" in run["state"]["message"]
    faulty.await_work(faulty.runs(), number)


def test_a_workspace_that_may_not_be_written_is_told_and_over_once_it_may(faulty: Faulty) -> None:
    before, number = faulty.runs(), faulty.ask_for_work()
    until(lambda: not _fails(faulty.inside, "mount", "-o", "remount,ro", str(faulty.mounted)), 60, "it is read-only")
    try:
        faulty.deliver(number)
        failed = {flow: faulty.world.next_run(flow, before[flow], "FAILED") for flow in before}
    finally:
        faulty.inside("mount", "-o", "remount,rw", str(faulty.mounted))
    for run in failed.values():
        assert "Read-only file system" in run["state"]["message"], run["state"]
        assert "permissions" in run["state"]["message"]
    faulty.await_work(faulty.runs(), number)


def _fails(do: Any, *given: str) -> bool:
    """While a file is open for writing a file system cannot become read-only."""
    try:
        do(*given)
    except AssertionError:
        return True
    return False


def test_a_pacs_that_is_away_is_told_and_caught_up_with(faulty: Faulty) -> None:
    before, number = faulty.runs(), faulty.ask_for_work()
    faulty.deliver(number)
    faulty.world.take_down("orthanc")
    before["inbox"] = faulty.world.runs("inbox")
    failed = faulty.world.next_run("inbox", before["inbox"], "FAILED")
    assert "the PACS cannot be reached" in failed["state"]["message"]
    # who has nothing to do with it goes on
    faulty.world.next_run("training", before["training"], "COMPLETED")
    faulty.world.bring_up("orthanc")
    faulty.await_work(before, number)


def test_a_server_that_is_away_for_a_while_costs_no_work(faulty: Faulty) -> None:
    before, number = faulty.runs(), faulty.ask_for_work()
    faulty.deliver(number)
    until(lambda: any(run["state_type"] == "RUNNING" for run in faulty.world.runs("training")), 120, "a run goes on")
    going_on = [run["id"] for flow in before for run in faulty.world.runs(flow) if run["state_type"] == "RUNNING"]
    faulty.world.take_down("server")
    time.sleep(40)
    faulty.world.bring_up("server")
    faulty.world.await_all()
    faulty.await_work(before, number)
    for run in going_on:
        ended = faulty.world.server.ended(run, 420)
        assert ended["state_type"] == "COMPLETED" or ended["state"]["message"], ended["state"]


@pytest.mark.parametrize("jump_s", [7200, -7200])
def test_a_clock_that_jumps_and_jumps_back_costs_no_work(faulty: Faulty, jump_s: int) -> None:
    number = 0
    for shift in (jump_s, 0):
        before, number = faulty.runs(), faulty.ask_for_work()
        faulty.clock.write_text(str(shift))
        faulty.deliver(number)
        faulty.await_work(before, number)
