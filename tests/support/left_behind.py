"""What a run left of its patients in a workspace, its inputs aside."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path

from decoded_search import found_in


def left_in(workspace: Path, texts: tuple[str, ...], inputs: Sequence[str] = ()) -> list[str]:
    """Texts, and plain hashes of them, in all but ``data`` and its copies in DVC's cache; see ``found_in``.

    Args:
        inputs: Further files and folders of the user's own.
    """
    copies = _objects_of_data(workspace)
    own = [workspace / name for name in ("data", *inputs)]
    return found_in(workspace, texts, lambda path: path in copies or any(one in (path, *path.parents) for one in own))


def _objects_of_data(workspace: Path) -> set[Path]:
    """The inputs themselves, as DVC keeps them, and the lists of their names: ``data`` is the user's own."""
    objects, data = workspace / ".dvc/cache/files/md5", workspace / "data"
    own = {hashlib.md5(path.read_bytes()).hexdigest() for path in data.rglob("*") if path.is_file()}
    found = {objects / name[:2] / name[2:] for name in own}
    names = {path.relative_to(data).as_posix() for path in data.rglob("*")}
    lists = [path for path in objects.rglob("*.dir") if {one["relpath"] for one in _listed(path)} <= names]
    assert lists
    return found | set(lists)


def _listed(path: Path) -> list[dict[str, str]]:
    return json.loads(path.read_bytes())
