"""Row 9: names of any bytes and any length, and clocks that go where they like."""

from __future__ import annotations

import ast
import json
import os
from pathlib import Path

import numpy as np
import pytest
from dicom_files import write_ct

from monai_tl.commands import convert
from monai_tl.dicom.deidentify import create_key
from monai_tl.errors import MonaiTLError
from monai_tl.training.checkpoint import read_newest, write_checkpoint

STACK = np.arange(6 * 5 * 7, dtype=np.uint16).reshape(6, 5, 7)
NAMES = {
    "not UTF-8": os.fsdecode(b"caf\xe9_\xff"),
    "255 bytes": "ä" * 127 + "x",
    "new line and escape": "a\nb\x1b[31m",
    "looks like an option": "--help",
    "emoji and right to left": "🫀‮gpj.exe",
}


@pytest.mark.parametrize("name", NAMES)
def test_a_study_of_any_name_is_converted_and_the_name_told_nowhere(
    tmp_path: Path, name: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MONAI_TL_EXECUTOR", "sequential")
    word = NAMES[name]
    write_ct(tmp_path / "in" / word, STACK)
    (tmp_path / "in" / word / f"{word[:100]}").write_bytes(b"no DICOM")
    create_key(tmp_path / "secret.key", seed=0)
    convert.run(tmp_path / "in", tmp_path / "out", key_file=tmp_path / "secret.key")
    volumes = json.loads((tmp_path / "out/index.json").read_text())["volumes"]
    assert len(volumes) == 1
    assert len(json.loads((tmp_path / "out/rejected.json").read_text())["rejected"]) == 1
    told = capsys.readouterr()
    written = b"".join(
        os.fsencode(path.name) + (path.read_bytes() if path.is_file() else b"")
        for path in (tmp_path / "out").rglob("*")
    )
    assert os.fsencode(word) not in written + (told.out + told.err).encode("utf-8", "surrogateescape")


def test_a_path_of_more_than_four_thousand_characters(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Deeper than the system opens by name: the study within is out of reach, which is told; the others come out."""
    monkeypatch.setenv("MONAI_TL_EXECUTOR", "sequential")
    write_ct(tmp_path / "in" / "good", STACK)
    here = os.open(tmp_path / "in", os.O_RDONLY)
    try:
        for _ in range(25):
            os.mkdir("d" * 200, dir_fd=here)
            deeper = os.open("d" * 200, os.O_RDONLY, dir_fd=here)
            os.close(here)
            here = deeper
        handle = os.open("a.dcm", os.O_WRONLY | os.O_CREAT, dir_fd=here)
        os.write(handle, next((tmp_path / "in" / "good").iterdir()).read_bytes())
        os.close(handle)
    finally:
        os.close(here)
    create_key(tmp_path / "secret.key", seed=0)
    convert.run(tmp_path / "in", tmp_path / "out", key_file=tmp_path / "secret.key")
    assert len(json.loads((tmp_path / "out/index.json").read_text())["volumes"]) == 1
    (refused,) = json.loads((tmp_path / "out/rejected.json").read_text())["rejected"]
    assert "d" * 200 not in json.dumps(refused)


@pytest.mark.parametrize("out", ["x" * 256, "/".join(["y" * 200] * 25)])
def test_an_output_that_cannot_be_named_is_refused_before_any_work(
    tmp_path: Path, out: str, monkeypatch, capsys
) -> None:
    import sys

    from monai_tl import cli

    (tmp_path / "in").mkdir()
    create_key(tmp_path / "secret.key", seed=0)
    arguments = ["convert", str(tmp_path / "in"), str(tmp_path / out), "--key-file", str(tmp_path / "secret.key")]
    monkeypatch.setattr(sys, "argv", ["monai-tl", *arguments])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert ended.value.code in (1, 2)
    told = capsys.readouterr().err
    assert "File name too long" in " ".join(told.split())
    assert "Traceback" not in told


def test_the_newest_checkpoint_is_that_of_the_last_step_whatever_the_clock_said(tmp_path: Path) -> None:
    for step, moment in ((1, 2_000_000_000), (2, 1_000_000_000), (10, 0)):
        write_checkpoint(tmp_path, step, {"value": step})
        for path in tmp_path.glob(f"step-*{step}*"):
            os.utime(path, (moment, moment))
    state = read_newest(tmp_path)
    assert state is not None
    assert state["step"] == 10


OF_THE_WORLD = ("monai_tl/inbox/", "monai_tl/dicom/web.py", "flows/clone.py")
"""Whether a folder has been quiet for a minute, when a study is tried again, the date in the name of a branch: a clock
that jumps makes these early or late, and nothing is lost by it."""
WATCH = "flows/clock.py"
"""Asks whether the clock was set back."""


def test_no_other_code_asks_what_time_it_is() -> None:
    """Durations are monotonic, and what is newest is told by a number: no result can see a clock go backwards."""
    root = Path(__file__).parents[2]
    clocks = {"time.time", "time.time_ns", "time.localtime", "datetime.now", "datetime.utcnow", "datetime.today"}
    clocks |= {"date.today", "datetime.datetime.now", "datetime.date.today"}
    found = [
        f"{path.relative_to(root)}:{node.lineno}"
        for path in [*(root / "monai_tl").rglob("*.py"), *(root / "flows").rglob("*.py")]
        if not path.relative_to(root).as_posix().startswith((*OF_THE_WORLD, WATCH))
        for node in ast.walk(ast.parse(path.read_text()))
        if (isinstance(node, ast.Attribute) and ast.unparse(node) in clocks)
        or (isinstance(node, ast.Attribute) and node.attr in ("st_mtime", "st_mtime_ns", "st_ctime"))
    ]
    assert found == []


def test_errors_of_the_package_are_the_only_ones(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MONAI_TL_EXECUTOR", "sequential")
    create_key(tmp_path / "secret.key", seed=0)
    for name in NAMES.values():
        with pytest.raises(MonaiTLError):
            convert.run(tmp_path / name, tmp_path / "out", key_file=tmp_path / "secret.key")
