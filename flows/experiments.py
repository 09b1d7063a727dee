"""What a run found, kept as a DVC experiment without touching the user's branch, index or lock files."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from flows.processes import run_git
from monai_tl.errors import MonaiTLError
from monai_tl.stages import STATE_FOLDER

_WHO = "monai-tl"


def experiment_name(prefix: str, lock: Path) -> str:
    """A name that says what was computed from what, and not when: the same lock file gives the same name."""
    return f"{prefix}-{hashlib.sha256(lock.read_bytes()).hexdigest()[:8]}"


def save_experiment(workspace: Path, name: str, files: Sequence[str]) -> bool:
    """Keep the workspace as it is as the experiment ``name`` of the commit that is checked out.

    An experiment of DVC is a commit under ``refs/exps/<commit it began from>/<name>``. This one is put together in an
    index of its own. ``dvc exp save`` is not used: it unstages what the user has staged, leaves HEAD for a moment, and
    writes lock entries anew by ``dvc commit --force``, so that a parameter changed since the run would be recorded as
    if it had been used. The commit has the date of the one it began from: the same results are the same experiment.

    Args:
        workspace: Folder of dvc.yaml, in a git repository.
        name: Of the experiment; an existing one is replaced.
        files: Kept besides what git tracks, also where git ignores them; those that do not exist are left out.

    Returns:
        False where git has no commit to begin from.

    Raises:
        MonaiTLError: git failed.
    """
    environment = {**os.environ, "GIT_INDEX_FILE": str(workspace.resolve() / STATE_FOLDER / "experiment.index")}
    try:
        base = _git(workspace, environment, "rev-parse", "--verify", "HEAD^{commit}")
    except (MonaiTLError, FileNotFoundError):
        return False
    date = _git(workspace, environment, "show", "--no-patch", "--format=%cI", base)
    for role in ("AUTHOR", "COMMITTER"):
        environment |= {f"GIT_{role}_NAME": _WHO, f"GIT_{role}_EMAIL": f"{_WHO}@localhost", f"GIT_{role}_DATE": date}
    try:
        _git(workspace, environment, "read-tree", base)
        _git(workspace, environment, "add", "--update", "--", ":/")
        there = [file for file in files if (workspace / file).is_file()]
        _git(workspace, environment, "add", "--force", "--", *there)
        tree = _git(workspace, environment, "write-tree")
        commit = _git(workspace, environment, "commit-tree", tree, "-p", base, "-m", f"dvc: commit experiment {name}")
    finally:
        Path(environment["GIT_INDEX_FILE"]).unlink(missing_ok=True)
    _git(workspace, environment, "update-ref", f"refs/exps/{base[:2]}/{base[2:]}/{name}", commit)
    return True


def _git(workspace: Path, environment: Mapping[str, str], *arguments: str) -> str:
    done = run_git(arguments, workspace, environment)
    if done.returncode != 0:
        raise MonaiTLError(f"'git {arguments[0]}' failed: {done.stderr.strip() or 'no message'}")
    return done.stdout.strip()
