"""Reports over HTTP: with the password alone, inside the folder alone."""

from __future__ import annotations

import base64
import http.client
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from monai_tl.commands.report_server import AUTH_VARIABLE, MOST_CONNECTIONS, PAGE, listen

AUTH = "monai-tl:a password"
Answer = tuple[int, bytes, dict[str, str]]


@pytest.fixture(scope="module")
def port(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    tmp_path = tmp_path_factory.mktemp("workspace")
    (tmp_path / "reports/html").mkdir(parents=True)
    (tmp_path / "reports" / PAGE).write_text("<title>the report</title>")
    (tmp_path / "params.yaml").write_text("secret")
    (tmp_path / "reports/html/away").symlink_to(tmp_path / "params.yaml")
    clone = tmp_path / "clone/reports"
    (clone / "html").mkdir(parents=True)
    (clone / PAGE).write_text("<title>made in the clone</title>")
    (clone / "html/away").symlink_to(tmp_path / "params.yaml")
    # as DVC links with cache.type symlink
    cached = tmp_path / "cache/files/md5/0a" / ("1" * 30)
    cached.parent.mkdir(parents=True)
    cached.write_text("<title>from the cache</title>")
    (tmp_path / "reports/html/linked.html").symlink_to(cached)
    with listen(tmp_path / "reports", "127.0.0.1", 0, AUTH, clone) as server:
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
    [
        "/",
        "/clone/",
        "/clone/html/",
        "/clone/html/away",
        "/clone/../params.yaml",
        "/clone/%2e%2e/params.yaml",
        "/html/",
        "/../params.yaml",
        "/%2e%2e/params.yaml",
        "/html/away",
        "/absent.html",
        "/%00",
        "/" + "x" * 5000,
    ],
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


def test_the_clones_report_has_an_address_of_its_own(port: int) -> None:
    assert ask(port, f"/clone/{PAGE}")[:2] == (200, b"<title>made in the clone</title>")
    assert ask(port, f"/clone/{PAGE}", None)[0] == 401


def test_a_page_that_dvc_linked_into_its_cache_is_shown(port: int) -> None:
    assert ask(port, "/html/linked.html")[:2] == (200, b"<title>from the cache</title>")


def test_no_more_than_so_many_connections_and_then_it_answers_again(port: int) -> None:
    silent = [socket.create_connection(("127.0.0.1", port), timeout=10) for _ in range(MOST_CONNECTIONS)]
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=10) as further:
            assert further.recv(1) == b""
    finally:
        for one in silent:
            one.close()
    deadline = time.monotonic() + 10.0
    while True:
        try:
            assert ask(port, f"/{PAGE}")[0] == 200
            break
        except (http.client.HTTPException, OSError):
            assert time.monotonic() < deadline
            time.sleep(0.05)


def test_the_process_takes_another_port_where_its_own_is_taken_and_tells_it(tmp_path: Path) -> None:
    (tmp_path / "html").mkdir()
    (tmp_path / PAGE).write_text("here")
    told = tmp_path / "port"
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        command = [sys.executable, "-m", "monai_tl.commands.report_server", str(tmp_path), "--port", str(port)]
        with subprocess.Popen([*command, "--port-file", str(told)], env={**os.environ, AUTH_VARIABLE: AUTH}) as process:
            try:
                deadline = time.monotonic() + 60.0
                while not told.is_file():
                    assert process.poll() is None
                    assert time.monotonic() < deadline
                    time.sleep(0.05)
                found = int(told.read_text())
                assert found != port
                assert ask(found, f"/{PAGE}")[:2] == (200, b"here")
            finally:
                process.terminate()
