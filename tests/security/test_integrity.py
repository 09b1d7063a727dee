"""Row 8: what a stage wrote is what the next one reads, or the run stops and says so."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from contextlib import nullcontext
from pathlib import Path

import pytest

from monai_tl import stages
from monai_tl.commands import audit_privacy, curve, doctor, rank
from monai_tl.config import parse_params
from monai_tl.errors import ConfigError, DataError
from monai_tl.integrity import MANIFEST, check_sealed, check_sealed_part, damaged_copies, recorded_outputs, seal
from monai_tl.pins import check_pinned
from monai_tl.stages.sealing import run_sealed_stage

FILES = {"dataset.json": "{}", "case-a/image.npy": "voxels of a", "case-b/image.npy": "voxels of b", "case-b/é": ""}


def _swap(folder: Path) -> None:
    one, other = folder / "case-a/image.npy", folder / "case-b/image.npy"
    first, second = one.read_bytes(), other.read_bytes()
    one.write_bytes(second)
    other.write_bytes(first)


def _link_in_place(folder: Path) -> None:
    moved = (folder / "case-a").rename(folder.parent / "case-a")
    (folder / "case-a").symlink_to(moved)


CHANGES = {
    "tampered": (lambda folder: (folder / "case-a/image.npy").write_text("voxels of A"), "case-a/image.npy has other"),
    "truncated": (lambda folder: (folder / "case-a/image.npy").write_text(""), "case-a/image.npy has other"),
    "swapped": (_swap, "case-a/image.npy has other content, case-b/image.npy has other"),
    "missing": (lambda folder: (folder / "case-b/é").unlink(), "case-b/é is missing"),
    "added": (lambda folder: (folder / "case-a/label.npy").write_text("x"), "case-a/label.npy was added"),
    "pipe added": (lambda folder: os.mkfifo(folder / "case-a/pipe"), "case-a/pipe was added"),
    "link to a folder added": (lambda folder: (folder / "case-c").symlink_to("/etc"), "case-c was added"),
    "link to nothing added": (lambda folder: (folder / "gone").symlink_to("nowhere"), "gone was added"),
    "link in place of a folder": (_link_in_place, "case-a/image.npy is missing, case-a was added"),
    "pipe in place of a file": (
        lambda folder: ((folder / "case-b/é").unlink(), os.mkfifo(folder / "case-b/é")),
        "case-b/é is missing since",
    ),
    "without manifest": (lambda folder: (folder / MANIFEST).unlink(), "is missing or damaged"),
    "manifest of noise": (lambda folder: (folder / MANIFEST).write_bytes(b"\xff\xfe"), "is missing or damaged"),
    "manifest emptied": (lambda folder: (folder / MANIFEST).write_text(""), "was added"),
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "artifacts" / "prepared"
    for name, text in FILES.items():
        (made / name).parent.mkdir(parents=True, exist_ok=True)
        (made / name).write_text(text)
    seal(made)
    return made


def test_sha256sum_reads_the_manifest(folder: Path) -> None:
    """The tool of every Unix is the second implementation."""
    done = subprocess.run(["sha256sum", "--strict", "-c", MANIFEST], cwd=folder, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert len(done.stdout.splitlines()) == len(FILES)
    check_sealed(folder)


@pytest.mark.parametrize("name", [f".{MANIFEST}.abcdefgh.part", "case-a/.image.npy.abcdefgh.part"])
def test_what_another_process_is_making_is_no_part_of_an_output(folder: Path, name: str) -> None:
    """It is gone a moment later; what stays was added."""
    (folder / name).write_text("half")
    seal(folder)
    with pytest.raises(DataError, match=r"abcdefgh\.part was added"):
        check_sealed(folder)
    (folder / name).unlink()
    check_sealed(folder)


@pytest.mark.parametrize("stage", ["preprocess", "curve_label"])
def test_a_stage_that_works_in_one_process_is_refused_to_torchrun(
    workspace: Path, monkeypatch: pytest.MonkeyPatch, stage: str
) -> None:
    """Each process would write the same output, and the first alone seals."""
    for name, value in {"TORCHELASTIC_RUN_ID": "x", "RANK": "1", "WORLD_SIZE": "2"}.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(ConfigError, match=f"stage {stage}: works in one process; start it without torchrun"):
        _run(stage, workspace)
    with pytest.raises(_Ran):
        _run("finetune", workspace)


@pytest.mark.parametrize("change", CHANGES)
def test_what_is_changed_after_the_stage_is_found(folder: Path, change: str) -> None:
    make, words = CHANGES[change]
    make(folder)
    with pytest.raises(DataError, match=words) as caught:
        check_sealed(folder)
    assert caught.value.code == "integrity"
    assert "doctor --cache" in str(caught.value)


def test_links_to_files_are_files(folder: Path) -> None:
    """DVC makes them, with cache.type symlink."""
    path = folder / "case-a/image.npy"
    path.symlink_to(path.rename(folder.parent / "object"))
    check_sealed(folder)


def test_one_file_of_an_output_is_checked_alone(folder: Path) -> None:
    (folder / "case-b/image.npy").write_text("changed")
    check_sealed_part(folder, folder / "dataset.json")
    with pytest.raises(DataError, match="other content"):
        check_sealed_part(folder, folder / "case-b/image.npy")


def _locked(workspace: Path, digest: str) -> None:
    outs = [{"path": "artifacts/prepared", "hash": "md5", "md5": digest}]
    (workspace / "dvc.lock").write_text(json.dumps({"schema": "2.0", "stages": {"preprocess": {"outs": outs}}}))


def test_a_whole_folder_of_another_run_is_not_taken(folder: Path) -> None:
    """Its manifest fits it: only the record in git tells."""
    from dvc.fs import localfs
    from dvc_data.hashfile.build import build
    from dvc_data.hashfile.db.local import LocalHashFileDB

    workspace = folder.parents[1]
    store = LocalHashFileDB(localfs, os.fspath(workspace / "store"))
    digest = build(store, os.fspath(folder), localfs, "md5")[2].hash_info.value
    _locked(workspace, digest)
    recorded = recorded_outputs(workspace)["artifacts/prepared"]
    check_sealed(folder, recorded)
    (folder / "case-a/image.npy").write_text("voxels of other parameters")
    seal(folder)
    check_sealed(folder)
    with pytest.raises(DataError, match=r"whole, but not the one that dvc\.lock names"):
        check_sealed(folder, recorded)


def test_objects_of_dvcs_cache_that_are_not_what_they_were_are_named(tmp_path: Path) -> None:
    (tmp_path / ".dvc").mkdir()
    (tmp_path / ".dvc/config").write_text("[cache]\n    dir = ../store\n")
    objects = tmp_path / "store/files/md5"
    # of "a", of an empty list, and one that was changed under its name
    whole = {"0c/c175b9c0f1b6a831c399e269772661": "a", "d7/51713988987e9331980363e24189ce.dir": "[]"}
    for name, text in {**whole, "92/eb5ffee6ae2fec3ad71c777531578f": "not b"}.items():
        (objects / name).parent.mkdir(parents=True)
        (objects / name).write_text(text)
        (objects / name).chmod(0o444)
    assert [path.name for path in damaged_copies(tmp_path)] == ["eb5ffee6ae2fec3ad71c777531578f"]


PARAMS = parse_params({"ingest": {"source": "data/a", "classes": [{"name": "liver"}]}, "plan": {"source": "s"}})


class _Ran(Exception):
    """The stage was reached."""


@pytest.fixture
def workspace(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """All inputs of predict and evaluate, sealed; the stages themselves only say that they were reached."""
    artifacts = folder.parent
    for name in ("split", "plan", "cases", "predictions", "models/transfer-0-0", "models/scratch-0-0"):
        (artifacts / name).mkdir(parents=True)
        (artifacts / name / "content.json").write_text(name)
        seal(artifacts / name)
    (folder / "failed.json").write_text("{}")
    seal(folder)
    html = artifacts.parent / "reports/html"
    html.mkdir(parents=True)
    (artifacts.parent / "reports/metrics.json").write_text("{}")
    seal(html, [artifacts.parent / "reports/metrics.json"])

    def ran(*_: object) -> None:
        raise _Ran

    monkeypatch.setattr(stages, "run_stage", ran)
    return artifacts.parent


def _run(name: str, workspace: Path) -> None:
    run_sealed_stage(name, workspace, PARAMS, {})


def test_what_a_killed_run_left_beside_other_files_goes_with_the_next(workspace: Path) -> None:
    left = [workspace / "reports" / name for name in (".metrics.json.abcd_123.part", "plots/.cases.csv.efgh-456.part")]
    for path in left:
        path.parent.mkdir(exist_ok=True)
        path.write_text("{")
    (workspace / "reports/.another.json.abcd_123.part").write_text("of another writer")
    with pytest.raises(_Ran):
        _run("evaluate", workspace)
    assert not any(path.exists() for path in left)
    assert (workspace / "reports/.another.json.abcd_123.part").is_file()


INPUTS = [
    ("preprocess", "artifacts/cases/content.json"),
    ("preprocess", "artifacts/plan/content.json"),
    ("finetune", "artifacts/prepared/case-a/image.npy"),
    ("predict", "artifacts/models/scratch-0-0/content.json"),
    ("evaluate", "artifacts/prepared/failed.json"),
    ("evaluate", "artifacts/predictions/content.json"),
    ("export", "reports/metrics.json"),
]


@pytest.mark.parametrize(("name", "path"), INPUTS)
def test_a_stage_does_not_start_on_inputs_that_were_changed(workspace: Path, name: str, path: str) -> None:
    with pytest.raises(_Ran):
        _run(name, workspace)
    (workspace / path).write_text("changed")
    with pytest.raises(DataError, match=f"{Path(path).name} has other content"):
        _run(name, workspace)


@pytest.mark.parametrize("name", ["cases", "split", "plan", "prepared", "models/transfer-0-0", "models/scratch-0-0"])
def test_the_privacy_audit_reads_what_the_stages_wrote(workspace: Path, name: str) -> None:
    (workspace / "artifacts" / name / "content.json").write_text("changed")
    with pytest.raises(DataError, match=rf"artifacts/{name}: content\.json (has other content|was added)"):
        audit_privacy.run(workspace, PARAMS)


def test_the_curve_draws_labels_from_the_split_that_was_made(workspace: Path) -> None:
    (workspace / "artifacts/split/split.json").write_text("{}")
    with pytest.raises(DataError, match=r"artifacts/split: split\.json was added"):
        curve._n_pool(workspace)


def test_the_doctor_tells_of_a_plan_that_was_changed(workspace: Path) -> None:
    (workspace / "artifacts/plan/content.json").write_text("changed")
    found = doctor._contract(workspace)
    assert "artifacts/plan: content.json has other content" in found.note
    assert found.mend


@pytest.mark.parametrize(("name", "file"), [("cases", "dataset.json"), ("split", "split.json")])
def test_sources_are_ranked_by_what_the_stages_wrote(workspace: Path, name: str, file: str) -> None:
    for one, text in (("cases", "dataset.json"), ("split", "split.json")):
        (workspace / "artifacts" / one / text).write_text("{}")
        seal(workspace / "artifacts" / one)
    (workspace / "artifacts" / name / file).write_text("{ }")
    with pytest.raises(DataError, match=rf"artifacts/{name}: {file} has other content"):
        rank.run([workspace / "source"], workspace, PARAMS)


def test_under_dvc_the_inputs_are_those_of_its_record(workspace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _locked(workspace, "0" * 32 + ".dir")
    with pytest.raises(_Ran):
        _run("finetune", workspace)
    monkeypatch.setenv("DVC_STAGE", "finetune@transfer-0-0")
    with pytest.raises(DataError, match=r"dvc\.lock names"):
        _run("finetune", workspace)


@pytest.mark.parametrize("text", ["{broken", "", "stages: [1]\n", "stages: {ingest: {outs: [1]}}\n", b"\xff"])
@pytest.mark.parametrize("name", ["dvc.lock", "curve/dvc.lock"])
def test_a_record_that_cannot_be_read_is_not_taken_for_none(
    workspace: Path, monkeypatch: pytest.MonkeyPatch, name: str, text: str | bytes
) -> None:
    path = workspace / name
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(_Ran):
        _run("finetune", workspace)
    monkeypatch.setenv("DVC_STAGE", "finetune@transfer-0-0")
    with pytest.raises(DataError, match=rf"{name}: cannot be read.*git checkout -- {name}") as caught:
        _run("finetune", workspace)
    assert caught.value.code == "integrity"
    # DVC writes one without stages for other things
    path.write_text("schema: '2.0'\n")
    with pytest.raises(_Ran):
        _run("finetune", workspace)


def test_outputs_are_sealed_with_what_lies_beside_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def write(*_: object) -> None:
        for name in ("reports/html/report.html", "reports/metrics.json", "reports/plots/cases.csv"):
            (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / name).write_text(name)

    monkeypatch.setattr(stages, "run_stage", write)
    _run("evaluate", tmp_path)
    text = (tmp_path / "reports/html" / MANIFEST).read_text()
    assert [line.split("  ")[1] for line in text.splitlines()] == [
        "../metrics.json",
        "../plots/cases.csv",
        "report.html",
    ]
    check_sealed(tmp_path / "reports/html")
    (tmp_path / "reports/metrics.json").write_text("better")
    with pytest.raises(DataError, match=r"\.\./metrics\.json has other content"):
        check_sealed(tmp_path / "reports/html")


INPUT_FILES = {"a/1.dcm": "slice 1", "a/é": "slice 2", "b/3.dcm": "slice 3", "b/notes.tmp": "ignored"}


def _dvc(workspace: Path, *arguments: str) -> str:
    command = [sys.executable, "-m", "dvc", *arguments]
    done = subprocess.run(command, cwd=workspace, check=True, capture_output=True, text=True)
    return done.stdout


@pytest.mark.parametrize("link", ["copy", "symlink"])
def test_input_that_dvc_restored_is_what_its_pin_names(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, link: str
) -> None:
    """A changed object comes back from the cache, and DVC finds nothing changed."""
    _dvc(tmp_path, "init", "-q", "--no-scm")
    (tmp_path / ".dvc/config").write_text(
        f"[core]\n    no_scm = true\n    analytics = false\n[cache]\n    type = {link}\n"
    )
    (tmp_path / ".dvcignore").write_text("*.tmp\n")
    for name, text in INPUT_FILES.items():
        (tmp_path / "data" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "data" / name).write_text(text)
    _dvc(tmp_path, "add", "-q", "data")
    (tmp_path / "data/a/1.dcm").chmod(0o444)
    reached: list[str] = []
    monkeypatch.setattr(stages, "run_stage", lambda name, *_: reached.append(name))
    monkeypatch.setenv("DVC_STAGE", "ingest")
    _run("ingest", tmp_path)
    assert reached == ["ingest"]
    objects = [path for path in (tmp_path / ".dvc/cache/files/md5").glob("??/*") if path.is_file()]
    (found,) = [path for path in objects if path.read_text() == "slice 1"]
    found.chmod(0o644)
    found.write_text("slice I")
    found.chmod(0o444)
    shutil.rmtree(tmp_path / "data")
    _dvc(tmp_path, "checkout", "-q")
    assert (tmp_path / "data/a/1.dcm").read_text() == "slice I"
    assert "up to date" in _dvc(tmp_path, "status")
    for name in ("ingest", "export"):
        with pytest.raises(
            DataError, match=r"data: .* not what data\.dvc names.*dvc add data.*doctor --cache"
        ) as caught:
            _run(name, tmp_path)
        assert caught.value.code == "integrity"
    # by hand, whatever the user likes
    monkeypatch.delenv("DVC_STAGE")
    _run("ingest", tmp_path)
    assert reached == ["ingest", "ingest"]


PIN = "outs:\n- md5: 900150983cd24fb0d6963f7d28e17f72\n  hash: md5\n  path: abc.txt\n"
"""Of a file that holds ``abc``: RFC 1321."""


@pytest.mark.parametrize(
    ("pin", "content", "is_refused"),
    [
        (PIN, "abc", False),
        (PIN, "abd", True),
        (PIN, None, True),
        (PIN.replace("  hash: md5\n", ""), "abd", False),
        (PIN.replace("path: abc", "path: other"), "abd", False),
        (f"wdir: elsewhere\n{PIN}", "abd", False),
        ("outs: []\n", "abd", False),
        (None, "abd", False),
    ],
    ids=["whole", "changed", "gone", "of an old DVC", "of another path", "from elsewhere", "of nothing", "no pin"],
)
def test_a_pin_of_one_file(tmp_path: Path, pin: str | None, content: str | None, is_refused: bool) -> None:
    for name, text in {"abc.txt.dvc": pin, "abc.txt": content}.items():
        if text is not None:
            (tmp_path / name).write_text(text)
    expected = pytest.raises(DataError, match=r"not what abc\.txt\.dvc names") if is_refused else nullcontext()
    with expected:
        check_pinned(tmp_path, Path("abc.txt"))
    # outside the workspace nothing is known
    check_pinned(tmp_path, tmp_path / "abc.txt")
    check_pinned(tmp_path, Path("..") / tmp_path.name / "abc.txt")
