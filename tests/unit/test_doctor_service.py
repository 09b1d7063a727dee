"""What ``doctor`` finds of a service: each thing is made broken for real, and found by name."""

from __future__ import annotations

import fcntl
import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import psutil
import pytest

from monai_tl.commands.doctor_service import examine_service
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


def test_an_orphan_is_named_and_a_command_with_a_parent_is_none(folder: Path) -> None:
    # what a stage's command line looks like; it only sleeps
    code = "import time; time.sleep(60)"
    stage = [sys.executable, "-c", code, "-m", "monai_tl", "stage", "finetune"]
    child = subprocess.Popen(stage, cwd=folder)
    try:
        assert "processes left over" not in problems(folder)
        quiet = "stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL"
        start = f"import subprocess; print(subprocess.Popen({stage!r}, {quiet}).pid)"
        done = subprocess.run([sys.executable, "-c", start], cwd=folder, capture_output=True, text=True, check=True)
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


def test_a_record_of_a_server_that_is_gone_is_named(folder: Path) -> None:
    record = folder / ".monai_tl/server.json"
    record.write_text(json.dumps({"api_url": "http://127.0.0.1:9/api", "pid": 4194000}))
    assert str(record) in problems(folder)["Prefect server"]
    record.write_text(json.dumps({"api_url": "http://127.0.0.1:9/api", "pid": os.getpid()}))
    assert problems(folder) == {}
