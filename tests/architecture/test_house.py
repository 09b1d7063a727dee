"""The house rules that a linter does not know."""

import ast
import os
import re
import resource
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
MODULES = sorted([*(ROOT / "monai_tl").rglob("*.py"), *(ROOT / "flows").rglob("*.py")])
HEAVY = ("torch", "monai", "prefect", "dvc")


def loaded_by(program: str) -> set[str]:
    """Top-level packages that are loaded when a program ends."""
    code = f"{program}\nimport sys\nprint(' '.join(sorted({{name.split('.')[0] for name in sys.modules}})))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    return set(done.stdout.splitlines()[-1].split())


@pytest.mark.parametrize(
    "program",
    [
        "import monai_tl",
        "import monai_tl.stages, monai_tl.config",
        "import sys; sys.argv = ['monai-tl', '--help']\nimport monai_tl.cli\n"
        "try:\n    monai_tl.cli.main()\nexcept SystemExit:\n    pass",
    ],
)
def test_import_and_help_load_nothing_heavy(program):
    assert not loaded_by(program) & set(HEAVY)


@pytest.mark.parametrize("arguments", [["-c", "import monai_tl"], ["-m", "monai_tl", "--help"]])
def test_import_and_help_take_under_a_third_of_a_second_of_cpu(arguments):
    def cpu() -> float:
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        subprocess.run([sys.executable, *arguments], check=True, capture_output=True, cwd=ROOT)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime

    assert min(cpu() for _ in range(4)) < 0.3


def test_names_follow_the_vocabulary():
    bad = re.compile(r"utils?|helpers?|common|manager|misc")
    assert [str(path) for path in MODULES if bad.fullmatch(path.stem)] == []
    words = re.compile(r"ground[ _]truth", re.IGNORECASE)
    assert [str(path) for path in MODULES if words.search(path.read_text())] == []


def test_modules_hold_one_idea():
    long = {str(path.relative_to(ROOT)): n for path in MODULES if (n := len(path.read_text().splitlines())) > 350}
    assert long == {}


def test_no_assert_is_a_runtime_check():
    """``python -O`` drops asserts."""
    found = [
        f"{path.relative_to(ROOT)}:{node.lineno}"
        for path in MODULES
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Assert)
    ]
    assert found == []


def test_tracked_files_name_no_machine():
    """Nothing in the repository speaks of the machine it was written on."""
    listed = subprocess.run(["git", "ls-files", "-z"], capture_output=True, check=True, cwd=ROOT).stdout
    pattern = re.compile(rb"/wor" + rb"k/(main|shared|steering)|/opt/pyp" + rb"i|registry\.inter" + rb"nal")
    found = [
        name.decode()
        for name in listed.split(b"\0")
        if name and (ROOT / os.fsdecode(name)).is_file() and pattern.search((ROOT / os.fsdecode(name)).read_bytes())
    ]
    assert found == []


def test_every_error_has_the_exit_code_of_the_tree():
    from monai_tl import errors

    expected = {
        "ConfigError": 2,
        **dict.fromkeys(["DataError", "DicomError", "GeometryError", "LabelError", "LeakageError", "PrivacyError"], 3),
        **dict.fromkeys(["SourceError", "WeightsError", "ContractError"], 4),
        **dict.fromkeys(["TrainingError", "DivergenceError", "CheckpointError", "RankLostError"], 5),
        **dict.fromkeys(["StageError", "WorkerLostError"], 6),
        "PromotionError": 7,
        "PacsError": 8,
    }
    found = {
        name: value.exit_code
        for name, value in vars(errors).items()
        if isinstance(value, type) and issubclass(value, errors.MonaiTLError) and value is not errors.MonaiTLError
    }
    assert found == expected


def test_each_decision_is_numbered_once():
    numbers = [path.name[:4] for path in sorted((ROOT / "docs" / "decisions").glob("*.md"))]
    assert numbers == [f"{index:04d}" for index in range(1, len(numbers) + 1)]
    assert numbers


def test_dependencies_are_pinned_and_explained():
    import tomllib

    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    asked = [*project["dependencies"], *(text for extra in project["optional-dependencies"].values() for text in extra)]
    names = {re.split(r"[<>=\[;! ]", text, maxsplit=1)[0].lower().replace("_", "-") for text in asked}
    pins = (ROOT / "constraints.txt").read_text().splitlines()
    pinned = {line.split("==")[0].lower().replace("_", "-") for line in pins if "==" in line}
    assert names <= pinned
    reasons = (ROOT / "docs" / "decisions" / "0002-dependencies.md").read_text().lower().replace("_", "-")
    assert sorted(name for name in names if f"`{name}`" not in reasons) == []
