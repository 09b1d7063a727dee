"""A whole service under a supervisor: Prefect's server, workers, a PACS; what dies is started again, and nothing else.

This is compose.yaml without an engine: the same commands, the workspace's own prefect.yaml with its schedules switched
on, and ``restart: unless-stopped`` as a thread. A container that loses its first process loses all others too.
"""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
import urllib.error
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
import yaml
from orthanc import AUTH, Orthanc, orthanc_command
from prefect_server import Server
from workspaces import ROOT, Place, free_port, until

from flows.server import is_healthy

DASHBOARD_AUTH = "team:geheim"
POOLS = {"gpu": 2, "cpu": 3}
"""Pool → runs that its worker takes at a time."""
WORKERS = tuple(f"{pool}-worker" for pool in POOLS)
_PAUSE_S = 0.5
"""Between an end and a new start, as compose waits at first."""


@dataclass
class Service:
    """One command that is started again whenever it ends.

    Attributes:
        place: Its environment; the mark in it is on everything that it starts, as a container would hold it.
        is_container: What it has started ends with it.
    """

    name: str
    command: Sequence[str]
    place: Place
    log: Path
    is_container: bool = True
    process: subprocess.Popen[bytes] | None = None
    n_starts: int = 0

    def start(self) -> None:
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                list(self.command), cwd=self.place.folder, env=self.place.environment, stdin=subprocess.DEVNULL,
                stdout=log, stderr=subprocess.STDOUT, start_new_session=True,
            )  # fmt: skip
        self.n_starts += 1

    def has_ended(self) -> bool:
        """By itself or by a kill; one that was taken down has not."""
        return self.process is not None and self.process.poll() is not None

    def end_rest(self) -> None:
        """What a container's end does to all that is in it."""
        for process in self.place.processes():
            with suppress(psutil.NoSuchProcess):
                process.kill()
        until(lambda: not self.place.processes(), 30, f"all of {self.name} is gone")


@dataclass
class World:
    """The running service, and what tests ask of it."""

    workspace: Place
    server: Server
    pacs: Orthanc
    services: dict[str, Service]
    _stopped: threading.Event = field(default_factory=threading.Event)
    _turn: threading.Lock = field(default_factory=threading.Lock)

    def at_work(self) -> list[psutil.Process]:
        """All processes of the workers, these included."""
        return [process for name in WORKERS for process in self.services[name].place.processes()]

    def watch(self) -> None:
        """The supervisor: starts again what has ended."""
        while not self._stopped.wait(0.1):
            for service in self.services.values():
                with self._turn:
                    if service.has_ended() and not self._stopped.is_set():
                        if service.is_container:
                            service.end_rest()
                        time.sleep(_PAUSE_S)
                        service.start()

    def take_down(self, *names: str) -> None:
        """Stop services and keep them down, as if their machine were away."""
        for name in names:
            with self._turn:
                service = self.services[name]
                process, service.process = service.process, None
                if process is not None:
                    process.kill()
                    process.wait()
                service.end_rest()

    def bring_up(self, *names: str) -> None:
        """Start what was taken down."""
        for name in names:
            with self._turn:
                self.services[name].start()

    def await_all(self) -> None:
        """Wait until server and PACS answer."""
        until(lambda: is_healthy(self.server.url), 180, "the server answers")
        until(self._pacs_answers, 120, "the PACS answers")

    def _pacs_answers(self) -> bool:
        try:
            return bool(self.pacs.call("/system"))
        except (OSError, urllib.error.URLError):
            return False

    def deliver(self, paths: Sequence[Path]) -> None:
        """As a modality sends: until the PACS has taken every image."""
        for path in paths:
            until(lambda path=path: self._put(path), 120, "the PACS takes an image")

    def runs(self, flow: str) -> list[dict[str, Any]]:
        """The latest runs of a flow that have begun, the last one in front."""
        wanted = {"flows": {"name": {"any_": [flow]}}, "sort": "START_TIME_DESC", "limit": 20}
        wanted |= {"flow_runs": {"state": {"type": {"not_any_": ["SCHEDULED", "CANCELLED"]}}}}
        time.sleep(0.5)
        return list(self.server.post("flow_runs/filter", wanted))

    def next_run(self, flow: str, before: Sequence[dict[str, Any]], state: str, seconds: float = 300) -> dict[str, Any]:
        """The first run in a state that was not among those before; it comes by its schedule."""
        known = {run["id"] for run in before}

        def look() -> dict[str, Any] | None:
            found = [run for run in self.runs(flow) if run["id"] not in known and run["state_type"] == state]
            return found[-1] if found else None

        return dict(until(look, seconds, f"{flow}: a run becomes {state}"))

    def _put(self, path: Path) -> bool:
        try:
            self.pacs.put([path])
        except (OSError, urllib.error.URLError):
            return False
        return True

    def stop(self) -> list[str]:
        """End the service as its user would; command lines of what is left of it after a while."""
        self._stopped.set()
        with self._turn:
            # a run that goes on when its worker is asked to end tells the server how it ended
            left = [one for name in (*WORKERS, "orthanc", "server") for one in self._end(name)]
        words = []
        for one in left:
            with suppress(psutil.NoSuchProcess):
                words.append(" ".join(one.cmdline()))
                one.kill()
        return words

    def _end(self, name: str) -> list[psutil.Process]:
        service = self.services[name]
        if service.process is not None:
            service.process.terminate()
            try:
                service.process.wait(60)
            except subprocess.TimeoutExpired:
                service.process.kill()
                service.process.wait()
        deadline = time.monotonic() + 90
        while (left := service.place.processes()) and time.monotonic() < deadline:
            time.sleep(0.2)
        return left


