"""A server goes on planning when the clock on the wall is set back, and what is not its fault it leaves alone."""

from __future__ import annotations

import asyncio
import json
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import pytest
from prefect.server.concurrency.lease_storage.filesystem import ConcurrencyLeaseStorage
from prefect_server import Server
from workspaces import ROOT, Place, free_port, until

from flows.renewal import LONGEST_LEASE_S, shorten_leases
from flows.server import is_healthy

pytestmark = pytest.mark.pipeline

AUTH = "team:geheim"
EVERY_S = 30
_OF_ONE = ("name", "description", "enabled", "trigger", "actions")
FLOWS = ("inbox", "somebody-else")


class _Own(Server):
    """One whose password is known."""

    @property
    def auth(self) -> str:
        return AUTH


@contextmanager
def shifted(home: Path, clock: Path) -> Iterator[_Own]:
    """A server under ``flows.clock``, whose clock on the wall is wrong by as much as a file says."""
    library, port = home / "shifted_clock.so", free_port()
    source = ROOT / "tests/support/shifted_clock.c"
    subprocess.run(["gcc", "-shared", "-fPIC", "-O2", "-o", str(library), str(source)], check=True)
    url = f"http://127.0.0.1:{port}/api"
    more = {
        "LD_PRELOAD": str(library), "SHIFTED_CLOCK_FILE": str(clock), "PREFECT_HOME": str(home / "prefect"),
        "PREFECT_API_URL": url, "PREFECT_API_AUTH_STRING": AUTH, "PREFECT_SERVER_API_AUTH_STRING": AUTH,
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false", "DO_NOT_TRACK": "1",
        "PREFECT_SERVER_CSRF_PROTECTION_ENABLED": "true", "PREFECT_SERVER_SERVICES_SCHEDULER_LOOP_SECONDS": "5",
    }  # fmt: skip
    place = Place(ROOT, ROOT, more)
    command = [sys.executable, "-m", "prefect", "server", "start", "--host", "127.0.0.1", "--port", str(port)]
    log = home / "server.log"
    process = place.start("flows.clock", "--", *command, "--no-ui", output=log)
    try:
        until(lambda: is_healthy(url) or process.poll() is not None, 180, "the server answers")
        assert process.poll() is None, log.read_text()
        yield _Own(place, url, log)
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(60)
        place.wait_for_end()


def deploy(server: Server, flow: str) -> str:
    """A deployment with a schedule, of which nobody takes runs; its id."""
    body: dict[str, Any] = {"name": "here", "flow_id": server.post("flows/", {"name": flow})["id"]}
    body["schedules"] = [{"schedule": {"interval": EVERY_S}, "active": True}]
    return str(server.post("deployments/", body)["id"])


def planned(server: Server, deployment: str) -> list[tuple[datetime, str]]:
    """When and what will run, the next one in front; they are asked for all at once."""
    wanted = {"deployments": {"id": {"any_": [deployment]}}, "sort": "EXPECTED_START_TIME_ASC", "limit": 200}
    wanted |= {"flow_runs": {"state": {"type": {"any_": ["SCHEDULED"]}}}}
    found = server.post("flow_runs/filter", wanted)
    return [(datetime.fromisoformat(run["expected_start_time"]), run["id"]) for run in found]


def take(server: Server, deployment: str, before: datetime) -> None:
    """What becomes of runs that are due all at once: all but one are cancelled, as our deployments have it."""
    for when, run in planned(server, deployment):
        if when <= before:
            server.post(
                f"flow_runs/{run}/set_state", {"state": {"type": "CANCELLED", "name": "Cancelled"}, "force": True}
            )


def is_planned_soon(server: Server, deployment: str, now: datetime) -> bool:
    """Whether runs come one after the other from now on."""
    ahead = [when - now for when, _ in planned(server, deployment) if when > now]
    gaps = [after - before for before, after in zip([timedelta(), *ahead], ahead, strict=False)]
    return len(ahead) >= 3 and all(gap <= timedelta(seconds=EVERY_S + 1) for gap in gaps[:3])


def schedules(server: Server, deployment: str) -> list[dict[str, Any]]:
    return list(server.get(f"deployments/{deployment}")["schedules"])


def automations(server: Server) -> list[tuple[str, Any]]:
    """Ids and contents, by name."""
    found = sorted(server.post("automations/filter", {}), key=lambda one: str(one["name"]))
    return [(one["id"], {name: one[name] for name in ("name", "description", "enabled", "actions")}) for one in found]


