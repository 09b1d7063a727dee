"""What this process has half made. A stop comes between any two steps, also where no ``finally`` is in force yet."""

from __future__ import annotations

import atexit
import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

PART = ".part"
"""End of the names of what is being made."""
_making: dict[Path, int] = {}
"""And the process that makes it: a forked one must leave alone what its parent is making."""


@contextmanager
def made_as(parent: Path, name: str) -> Iterator[Path]:
    """Yield an unused path ``.<name>.<random>.part``, at which nothing is left when the block ends, however it ends.

    Args:
        parent: Exists.
        name: What it is for; a plain name.
    """
    while (path := parent / f".{name}.{secrets.token_urlsafe(6)}{PART}").exists():
        pass
    _making[path] = os.getpid()
    try:
        yield path
    finally:
        _remove(path)
        del _making[path]


@atexit.register
def clear_unfinished() -> None:
    """Remove all that is still half made; for the end of a process that was asked to stop."""
    own = os.getpid()
    for path, process in list(_making.items()):
        if process == own:
            _remove(path)


def _remove(path: Path) -> None:
    # what a disk says here must not hide what went wrong before
    with suppress(OSError):
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)