def write_schedules(workspace: Path, every_s: int, grace_s: int) -> None:
    """The workspace's prefect.yaml with its schedules on; a run that is taken and does not begin gives way sooner.

    The training works in place: what is compared with a run without faults are the workspace's own lock file and
    products, and what a clone adds is looked at in test_training_in_clone.py.
    """
    path = workspace / "prefect.yaml"
    content = yaml.safe_load(path.read_text())
    for deployment in content["deployments"]:
        if deployment["name"] == "training":
            deployment["entrypoint"] = "flows/pipeline.py:training"
        if "training" in deployment["parameters"]:
            deployment["parameters"]["training"] = "training/training"
        deployment["concurrency_limit"]["grace_period_seconds"] = grace_s
        if "schedules" in deployment:
            deployment["schedules"] = [{"interval": every_s, "active": True}]
    path.write_text(yaml.safe_dump(content, sort_keys=False))


@contextmanager
def service_in(
    home: Path, workspace: Path, site: Path, pacs_port: int, *, around: Sequence[str] = (), **more: str
) -> Iterator[World]:
    """The service over one workspace, set up as compose.yaml's one-shot service does it.

    Args:
        home: For the server's database, the PACS and the logs.
        workspace: With its prefect.yaml.
        site: Where the package is.
        pacs_port: As the workspace's params.yaml has it.
        around: Put before the workers' commands, e.g. what gives it a disk of its own.
        **more: Into the environment of server and workers.
    """
    url = f"http://127.0.0.1:{free_port()}/api"
    own = {"PREFECT_SERVER_API_AUTH_STRING": DASHBOARD_AUTH, "PREFECT_HOME": str(home / "prefect"), "DO_NOT_TRACK": "1"}
    own |= {"PREFECT_SERVER_CONCURRENCY_LEASE_STORAGE": "prefect.server.concurrency.lease_storage.filesystem"}
    own |= {"PREFECT_SERVER_ANALYTICS_ENABLED": "false", "PREFECT_SERVER_CSRF_PROTECTION_ENABLED": "true", **more}
    own |= {"PREFECT_API_URL": url, "PREFECT_API_AUTH_STRING": DASHBOARD_AUTH}
    own |= {"PREFECT_SERVER_SERVICES_SCHEDULER_MAX_RUNS": "20"}
    client = {
        "PREFECT_API_URL": url, "PREFECT_API_AUTH_STRING": DASHBOARD_AUTH, "PREFECT_HOME": str(home / "client"),
        "PREFECT_FLOWS_HEARTBEAT_FREQUENCY": "30", "PREFECT_RESULTS_DEFAULT_SERIALIZER": "json", "DO_NOT_TRACK": "1",
        "MONAI_TL_WORKSPACE": str(workspace), "MONAI_TL_PACS_AUTH": AUTH, "PREFECT_WORKER_QUERY_SECONDS": "2",
        "MONAI_TL_EXECUTOR": "sequential", "OMP_NUM_THREADS": "1", "TMPDIR": str(home / "tmp"),
        "PYTHONPATH": os.pathsep.join([str(workspace), str(site)]), **more,
    }  # fmt: skip
    (home / "tmp").mkdir(parents=True)
    place = Place(workspace, site, client)
    port = url.rsplit(":", 1)[1].removesuffix("/api")
    prefect = [sys.executable, "-m", "prefect"]
    serve = [sys.executable, "-m", "flows.clock", "--", *prefect, "server", "start", "--host", "127.0.0.1"]
    serve += ["--port", port, "--no-ui"]
    commands = {
        # where flows are, as in the image; it has nothing of the workspace's
        "server": (serve, Place(home, ROOT, own)),
        "orthanc": (orthanc_command(home / "pacs", pacs_port), Place(home, site)),
    }
    for name, pool in zip(WORKERS, POOLS, strict=True):
        # a mark of its own: what ends with one is not the other's
        limit = ["--limit", str(POOLS[pool])]
        command = [*around, *prefect, "worker", "start", "--pool", pool, "--type", "process", *limit]
        commands[name] = (command, Place(workspace, site, client))
    services = {name: Service(name, command, at, home / f"{name}.log") for name, (command, at) in commands.items()}
    world = World(place, _Dashboard(place, url, home / "server.log"), Orthanc(pacs_port), services)
    watcher = threading.Thread(target=world.watch, daemon=True)
    try:
        services["server"].start()
        services["orthanc"].start()
        world.await_all()
        for pool in POOLS:
            place.run("prefect", "work-pool", "create", "--type", "process", "--overwrite", pool)
        place.run("flows.guards")
        place.run("prefect", "--no-prompt", "deploy", "--all")
        for name in WORKERS:
            services[name].start()
        watcher.start()
        yield world
    finally:
        left = world.stop()
    assert left == [], f"left behind: {left}"


class _Dashboard(Server):
    """One whose password is known."""

    @property
    def auth(self) -> str:
        return DASHBOARD_AUTH
