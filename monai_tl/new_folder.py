"""A folder of results that appears whole, in a place that was empty, made by one run at a time."""

from __future__ import annotations

import errno
import fcntl
import os
import stat
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path

from monai_tl.errors import ConfigError
from monai_tl.files import temporary_folder

_NOT_EMPTY = "OUT: is not empty; give a new folder, so that nothing old is taken for a result of this run"
_IN_USE = "OUT: another run is writing there; wait for it, or give another folder"
_NO_PLACE = "give a new folder inside one that you may write to, which is not a mount point itself"


@contextmanager
def new_folder(out: Path, replaceable: Collection[str] = ()) -> Iterator[Path]:
    """Yield an empty folder that becomes ``out``, in one step, when the block ends well.

    It lies beside ``out``, which is made and stays empty until then, however the process ends. What a killed process
    left there is removed.

    Args:
        out: New or empty; what a link leads to.
        replaceable: Names of files that ``out`` may hold; they go when it is replaced.

    Raises:
        ConfigError: ``out`` holds something, another run writes to it, or it cannot be replaced as a whole.
    """
    out = out.resolve()
    out.mkdir(parents=True, exist_ok=True)
    if os.path.ismount(out) or not os.access(out.parent, os.W_OK | os.X_OK):
        raise ConfigError(f"OUT: cannot be put in place as a whole; {_NO_PLACE}", "arguments")
    with _claimed(out):
        # under the lock: a run that was faster may have ended between an earlier look and now
        check_empty(out, replaceable)
        mode = stat.S_IMODE(out.stat().st_mode)
        with temporary_folder(out.parent, out.name) as scratch:
            made = scratch / "whole"
            made.mkdir()
            yield made
            # no file has its name before its bytes are on the disk
            os.sync()
            os.chmod(made, mode)
            check_empty(out, replaceable)
            for old in out.iterdir():
                old.unlink()
            _put_in_place(made, out)
            os.sync()


def check_empty(out: Path, replaceable: Collection[str] = ()) -> None:
    """Refuse a folder that holds more than files of these names; one that is not there is empty.

    Raises:
        ConfigError: It does.
    """
    if out.is_dir() and any(one.name not in replaceable or not one.is_file() for one in out.iterdir()):
        raise ConfigError(_NOT_EMPTY, "arguments")


@contextmanager
def _claimed(out: Path) -> Iterator[None]:
    """Hold the folder alone, by a lock of the kernel's, which ends with its process."""
    handle = os.open(out, os.O_RDONLY | os.O_DIRECTORY)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ConfigError(_IN_USE, "arguments") from None
        except OSError as error:
            # a file system without locks: there the rename alone refuses the second run, at its end
            if error.errno not in (errno.ENOSYS, errno.ENOTSUP, errno.ENOLCK):
                raise
        if not os.path.samestat(os.fstat(handle), out.stat()):
            # replaced by the results of a run that ended between opening and locking
            raise ConfigError(_NOT_EMPTY, "arguments")
        yield
    finally:
        os.close(handle)


def _put_in_place(made: Path, out: Path) -> None:
    try:
        made.rename(out)
    except OSError as error:
        if error.errno in (errno.ENOTEMPTY, errno.EEXIST):
            raise ConfigError(_NOT_EMPTY, "arguments") from None
        raise ConfigError(f"OUT: cannot be put in place ({error.strerror}); {_NO_PLACE}", "arguments") from error
