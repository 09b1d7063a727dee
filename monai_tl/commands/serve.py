"""``monai-tl serve``: the dashboard and the pipeline on a schedule, until interrupted."""

from __future__ import annotations

import errno
import os
import secrets
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from rich.console import Console

from monai_tl.commands.commit_check import check_commit
from monai_tl.commands.report_server import AUTH_VARIABLE, CLONE, PAGE
from monai_tl.config import load_params
from monai_tl.errors import ConfigError, MonaiTLError
from monai_tl.files import write_json
from monai_tl.pipeline_file import check_sections
from monai_tl.stages import STATE_FOLDER
from monai_tl.supervise import supervised
from monai_tl.workspace import FLOWS_FOLDER, check_installed_version, flows_template, python_path

HOST = "127.0.0.1"
SERVER_FILE = "server.json"
AUTH_FILE = "server.auth"
"""In the state folder: what the dashboard and the API ask for."""
REPORT_AUTH_FILE = "report.auth"
"""Likewise for the report: whoever may read it need not be able to start runs."""
_AUTH_VARIABLE = "PREFECT_SERVER_API_AUTH_STRING"
_REPORT_URL_VARIABLE = "MONAI_TL_REPORT_URL"
_PORT_FILE = "report.port"
_CLOCK = "clock"
_LOOPBACK = ("127.0.0.1", "localhost")
_ANY = "0.0.0.0"  # noqa: S104 - told with a warning
_OPENED = (
    "[bold red]Warning:[/] the dashboard listens on {host}, so other machines reach it. Whoever has its password can "
    "start runs here, and password and results travel unencrypted: put a proxy with TLS before it, or leave out --host "
    "and use a tunnel (ssh -L {port}:127.0.0.1:{port} HOST)."
)
_START_S = 120.0


def run(
    workspace: Path,
    port: int = 4200,
    interval: int | None = None,
    cron: str | None = None,
    in_place: bool = False,
    host: str = HOST,
) -> int:
    """Start a Prefect server, on loopback unless told otherwise, and serve the workspace's flow on a schedule.

    Dashboard and API ask for a password: PREFECT_SERVER_API_AUTH_STRING (``name:password``) of the environment, else
    one that is made once and kept in the state folder, for the user alone. The report asks for another one,
    MONAI_TL_REPORT_AUTH, likewise.

    Args:
        workspace: Folder that holds params.yaml.
        port: Of the dashboard.
        interval: Seconds between starts of the training, instead of ``serve.every_s`` of params.yaml.
        cron: Cron schedule, likewise.
        in_place: Train in the workspace itself, instead of in a clone whose results go to branches.
        host: Address to listen on; any but loopback opens the server to other machines, which is said.

    Returns:
        0 after an interruption, 1 when a part of it ended by itself.

    Raises:
        ConfigError: The workspace has faults or nothing to clone, or the port is taken.
        MonaiTLError: The server does not come up.
    """
    check_installed_version(workspace)
    params = load_params(workspace)
    schedule = params.serve.overridden(interval, cron)
    check_sections(workspace)
    check_flows(workspace)
    if not in_place:
        check_commit(workspace, params)
    _check_port(host, port)
    console = Console()
    if host not in _LOOPBACK:
        console.print(_OPENED.format(host=host, port=port), highlight=False, soft_wrap=True)
    previous = signal.signal(signal.SIGTERM, _interrupt)
    environment = server_environment(workspace, port, host)
    url = environment["PREFECT_API_URL"]
    drop_lock_of_dead(workspace, environment)
    known = workspace / STATE_FOLDER / SERVER_FILE
    server = [f"{FLOWS_FOLDER}.{_CLOCK}", "--", sys.executable, "-m", "prefect", "server", "start", "--host", host]
    server += ["--port", str(port)]
    when = ["--interval", str(schedule.every_s)] if schedule.cron is None else ["--cron", schedule.cron]
    deploy = ["flows.deploy", *when, *(["--in-place"] if in_place else [])]
    try:
        with _logged(server, workspace, environment, "server.log") as running:
            _await_health(f"{url}/health", running, workspace)
            shown = environment["PREFECT_SERVER_UI_API_URL"].removesuffix(f":{port}/api")
            with (
                _reports(workspace, host, port + 1, environment, not in_place) as (showing, pages),
                _told(known, {"api_url": url, "pid": os.getpid(), "report_url": f"{shown}:{pages}/{PAGE}"}),
            ):
                report = f"{shown}:{pages}{'/' if in_place else CLONE}{PAGE}"
                # the clone has a state folder of its own, where nothing tells of this server
                told = {**environment, **({} if in_place else {_REPORT_URL_VARIABLE: report})}
                with _logged(deploy, workspace, told, "deploy.log") as serving:
                    _tell(console, workspace, url, report)
                    where = "in the workspace" if in_place else "in its clone"
                    console.print(f"Runs: {schedule.words}, {where}; next to them, 'monai-tl run'")
                    _until_one_ends(running, serving, showing)
        console.print(f"monai-tl serve: a process ended by itself; see the logs in {workspace / STATE_FOLDER}")
        return 1
    except KeyboardInterrupt:
        return 0
    finally:
        signal.signal(signal.SIGTERM, previous)


