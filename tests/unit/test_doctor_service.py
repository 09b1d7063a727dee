"""What ``doctor`` finds of a service: each thing is made broken for real, and found by name."""

from __future__ import annotations

import fcntl
import json
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import psutil
import pytest
from workspaces import until

from monai_tl.commands.doctor_service import examine_service
from monai_tl.config import parse_params
from monai_tl.files import temporary_folder


@pytest.fixture(autouse=True)
def no_server(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PREFECT_API_URL", raising=False)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / ".monai_tl").mkdir()
    (tmp_path / ".dvc/tmp").mkdir(parents=True)
    (tmp_path / ".git").mkdir()
    return tmp_path


def problems(folder: Path) -> dict[str, str]:
    return {one.subject: f"{one.note} | {one.mend}" for one in examine_service(folder) if one.mend}


def notes(folder: Path) -> dict[str, str]:
    return {one.subject: one.note for one in examine_service(folder)}


def test_a_sound_workspace_has_no_problem(folder: Path) -> None:
    assert problems(folder) == {}
    assert notes(folder)["workspace lock"] == "free"
    assert "stays on this machine" in notes(folder)["DVC remote"]


def test_a_lock_that_is_held_is_told_and_one_that_was_left_is_named(folder: Path) -> None:
    with (folder / ".monai_tl/run.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert "goes on" in notes(folder)["workspace lock"]
    assert notes(folder)["workspace lock"] == "free"
    clone = folder / ".monai_tl/clone"
    (clone / ".git").mkdir(parents=True)
    (clone / ".git/index.lock").touch()
    assert str(clone / ".git/index.lock") in problems(folder)["git lock"]
    (clone / ".dvc/tmp").mkdir(parents=True)
    (clone / ".dvc/tmp/rwlock").write_text('{"a": {"read": [{"pid": 4194000, "cmd": "repro"}], "write": {}}}')
    assert "gone" in problems(folder)["DVC lock of the clone"]


@pytest.mark.parametrize(("content", "is_named"), [("4194000", True), ("", True), ("own", True), ("server", False)])
def test_a_lock_of_the_leases_is_named_once_its_server_is_gone(folder: Path, content: str, is_named: bool) -> None:
    """Prefect itself asks only whether a process with this id lives."""
    lock = folder / ".monai_tl/prefect/concurrency_leases/expirations.lock"
    lock.parent.mkdir(parents=True)
    command = [sys.executable, "-c", "import time; time.sleep(60)", "-m", "prefect", "server", "start"]
    with subprocess.Popen(command) as server:
        until(lambda: "prefect" in psutil.Process(server.pid).cmdline(), 10, "it has its command line")
        lock.write_text({"own": str(os.getpid()), "server": str(server.pid)}.get(content, content))
        found = problems(folder)
        server.kill()
    assert found.keys() == ({"lock of Prefect's leases"} if is_named else set())
    assert not is_named or f"remove {lock}" in found["lock of Prefect's leases"]


@pytest.mark.parametrize(
    "words",
    [
        ("-m", "monai_tl", "stage", "finetune"),
        ("-m", "monai_tl", "inbox", "--once"),
        ("-m", "monai_tl.commands.corrections", "take"),
        ("-m", "flows.deploy", "--interval", "60"),
        ("-m", "prefect.engine"),
        ("-m", "prefect.runner._workspace_supervisor", "config.json"),
        ("-m", "prefect", "worker", "start", "--pool", "training"),
        ("-m", "uvicorn", "--factory", "prefect.server.api.server:create_app", "--port", "4200"),
    ],
    ids=lambda words: words[1],
)
def test_an_orphan_is_named_and_a_command_with_a_parent_is_none(folder: Path, words: tuple[str, ...]) -> None:
    # what the command line looks like; it only sleeps
    code = "import time; time.sleep(60)"
    stage = [sys.executable, "-c", code, *words]
    child = subprocess.Popen(stage, cwd=folder)
    try:
        assert "processes left over" not in problems(folder)
        quiet = "stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL"
        start = f"import subprocess; print(subprocess.Popen({stage!r}, {quiet}).pid)"
        starter = [sys.executable, "-S", "-c", start]
        done = subprocess.run(starter, cwd=folder, capture_output=True, text=True, check=True)
        orphan = psutil.Process(int(done.stdout))
        try:
            if orphan.ppid() != 1:
                pytest.skip("something here adopts orphans in the place of init")
            assert f"kill {orphan.pid}" in problems(folder)["processes left over"]
        finally:
            orphan.kill()
    finally:
        child.kill()
        child.wait()


def test_half_made_folders_count_once_nobody_holds_them(folder: Path) -> None:
    with temporary_folder(folder / "artifacts", "cases") as temporary:
        assert "half-made folders" not in problems(folder)
        left = temporary.with_name(".cases.abcd1234.part")
        left.mkdir()
        assert str(left) in problems(folder)["half-made folders"]


def test_half_made_folders_are_looked_for_wherever_the_inbox_works(folder: Path) -> None:
    places = {"inbox": "incoming", "outbox": "results/here", "data": "images"}
    params = parse_params(
        {
            "ingest": {"source": places["data"], "classes": [{"name": "liver"}]},
            "plan": {"source": "s"},
            "finetune": {"arms": ["scratch", "transfer"]},
            "inbox": {"folder": str(folder.parent / places["inbox"]), "outbox": places["outbox"]},
        }
    )
    left = [
        folder.parent / "incoming/.study-1.abcd1234.part",
        folder / "results/here/.study-2.abcd1234.part",
        folder / "results/here/.ledger/.study-3.abcd1234.part",
        folder / "images/from_inbox/.series-4.abcd1234.part",
    ]
    for path in left:
        path.mkdir(parents=True)
    (found,) = (one for one in examine_service(folder, params) if one.subject == "half-made folders")
    assert sorted(found.mend.removeprefix("remove ").split(", ")) == sorted(map(str, left))


@pytest.mark.parametrize(
    ("config", "words"),
    [
        ("[core]\n    remote = store\n", "not there"),
        ("[core]\n    remote = store\n['remote \"store\"']\n    url = /nowhere/at/all\n", "no folder"),
        ("[core]\n    remote = store\n['remote \"store\"']\n    url = ssh://host/path\n", "pip install dvc-ssh"),
        ("no section\n", "cannot be read"),
    ],
)
def test_a_remote_that_is_not_there_is_named(folder: Path, config: str, words: str) -> None:
    (folder / ".dvc/config").write_text(config)
    assert words in problems(folder)["DVC remote"]


def test_a_remote_of_the_local_settings_is_one(folder: Path) -> None:
    (folder / ".dvc/config").write_text("[core]\n    remote = store\n")
    (folder / ".dvc/config.local").write_text(f"['remote \"store\"']\n    url = {folder}\n")
    assert problems(folder) == {}


@contextmanager
def server(host: str, *, asks: bool) -> Iterator[str]:
    """The two addresses that matter; with ``asks`` only the health check answers somebody unknown."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(401 if asks and self.path != "/api/health" else 200)
            self.end_headers()

        def log_message(self, format: str, *arguments: object) -> None:
            pass

    with ThreadingHTTPServer((host, 0), Handler) as running:
        thread = threading.Thread(target=running.serve_forever, daemon=True)
        thread.start()
        try:
            yield f"http://127.0.0.1:{running.server_address[1]}/api"
        finally:
            running.shutdown()


def test_an_open_server_is_named(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with server("127.0.0.1", asks=True) as url:
        monkeypatch.setenv("PREFECT_API_URL", url)
        assert problems(folder) == {}
    with server("127.0.0.1", asks=False) as url:
        monkeypatch.setenv("PREFECT_API_URL", url)
        assert "asks for no password" in problems(folder)["open server"]


def test_a_server_that_other_machines_reach_unencrypted_is_named(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("198.51.100.1", 9))
        except OSError:
            pytest.skip("this machine has no address but the loopback's")
        own = probe.getsockname()[0]
    with server("0.0.0.0", asks=True) as url:
        monkeypatch.setenv("PREFECT_API_URL", url)
        assert "is open to other machines, unencrypted | leave out --host" in problems(folder)["open server"]
        monkeypatch.setenv("PREFECT_API_URL", url.replace("127.0.0.1", own))
        assert "sends passwords unencrypted | put a proxy with TLS" in problems(folder)["open server"]


def test_a_record_of_a_server_that_is_gone_is_named(folder: Path) -> None:
    record = folder / ".monai_tl/server.json"
    record.write_text(json.dumps({"api_url": "http://127.0.0.1:9/api", "pid": 4194000}))
    assert str(record) in problems(folder)["Prefect server"]
    record.write_text(json.dumps({"api_url": "http://127.0.0.1:9/api", "pid": os.getpid()}))
    assert problems(folder) == {}
