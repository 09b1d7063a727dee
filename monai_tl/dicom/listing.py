"""The files below a folder, and what could not be followed: a study behind a dead link must not vanish unseen."""

from __future__ import annotations

import os
import stat
from dataclasses import dataclass, field
from pathlib import Path

from monai_tl.conversion_records import ConvertedIndex
from monai_tl.errors import DataError
from monai_tl.records import Record, RejectionList

_OWN_LISTS: dict[str, type[Record]] = {"rejected.json": RejectionList, "index.json": ConvertedIndex}
"""What ``deidentify`` and ``convert`` write beside their results."""


@dataclass(frozen=True)
class Unfollowed:
    """An entry whose content is out of reach.

    Attributes:
        code: ``broken_link``, ``link_loop``, ``unreadable_folder`` or ``unreadable``.
        reason: Cause and what to do; no name.
    """

    path: Path
    code: str
    reason: str


@dataclass
class Listing:
    """What lies below a folder, in order of path.

    Attributes:
        files: Regular files, those behind links too; pipes, sockets and devices are left alone.
        unfollowed: The rest that may have held data.
    """

    files: list[Path] = field(default_factory=list)
    unfollowed: list[Unfollowed] = field(default_factory=list)


def list_files(root: Path) -> Listing:
    """Walk a folder; each folder is entered once, even when links make a loop.

    A link to a folder that holds the whole of ``root`` is not followed: it would bring in all that lies beside it, up
    to the machine's own files.
    """
    found = Listing()
    seen: set[tuple[int, int]] = set()
    above = {_identity(folder) for folder in root.resolve().parents}
    pending = [root]
    while pending:
        folder = pending.pop()
        try:
            identity = _identity(folder)
            if identity in above:
                reason = "a link leads to a folder that holds the whole input; remove it, or link to the study alone"
                found.unfollowed.append(Unfollowed(folder, "link_loop", reason))
                continue
            if identity in seen:
                continue
            seen.add(identity)
            entries = list(os.scandir(folder))
        except OSError as error:
            reason = f"a folder cannot be opened ({error.strerror}); grant reading and searching it, or move it out"
            found.unfollowed.append(Unfollowed(folder, "unreadable_folder", reason))
            continue
        for entry in entries:
            _sort_in(entry, found, pending)
    found.files = sorted(path for path in found.files if path.parent != root or not _is_own_list(path))
    found.unfollowed.sort(key=lambda one: one.path)
    return found


def _identity(folder: Path) -> tuple[int, int]:
    facts = folder.stat()
    return facts.st_dev, facts.st_ino


def _sort_in(entry: os.DirEntry[str], found: Listing, pending: list[Path]) -> None:
    path = Path(entry.path)
    try:
        mode = entry.stat().st_mode
    except OSError as error:
        if entry.is_symlink():
            reason = (
                f"a link cannot be followed ({error.strerror}); bring its target back (data kept by DVC: dvc checkout "
                "or dvc pull), or remove the link"
            )
            found.unfollowed.append(Unfollowed(path, "broken_link", reason))
        else:
            reason = f"an entry cannot be looked at ({error.strerror}); check the permissions of its folder"
            found.unfollowed.append(Unfollowed(path, "unreadable", reason))
        return
    if stat.S_ISDIR(mode):
        pending.append(path)
    elif stat.S_ISREG(mode):
        found.files.append(path)


def _is_own_list(path: Path) -> bool:
    record = _OWN_LISTS.get(path.name)
    if record is None:
        return False
    try:
        record.read(path)
    except (DataError, OSError, RecursionError):
        return False
    return True