def check_flows(workspace: Path) -> None:
    """A workspace keeps its own flows, and may have been made before this was one of them."""
    if not (workspace / FLOWS_FOLDER / f"{_CLOCK}.py").is_file():
        raise ConfigError(
            f"{FLOWS_FOLDER}/{_CLOCK}.py is not there, so the workspace's flows are older; copy what is missing or has "
            f"changed from {flows_template() / FLOWS_FOLDER}",
            "the workspace",
        )


def drop_lock_of_dead(workspace: Path, environment: Mapping[str, str]) -> None:
    """Take away the lock of the leases that a killed server has left, before another one is started.

    Prefect tells the owner of that file by its process id alone: after a power cut the id may be anybody's, and the
    server would wait for ever. A folder that other servers may use too is left alone.
    """
    home = workspace / STATE_FOLDER / "prefect"
    if Path(environment["PREFECT_HOME"]) == home:
        (home / "concurrency_leases/expirations.lock").unlink(missing_ok=True)


@contextmanager
def _told(path: Path, content: Mapping[str, object]) -> Iterator[None]:
    """A JSON file while the block goes on."""
    write_json(path, content)
    try:
        yield
    finally:
        path.unlink(missing_ok=True)


def _tell(console: Console, workspace: Path, url: str, report: str) -> None:
    state = workspace / STATE_FOLDER
    console.print(f"Dashboard: {url.removesuffix('/api')}   (Ctrl-C ends it and all it started)")
    console.print(f"It asks for the line in {state / AUTH_FILE}", soft_wrap=True)
    console.print(f"Report: {report}", soft_wrap=True)
    console.print(f"It asks for the line in {state / REPORT_AUTH_FILE}", soft_wrap=True)


@contextmanager
def _reports(
    workspace: Path, host: str, port: int, environment: Mapping[str, str], clone: bool
) -> Iterator[tuple[subprocess.Popen[bytes], int]]:
    """The process that shows the reports, and its port: the one asked for where it is free, so that links stay.

    It binds the port itself and then tells it: a port that was free a moment ago may be somebody else's by now.
    """
    state = workspace / STATE_FOLDER
    path = state / _PORT_FILE
    path.unlink(missing_ok=True)
    command = ["monai_tl.commands.report_server", str(workspace / "reports"), "--host", host, "--port", str(port)]
    command += ["--port-file", str(path), *(["--clone", str(state / "clone/reports")] if clone else [])]
    # it needs no password of the dashboard's
    own = {name: text for name, text in environment.items() if not name.startswith("PREFECT_")}
    own[AUTH_VARIABLE] = _auth_string(workspace, AUTH_VARIABLE, REPORT_AUTH_FILE)
    with _logged(command, workspace, own, "reports.log") as showing:
        deadline = time.monotonic() + _START_S
        while not path.is_file():
            if showing.poll() is not None or time.monotonic() > deadline:
                raise MonaiTLError(f"the reports cannot be shown; {state / 'reports.log'} says why")
            time.sleep(0.05)
        try:
            yield showing, int(path.read_text(encoding="utf-8"))
        finally:
            path.unlink(missing_ok=True)


