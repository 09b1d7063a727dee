"""What the Makefile runs is what the README says, and the image and the gate run the same."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from pathlib import Path

import orthanc
import pytest
from browser import REQUIRED, open_browser

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()
ROWS = dict(re.findall(r"^\| `make ([a-z-]+)` \| (.*) \|$", README, re.MULTILINE))
# installed before, and not repeated in each row
INSTALLS_FIRST = {"demo": "install", "docs": "install", "bench": "install", "serve": "install", "source": "install"}
INSTALLS_FIRST |= dict.fromkeys(("supply", "sbom", "wheel"), "install")
INSTALLS_DEV_FIRST = ("test", "lint", "types", "imports", "pipeline", "heavy", "long", "fuzz", "realdata")
PREPARES = INSTALLS_FIRST | dict.fromkeys(INSTALLS_DEV_FIRST, "install-dev")

pytestmark = pytest.mark.skipif(shutil.which("make") is None, reason="make is not installed")


@pytest.fixture(scope="module")
def fresh(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """As after a clone: nothing is installed."""
    folder = tmp_path_factory.mktemp("clone")
    for name in ("Makefile", "pyproject.toml", "constraints.txt"):
        shutil.copyfile(ROOT / name, folder / name)
    return folder


def make(folder: Path, *arguments: str) -> list[str]:
    # these tests may themselves run under make, which would speak of levels and folders
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("MAKE", "MFLAGS"))}
    done = subprocess.run(["make", *arguments], cwd=folder, env=environment, capture_output=True, text=True, check=True)
    return done.stdout.splitlines()


def commands(folder: Path, target: str) -> list[str]:
    """What a target would run; marks of what is done and the request to be quiet are make's own affair."""
    return [line.replace(" --quiet", "") for line in make(folder, "-n", target) if not line.startswith("touch ")]


def in_readme(target: str) -> list[str]:
    if target == "install-dev":
        (ending,) = re.fullmatch(r"the same, ending in `(.*)`", ROWS[target]).groups()
        *first, last = in_readme("install")
        return [*first, f"{last.rpartition('-e ')[0]}{ending}"]
    (text,) = re.fullmatch(r"`(.*)`", ROWS[target]).groups()
    return text.split(" && ")


def test_targets_keep_what_they_compile(fresh: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """pip leaves it to the first import, and images of Python often forbid to keep it: 12 s instead of 5 for MONAI."""
    monkeypatch.setenv("PYTHONDONTWRITEBYTECODE", "1")
    assert make(fresh, "--eval", "seen: ; @echo =$$PYTHONDONTWRITEBYTECODE=", "seen") == ["=="]


def test_the_readme_lists_every_target() -> None:
    (targets,) = re.findall(r"^\.PHONY: (.*)$", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert set(ROWS) | {"help"} == set(targets.split())


def test_help_lists_every_target_with_what_it_does(fresh: Path) -> None:
    listed = dict(re.fullmatch(r"  make ([a-z-]+) +(\S.*)", line).groups() for line in make(fresh, "help"))
    assert set(listed) == set(ROWS) | {"help"}


@pytest.mark.parametrize("target", sorted(ROWS))
def test_a_target_runs_what_the_readme_says(fresh: Path, target: str) -> None:
    before = in_readme(PREPARES[target]) if target in PREPARES else []
    assert commands(fresh, target) == [*before, *in_readme(target)]


def test_the_first_two_commands_are_targets() -> None:
    (block,) = re.findall(r"## Two commands.*?```sh\n(.*?)```", README, re.DOTALL)
    assert [line.split()[:2] for line in block.splitlines()] == [["make", "demo"], ["make", "test"]]


def test_the_image_installs_and_runs_by_the_same_targets() -> None:
    text = re.sub(r"\\\n", " ", (ROOT / "Dockerfile").read_text())
    steps = [part.strip() for line in re.findall(r"^RUN (.*)$", text, re.MULTILINE) for part in line.split("&&")]
    assert [step for step in steps if step.startswith("make")] == ["make install"]
    # nothing is installed past the lock
    assert not [step for step in steps if "pip" in step]
    (command,) = re.findall(r"^CMD (.*)$", text, re.MULTILINE)
    assert json.loads(command) == ["make", "demo"]


def test_the_gate_runs_targets_that_exist() -> None:
    called = re.findall(r"^make ([a-z -]+?)(?: &)?$", (ROOT / ".ci/run").read_text(), re.MULTILINE)
    targets = [target for line in called for target in line.split()]
    beside = ["lint", "types", "imports", "fuzz"]
    assert targets == ["install-dev", "test", *beside, "heavy", "docs", "supply"]
    assert set(targets) <= set(ROWS)


def test_the_gate_fails_with_what_it_runs_in_the_background() -> None:
    lines = (ROOT / ".ci/run").read_text().splitlines()
    started = [number for number, line in enumerate(lines) if line.startswith("make ") and line.endswith(" &")]
    assert len(started) == 2
    for number in started:
        (name,) = re.fullmatch(r"(\w+)=\$!", lines[number + 1]).groups()
        # before anything else is installed into the environment it runs in
        assert number < lines.index("make heavy") < lines.index(f'wait "${name}"') < lines.index("make docs")


def test_the_gate_asks_for_a_browser(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Elsewhere a missing one skips tests; the gate gets one, and then none of them may skip."""
    text = (ROOT / ".ci/run").read_text()
    assert text.index("install -y --no-install-recommends chromium") < text.index(f"export {REQUIRED}=1")
    assert text.index(f"export {REQUIRED}=1") < text.index("make heavy")
    assert "NO BROWSER CAN BE HAD" in text
    monkeypatch.setattr("browser.shutil.which", lambda _: None)
    for value, outcome in (("1", pytest.fail.Exception), ("", pytest.skip.Exception)):
        monkeypatch.setenv(REQUIRED, value)
        with pytest.raises(outcome, match="chromium is not installed"), open_browser(tmp_path):
            pass


def test_the_gate_asks_for_a_pacs(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    text = (ROOT / ".ci/run").read_text()
    assert text.index("orthanc || install_orthanc") < text.index(f"if orthanc; then export {orthanc.REQUIRED}=1; else")
    assert text.index(f"export {orthanc.REQUIRED}=1") < text.index("make heavy")
    # what the gate looks for is what the tests look for
    assert str(orthanc.PLUGIN) in text
    assert "NO ORTHANC CAN BE HAD" in text
    monkeypatch.setattr("orthanc.PLUGIN", tmp_path / "none")
    for value, outcome in (("1", pytest.fail.Exception), ("", pytest.skip.Exception)):
        monkeypatch.setenv(orthanc.REQUIRED, value)
        with pytest.raises(outcome, match="Orthanc with DICOMweb is not installed"):
            orthanc.find_orthanc()
