"""What of a step is tried again: nothing but a lock of DVC's that somebody else holds for a moment."""

from __future__ import annotations

import os
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import yaml
from workspaces import ROOT, Place

from flows import versioning
from monai_tl.errors import ConfigError, DataError, StageError
from monai_tl.json_lines import MARK, mark_line

pytestmark = pytest.mark.pipeline


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One whose only stage does what code.py says."""
    folder = tmp_path_factory.mktemp("lock") / "ws"
    folder.mkdir()
    subprocess.run(["git", "init", "-q"], cwd=folder, check=True)
    Place(folder, ROOT).run("dvc", "init", "-q")
    stage = {"cmd": "python code.py", "deps": ["code.py"], "outs": ["made"]}
    (folder / "dvc.yaml").write_text(yaml.safe_dump({"stages": {"work": stage}}))
    return folder


@pytest.fixture
def handle(workspace: Path) -> Iterator[int]:
    number = versioning.lock_workspace(workspace)
    yield number
    os.close(number)


def write_code(workspace: Path, *lines: str) -> Path:
    """A stage that notes that it was run; the file in which it does."""
    tries = workspace.parent / "tries"
    tries.unlink(missing_ok=True)
    note = f"import sys; open({str(tries)!r}, 'a').write('x')"
    (workspace / "code.py").write_text("\n".join([note, *lines, "open('made', 'w').write('it')\n"]))
    return tries


@contextmanager
def lock_of_dvc(workspace: Path) -> Iterator[threading.Event]:
    """DVC's own lock, held as another command of it does, until the event is set."""
    from dvc.lock import make_lock

    lock, event = make_lock(str(workspace / ".dvc/tmp/lock"), tmp_dir=str(workspace / ".dvc/tmp")), threading.Event()
    lock.lock()

    def release() -> None:
        event.wait(120)
        lock.unlock()

    thread = threading.Thread(target=release)
    thread.start()
    try:
        yield event
    finally:
        event.set()
        thread.join()


@pytest.mark.parametrize("code", [ConfigError.exit_code, DataError.exit_code, StageError.exit_code])
def test_a_stage_that_fails_is_run_once(workspace: Path, handle: int, code: int) -> None:
    words = "monai-tl: 3 of 4 image series are refused"
    tries = write_code(workspace, f"print({words!r})", f"sys.exit({code})")
    with pytest.raises(StageError, match=words):
        versioning.reproduce("work", workspace, handle, lambda line: None)
    assert tries.read_text() == "x"


def test_a_stage_that_speaks_of_locks_is_run_once(workspace: Path, handle: int) -> None:
    tries = write_code(workspace, "print('Unable to acquire lock of the device')", "sys.exit(3)")
    with pytest.raises(StageError, match="of the device"):
        versioning.reproduce("work", workspace, handle, lambda line: None)
    assert tries.read_text() == "x"


def test_a_lock_that_is_held_for_a_moment_is_waited_for(
    workspace: Path, handle: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(versioning, "_DVC_LOCK_PAUSES_S", (0.1, 0.1))
    # as a stage tells that it works, by which it is known that it ran
    tries = write_code(workspace, f"print({mark_line(MARK, {})!r})")
    told: list[str] = []
    with lock_of_dvc(workspace) as event:

        def take(line: str) -> None:
            told.append(line)
            if "tried again" in line:
                event.set()

        assert versioning.reproduce("work", workspace, handle, take) == "ran"
    assert tries.read_text() == "x"
    assert (workspace / "made").read_text() == "it"
    assert sum("tried again" in line for line in told) == 1


def test_a_lock_that_stays_is_told_after_the_last_try(
    workspace: Path, handle: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(versioning, "_DVC_LOCK_PAUSES_S", (0.1,))
    told: list[str] = []
    tries = write_code(workspace, "# changed")
    with lock_of_dvc(workspace), pytest.raises(StageError, match="another DVC command works in this workspace; wait"):
        versioning.reproduce("work", workspace, handle, told.append)
    assert not tries.exists()
    assert sum("tried again" in line for line in told) == 1