def server_environment(workspace: Path, port: int, host: str = HOST) -> dict[str, str]:
    """The environment of a server on this port and of its clients; what the caller has set is kept.

    Pages of other origins may not use the API, and what a task returns would be stored as JSON: Prefect's own choice,
    a pickle, is run by whoever reads it.
    """
    url = f"http://{HOST if host == _ANY else host}:{port}/api"
    # the pages talk to the address they are told: without it a port other than 4200 shows an empty dashboard
    shown = f"http://{socket.getfqdn()}:{port}/api" if host == _ANY else url
    auth = _auth_string(workspace, _AUTH_VARIABLE, AUTH_FILE)
    wanted = {
        "PREFECT_HOME": str(workspace / STATE_FOLDER / "prefect"),
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "DO_NOT_TRACK": "1",
        "PREFECT_SERVER_CSRF_PROTECTION_ENABLED": "true",
        "PREFECT_SERVER_CORS_ALLOWED_ORIGINS": f"{shown.removesuffix('/api')},http://localhost:{port}",
        "PREFECT_RESULTS_DEFAULT_SERIALIZER": "json",
        # in memory, as Prefect has them, leases end with the server, and what they held is taken for ever
        "PREFECT_SERVER_CONCURRENCY_LEASE_STORAGE": "prefect.server.concurrency.lease_storage.filesystem",
        # all that are planned are due at once when the clock jumps or the machine was off, and SQLite is then locked
        "PREFECT_SERVER_SERVICES_SCHEDULER_MAX_RUNS": "20",
        "PYTHONUNBUFFERED": "1",
    }
    forced = {"PREFECT_API_URL": url, "PREFECT_SERVER_UI_API_URL": shown, "PYTHONPATH": python_path()}
    forced |= {_AUTH_VARIABLE: auth, "PREFECT_API_AUTH_STRING": auth}
    return {**wanted, **os.environ, **forced}


def _auth_string(workspace: Path, variable: str, file: str) -> str:
    """The password of the environment, else the kept one, else a new one; kept where only the user reads it."""
    path = workspace / STATE_FOLDER / file
    auth = os.environ.get(variable, "")
    if not auth and path.is_file():
        auth = path.read_text(encoding="utf-8").strip()
    auth = auth or f"monai-tl:{secrets.token_urlsafe(24)}"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.unlink(missing_ok=True)
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="utf-8") as stream:
        stream.write(f"{auth}\n")
    return auth


def _interrupt(number: int, frame: object) -> None:
    raise KeyboardInterrupt


def _check_port(host: str, port: int) -> None:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            if error.errno == errno.EADDRINUSE:
                raise ConfigError(f"--port: {port} is taken on {host}; give another one", "arguments") from None
            raise ConfigError(f"--host: {host} is no address of this machine; leave it out", "arguments") from None


@contextmanager
def _logged(
    module: Sequence[str], workspace: Path, environment: Mapping[str, str], log: str
) -> Iterator[subprocess.Popen[bytes]]:
    folder = workspace / STATE_FOLDER
    folder.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, "-m", *module]
    with (
        (folder / log).open("wb") as stream,
        supervised(command, cwd=workspace, env=environment, stdout=stream, grace_s=10.0) as process,
    ):
        yield process


def _await_health(url: str, process: subprocess.Popen[bytes], workspace: Path) -> None:
    deadline = time.monotonic() + _START_S
    while time.monotonic() < deadline and process.poll() is None:
        try:
            with urllib.request.urlopen(url, timeout=1.0):  # noqa: S310 - our own URL
                return
        except OSError:
            time.sleep(0.2)
    raise MonaiTLError(
        f"the server did not start; {workspace / STATE_FOLDER / 'server.log'} says why, "
        "and 'monai-tl doctor' checks the installation"
    )


def _until_one_ends(*processes: subprocess.Popen[bytes]) -> None:
    while all(process.poll() is None for process in processes):
        time.sleep(0.5)