@pytest.fixture
def home(tmp_path: Path) -> Path:
    if shutil.which("gcc") is None:
        pytest.skip("needs a C compiler")
    return tmp_path


@pytest.mark.parametrize("jump_s", [pytest.param(7200, marks=pytest.mark.long), -600])
def test_runs_are_planned_at_once_after_the_clock_was_set_back(home: Path, jump_s: int) -> None:
    """A quarter of an hour passes at once, so that there were runs at the times that come again."""
    clock = home / "clock"
    shifts = (-900, 0, jump_s, 0)
    clock.write_text(str(shifts[0]))
    with shifted(home, clock) as server:
        inbox, foreign = (deploy(server, flow) for flow in FLOWS)
        server.place.run("flows.guards")
        before = automations(server)
        # what a renewal leaves that is cut off between the new one and the old
        server.post("automations/", {name: server.get(f"automations/{before[0][0]}")[name] for name in _OF_ONE})
        assert len(automations(server)) == len(before) + 1
        for shift in shifts:
            clock.write_text(str(shift))
            time.sleep(3.0)

            def now(shift: int = shift) -> datetime:
                return datetime.now(UTC) + timedelta(seconds=shift)

            def look() -> bool:
                try:
                    return is_planned_soon(server, inbox, now()) and len(schedules(server, inbox)) == 1
                except OSError:
                    return False  # it starts anew

            until(look, 150, f"runs are planned with the clock {shift} s off")
            for deployment in (inbox, foreign):
                take(server, deployment, now())
        assert [one["schedule"]["interval"] for one in schedules(server, inbox)] == [EVERY_S]
        assert [one["active"] for one in schedules(server, inbox)] == [True]
        # what they waited for belongs to the time before
        after = automations(server)
        assert [content for _, content in after] == [content for _, content in before]
        assert not {one for one, _ in after} & {one for one, _ in before}
        # one of somebody else's may have reasons that we do not know
        runs = server.post("flow_runs/filter", {"deployments": {"id": {"any_": [foreign]}}})
        assert {one["created_by"]["id"] for one in runs} == {one["id"] for one in schedules(server, foreign)}


def test_a_server_that_ends_is_not_hidden(tmp_path: Path) -> None:
    place = Place(tmp_path, ROOT, {"PREFECT_API_URL": "http://127.0.0.1:9/api"})
    assert place.start("flows.clock", "--", sys.executable, "-c", "raise SystemExit(7)").wait(60) == 7
    assert place.start("flows.clock").wait(60) == 2
    place.wait_for_end()


def test_a_lease_of_a_time_to_come_ends_in_minutes(tmp_path: Path) -> None:
    """Read by Prefect's own storage."""
    storage = ConcurrencyLeaseStorage(tmp_path)
    limit = uuid4()

    async def make(*seconds: float) -> list[UUID]:
        return [(await storage.create_lease([limit], timedelta(seconds=one))).id for one in seconds]

    short, long = asyncio.run(make(30, 7200))
    (tmp_path / "damaged.json").write_text("{")
    begun = datetime.now(UTC)
    assert shorten_leases(tmp_path, begun) == 1
    assert shorten_leases(tmp_path, begun) == 0
    ends = [asyncio.run(storage.read_lease(one)).expiration - begun for one in (short, long)]
    assert ends[0] < timedelta(seconds=31)
    assert ends[1] == timedelta(seconds=LONGEST_LEASE_S)
    index = json.loads((tmp_path / "expirations.json").read_text())
    assert datetime.fromisoformat(index[str(long)]) - begun == timedelta(seconds=LONGEST_LEASE_S)
    assert (tmp_path / "damaged.json").read_text() == "{"
    assert shorten_leases(tmp_path / "nowhere", begun) == 0


_SLOW = """
import signal, sys, time
def end(*_):
    time.sleep(4)
    print("clean", flush=True)
    sys.exit(0)
signal.signal(signal.SIGTERM, end)
print("up", flush=True)
time.sleep(60)
"""


def test_who_asks_twice_does_not_cut_short_the_servers_end(tmp_path: Path) -> None:
    place = Place(tmp_path, ROOT, {"PREFECT_API_URL": "http://127.0.0.1:9/api"})
    log = tmp_path / "log"
    process = place.start("flows.clock", "--", sys.executable, "-c", _SLOW, output=log)
    until(lambda: "up" in log.read_text(), 60, "it runs")
    process.send_signal(signal.SIGTERM)
    time.sleep(1.0)
    process.send_signal(signal.SIGTERM)
    assert process.wait(30) == 128 + signal.SIGTERM
    assert log.read_text().endswith("clean\n")
    place.wait_for_end()
