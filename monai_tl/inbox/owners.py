"""Who works: a lock of the kernel's for each process. It ends with it, however it ends, and holds across containers."""

from __future__ import annotations

import fcntl
import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from monai_tl.errors import MonaiTLError

_SUFFIX = ".owner"


@contextmanager
def owner_in(folder: Path) -> Iterator[str]:
    """The name of this process as an owner of work, valid in this block; others can tell whether it lives.

    Args:
        folder: Made if missing; on a file system with locks.

    Raises:
        MonaiTLError: The file system has no locks, so that a dead owner could not be told from a living one.
    """
    folder.mkdir(parents=True, exist_ok=True)
    name = uuid.uuid4().hex
    path = folder / f"{name}{_SUFFIX}"
    handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        os.close(handle)
        path.unlink(missing_ok=True)
        raise MonaiTLError(
            f"{folder}: its file system knows no locks ({error.strerror}), so one study could be worked on twice; "
            "put inbox.outbox on another file system"
        ) from None
    try:
        yield name
    finally:
        # first the name, then the lock: whoever finds no file knows that nobody lives
        path.unlink(missing_ok=True)
        os.close(handle)


def is_alive(folder: Path, owner: str) -> bool:
    """Whether the process that had this name still runs. The file of a dead one is removed."""
    path = folder / f"{owner}{_SUFFIX}"
    try:
        handle = os.open(path, os.O_RDWR)
    except OSError:
        return False
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return True
    else:
        path.unlink(missing_ok=True)
        return False
    finally:
        os.close(handle)


def sweep(folder: Path) -> None:
    """Remove the files of all dead owners."""
    for path in folder.glob(f"*{_SUFFIX}"):
        is_alive(folder, path.stem)
