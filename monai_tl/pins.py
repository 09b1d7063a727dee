"""Inputs that DVC holds: the ``.dvc`` file that pins one, and whether what lies here is what it names.

DVC restores an input from its cache as it does all else, without looking at it: an object there that was changed comes
back, and ``dvc status`` finds nothing. A pin is in git.
"""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

from monai_tl.errors import ConfigError, DataError
from monai_tl.faults import parse_yaml, read_text
from monai_tl.integrity import directory_md5

_TIME_OUT_S = 600.0


def pin_of(workspace: Path, path: Path) -> Path | None:
    """The ``.dvc`` file that pins a path or a folder around it, relative to the workspace; None where none does."""
    pins = [Path(f"{one}.dvc") for one in (path, *path.parents)]
    return next((pin for pin in pins if (workspace / pin).is_file()), None)


def check_pinned(workspace: Path, path: Path) -> None:
    """Make sure that an input is what its pin names; all of what is pinned is read.

    Left unchecked: an input outside the workspace or without a pin, and pins of other forms than ``dvc add`` writes.

    Args:
        workspace: Folder of dvc.yaml.
        path: As params.yaml has it: what is pinned, or something below it.

    Raises:
        DataError: Code ``integrity``: it is not.
    """
    pin = None if path.is_absolute() or ".." in path.parts else pin_of(workspace, path)
    expected = None if pin is None else _read_pin(workspace / pin)
    if pin is None or expected is None:
        return
    pinned = pin.with_suffix("")
    if not _is_the_same(workspace, pinned, expected):
        raise DataError(
            f"{pinned}: its content is not what {pin} names. If you have changed it yourself, tell DVC with 'dvc add "
            f"{pinned}'. If not, it or DVC's copy of it is damaged: 'monai-tl doctor --cache' names damaged copies in "
            f"DVC's cache; remove these and the folder {pinned}, bring it back from where it came or with 'dvc pull', "
            "then run again",
            "integrity",
        )


def _read_pin(path: Path) -> str | None:
    """The hash that ``dvc add`` wrote; None for a pin of another form, e.g. of an old DVC, which hashed otherwise."""
    try:
        content = parse_yaml(read_text(path, ""), path.name)
        (out,) = content["outs"]
        is_plain = out["hash"] == "md5" and out["path"] == path.stem and "wdir" not in content
        return str(out["md5"]) if is_plain else None
    except (ConfigError, KeyError, TypeError, ValueError):
        return None


def _is_the_same(workspace: Path, pinned: Path, expected: str) -> bool:
    folder = workspace / pinned
    if not expected.endswith(".dir"):
        return folder.is_file() and _md5(folder) == expected
    # as DVC does: links to folders are not followed
    paths = [Path(root, name) for root, _, names in os.walk(folder) for name in names]
    with ThreadPoolExecutor() as pool:
        found = dict(zip((path.relative_to(folder).as_posix() for path in paths), pool.map(_md5, paths), strict=True))
    if directory_md5(found) == expected:
        return True
    ignored = _ignored(workspace, (f"{pinned.as_posix()}/{name}" for name in found))
    kept = {name: digest for name, digest in found.items() if f"{pinned.as_posix()}/{name}" not in ignored}
    return directory_md5(kept) == expected


def _ignored(workspace: Path, paths: Iterable[str]) -> set[str]:
    """Those that .dvcignore names, by DVC itself."""
    done = subprocess.run(
        [sys.executable, "-m", "dvc", "check-ignore", "--stdin"],
        cwd=workspace,
        env={**os.environ, "DVC_NO_ANALYTICS": "1", "PYTHONUTF8": "1"},
        input="".join(f"{path}\n" for path in paths).encode("utf-8", "surrogateescape"),
        capture_output=True,
        timeout=_TIME_OUT_S,
        check=False,
    )
    return set(done.stdout.decode("utf-8", "surrogateescape").splitlines())


def _md5(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, partial(hashlib.md5, usedforsecurity=False)).hexdigest()
