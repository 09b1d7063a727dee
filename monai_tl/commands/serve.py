"""``monai-tl serve``: the dashboard and the pipeline on a schedule, until interrupted."""

from __future__ import annotations

import os
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

from monai_tl.config import load_params
from monai_tl.errors import ConfigError, MonaiTLError
from monai_tl.files import write_json
from monai_tl.pipeline_file import check_sections
from monai_tl.stages import STATE_FOLDER
from monai_tl.supervise import supervised
from monai_tl.workspace import check_installed_version, python_path

HOST = "127.0.0.1"
SERVER_FILE = "server.json"
_START_S = 120.0


def run(workspace: Path, port: int = 4200, interval: int = 86_400, cron: str | None = None, clone: bool = False) -> int:
    """Start a Prefect server on loopback and serve the workspace's flow on a schedule.

    With PREFECT_SERVER_API_AUTH_STRING in the environment (``name:password``) the dashboard asks for it.

    Args:
        workspace: Folder that holds params.yaml.
        port: Of the dashboard.
        interval: Seconds between starts of runs.
        cron: Cron schedule instead of the interval.
        clone: Train in a clone; results go to branches.

    Returns:
        0 after an interruption, 1 when a part of it ended by itself.

    Raises:
        ConfigError: The workspace has faults, or the port is taken.
        MonaiTLError: The server does not come up.
    """
    check_installed_version(workspace)
    load_params(workspace)
    check_sections(workspace)
    _check_port(port)
    console = Console()
    previous = signal.signal(signal.SIGTERM, _interrupt)
    environment = server_environment(workspace, port)
    known = workspace / STATE_FOLDER / SERVER_FILE
    server = ["prefect", "server", "start", "--host", HOST, "--port", str(port)]
    schedule = [*(["--cron", cron] if cron else ["--interval", str(interval)]), *(["--clone"] if clone else [])]
    try:
        with _logged(server, workspace, environment, "server.log") as running:
            _await_health(f"http://{HOST}:{port}/api/health", running, workspace)
            write_json(known, {"api_url": f"http://{HOST}:{port}/api", "pid": os.getpid()})
            with _logged(["flows.deploy", *schedule], workspace, environment, "deploy.log") as serving:
                console.print(f"Dashboard: http://{HOST}:{port}   (Ctrl-C ends it and all it started)")
                console.print(
                    f"Runs: {f'cron {cron}' if cron else f'every {interval} s'}; next to them, 'monai-tl run'"
                )
                _until_one_ends(running, serving)
        console.print(f"monai-tl serve: a process ended by itself; see the logs in {workspace / STATE_FOLDER}")
        return 1
    except KeyboardInterrupt:
        return 0
    finally:
        known.unlink(missing_ok=True)
        signal.signal(signal.SIGTERM, previous)


def server_environment(workspace: Path, port: int) -> dict[str, str]:
    """The environment of a server on this port and of its clients; what the caller has set is kept."""
    url = f"http://{HOST}:{port}/api"
    password = os.environ.get("PREFECT_SERVER_API_AUTH_STRING")
    wanted = {
        "PREFECT_HOME": str(workspace / STATE_FOLDER / "prefect"),
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "DO_NOT_TRACK": "1",
        "PREFECT_SERVER_CSRF_PROTECTION_ENABLED": "true",
        "PYTHONUNBUFFERED": "1",
    }
    # the pages talk to the address they are told: without it a port other than 4200 shows an empty dashboard
    forced = {"PREFECT_API_URL": url, "PREFECT_SERVER_UI_API_URL": url, "PYTHONPATH": python_path()}
    if password:
        forced["PREFECT_API_AUTH_STRING"] = password
    return {**wanted, **os.environ, **forced}


def _interrupt(number: int, frame: object) -> None:
    raise KeyboardInterrupt


def _check_port(port: int) -> None:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError:
            raise ConfigError(f"--port: {port} is taken on {HOST}; give another one", "arguments") from None


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
