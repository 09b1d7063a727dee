"""A Prefect server as tests talk to it: its API over HTTP, as its pages do, and no client of Prefect's own."""

from __future__ import annotations

import base64
import json
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from workspaces import Place, end, free_port, until

_TIME_OUT_S = 120


def _asked(request: urllib.request.Request) -> bytes:
    """The answer; a server that is busy for a moment (503) or starts anew is asked again, as Prefect's client does."""
    for _ in range(30):
        try:
            with urllib.request.urlopen(request, timeout=_TIME_OUT_S) as answer:
                return bytes(answer.read())
        except urllib.error.HTTPError as error:
            if error.code != 503:
                raise
        except urllib.error.URLError as error:
            if not isinstance(error.reason, ConnectionRefusedError):
                raise
        time.sleep(1.0)
    raise AssertionError("the server stays busy or away")


@dataclass
class Server:
    """The server of a running ``monai-tl serve``.

    Attributes:
        url: Of its API.
        log: What ``serve`` prints.
    """

    place: Place
    url: str
    log: Path

    @property
    def auth(self) -> str:
        return (self.place.folder / ".monai_tl/server.auth").read_text().strip()

    def password(self) -> dict[str, str]:
        return {"Authorization": f"Basic {base64.b64encode(self.auth.encode()).decode()}"}

    def get(self, path: str) -> Any:
        request = urllib.request.Request(f"{self.url}/{path}", headers=self.password())
        return json.loads(_asked(request))

    def post(self, path: str, body: Any) -> Any:
        token = self.get("csrf-token?client=test")["token"]
        own = {"Content-Type": "application/json", "Prefect-Csrf-Token": token, "Prefect-Csrf-Client": "test"}
        request = urllib.request.Request(f"{self.url}/{path}", json.dumps(body).encode(), {**own, **self.password()})
        content = _asked(request)
        return json.loads(content) if content else None

    def runs(self, *states: str, flow: str = "training") -> list[dict[str, Any]]:
        """Runs of a flow in these states, those that started first in front."""
        wanted = {
            "flows": {"name": {"any_": [flow]}}, "flow_runs": {"state": {"type": {"any_": list(states)}}},
            "sort": "START_TIME_ASC", "limit": 50,
        }  # fmt: skip
        # asked in a loop: the server has other work
        time.sleep(0.5)
        return list(self.post("flow_runs/filter", wanted))

    def run_of(self, identifier: str) -> dict[str, Any]:
        return dict(self.get(f"flow_runs/{identifier}"))

    def artifacts(self, run: str) -> dict[str, dict[str, Any]]:
        body = {"artifacts": {"flow_run_id": {"any_": [run]}}, "sort": "CREATED_DESC", "limit": 100}
        return {item["key"]: item for item in self.post("artifacts/filter", body)}

    def events(self, name: str) -> list[dict[str, Any]]:
        return list(self.post("events/filter", {"filter": {"event": {"name": [name]}}, "limit": 50})["events"])

    def deployments(self) -> dict[str, dict[str, Any]]:
        """By the name of their flow; of a workspace there is one each."""
        flows = {one["id"]: one["name"] for one in self.post("flows/filter", {})}
        return {flows[one["flow_id"]]: one for one in self.post("deployments/filter", {})}

    def start(self, flow: str, **parameters: Any) -> str:
        """A run of a flow's deployment; its id."""
        body = {"parameters": parameters, "state": {"type": "SCHEDULED"}}
        return str(self.post(f"deployments/{self.deployments()[flow]['id']}/create_flow_run", body)["id"])

    def ended(self, run: str, seconds: float = 480) -> dict[str, Any]:
        """A run when it has ended."""

        def look() -> dict[str, Any] | None:
            time.sleep(0.5)
            found = self.run_of(run)
            return found if found["state_type"] in ("COMPLETED", "FAILED", "CRASHED", "CANCELLED") else None

        return dict(until(look, seconds, f"run {run} ends"))


@contextmanager
def serving(place: Place, log: Path, *options: str) -> Iterator[Server]:
    """``monai-tl serve`` for a block; it ends by Ctrl-C, and nothing of it may be left."""
    port = free_port()
    process = place.start("monai_tl", "serve", "--port", str(port), *options, output=log)
    try:
        until(lambda: "Dashboard" in log.read_text() or process.poll() is not None, 120, "the server starts")
        assert process.poll() is None, log.read_text()
        yield Server(place, f"http://127.0.0.1:{port}/api", log)
    finally:
        code = end(process)
        left = [item.cmdline() for item in place.processes()]
    assert code == 0, log.read_text()
    assert left == []
