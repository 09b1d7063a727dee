"""What the command line says when a place cannot be read or written: words, the user's own path, no traceback."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from pathlib import Path

import pytest

from monai_tl import cli
from monai_tl.errors import ConfigError
from monai_tl.files import named_output

ROOT = Path(__file__).parents[2]


def call(folder: Path, *arguments: str, **environment: str) -> tuple[int, str]:
    """Exit status and output of the command, in a process of its own in ``folder``."""
    done = subprocess.run(
        [sys.executable, "-m", "monai_tl", *arguments],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT), "HOME": str(folder), **environment},
        capture_output=True,
        text=True,
        check=False,
    )
    return done.returncode, done.stdout + done.stderr


@pytest.fixture
def here(tmp_path: Path) -> Path:
    (tmp_path / "file").write_text("x")
    (tmp_path / "studies").mkdir()
    return tmp_path


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("phantom", "file"), "file: cannot be written: File exists"),
        (("phantom", "file/below"), "file/below: cannot be written: Not a directory"),
        (("init", "file/x"), "file/x: cannot be written: Not a directory"),
        (("key", "file/k"), "file/k: cannot be written: File exists"),
        (("key", "studies"), "studies: is a folder; give the file to keep the key in, e.g. studies/pseudonym.key"),
        (("deidentify", "none", "out"), "SRC: there is no such folder"),
        (("deidentify", "file", "out"), "SRC: is a file"),
        (("deidentify", "studies", "file"), "OUT: is a file"),
        (("segment", "none", "out", "-m", "file"), "DICOM_DIR: there is no such folder"),
    ],
)
def test_a_place_that_cannot_be_used_is_named_as_typed(here: Path, arguments: tuple[str, ...], words: str) -> None:
    code, output = call(here, *arguments)
    assert code == 2
    assert words in output
    assert "Traceback" not in output
    # a hidden folder is a library's cache below HOME
    assert sorted(path.name for path in here.iterdir() if path.name[0] != ".") == ["file", "studies"]


def test_segment_says_so_before_it_works(here: Path) -> None:
    model = ROOT / "sources/abdomen_a"
    call(here, "key", "key")
    code, output = call(here, "segment", "studies", "out", "-m", str(model), "--key-file", "key")
    assert code == 4
    assert "has not been fine-tuned: it has no plan.json" in output
    assert "run the stage" not in output


def test_an_unknown_backend_is_a_fault_of_the_environment(here: Path) -> None:
    code, output = call(here, "phantom", "out", "--n-a", "1", "--n-b", "1", MONAI_TL_EXECUTOR="dask")
    assert code == 2
    assert "MONAI_TL_EXECUTOR: 'dask' is none of fork, loky, sequential, dask://HOST:PORT" in output
    assert "Traceback" not in output


def test_of_other_files_no_name_is_told(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def fail() -> None:
        with named_output(Path("/somewhere/out")):
            raise PermissionError(errno.EACCES, "Permission denied", "/studies/DOE^JANE/IM1.dcm")

    monkeypatch.setattr(cli, "app", fail)
    monkeypatch.setattr(cli, "stop_tidily", lambda: None)
    with pytest.raises(SystemExit) as caught:
        cli.main()
    assert caught.value.code == 1
    assert capsys.readouterr().err == "monai-tl: Permission denied; check disk space and permissions, then run again\n"


def test_a_full_disk_names_what_the_user_named() -> None:
    with pytest.raises(ConfigError, match="out: cannot be written: No space left"), named_output(Path("out")):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(Path("out/case-0/x").absolute()))
