"""One file as DVC has it at a revision: ``python -m flows.revision REVISION PATH OUT``.

``monai-tl compare`` starts this in a workspace. A revision is a commit, branch or tag of git, or the name of an
experiment.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

_TOO_MANY = "several experiments have this name; give the commit of one"
_GIT_S = 60.0
_NOT_THERE = "is no revision or experiment of this workspace, or its results were not committed; see 'dvc exp show'"


def resolve(revision: str, workspace: Path) -> str | None:
    """The commit of a revision or experiment; None where there is none.

    Raises:
        ValueError: Several experiments are called so.
    """
    if revision.startswith("-"):
        return None
    found = git_lines(workspace, "rev-parse", "--verify", "--quiet", f"{revision}^{{commit}}")
    if found:
        return found[0]
    references = [
        line.split() for line in git_lines(workspace, "for-each-ref", "--format=%(objectname) %(refname)", "refs/exps")
    ]
    commits = {one[0] for one in references if len(one) == 2 and one[1].rpartition("/")[2] == revision}
    if len(commits) > 1:
        raise ValueError(_TOO_MANY)
    return commits.pop() if commits else None


def fetch(revision: str, path: str, out: Path, workspace: Path) -> str | None:
    """Write the file as it was; what is wrong, or None.

    Args:
        revision: See ``resolve``.
        path: Below the workspace.
        out: New file.
        workspace: Folder of dvc.yaml.
    """
    try:
        commit = resolve(revision, workspace)
    except ValueError as error:
        return str(error)
    if commit is None:
        return _NOT_THERE
    # DVC leaves metrics and plots to git, and takes seconds to say so; what it keeps in its own cache it must fetch
    shown = subprocess.run(["git", "show", f"{commit}:./{path}"], cwd=workspace, capture_output=True, check=False)
    if shown.returncode == 0:
        out.write_bytes(shown.stdout)
        return None
    arguments = ["get", str(workspace.resolve()), path, "--rev", commit, "--out", str(out.resolve()), "--quiet"]
    done = subprocess.run(
        [sys.executable, "-m", "dvc", *arguments], cwd=workspace, capture_output=True, text=True, check=False
    )
    return None if done.returncode == 0 else _NOT_THERE


def git_lines(workspace: Path, *arguments: str) -> list[str]:
    """What git says, line by line; none where it fails or hangs."""
    try:
        done = subprocess.run(
            ["git", *arguments], cwd=workspace, capture_output=True, text=True, check=False, timeout=_GIT_S
        )
    except subprocess.TimeoutExpired:
        return []
    return done.stdout.split("\n")[:-1] if done.returncode == 0 else []


def main() -> int:
    """Entry point."""
    revision, path, out = sys.argv[1:]
    fault = fetch(revision, path, Path(out), Path.cwd())
    if fault is not None:
        sys.stderr.write(f"{fault}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
