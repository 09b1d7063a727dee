"""Files that are whole or absent, and hashes of what is in them."""

from __future__ import annotations

import fcntl
import glob
import hashlib
import json
import os
import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from pathlib import Path
from typing import Any

from monai_tl.errors import ConfigError
from monai_tl.unfinished import PART, made_as

_CHUNK = 1 << 20
_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW


_is_waited_for: ContextVar[bool] = ContextVar("is_waited_for", default=True)


@contextmanager
def checked_when_read() -> Iterator[None]:
    """Within this block files are whole or absent, but nobody waits for them to reach the disk.

    For what is checked by its hash before it is used: after a power cut it is made anew. Waiting costs milliseconds a
    file, which for small cases is more than all the work.
    """
    before = _is_waited_for.get()
    try:
        # within, so that an order to end that comes right after it leaves nothing set
        _is_waited_for.set(False)
        yield
    finally:
        _is_waited_for.set(before)


def _fsync_folder(path: Path) -> None:
    if not _is_waited_for.get():
        return
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def write_bytes(path: Path, content: bytes) -> None:
    """Write a file whole: temporary sibling, fsync, rename, fsync of the folder."""
    write_chunks(path, (content,))


def write_chunks(path: Path, chunks: Iterable[bytes | memoryview]) -> None:
    """The same for content that is made while it is written, so that it is never in memory as a whole."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with made_as(path.parent, path.name) as temporary, os.fdopen(_create_locked(temporary), "wb") as stream:
        for chunk in chunks:
            stream.write(chunk)
        stream.flush()
        if _is_waited_for.get():
            os.fsync(stream.fileno())
        os.chmod(temporary, 0o644)
        # while it is locked: a file without a lock is one that a killed process has left
        os.replace(temporary, path)
    _fsync_folder(path.parent)


def _create_locked(path: Path) -> int:
    while True:
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        _lock(handle, fcntl.LOCK_EX)
        if path.exists():
            return handle
        # swept by another process before it was locked
        os.close(handle)


def write_text(path: Path, text: str) -> None:
    """Write UTF-8 text whole."""
    write_bytes(path, text.encode("utf-8"))


def to_json(value: Any) -> str:
    """JSON with a fixed layout, so equal values give equal bytes; ASCII, so any name survives; NaN is null-free."""
    return json.dumps(value, indent=2, sort_keys=True, ensure_ascii=True, allow_nan=False) + "\n"


def write_json(path: Path, value: Any) -> None:
    """Write a JSON file whole; NaN and infinity are errors (use None)."""
    write_text(path, to_json(value))


def read_json(path: Path) -> Any:
    """Read a JSON file."""
    return json.loads(path.read_text(encoding="utf-8"))


@contextmanager
def whole_folder(path: Path) -> Iterator[Path]:
    """Yield a temporary sibling that becomes ``path`` only when the block ends well.

    An existing ``path`` is replaced. After an error nothing is left behind; what a killed process left of the same
    folder is removed.
    """
    with temporary_folder(path.parent, path.name) as temporary:
        os.chmod(temporary, 0o755)
        yield temporary
        _drop_parts(temporary)
        if path.exists():
            with temporary_folder(path.parent, path.name) as retired:
                os.replace(path, retired / "old")
                os.replace(temporary, path)
        else:
            os.replace(temporary, path)
        _fsync_folder(path.parent)


def _drop_parts(folder: Path) -> None:
    """Remove what a worker that was killed, or taken for lost, has half made in a folder that is ready without it."""
    for part in folder.glob(f".*{PART}"):
        shutil.rmtree(part, ignore_errors=True)


@contextmanager
def temporary_folder(parent: Path, name: str) -> Iterator[Path]:
    """Yield a new folder ``.<name>.<random>.part`` that is removed when the block ends, unless it was renamed.

    It is locked meanwhile, which tells it from one that a killed process has left; those are removed here.

    Args:
        parent: Made if missing.
        name: What it is for; a plain name.
    """
    parent.mkdir(parents=True, exist_ok=True)
    sweep_abandoned(parent, glob.escape(name))
    with made_as(parent, name) as folder, _made_and_locked(folder):
        yield folder


def sweep_abandoned(parent: Path, name: str) -> None:
    """Remove temporary files and folders that no living process holds: a killed one leaves half-written images.

    Args:
        parent: Where they lie.
        name: Pattern of what they were for, as ``glob`` has it.
    """
    for part in parent.glob(f".{name}.????????{PART}"):
        with suppress(OSError):
            # what is neither file nor folder was not made here; a pipe would be waited for
            handle = os.open(part, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
            try:
                # what is locked may be gone already, and its name another one's
                is_abandoned = _lock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                if is_abandoned and os.path.samestat(os.fstat(handle), os.lstat(part)):
                    shutil.rmtree(part, ignore_errors=True) if part.is_dir() else part.unlink()
            finally:
                os.close(handle)


@contextmanager
def _made_and_locked(folder: Path) -> Iterator[None]:
    while True:
        folder.mkdir(mode=0o700)
        with suppress(FileNotFoundError):
            handle = os.open(folder, _FOLDER)
            _lock(handle, fcntl.LOCK_EX)
            if folder.is_dir():
                break
            os.close(handle)
        # swept by another process before it was locked
    try:
        yield
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        os.close(handle)


def _lock(handle: int, kind: int) -> bool:
    """A lock of the kernel's: it ends with its process, however that ends, and holds across containers."""
    try:
        fcntl.flock(handle, kind)
    except OSError:
        # held by another, or a file system without locks, where nothing is taken for abandoned
        return False
    return True


