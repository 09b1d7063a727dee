"""What a run says when the disk of its workspace is full, may not be written, or fails."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import contextmanager

from monai_tl.errors import MonaiTLError, describe_os_error

_OF_THE_DISK = frozenset((
    errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EACCES, errno.EPERM, errno.EIO, errno.ESTALE,
))  # fmt: skip
_WORDS = ("No space left on device", "Disk quota exceeded", "Read-only file system", "database or disk is full",
          "readonly database", "disk I/O error", "Permission denied")  # fmt: skip
"""Of other programs: the system's, and SQLite's, in which DVC keeps what it knows of files."""
_NEXT = "check disk space and permissions of the workspace; the next run goes on where this one ended"


@contextmanager
def disk_faults_told() -> Iterator[None]:
    """Faults of the disk in this block become a message; without a path, which may name somebody.

    Raises:
        MonaiTLError: One came.
    """
    try:
        yield
    except OSError as error:
        if error.errno not in _OF_THE_DISK:
            raise
        raise MonaiTLError(f"the workspace cannot be used: {describe_os_error(error)}; {_NEXT}") from error


def with_advice(text: str) -> str:
    """What another program said before it ended, and what to do where it speaks of the disk."""
    if "check disk space" in text or not any(words in text for words in _WORDS):
        return text
    return f"{text}\n{_NEXT}"
