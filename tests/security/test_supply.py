"""Row 7: what is shipped is listed, licensed, free of secrets, and built the same twice."""

from __future__ import annotations

import hashlib
import importlib.util
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).parents[2]


def _load() -> ModuleType:
    spec = importlib.util.spec_from_file_location("supply", ROOT / ".ci" / "supply.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


supply = _load()


def test_every_licence_is_on_the_list_or_has_a_reason() -> None:
    found = supply.licences(supply.pinned())
    assert len(found) > 100
    assert supply.refused(found) == {}
    assert all(reason for _, reason in supply.STATED.values())


@pytest.mark.parametrize(
    ("expression", "expected"),
    [
        ("MIT", True),
        ("GPL-3.0-only", False),
        ("not stated", False),
        ("Apache-2.0 OR GPL-2.0-or-later", True),
        ("MPL-2.0 AND (Apache-2.0 OR MIT)", True),
        ("MIT AND GPL-3.0-only", False),
        ("GPL-3.0-only AND MIT OR BSD-3-Clause", True),
        ("GPL-3.0-only AND (MIT OR BSD-3-Clause)", False),
        ("Apache-2.0 WITH LLVM-exception AND Zlib", True),
    ],
)
def test_expressions_of_licences(expression: str, expected: bool) -> None:
    assert supply.is_allowed(expression) is expected


def test_a_licence_off_the_list_is_refused() -> None:
    assert supply.refused({"a": "AGPL-3.0-only", "b": "MIT"}) == {"a": "AGPL-3.0-only"}


def test_the_list_in_the_pages_is_that_of_the_installed() -> None:
    shown = supply.listed(supply.LISTED.read_text(encoding="utf-8"))
    found = supply.licences(supply.pinned())
    assert {name: shown.get(name) for name in found} == found, "python .ci/supply.py licences --write"
    assert set(shown) <= set(supply.pinned())


def test_packages_that_cannot_be_looked_up_do_not_count_as_sound() -> None:
    """pip-audit ends well where its data cannot be reached: each package is only skipped."""
    skipped = {"name": "a", "skip_reason": "not found"}
    holes, said = supply.judge([skipped, {**skipped, "name": "b"}])
    assert (holes, said.split(":")[0]) == ([], "NOT AUDITED")
    holes, said = supply.judge([skipped, {"name": "b", "version": "1", "vulns": [{"id": "CVE-1"}]}])
    assert holes == ["b 1: CVE-1"]
    assert said == "1 of 2 packages audited, 1 known holes; NOT AUDITED: a"


def _git(folder: Path, *arguments: str) -> None:
    names = {f"GIT_{who}_{what}": "t@localhost" for who in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")}
    subprocess.run(["git", *arguments], cwd=folder, env={**os.environ, **names}, check=True, capture_output=True)


def _make_clean_repository(folder: Path) -> None:
    pytest.importorskip("detect_secrets")
    _git(folder, "init", "-q")
    (folder / "a.txt").write_text("nothing here\n")
    _git(folder, "add", "-A")
    _git(folder, "commit", "-qm", "a")
    assert supply.secrets(folder) == []


@pytest.mark.parametrize(
    "secret",
    [
        "-----BEGIN " + "RSA PRIVATE KEY-----",
        "key = 'AKIA" + "IOSFODNN7EXAMPLE'",
        "https://user:" + "hunter2hunter2@example.org/a",
        "ghp_" + "0123456789abcdefghijABCDEFGHIJ012345",
    ],
    ids=["private key", "cloud key", "password in an address", "token"],
)
def test_a_secret_is_found_though_a_later_commit_took_it_away(tmp_path: Path, secret: str) -> None:
    _make_clean_repository(tmp_path)
    (tmp_path / "a.txt").write_text(f"some text\n{secret}\n")
    _git(tmp_path, "commit", "-qam", "b")
    (tmp_path / "a.txt").write_text("nothing here\n")
    _git(tmp_path, "commit", "-qam", "c")
    assert len(supply.secrets(tmp_path)) == 1


TOKEN = "ghp_" + "0123456789abcdefghijABCDEFGHIJ012345"


def _name_a_file(folder: Path) -> None:
    (folder / f"{TOKEN}.txt").write_text("nothing here\n")
    _git(folder, "add", "-A")
    _git(folder, "commit", "-qm", "b")
    # gone again, and its content has another name too
    _git(folder, "rm", "-q", f"{TOKEN}.txt")
    _git(folder, "commit", "-qm", "c")


def _commit_bytes(content: bytes) -> Callable[[Path], None]:
    def write(folder: Path) -> None:
        (folder / "a.bin").write_bytes(content)
        _git(folder, "add", "-A")
        _git(folder, "commit", "-qm", "b")

    return write


PLACES = {
    "message of a commit": lambda folder: _git(folder, "commit", "-q", "--allow-empty", "-m", f"b\n\nwith {TOKEN}"),
    "message of a tag": lambda folder: _git(folder, "tag", "-am", f"with {TOKEN}", "v1"),
    "name of a file": _name_a_file,
    "name of a branch": lambda folder: _git(folder, "branch", TOKEN),
    "file with a NUL byte": _commit_bytes(b"\0\1\2key=" + TOKEN.encode() + b"\0\xff"),
    "text in UTF-16": _commit_bytes(f"the key: {TOKEN}".encode("utf-16")),
}


@pytest.mark.parametrize("place", PLACES)
def test_a_secret_is_found_wherever_git_keeps_text(tmp_path: Path, place: str) -> None:
    _make_clean_repository(tmp_path)
    PLACES[place](tmp_path)
    (found,) = supply.secrets(tmp_path)
    assert "GitHub Token" in found
    assert TOKEN not in found


def test_the_gate_looks_at_all_of_it() -> None:
    assert "\nmake supply\n" in (ROOT / ".ci/run").read_text()


def _wheel(source: Path, out: Path, epoch: str) -> str:
    environment = {**os.environ, "SOURCE_DATE_EPOCH": epoch}
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(out)]
    subprocess.run(command, cwd=source, env=environment, check=True, capture_output=True)
    (made,) = out.glob("*.whl")
    return hashlib.sha256(made.read_bytes()).hexdigest()


@pytest.mark.slow
def test_two_builds_are_equal_to_the_byte(tmp_path: Path) -> None:
    pytest.importorskip("hatchling")
    found = set()
    for name in ("one", "another place"):
        skipped = shutil.ignore_patterns(".git", "__pycache__", ".venv", "artifacts", "reports", "site", "dist")
        shutil.copytree(ROOT, tmp_path / name, ignore=skipped, copy_function=shutil.copyfile)
        found.add(_wheel(tmp_path / name, tmp_path / f"{name} dist", "1700000000"))
    assert len(found) == 1
    # else two equal hashes would show nothing
    (tmp_path / "one/monai_tl/errors.py").write_text("# other\n")
    assert _wheel(tmp_path / "one", tmp_path / "third dist", "1700000000") not in found


@pytest.mark.slow
def test_the_bill_of_materials_names_every_installed_package(tmp_path: Path) -> None:
    pytest.importorskip("cyclonedx_py")
    out = tmp_path / "sbom.json"
    command = [sys.executable, "-m", "cyclonedx_py", "environment", "--pyproject", str(ROOT / "pyproject.toml")]
    subprocess.run([*command, "--output-reproducible", "--of", "JSON", "-o", str(out)], check=True, capture_output=True)
    bill = json.loads(out.read_text())
    assert bill["bomFormat"] == "CycloneDX"
    named = {one["name"].casefold().replace("_", "-").replace(".", "-") for one in bill["components"]}
    expected = {name.casefold().replace("_", "-").replace(".", "-") for name in supply.licences(supply.pinned())}
    assert expected - named == set()