@contextmanager
def held(folder: Path) -> Iterator[None]:
    """Within this block other processes that ask for the same folder wait; the kernel lets go, however a process ends.

    Args:
        folder: Exists. Nothing is written into it. On a file system without locks nobody waits.
    """
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        _lock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


@contextmanager
def named_output(out: Path) -> Iterator[None]:
    """Within this block an OSError about ``out``, which the user has named, becomes a message with that name.

    Of other files no name is told: below a folder of studies it may be a patient's.

    Raises:
        ConfigError: ``out`` cannot be written.
    """
    try:
        yield
    except OSError as error:
        if not isinstance(error.filename, str) or not _are_related(Path(error.filename), out):
            raise
        raise ConfigError(f"{out}: cannot be written: {error.strerror}; give another place", "arguments") from error


def _are_related(one: Path, other: Path) -> bool:
    one, other = one.expanduser().absolute(), other.expanduser().absolute()
    return one.is_relative_to(other) or other.is_relative_to(one)


def sha256_of(*parts: bytes | str) -> str:
    """Hex digest of the parts, each preceded by its length so that boundaries count."""
    digest = hashlib.sha256()
    for part in parts:
        content = part.encode("utf-8") if isinstance(part, str) else part
        digest.update(len(content).to_bytes(8, "little"))
        digest.update(content)
    return digest.hexdigest()


def sha256_file(path: Path) -> str:
    """Hex sha256 of a file's bytes."""
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        while chunk := stream.read(_CHUNK):
            digest.update(chunk)
    return digest.hexdigest()


def sha256_files(paths: Iterable[Path]) -> str:
    """Hex sha256 over the contents of files in the given order."""
    return sha256_of(*(sha256_file(path) for path in paths))


def code_digest(*modules: str) -> str:
    """Digest of the source of modules or packages of this project, for cache keys.

    Args:
        modules: Dotted names below ``monai_tl``, e.g. ``dicom`` or ``stages.ingest``; none: the whole package.
    """
    root = Path(__file__).parent
    found: list[Path] = []
    for name in modules or ("",):
        base = root.joinpath(*name.split(".")) if name else root
        found += sorted(base.rglob("*.py")) if base.is_dir() else [base.with_suffix(".py")]
    return sha256_files(found)
