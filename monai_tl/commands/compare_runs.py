"""The scores of a run, of a folder that was evaluated, or of a DVC revision, read back from its ``cases.csv``."""

from __future__ import annotations

import csv
import io
import math
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from monai_tl.commands.evaluate_results import CASES_FILE
from monai_tl.errors import ConfigError, DataError, MonaiTLError
from monai_tl.files import temporary_folder
from monai_tl.workspace import FLOWS_FOLDER

RUN_CASES = "reports/plots/cases.csv"
_TIME_OUT_S = 600.0
Scores = Mapping[str, Mapping[str, float]]
"""Case → class → value."""


@dataclass(frozen=True)
class ScoredRun:
    """One thing that is compared.

    Attributes:
        name: As the user gave it.
        by_seed: Seed → the scores of one metric; an evaluated folder has the one seed 0.
        patients: Case → patient, as numbers, which mean nothing outside; empty where nobody said whose the cases are.
        failed: Seed → cases without a prediction.
        reference_ml: Case → class → volume of the reference; empty where the table does not tell.
        tolerance_mm: Class → tolerance of its surface Dice; empty likewise.
    """

    name: str
    by_seed: Mapping[int, Scores]
    patients: Mapping[str, str]
    failed: Mapping[int, frozenset[str]]
    reference_ml: Scores = field(default_factory=dict)
    tolerance_mm: Mapping[str, float] = field(default_factory=dict)

    @property
    def cases(self) -> list[str]:
        """The same for each seed."""
        return list(next(iter(self.by_seed.values())))


def find_cases(given: str, workspace: Path) -> str:
    """The text of the ``cases.csv`` that an argument means.

    Args:
        given: An evaluated folder, the folder of a workspace, a ``cases.csv``, or a revision or experiment of DVC in
            ``workspace``.
        workspace: Where revisions are looked up, by its own flows.

    Raises:
        ConfigError: It is none of these.
    """
    path = Path(given)
    for candidate in (path, path / CASES_FILE, path / RUN_CASES):
        if candidate.is_file():
            try:
                return candidate.read_text(encoding="utf-8")
            except (OSError, UnicodeDecodeError):
                raise ConfigError(f"{given}: its cases.csv cannot be read; evaluate again", "arguments") from None
    if path.exists():
        raise ConfigError(
            f"{given}: holds neither {CASES_FILE} nor {RUN_CASES}; give what 'monai-tl evaluate' or a run has written",
            "arguments",
        )
    return _of_revision(given, workspace)


def _of_revision(revision: str, workspace: Path) -> str:
    with temporary_folder(Path(tempfile.gettempdir()), "monai_tl-compare") as work:
        found = work / CASES_FILE
        fetch_of_revision(revision, RUN_CASES, found, workspace)
        return found.read_text(encoding="utf-8")


def fetch_of_revision(revision: str, path: str, out: Path, workspace: Path) -> None:
    """A file or folder as git or DVC has it at a revision, by the workspace's own flows.

    Args:
        revision: Commit, branch, tag, or experiment of DVC.
        path: Below the workspace.
        out: Must not exist.
        workspace: Folder of dvc.yaml.

    Raises:
        ConfigError: There is no such revision, or it has no such path.
        MonaiTLError: DVC does not answer.
    """
    if not (workspace / FLOWS_FOLDER / "revision.py").is_file():
        raise ConfigError(
            f"{revision}: is no folder, and for a revision --workspace must name a workspace whose flows can look one "
            "up ('monai-tl init --refresh' leaves flows alone: copy flows/revision.py from a new workspace)",
            "arguments",
        )
    try:
        done = subprocess.run(
            [sys.executable, "-m", f"{FLOWS_FOLDER}.revision", revision, path, str(out)],
            cwd=workspace,
            env={**os.environ, "DVC_NO_ANALYTICS": "1"},
            capture_output=True,
            text=True,
            timeout=_TIME_OUT_S,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise MonaiTLError(f"{revision}: DVC gave no answer in {_TIME_OUT_S:g} s; look at its remote") from None
    if done.returncode != 0 or not out.exists():
        said = (done.stderr.strip().splitlines() or ["nothing was said"])[-1]
        raise ConfigError(f"{revision}: {said}", "arguments")


def read_run(given: str, text: str, metric: str, arm: str | None) -> ScoredRun:
    """Read one metric of one arm.

    Args:
        given: Its name.
        text: Of a ``cases.csv``.
        metric: A column.
        arm: Of a run with several; None takes ``transfer``, or the only one.

    Raises:
        ConfigError: The arm or the metric is not there.
        DataError: The table is damaged.
    """
    rows = list(csv.DictReader(io.StringIO(text)))
    if not rows:
        raise DataError(f"{given}: its cases.csv holds no case; evaluate again")
    if metric not in rows[0]:
        raise ConfigError(f"--metric: {given} has no {metric!r}; evaluate it again with this version", "arguments")
    if "arm" in rows[0]:
        rows = _rows_of_arm(given, rows, arm)
    name_column = "case" if "case" in rows[0] else "case_id"
    by_seed: dict[int, dict[str, dict[str, float]]] = {}
    patients: dict[str, str] = {}
    failed: dict[int, set[str]] = {}
    reference_ml: dict[str, dict[str, float]] = {}
    tolerance_mm: dict[str, float] = {}
    try:
        for row in rows:
            seed, case, name = int(row.get("seed") or 0), row[name_column], row["class"]
            classes = by_seed.setdefault(seed, {}).setdefault(case, {})
            if name in classes or None in row.values():
                raise ValueError("a row is there twice, or cut short")
            classes[name] = float(row[metric]) if row[metric] else math.nan
            if row.get("patient"):
                patients[case] = row["patient"]
            if row.get("failed") == "1":
                failed.setdefault(seed, set()).add(case)
            if row.get("reference_ml"):
                reference_ml.setdefault(case, {})[name] = float(row["reference_ml"])
            if row.get("tolerance_mm"):
                tolerance_mm[name] = float(row["tolerance_mm"])
    except (KeyError, TypeError, ValueError):
        raise DataError(f"{given}: its cases.csv is damaged; evaluate again") from None
    if len({frozenset((case, name) for case in scores for name in scores[case]) for scores in by_seed.values()}) > 1:
        raise DataError(
            f"{given}: its cases.csv has other cases or classes for one seed than for another; evaluate again"
        )
    cases_failed = {seed: frozenset(failed.get(seed, ())) for seed in by_seed}
    return ScoredRun(given, by_seed, patients, cases_failed, reference_ml, tolerance_mm)


def _rows_of_arm(given: str, rows: Sequence[dict[str, str]], arm: str | None) -> list[dict[str, str]]:
    arms = sorted({row["arm"] for row in rows})
    chosen = arm or (arms[0] if len(arms) == 1 else "transfer")
    if chosen not in arms:
        raise ConfigError(f"--arm: {given} has no arm {chosen!r}; it has {', '.join(arms)}", "arguments")
    return [row for row in rows if row["arm"] == chosen]
