"""``monai-tl init``: a new workspace, or an existing one brought up to the installed version."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

from rich.console import Console

from monai_tl.config import PARAMS_FILE
from monai_tl.errors import ConfigError, MonaiTLError
from monai_tl.files import write_text
from monai_tl.pipeline_file import curve_text, pipeline_text
from monai_tl.stages import CURVE_FILE
from monai_tl.workspace import (
    FLOWS_FOLDER,
    PIPELINE_FILE,
    VERSION_FILE,
    flows_template,
    holds_own_code,
    template_folder,
    version_text,
)

_DVC_SETTINGS = (("core.analytics", "false"), ("core.check_update", "false"), ("cache.type", "reflink,copy"))
"""No traffic; and never links into the cache, through which a program run as root could change it."""


def run(folder: Path, *, refresh: bool = False, console: Console | None = None) -> None:
    """Make a workspace: git, DVC, params.yaml, dvc.yaml, flows, prefect.yaml and a first commit.

    Args:
        folder: New or empty; with ``refresh`` an existing workspace, of which dvc.yaml, curve/dvc.yaml where there is
            one, the templates of DVC's plots and the version file are written again and nothing else: its parameters
            and flows are its owner's.
        refresh: See ``folder``.
        console: For the last words; None prints on standard output.

    Raises:
        ConfigError: The folder is not empty, or with ``refresh`` is no workspace.
        MonaiTLError: git or DVC failed.
    """
    console = console or Console()
    folder = folder.expanduser().absolute()
    if refresh:
        _refresh(folder)
        console.print(f"{PIPELINE_FILE} in {folder} follows the installed monai_tl now.", soft_wrap=True)
        return
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise ConfigError(
            f"{folder} is not empty; give a new folder, or 'monai-tl init --refresh {folder}' for a workspace",
            "arguments",
        )
    existed = folder.exists()
    folder.mkdir(parents=True, exist_ok=True)
    try:
        _fill(folder)
        _start_history(folder)
    except BaseException:
        # a half-made workspace would be refused as non-empty the next time
        for path in folder.iterdir():
            shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()
        if not existed:
            folder.rmdir()
        raise
    console.print(f"Made the workspace {folder}. Its README.md says how to go on.", soft_wrap=True)


def _refresh(folder: Path) -> None:
    if not (folder / PARAMS_FILE).is_file() or not (folder / ".dvc").is_dir():
        raise ConfigError(f"{folder} is no workspace: it has no {PARAMS_FILE} or no .dvc", "arguments")
    text, curve = pipeline_text(folder), curve_text(folder)
    if not holds_own_code(folder):
        write_text(folder / VERSION_FILE, version_text())
    write_text(folder / PIPELINE_FILE, text)
    _write_plots(folder)
    if (folder / CURVE_FILE).is_file():
        write_text(folder / CURVE_FILE, curve)


def _fill(folder: Path) -> None:
    template, flows = template_folder(), flows_template()
    for name, target in ((PARAMS_FILE, PARAMS_FILE), ("README.md", "README.md")):
        shutil.copyfile(template / name, folder / target)
    for name in ("gitignore", "dvcignore"):
        shutil.copyfile(template / name, folder / f".{name}")
    shutil.copytree(flows / FLOWS_FOLDER, folder / FLOWS_FOLDER, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copyfile(flows / "prefect.yaml", folder / "prefect.yaml")
    write_text(folder / VERSION_FILE, version_text())
    write_text(folder / PIPELINE_FILE, pipeline_text(folder))


def _write_plots(folder: Path) -> None:
    """What dvc.yaml names as templates of its plots, where DVC looks for them."""
    shutil.copytree(template_folder() / "plots", folder / ".dvc" / "plots", dirs_exist_ok=True)


def _start_history(folder: Path) -> None:
    """A repository of the workspace's own; inside another one its files would belong to that one."""
    _call(folder, "git", "init", "--quiet")
    dvc = (sys.executable, "-m", "dvc")
    _call(folder, *dvc, "init", "--quiet")
    for name, value in _DVC_SETTINGS:
        _call(folder, *dvc, "config", "--quiet", name, value)
    # not before: DVC starts where there is no .dvc yet
    _write_plots(folder)
    _call(folder, "git", "add", "--all")
    # a first commit must not fail where nobody has told git who they are
    identity = () if _knows_author(folder) else ("-c", "user.name=monai-tl", "-c", "user.email=monai-tl@localhost")
    _call(folder, "git", *identity, "commit", "--quiet", "--no-verify", "-m", "Start a monai_tl workspace")


def _knows_author(folder: Path) -> bool:
    return (
        subprocess.run(["git", "var", "GIT_AUTHOR_IDENT"], cwd=folder, capture_output=True, check=False).returncode == 0
    )


def _call(folder: Path, *command: str) -> None:
    environment = {**os.environ, "DVC_NO_ANALYTICS": "1"}
    try:
        done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        raise MonaiTLError(f"{command[0]} is not installed; install it, then run 'monai-tl init' again") from None
    if done.returncode != 0:
        raise MonaiTLError(f"'{' '.join(command)}' failed in {folder}: {(done.stderr or done.stdout).strip()}")
