"""What a kill in the middle of a write leaves in DVC's own files, and how it is undone."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from monai_tl.stages import CURVE_FILE, STATE_FOLDER

LOCK_FILES = ("dvc.lock", str(Path(CURVE_FILE).with_suffix(".lock")))
"""Of both pipelines, relative to the workspace; the second need not be there."""
# the one in C takes a tenth of the time
_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_MD5 = re.compile(r"[0-9a-f]{32}(\.dir)?")


def mend_after_kill(workspace: Path) -> None:
    """Undo what a kill in the middle of a write can leave in DVC's own files. Call with the workspace locked.

    DVC writes dvc.lock in place: cut short it would stop every later run. DVC drops a lock of a dead process by itself,
    but not when another program has got its process id since.
    """
    for name in LOCK_FILES:
        lock, backup = workspace / name, backup_file(workspace, name)
        if _is_cut_short(lock):
            shutil.copyfile(backup, lock) if backup.is_file() else lock.unlink()
    held = workspace / ".dvc" / "tmp" / "rwlock"
    if held.is_file() and not any(_is_dvc(pid) for pid in _lock_owners(held)):
        held.unlink(missing_ok=True)


def backup_file(workspace: Path, lock: str = "dvc.lock") -> Path:
    """A lock file as it was before the last step."""
    return workspace / STATE_FOLDER / f"{lock.replace('/', '-')}.before"


def _is_cut_short(lock: Path) -> bool:
    """Whether DVC would refuse the file. A cut that leaves valid entries is harmless: a stage runs again."""
    if not lock.is_file():
        return False
    try:
        content = yaml.load(lock.read_text(encoding="utf-8"), Loader=_LOADER)  # noqa: S506 - a SafeLoader
        return content["schema"] != "2.0" or not all(_is_whole(entry) for entry in content["stages"].values())
    except (yaml.YAMLError, UnicodeDecodeError, KeyError, TypeError, AttributeError):
        return True


def _is_whole(entry: Mapping[str, Any]) -> bool:
    files = [*entry.get("deps", []), *entry.get("outs", [])]
    params = entry.get("params", {}).values()
    return (
        isinstance(entry["cmd"], str)
        and all(_MD5.fullmatch(item["md5"]) and isinstance(item["path"], str) for item in files)
        and all(isinstance(number, int) for item in files for number in (item.get("size", 0), item.get("nfiles", 0)))
        and all(isinstance(values, dict) for values in params)
    )


def _lock_owners(held: Path) -> list[int]:
    try:
        content = json.loads(held.read_text(encoding="utf-8") or "{}")
        entries = [item for value in content.values() for kind in value.values() for item in _listed(kind)]
        return [int(item["pid"]) for item in entries]
    except (ValueError, KeyError, TypeError, AttributeError):
        return []


def _listed(value: Any) -> list[Any]:
    """DVC keeps a list of readers of a path, and one writer, which may be empty."""
    return value if isinstance(value, list) else [value] if value else []


def _is_dvc(pid: int) -> bool:
    try:
        return b"dvc" in Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return False
