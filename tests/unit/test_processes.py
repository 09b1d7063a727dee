"""Time-outs of what a flow starts: told, and nothing that the process had started goes on."""

from __future__ import annotations

import subprocess
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from workspaces import MARK, until

from flows.clone import _must
from flows.processes import HELPER_VARIABLE, helper_time_out, last_words, run_supervised
from monai_tl.errors import ConfigError

# a grandchild in a session of its own beside a plain one
FAMILY = "sh -c 'setsid sleep 300 & sleep 300' & sleep 300"


def alive(mark: str) -> list[psutil.Process]:
    found = []
    for process in psutil.process_iter():
        try:
            if process.environ().get(MARK) == mark and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
        except psutil.Error:
            continue
    return found


@pytest.fixture
def mark(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    name = uuid.uuid4().hex
    monkeypatch.setenv(MARK, name)
    yield name
    for process in alive(name):
        process.kill()


def hang(folder: Path, mark: str) -> list[str]:
    """A module that hangs once its family is there."""
    (folder / "hanging.py").write_text(
        f"import subprocess\nprint('begun', flush=True)\nsubprocess.run({FAMILY!r}, shell=True)\n"
    )
    return ["hanging"]


@pytest.mark.parametrize("limit", ["helper", 2.0])
def test_a_time_out_ends_children_of_children(
    tmp_path: Path, mark: str, monkeypatch: pytest.MonkeyPatch, limit: float | str
) -> None:
    monkeypatch.setenv(HELPER_VARIABLE, "2" if limit == "helper" else "3600")
    lines: list[str] = []
    began = time.monotonic()
    seen = 0

    def take(line: str) -> None:
        nonlocal seen
        lines.append(line)
        if line == "begun":
            until(lambda: sum(one.name() == "sleep" for one in alive(mark)) == 3, 10, "the family is there")
            seen = len(alive(mark))

    assert run_supervised(hang(tmp_path, mark), tmp_path, take, limit) is None  # type: ignore[arg-type]
    assert time.monotonic() - began < 30
    assert seen >= 5
    assert alive(mark) == []
    if limit == "helper":
        assert "stopped after 2 s without an end" in last_words(lines, None)
        assert HELPER_VARIABLE in lines[-1]
    else:
        assert lines == ["begun"]


def test_git_that_hangs_is_ended_with_what_it_started(
    tmp_path: Path, mark: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A hook that never ends, as one that asks a server that is away."""
    subprocess.run(["git", "init", "-q"], cwd=tmp_path, check=True)
    hook = tmp_path / ".git/hooks/post-checkout"
    hook.parent.mkdir(exist_ok=True)
    hook.write_text(f"#!/bin/sh\n{FAMILY}\n")
    hook.chmod(0o755)
    (tmp_path / "a").touch()
    for words in (["add", "a"], ["-c", "user.name=t", "-c", "user.email=t@localhost", "commit", "-qm", "a"]):
        subprocess.run(["git", *words], cwd=tmp_path, check=True)
    monkeypatch.setenv(HELPER_VARIABLE, "2")
    with pytest.raises(ConfigError, match="git checkout: stopped after 2 s without an end"):
        _must(tmp_path, "checkout", "--quiet", "--detach", "HEAD")
    assert alive(mark) == []


def test_the_limit_of_helpers_is_generous_and_a_wrong_one_is_passed_over(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(HELPER_VARIABLE, raising=False)
    assert helper_time_out() == 6 * 3600
    for text, expected in (("60", 60.0), ("no number", 6 * 3600), ("-5", 1.0)):
        monkeypatch.setenv(HELPER_VARIABLE, text)
        assert helper_time_out() == expected
