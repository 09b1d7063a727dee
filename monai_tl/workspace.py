"""A workspace: the folder of one pipeline, and the version of this package that its results come from."""

from __future__ import annotations

import os
from pathlib import Path

from monai_tl import __version__
from monai_tl.errors import ConfigError
from monai_tl.files import sha256_of

VERSION_FILE = "monai_tl.version"
"""In a workspace made by ``monai-tl init``: stands for the code of this package as a dependency of every stage."""
PIPELINE_FILE = "dvc.yaml"
FLOWS_FOLDER = "flows"

_PACKAGE = Path(__file__).parent
_NOT_SOURCE = {"__pycache__", "template"}


def installed_digest() -> str:
    """Hex sha256 over the names and contents of this package's source, templates of workspaces left out."""
    files = sorted(
        path
        for path in _PACKAGE.rglob("*")
        if path.is_file() and not _NOT_SOURCE & set(path.relative_to(_PACKAGE).parts)
    )
    parts: list[bytes | str] = []
    for path in files:
        parts += [path.relative_to(_PACKAGE).as_posix(), path.read_bytes()]
    return sha256_of(*parts)


def version_text() -> str:
    """What VERSION_FILE holds for the installed package."""
    return f"monai_tl {__version__}\nsha256 {installed_digest()}\n"


def holds_own_code(workspace: Path) -> bool:
    """Whether the workspace is a checkout of this package, so stages depend on its source files themselves."""
    return (workspace / _PACKAGE.name).resolve() == _PACKAGE.resolve()


def check_installed_version(workspace: Path) -> None:
    """Refuse to compute with another version than the one DVC records.

    Args:
        workspace: Folder that holds params.yaml. One without VERSION_FILE has nothing to check.

    Raises:
        ConfigError: The installed package is not the one that VERSION_FILE names.
    """
    path = workspace / VERSION_FILE
    # as bytes: a damaged file is another version, not a crash
    if not path.is_file() or path.read_bytes() == version_text().encode("utf-8"):
        return
    raise ConfigError(
        f"names another version or other source than the installed monai_tl {__version__}; 'monai-tl init --refresh "
        f"{workspace}' takes the installed one (stages then run again), or install the version it names",
        VERSION_FILE,
    )


def template_folder() -> Path:
    """Folder with the files that ``monai-tl init`` writes as they are."""
    return _PACKAGE / "template"


def flows_template() -> Path:
    """Folder that holds ``flows/`` and ``prefect.yaml``: inside a wheel the template, in a checkout its root."""
    packed = template_folder()
    return packed if (packed / FLOWS_FOLDER).is_dir() else _PACKAGE.parent


def python_path() -> str:
    """PYTHONPATH for processes of a workspace: they import the package that runs now, and the workspace's own flows.

    The workspace comes first by itself, because its processes start there with ``python -m``.
    """
    inherited = os.environ.get("PYTHONPATH", "")
    root = str(_PACKAGE.parent)
    return root if not inherited else f"{inherited}{os.pathsep}{root}"
