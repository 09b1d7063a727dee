"""The import rules of .importlinter cover every module and find offences."""

from __future__ import annotations

import configparser
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
RULES = configparser.ConfigParser()
RULES.read(ROOT / ".importlinter")
TOP = {
    path.stem
    for path in (ROOT / "monai_tl").iterdir()
    if (path.suffix == ".py" and path.stem != "__init__") or (path / "__init__.py").is_file()
}


def names(contract: str, key: str) -> list[str]:
    return re.split(r"\s*[\n:|]\s*", RULES[f"importlinter:contract:{contract}"][key].strip())


def test_each_module_has_one_place_in_the_layers():
    layers = names("layers", "layers")
    assert len(layers) == len(set(layers))
    assert set(layers) | set(names("layers", "exhaustive_ignores")) == TOP
    assert RULES["importlinter:contract:layers"]["exhaustive"] == "True"


def test_flows_see_five_modules():
    forbidden = {name.removeprefix("monai_tl.") for name in names("flows-on-top", "forbidden_modules")}
    assert TOP - forbidden - {"__main__"} == {"config", "errors", "json_lines", "looks", "stages"}


@pytest.mark.parametrize("contract", ["dicom-edge", "torch-below", "typer-in-cli"])
def test_rules_for_packages_hold_for_everything(contract):
    assert names(contract, "source_modules") == ["monai_tl", "flows"]


def test_offences_are_found(tmp_path):
    for name in ("monai_tl", "flows"):
        shutil.copytree(ROOT / name, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copyfile(ROOT / ".importlinter", tmp_path / ".importlinter")
    (tmp_path / "monai_tl/newcomer.py").write_text('"""A module without a place."""\n')
    offences = {
        "scoring.py": "import pydicom",
        "workspace.py": "import typer",
        "records.py": "import torch",
        "progress.py": "import prefect",
        "geometry.py": "import monai_tl.sources.card",
    }
    for module, line in offences.items():
        path = tmp_path / "monai_tl" / module
        path.write_text(f"{path.read_text()}\n{line}\n")
    flow = tmp_path / "flows/mending.py"
    flow.write_text(f"{flow.read_text()}\nimport monai_tl.records\n")
    program = "import sys; sys.path.insert(0, '.'); from importlinter.cli import lint_imports_command as run; run()"
    done = subprocess.run(
        [sys.executable, "-c", program, "--no-cache"], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    text = re.sub(r"\s+", " ", done.stdout)
    assert done.returncode == 1, done.stdout + done.stderr
    assert "6 broken" in text
    for word in (
        "newcomer",
        "monai_tl.scoring -> pydicom",
        "monai_tl.workspace -> typer",
        "monai_tl.records -> torch",
        "monai_tl.progress -> prefect",
        "monai_tl.geometry -> monai_tl.sources.card",
        "flows.mending -> monai_tl.records",
    ):
        assert word in text, word
