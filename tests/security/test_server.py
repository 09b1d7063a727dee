"""Row 6: the server of ``monai-tl serve`` obeys nobody but its user, and stored results are never run."""

from __future__ import annotations

import base64
import json
import os
import pickle
import signal
import socket
import stat
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from workspaces import Place, end, free_port, make_site, make_stand_in, until

from monai_tl.commands import serve

pytestmark = pytest.mark.pipeline

EVIL = "https://evil.example"


@dataclass
class Served:
    place: Place
    port: int
    output: Path

    @property
    def auth(self) -> str:
        return (self.place.folder / ".monai_tl/server.auth").read_text().strip()

    def ask(
        self, path: str, method: str = "GET", body: object = None, auth: str | None = None, **headers: str
    ) -> tuple:
        """Status and headers of an answer."""
        sent = {"Content-Type": "application/json", **{name.replace("_", "-"): text for name, text in headers.items()}}
        if auth is not None:
            sent["Authorization"] = f"Basic {base64.b64encode(auth.encode()).decode()}"
        content = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(f"http://127.0.0.1:{self.port}/api/{path}", content, sent, method=method)
        try:
            with urllib.request.urlopen(request, timeout=30) as answer:
                return answer.status, answer.headers, answer.read()
        except urllib.error.HTTPError as error:
            return error.code, error.headers, error.read()

    def token(self) -> dict[str, str]:
        found = json.loads(self.ask("csrf-token?client=test", auth=self.auth)[2])["token"]
        return {"Prefect_Csrf_Token": found, "Prefect_Csrf_Client": "test"}


class _Payload:
    def __init__(self, canary: Path) -> None:
        self.canary = canary

    def __reduce__(self) -> tuple:
        return os.system, (f"touch {self.canary}",)


@pytest.fixture(scope="module")
def served(tmp_path_factory) -> Iterator[Served]:
    root = tmp_path_factory.mktemp("closed")
    place = make_stand_in(root / "workspace", make_site(root / "site"))
    # whatever stands where results are kept must stay a file
    stored = place.folder / ".monai_tl/prefect/storage"
    stored.mkdir(parents=True)
    for name in ("training", "bring_up_to_date", "0" * 32):
        (stored / name).write_bytes(poisoned_record(root / "ran"))
    port, log = free_port(), root / "serve.log"
    process = place.start("monai_tl", "serve", "--port", str(port), "--interval", "15", output=log)
    try:
        until(lambda: "Runs:" in log.read_text() or process.poll() is not None, 120, "the server starts")
        yield Served(place, port, log)
    finally:
        end(process, signal.SIGINT)


def poisoned_record(canary: Path) -> bytes:
    """A stored result as Prefect writes them, whose own record says that it is a pickle."""
    content = base64.b64encode(pickle.dumps(_Payload(canary))).decode()
    serializer = {"type": "pickle", "picklelib": "cloudpickle"}
    return json.dumps(
        {"metadata": {"storage_key": "x", "serializer": serializer, "prefect_version": "3.8.8"}, "result": content}
    ).encode()


def test_without_the_password_nothing_is_done_and_nothing_told(served: Served) -> None:
    assert served.ask("health")[0] == 200
    # with the token against forgery, which only the owner gets: without it a POST ends earlier still, with 403
    token = served.token()
    for auth in (None, "", "admin:admin", served.auth + "x", served.auth[:-1]):
        for path, method, body in (
            ("flows/", "POST", {"name": "evil"}),
            ("deployments/filter", "POST", {}),
            ("flow_runs/filter", "POST", {}),
            ("admin/settings", "GET", None),
            ("csrf-token?client=evil", "GET", None),
        ):
            assert served.ask(path, method, body, auth, **token)[0] == 401, (path, auth)
            assert served.ask(path, method, body, auth)[0] in (401, 403), (path, auth)


def test_with_it_the_owner_is_served(served: Served) -> None:
    """Else the refusals would show nothing."""
    assert served.ask("deployments/filter", "POST", {}, served.auth, **served.token())[0] == 200
    assert served.ask("admin/version", auth=served.auth)[0] == 200


def test_a_post_without_a_token_against_forgery_is_refused(served: Served) -> None:
    assert served.ask("flows/", "POST", {"name": "evil"}, served.auth)[0] == 403


