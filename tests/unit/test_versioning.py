"""What DVC's files look like after a kill, judged at every length they can be cut to."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path

import damaged
import pytest
import yaml

from flows import disk, mending, processes, versioning
from flows.inputs import check_inputs
from monai_tl.config import parse_params
from monai_tl.errors import DataError, MonaiTLError

TEMPLATE = Path(versioning.__file__).parents[1] / "monai_tl/template/params.yaml"
LOCK = """\
schema: '2.0'
stages:
  ingest:
    cmd: python -m monai_tl stage ingest
    deps:
    - path: data
      hash: md5
      md5: 9af2f0a3c94f6c2d21d168c08de4d98c.dir
      size: 1
      nfiles: 1
    params:
      params.yaml:
        ingest:
          source: data
    outs:
    - path: artifacts/cases
      hash: md5
      md5: 2a5c0a932bb44dd75d0ccfcfd957ddc0.dir
      size: 65
      nfiles: 1
"""


def mended(tmp_path: Path, text: str, backup: str | None) -> str | None:
    (tmp_path / ".monai_tl").mkdir(exist_ok=True)
    (tmp_path / "dvc.lock").write_text(text)
    if backup is not None:
        (tmp_path / ".monai_tl/dvc.lock.before").write_text(backup)
    mending.mend_after_kill(tmp_path)
    lock = tmp_path / "dvc.lock"
    return lock.read_text() if lock.is_file() else None


@pytest.fixture(scope="module")
def dvc_accepts():
    """DVC's own check of a lock file."""
    from dvc.schema import COMPILED_LOCKFILE_SCHEMA
    from voluptuous import Invalid

    def accepts(text: str) -> bool:
        try:
            COMPILED_LOCKFILE_SCHEMA(yaml.safe_load(text))
        except (Invalid, yaml.YAMLError):
            return False
        return True

    return accepts


def test_a_lock_cut_anywhere_is_one_that_dvc_reads_afterwards(tmp_path, dvc_accepts):
    assert dvc_accepts(LOCK)
    kept = 0
    for length in range(len(LOCK) + 1):
        text = mended(tmp_path, LOCK[:length], backup=LOCK)
        assert text is not None, length
        assert dvc_accepts(text), (length, text)
        kept += text != LOCK
    assert kept < len(LOCK) / 2


def test_without_a_backup_a_damaged_lock_is_dropped_and_a_whole_one_kept(tmp_path):
    assert mended(tmp_path, LOCK[: LOCK.index("cmd:") + 4], backup=None) is None
    assert mended(tmp_path, LOCK, backup=None) == LOCK
    assert mended(tmp_path, LOCK, backup="other") == LOCK


@pytest.mark.parametrize(
    "content",
    [
        "{}",
        '{"read": {}, "write": {"/w/a": {"pid": 4194000, "cmd": "repro"}}}',
        # a process that lives but is no DVC command: its id was given anew
        f'{{"read": {{"/w/a": [{{"pid": {os.getpid()}, "cmd": "repro"}}]}}, "write": {{"/w/b": {{}}}}}}',
        '{"read": {"/w/a": [{"pid": 41',
    ],
    # fixed names: workers of a parallel run must collect the same ones, and a process id differs
    ids=["empty", "dead", "reused", "cut"],
)
def test_locks_of_the_dead_are_removed(tmp_path, content):
    path = tmp_path / ".dvc/tmp/rwlock"
    path.parent.mkdir(parents=True)
    path.write_text(content)
    mending.mend_after_kill(tmp_path)
    assert not path.exists()


def test_steps_are_the_stages_with_the_matrix_in_dvcs_order():
    params = parse_params(
        {
            "ingest": {"source": "data", "classes": [{"name": "liver"}]},
            "plan": {"source": "s"},
            "finetune": {"arms": ["scratch", "transfer"], "folds": [2, 0], "seeds": [5, 1]},
        }
    )
    assert [step.address for step in versioning.steps(params)] == [
        "ingest",
        "split",
        "plan",
        "preprocess",
        "finetune@scratch-2-5",
        "finetune@scratch-2-1",
        "finetune@scratch-0-5",
        "finetune@scratch-0-1",
        "finetune@transfer-2-5",
        "finetune@transfer-2-1",
        "finetune@transfer-0-5",
        "finetune@transfer-0-1",
        "predict",
        "evaluate",
        "export",
    ]


