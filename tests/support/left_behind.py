"""What a run left of its patients in a workspace, its inputs aside."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Sequence
from pathlib import Path

import yaml
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
    """The inputs themselves, as DVC keeps them, and the lists of their names: ``data`` is the user's own.

    They are those that a ``data.dvc`` of any commit, or the present one, names; no other list counts as one of inputs.
    """
    objects = workspace / ".dvc/cache/files/md5"
    lists = [objects / name[:2] / name[2:] for name in _states_of_data(workspace)]
    present = [path for path in lists if path.is_file()]
    assert present
    entries = {one["md5"] for path in present for one in json.loads(path.read_bytes())}
    return {*present, *(objects / name[:2] / name[2:] for name in entries)}


def _states_of_data(workspace: Path) -> set[str]:
    def git(*arguments: str) -> str:
        return subprocess.run(["git", *arguments], cwd=workspace, check=True, capture_output=True, text=True).stdout

    texts = [git("show", f"{commit}:data.dvc") for commit in git("log", "--format=%H", "--", "data.dvc").split()]
    found = [yaml.safe_load(text) for text in (*texts, (workspace / "data.dvc").read_text())]
    return {out["md5"] for one in found for out in one["outs"]}
