"""Reports over HTTP: with the password alone, inside the folder alone."""

from __future__ import annotations

import base64
import functools
import http.client
import threading
from collections.abc import Iterator
from http.server import ThreadingHTTPServer
from pathlib import Path

import pytest

from monai_tl.commands.report_server import PAGE, ReportHandler

AUTH = "monai-tl:a password"
Answer = tuple[int, bytes, dict[str, str]]


@pytest.fixture
def port(tmp_path: Path) -> Iterator[int]:
    (tmp_path / "reports/html").mkdir(parents=True)
    (tmp_path / "reports" / PAGE).write_text("<title>the report</title>")
    (tmp_path / "params.yaml").write_text("secret")
    (tmp_path / "reports/html/away").symlink_to(tmp_path / "params.yaml")
    handler = functools.partial(ReportHandler, directory=str(tmp_path / "reports"), auth=AUTH)
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server.server_address[1]
        server.shutdown()


def ask(port: int, path: str, auth: str | None = AUTH, method: str = "GET") -> Answer:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    headers = {} if auth is None else {"Authorization": "Basic " + base64.b64encode(auth.encode()).decode()}
    connection.request(method, path, headers=headers)
    answer = connection.getresponse()
    found = answer.status, answer.read(), dict(answer.getheaders())
    connection.close()
    return found


def test_the_report_with_the_password(port: int) -> None:
    status, body, headers = ask(port, f"/{PAGE}")
    assert (status, body) == (200, b"<title>the report</title>")
    assert headers["Content-type"].startswith("text/html")
    assert headers["Cache-Control"] == "no-store"


@pytest.mark.parametrize("auth", [None, "monai-tl:another", "", AUTH + " "])
def test_nothing_without_it(port: int, auth: str | None) -> None:
    status, body, headers = ask(port, f"/{PAGE}", auth)
    assert (status, body) == (401, b"")
    assert headers["WWW-Authenticate"].startswith("Basic")


@pytest.mark.parametrize(
    "path",
    ["/", "/html/", "/../params.yaml", "/%2e%2e/params.yaml", "/html/away", "/absent.html", "/%00", "/" + "x" * 5000],
)
def test_no_list_and_nothing_outside(port: int, path: str) -> None:
    status, body, _ = ask(port, path)
    assert status == 404
    assert b"secret" not in body


def test_a_head_asks_for_the_password_too(port: int) -> None:
    assert ask(port, f"/{PAGE}", None, "HEAD")[0] == 401
    assert ask(port, f"/{PAGE}", method="HEAD")[0] == 200


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE"])
def test_nothing_can_be_changed(port: int, method: str) -> None:
    assert ask(port, f"/{PAGE}", method=method)[0] == 501
