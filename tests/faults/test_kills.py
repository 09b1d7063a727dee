"""Row 9: each stage, killed a hundred times at random moments or interrupted all the time, ends as if undisturbed."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from workspaces import CURVE as CURVE_SECTION
from workspaces import ROOT, Place, make_real, make_site

from monai_tl.stages import CURVE, STAGES

PROGRAM = ROOT / "tests/support/stage_kills.py"
MATRIX = {
    "finetune": ["arm=transfer", "fold=0", "seed=0"],
    "curve_label": ["labels=all", "strategy=scratch", "seed=0"],
    "curve_step": ["steps=2", "strategy=scratch", "seed=0"],
}


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Place:
    """A workspace in which every stage has run, those of the curve too."""
    root = tmp_path_factory.mktemp("kills")
    place = make_real(root / "workspace", make_site(root / "site"))
    place.extra["MONAI_TL_EXECUTOR"] = "sequential"
    params = place.folder / "params.yaml"
    params.write_text(params.read_text() + CURVE_SECTION)
    place.run("monai_tl", "run", "--plain")
    place.run("monai_tl", "curve", "--plain")
    return place


def kill_often(place: Place, copy: Path, stage: str, n_kills: int) -> dict[str, Any]:
    # what this stage made, and what came after it, is there again only by its own work
    shutil.copytree(place.folder, copy, symlinks=True, ignore=shutil.ignore_patterns(".monai_tl", ".dvc", ".git"))
    done = subprocess.run(
        [sys.executable, str(PROGRAM), str(copy), stage, str(n_kills), "0", *MATRIX.get(stage, ())],
        capture_output=True, text=True, check=False, env={**os.environ, "PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def judge(found: dict[str, Any], n_kills: int) -> None:
    assert "error" not in found, found
    assert found["n_killed"] == n_kills
    assert found["faults"] == []
    assert found["last_status"] == 0
    assert found["differ"] == []
    assert found["left_behind"] == []
    assert found["inputs_changed"] == []
    assert found["interrupted"] == {"status": 0, "differs": False}


@pytest.mark.long
@pytest.mark.parametrize("stage", [one.name for one in (*STAGES, *CURVE)])
def test_a_hundred_kills_leave_no_trace(finished: Place, tmp_path: Path, stage: str) -> None:
    judge(kill_often(finished, tmp_path / "copy", stage, 100), 100)
