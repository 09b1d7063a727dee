"""The Prefect server a flow reports to: one that runs already, or one for the duration of this process."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from monai_tl.errors import MonaiTLError
from monai_tl.stages import STATE_FOLDER

SERVER_FILE = "server.json"
"""In the state folder while ``monai-tl serve`` runs: ``{"api_url": …}``."""

_START_S = 120.0


def is_healthy(api_url: str, timeout_s: float = 1.0) -> bool:
    """Whether a Prefect server answers there (the health check needs no password)."""
    try:
        with urllib.request.urlopen(f"{api_url}/health", timeout=timeout_s) as answer:  # noqa: S310 - our own URL
            return bool(answer.status == 200)
    except (OSError, ValueError, urllib.error.URLError):
        return False


def known_server(workspace: Path) -> str | None:
    """URL of a server to use: PREFECT_API_URL, else the one ``monai-tl serve`` runs for this workspace; else None."""
    given = os.environ.get("PREFECT_API_URL")
    if given:
        return given
    try:
        url = str(json.loads((workspace / STATE_FOLDER / SERVER_FILE).read_text(encoding="utf-8"))["api_url"])
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return url if is_healthy(url) else None


@contextmanager
def server_for(workspace: Path) -> Iterator[str]:
    """Yield the URL of a running server's API; start one on a free loopback port when there is none.

    Prefect would start such a server itself, but that one outlives a killed flow and writes to the user's terminal. Its
    database is PREFECT_HOME's, so past runs stay visible to ``monai-tl serve``.

    Raises:
        MonaiTLError: The server does not come up.
    """
    url = known_server(workspace)
    if url is not None:
        yield url
        return
    log = workspace / STATE_FOLDER / "server.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    port = _free_port()
    with log.open("wb") as stream:
        process = subprocess.Popen(
            _command(port),
            env=_environment(),
            stdin=subprocess.PIPE,
            stdout=stream,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        url = f"http://127.0.0.1:{port}/api"
        _await_health(url, process, log)
        yield url
    finally:
        if process.stdin is not None:
            process.stdin.close()
        process.wait()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _command(port: int) -> list[str]:
    supervised = [sys.executable, "-m", "monai_tl.supervise", "--grace", "5", "--", sys.executable, "-m", "uvicorn"]
    application = ["--factory", "prefect.server.api.server:create_app"]
    address = ["--host", "127.0.0.1", "--port", str(port)]
    return [*supervised, *application, *address, "--log-level", "error", "--lifespan", "on"]


def _environment() -> dict[str, str]:
    # what Prefect sets for its own ephemeral server: no pages to look at, no services of a long-lived server
    own = {"PREFECT_UI_ENABLED": "0", "PREFECT__SERVER_EPHEMERAL": "1", "PREFECT__SERVER_FINAL": "1"}
    return {**os.environ, **own}


def _await_health(url: str, process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + _START_S
    while not is_healthy(url):
        if process.poll() is not None or time.monotonic() > deadline:
            raise MonaiTLError(
                f"the flow's server did not start; {log} says why, and 'monai-tl doctor' checks the installation"
            )
        time.sleep(0.1)