def test_one_run_at_a_time(tmp_path, monkeypatch):
    monkeypatch.setattr(versioning, "_LOCK_WAIT_S", 0.2)
    handle = versioning.lock_workspace(tmp_path)
    assert fcntl.fcntl(handle, fcntl.F_GETFD) & fcntl.FD_CLOEXEC
    with pytest.raises(versioning.WorkspaceBusyError, match="another run"):
        versioning.lock_workspace(tmp_path)
    # whoever inherits the descriptor keeps the lock
    inherited = os.dup(handle)
    os.close(handle)
    with pytest.raises(versioning.WorkspaceBusyError):
        versioning.lock_workspace(tmp_path)
    os.close(inherited)
    os.close(versioning.lock_workspace(tmp_path))


def test_an_inspection_begun_early_is_taken_once_and_its_error_is_raised_by_the_taker(tmp_path, monkeypatch):
    monkeypatch.setattr(versioning, "_LOCK_WAIT_S", 0.2)
    monkeypatch.setattr(versioning, "status", lambda workspace, handle: {"ingest": []})
    (tmp_path / "params.yaml").write_text(TEMPLATE.read_text())
    versioning.begin(tmp_path)
    with versioning.held(tmp_path) as inspection:
        assert inspection.changes == {"ingest": []}
        versioning.begin(tmp_path)
        with pytest.raises(versioning.WorkspaceBusyError), versioning.held(tmp_path):
            pass
    with versioning.held(tmp_path) as inspection:
        assert inspection.changes == {"ingest": []}


@pytest.mark.parametrize(
    ("kind", "says"),
    [
        ("link_to_itself", "1 link that leads nowhere"),
        ("link_dangling", "1 link that leads nowhere"),
        ("named_pipe", "1 pipe, socket or device"),
        ("link_to_a_pipe", "2 pipe, socket or device"),
        ("link_to_an_endless_device", "pipe, socket or device"),
        ("socket_file", "1 pipe, socket or device"),
        ("file_names_not_utf8", "6 with a name that is not UTF-8"),
        ("bad_file_with_a_hostile_name", "1 with a name that is not UTF-8"),
        ("link_loop", ""),
        ("link_to_the_root", ""),
        ("folders_two_hundred_deep", ""),
        ("file_names_with_newlines", ""),
    ],
)
def test_what_dvc_cannot_take_is_refused_before_dvc_meets_it(tmp_path, kind, says):
    """DVC waits for a pipe for ever, reads a device without end, and stops at the others as at a fault of its own."""
    damaged.make(kind, tmp_path / "data" / kind)
    if not says:
        return check_inputs(tmp_path / "data")
    with pytest.raises(DataError, match=says) as caught:
        check_inputs(tmp_path / "data")
    assert "CANARY" not in str(caught.value)
    return None


def test_the_inspection_looks_at_the_input_first(tmp_path, monkeypatch):
    monkeypatch.setattr(versioning, "status", lambda workspace, handle: pytest.fail("DVC was started"))
    (tmp_path / "data").mkdir()
    os.mkfifo(tmp_path / "data/a.dcm")
    (tmp_path / "params.yaml").write_text(TEMPLATE.read_text())
    with pytest.raises(DataError, match="1 pipe"), versioning.held(tmp_path):
        pass


def test_a_fault_of_the_disk_is_a_message_without_a_path() -> None:
    words = "No space left on device; check disk space and permissions"
    full = Path("/dev/full").open("wb", buffering=0)  # noqa: SIM115 - closed below
    with full, pytest.raises(MonaiTLError, match=words) as caught, disk.disk_faults_told():
        full.write(b"x")
    assert "/dev" not in str(caught.value)


def test_what_is_no_fault_of_the_disk_is_left_as_it_is(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError), disk.disk_faults_told():
        (tmp_path / "missing").read_bytes()


def test_advice_is_given_once_and_only_where_the_disk_is_spoken_of() -> None:
    told = disk.with_advice("ERROR: unexpected error - [Errno 30] Read-only file system: 'x'")
    assert told.endswith("the next run goes on where this one ended")
    assert disk.with_advice(told) == told
    assert disk.with_advice("ERROR: failed to reproduce 'ingest'") == "ERROR: failed to reproduce 'ingest'"


def test_a_killed_process_is_told_although_it_said_nothing() -> None:
    told = processes.last_words([], 137)
    assert "exit status 137" in told
    assert "the next run goes on" in told
    assert processes.last_words(["loading", "monai-tl: the lamp is broken"], 1) == "monai-tl: the lamp is broken"
    assert processes.last_words(["loading", "Killed"], 137) == "loading\nKilled"
