"""An error that nobody expected: its type and place, never its text."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from monai_tl.errors import describe_os_error, describe_unexpected, reason_of_unexpected
from monai_tl.geometry import spacing_of
from monai_tl.parallel import map_cases

ROOT = Path(__file__).parents[2]
CANARY = "Kanari^Otto"
# the stage's work replaced by a fault whose text names a patient
PROGRAM = f"""
import sys
from monai_tl import cli, stages, config
def fail(*_):
    raise ValueError("Unable to convert '{CANARY}' to 'DA' object")
stages.run_stage = fail
config.load_params = lambda _: None
sys.argv = ["monai-tl", "stage", "export"]
cli.main()
"""


def run(**variables: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, **variables}
    return subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, cwd=ROOT, env=environment)


def test_the_command_line_tells_type_and_place_only():
    done = run(MONAI_TL_DEBUG="")
    assert done.returncode == 1
    assert CANARY not in done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    line = next(
        n
        for n, text in enumerate((ROOT / "monai_tl/stages/sealing.py").read_text().splitlines(), 1)
        if "run_stage(name" in text
    )
    assert f"ValueError at monai_tl/stages/sealing.py:{line}" in done.stderr
    assert "MONAI_TL_DEBUG=1" in done.stderr


def test_all_of_it_is_shown_when_asked_for():
    done = run(MONAI_TL_DEBUG="1")
    assert done.returncode == 1
    assert "Traceback" in done.stderr
    assert CANARY in done.stderr


def caught(function, *arguments) -> Exception:
    try:
        function(*arguments)
    except Exception as error:
        return error
    raise AssertionError("no error")


@pytest.mark.parametrize("backend", ["sequential", "loky"])
def test_the_place_is_that_of_the_fault_in_any_process(monkeypatch, backend):
    monkeypatch.setenv("MONAI_TL_EXECUTOR", backend)
    monkeypatch.setenv("MONAI_TL_JOBS", "2")
    told = describe_unexpected(caught(lambda: list(map_cases(spacing_of, [CANARY, CANARY]))))
    assert "at monai_tl/geometry.py:" in told
    assert CANARY not in told


def test_an_error_from_elsewhere_has_the_innermost_file_without_its_folder():
    told = describe_unexpected(caught(int, CANARY))
    assert told.startswith("ValueError at test_errors.py:")
    assert describe_unexpected(ValueError(CANARY)) == "ValueError at an unknown place"


def test_one_case_fails_alone_unless_tracebacks_are_asked_for(monkeypatch):
    monkeypatch.delenv("MONAI_TL_DEBUG", raising=False)
    error = caught(int, CANARY)
    assert CANARY not in reason_of_unexpected(error)
    monkeypatch.setenv("MONAI_TL_DEBUG", "1")
    with pytest.raises(ValueError, match="Kanari"):
        reason_of_unexpected(error)


def test_of_an_error_of_the_system_only_its_number_speaks():
    """A library may put the name of a file, and so of a patient, where the system's words belong."""
    assert describe_os_error(OSError(2, "KANARI^Otto", "/data/KANARI")) == os.strerror(2)
    assert describe_os_error(OSError("KANARI^Otto could not be opened")) == "input or output failed"