def test_a_page_of_another_origin_is_refused(served: Served) -> None:
    asked = {"Access_Control_Request_Method": "POST", "Access_Control_Request_Headers": "authorization"}
    status, headers, _ = served.ask("flows/", "OPTIONS", Origin=EVIL, **asked)
    assert (status, headers["Access-Control-Allow-Origin"]) == (400, None)
    own = f"http://127.0.0.1:{served.port}"
    status, headers, _ = served.ask("flows/", "OPTIONS", Origin=own, **asked)
    assert (status, headers["Access-Control-Allow-Origin"]) == (200, own)
    status, headers, _ = served.ask("deployments/filter", "POST", {}, served.auth, Origin=EVIL, **served.token())
    assert headers["Access-Control-Allow-Origin"] is None


def test_it_listens_on_loopback_alone(served: Served) -> None:
    # /proc/net/tcp: local address in hexadecimal, state 0A is listening
    rows = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    listening = {row[1] for row in rows if row[3] == "0A" and int(row[1].split(":")[1], 16) == served.port}
    assert listening == {f"0100007F:{served.port:04X}"}


def test_the_password_is_for_the_user_alone_and_in_no_log(served: Served) -> None:
    state = served.place.folder / ".monai_tl"
    secrets = {name: (state / name).read_text().strip().split(":")[1] for name in ("server.auth", "report.auth")}
    assert len(set(secrets.values())) == 2
    for name, secret in secrets.items():
        assert stat.S_IMODE((state / name).stat().st_mode) == 0o600
        assert len(secret) >= 32
    told = [
        served.output,
        *(served.place.folder / ".monai_tl").glob("*.log"),
        served.place.folder / ".monai_tl/server.json",
    ]
    for secret in secrets.values():
        assert [one.name for one in told if secret in one.read_text(errors="replace")] == []
    # the process that shows the reports does not know the dashboard's
    showing = served.place.find("-m monai_tl.commands.report_server")
    assert showing is not None
    assert secrets["server.auth"] not in " ".join(showing.environ().values())


def test_a_scheduled_run_stores_no_result_and_runs_none(served: Served, tmp_path: Path) -> None:
    """The poison is real: whoever reads the record runs it."""
    body = {"flow_runs": {"state": {"type": {"any_": ["COMPLETED"]}}}}

    def completed() -> bool:
        return json.loads(served.ask("flow_runs/filter", "POST", body, served.auth, **served.token())[2]) != []

    until(completed, 200, "a scheduled run completes")
    stored = served.place.folder / ".monai_tl/prefect/storage"
    assert sorted(path.name for path in stored.rglob("*")) == ["0" * 32, "bring_up_to_date", "training"]
    assert not (served.place.folder.parent / "ran").exists()
    from prefect.results import ResultRecord

    ResultRecord.deserialize(poisoned_record(tmp_path / "ran"))
    assert (tmp_path / "ran").exists()


def test_monai_tl_run_finds_the_server_and_its_password(served: Served) -> None:
    assert "ingest: " in served.place.run("monai_tl", "run", "--plain")
    log = served.place.folder / ".monai_tl/run.log"
    assert "Unauthorized" not in log.read_text(errors="replace")


def test_opening_it_is_said_and_needs_a_real_address(served: Served, tmp_path: Path) -> None:
    port = free_port()
    log = tmp_path / "serve.log"
    place = served.place
    process = place.start("monai_tl", "serve", "--host", "0.0.0.0", "--port", str(port), output=log)
    try:
        until(lambda: "Warning" in log.read_text() or process.poll() is not None, 60, "it warns")
        assert "other machines reach it" in " ".join(log.read_text().split())
    finally:
        end(process)
    assert "no address of this machine" in place.run("monai_tl", "serve", "--host", "192.0.2.1", check=False)


def test_the_environment_of_a_server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PREFECT_SERVER_API_AUTH_STRING", raising=False)
    first = serve.server_environment(tmp_path, 4300)
    assert first["PREFECT_SERVER_API_AUTH_STRING"] == first["PREFECT_API_AUTH_STRING"]
    # a browser that was told once goes on
    again = serve.server_environment(tmp_path, 4300)
    assert again["PREFECT_API_AUTH_STRING"] == first["PREFECT_API_AUTH_STRING"]
    monkeypatch.setenv("PREFECT_SERVER_API_AUTH_STRING", "me:my own")
    assert serve.server_environment(tmp_path, 4300)["PREFECT_API_AUTH_STRING"] == "me:my own"
    assert (tmp_path / ".monai_tl/server.auth").read_text() == "me:my own\n"
    assert socket.getfqdn() in serve.server_environment(tmp_path, 4300, "0.0.0.0")["PREFECT_SERVER_UI_API_URL"]
