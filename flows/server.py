"""The Prefect server a flow reports to: one that runs already, or one for the duration of this process."""

from __future__ import annotations

import json
import os
import secrets
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from monai_tl.errors import MonaiTLError
from monai_tl.stages import STATE_FOLDER

SERVER_FILE = "server.json"
"""In the state folder while ``monai-tl serve`` runs: ``{"api_url": …}``."""
AUTH_FILE = "server.auth"
"""In the state folder, for its owner alone: what the server of ``monai-tl serve`` asks for, ``name:password``."""
OWN_VARIABLE = "MONAI_TL_OWN_SERVER"
"""Set while a run has a server of its own, for what it starts: nobody else is there to wait for."""

_START_S = 120.0


@dataclass(frozen=True)
class Server:
    """Where a server's API is, and what it asks for; None where it asks for nothing."""

    api_url: str
    auth: str | None = field(default=None, repr=False)


def is_healthy(api_url: str, timeout_s: float = 1.0) -> bool:
    """Whether a Prefect server answers there (the health check needs no password)."""
    try:
        with urllib.request.urlopen(f"{api_url}/health", timeout=timeout_s) as answer:  # noqa: S310 - our own URL
            return bool(answer.status == 200)
    except (OSError, ValueError, urllib.error.URLError):
        return False


def known_server(workspace: Path) -> Server | None:
    """A server to use: PREFECT_API_URL, else the one ``monai-tl serve`` runs for this workspace; else None."""
    given = os.environ.get("PREFECT_API_URL")
    if given:
        return Server(given, os.environ.get("PREFECT_API_AUTH_STRING"))
    state = workspace / STATE_FOLDER
    try:
        url = str(json.loads((state / SERVER_FILE).read_text(encoding="utf-8"))["api_url"])
        auth = (state / AUTH_FILE).read_text(encoding="utf-8").strip()
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return Server(url, auth) if is_healthy(url) else None


@contextmanager
def server_for(workspace: Path) -> Iterator[Server]:
    """Yield a running server; start one on a free loopback port, with a password of its own, when there is none.

    Prefect would start such a server itself, but that one outlives a killed flow, writes to the user's terminal and
    obeys every process of the machine. Its database is PREFECT_HOME's, so past runs stay visible to ``monai-tl serve``.

    Raises:
        MonaiTLError: The server does not come up.
    """
    known = known_server(workspace)
    if known is not None:
        yield known
        return
    log = workspace / STATE_FOLDER / "server.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    port, auth = _free_port(), f"monai-tl:{secrets.token_urlsafe(24)}"
    with log.open("wb") as stream:
        process = subprocess.Popen(
            _command(port),
            env=_environment(auth),
            stdin=subprocess.PIPE,
            stdout=stream,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        url = f"http://127.0.0.1:{port}/api"
        _await_health(url, process, log)
        os.environ[OWN_VARIABLE] = "1"
        yield Server(url, auth)
    finally:
        os.environ.pop(OWN_VARIABLE, None)
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


def _environment(auth: str) -> dict[str, str]:
    # what Prefect sets for its own ephemeral server: no pages to look at, no services of a long-lived server
    own = {"PREFECT_UI_ENABLED": "0", "PREFECT__SERVER_EPHEMERAL": "1", "PREFECT__SERVER_FINAL": "1"}
    own |= {"PREFECT_SERVER_API_AUTH_STRING": auth, "PREFECT_SERVER_ANALYTICS_ENABLED": "false"}
    return {**os.environ, **own}


def _await_health(url: str, process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + _START_S
    while not is_healthy(url):
        if process.poll() is not None or time.monotonic() > deadline:
            raise MonaiTLError(
                f"the flow's server did not start; {log} says why, and 'monai-tl doctor' checks the installation"
            )
        time.sleep(0.1)
