"""What ``monai-tl serve`` asks of git before it serves a training that runs in a clone."""

from __future__ import annotations

import subprocess
from pathlib import Path

from monai_tl.config import PARAMS_FILE, Params
from monai_tl.errors import ConfigError
from monai_tl.pins import pin_of
from monai_tl.pipeline_file import INPUTS
from monai_tl.workspace import PIPELINE_FILE

_NO_CLONE = (
    "the training runs in a clone, which has what git has, and {}; commit params.yaml, dvc.yaml, .dvc/config, inputs "
    "or what 'dvc add' wrote for them, or train in the workspace itself with --in-place"
)


def check_commit(workspace: Path, params: Params) -> None:
    """See that a clone of the workspace would hold what a training needs, before a night finds out that it does not.

    Args:
        workspace: Folder that holds params.yaml.
        params: Name the inputs. One that is not there at all is missed by a training in any place.

    Raises:
        ConfigError: The workspace is not the root of a git repository with a commit, or an input is in none, nor what
            pins it in DVC.
    """
    command = ["git", "ls-tree", "-r", "--name-only", "-z", "HEAD"]
    try:
        done = subprocess.run(command, cwd=workspace, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        raise ConfigError(_NO_CLONE.format("git is not installed"), "serve") from None
    if done.returncode != 0 or not (workspace / ".git").exists():
        raise ConfigError(_NO_CLONE.format("the workspace is not the root of a git repository with a commit"), "serve")
    files = [Path(name) for name in done.stdout.split("\0") if name]
    committed = {*files, *(folder for file in files for folder in file.parents)}
    inputs = [getattr(getattr(params, name.split(".")[0]), name.split(".")[1]) for name in INPUTS]
    needed = {Path(one) for one in (PARAMS_FILE, PIPELINE_FILE, ".dvc/config")}
    # the file by which DVC pins it or a folder around it, where there is one
    needed |= {pin_of(workspace, Path(one)) or Path(one) for one in inputs if one}
    missing = {one for one in needed if not one.is_absolute() and (workspace / one).exists()} - committed
    if missing:
        listed = ", ".join(sorted(map(str, missing)))
        raise ConfigError(_NO_CLONE.format(f"no commit holds {listed}"), "serve")
