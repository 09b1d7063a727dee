"""The files of a folder or of a zip file, read one by one: nothing is unpacked, nothing outside is reached."""

from __future__ import annotations

import stat
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Protocol

from monai_tl.errors import SourceError

METADATA = "configs/metadata.json"
"""What makes files a MONAI bundle."""
MAX_TEXT = 4 << 20
"""Largest text file that is read, bytes; the model zoo's largest configuration has 60 kB."""
MAX_WEIGHTS = 8 << 30
_MAX_MEMBERS = 20_000
_MAX_INFLATED = 16 << 30
_MAX_RATIO = 200
"""Of a member; text shrinks to a tenth, a bomb to a thousandth or less."""
_LARGE = 64 << 20
_MAX_RATIO_LARGE = 4
"""Of a member larger than that, which can only be weights: they hardly shrink, and lie in memory as a whole."""
_ENCRYPTED = 0x1


class PackedFiles(Protocol):
    """Files by their path below a root, parts separated by ``/``."""

    @property
    def root(self) -> Path:
        """The folder or the zip file."""
        ...

    def names(self) -> tuple[str, ...]:
        """All files, sorted."""
        ...

    def has(self, name: str) -> bool:
        """Whether there is such a file."""
        ...

    def read(self, name: str, limit: int = MAX_TEXT) -> bytes:
        """A file's bytes.

        Raises:
            SourceError: There is no such file, it is larger than the limit, damaged, or lies outside the root.
        """
        ...


@dataclass(frozen=True)
class FolderFiles:
    """Files below a folder; a link may stay inside, never lead out."""

    root: Path

    def names(self) -> tuple[str, ...]:
        """All files, sorted, links that lead out included: they are refused when they are read."""
        return tuple(sorted(path.relative_to(self.root).as_posix() for path in self._walk(self.root)))

    def has(self, name: str) -> bool:
        """Whether there is such a file."""
        return (self.root / name).is_file()

    def _walk(self, folder: Path) -> Iterator[Path]:
        for path in folder.iterdir():
            if path.is_dir() and not path.is_symlink():
                yield from self._walk(path)
            else:
                yield path

    def read(self, name: str, limit: int = MAX_TEXT) -> bytes:
        """A file's bytes."""
        path = self.root / name
        if not path.resolve().is_relative_to(self.root.resolve()):
            raise SourceError(f"{path}: leads out of {self.root}; copy the file itself there")
        if not path.is_file():
            raise SourceError(f"{path}: is missing or no plain file; copy it there")
        try:
            with path.open("rb") as stream:
                content = stream.read(limit + 1)
        except OSError as error:
            raise SourceError(f"{path}: cannot be read ({error.strerror}); copy it again") from None
        return _within(content, limit, str(path))


@dataclass(frozen=True)
class ZipFiles:
    """Files of a zip file, below its one folder if it has one.

    Attributes:
        root: The zip file.
        prefix: The folder that holds everything, with its slash; empty for none.
        members: Name without the prefix → name in the archive.
    """

    root: Path
    prefix: str
    members: dict[str, str]

    def names(self) -> tuple[str, ...]:
        """All files, sorted."""
        return tuple(sorted(self.members))

    def has(self, name: str) -> bool:
        """Whether there is such a file."""
        return name in self.members

    def read(self, name: str, limit: int = MAX_TEXT) -> bytes:
        """A file's bytes; their checksum in the archive is checked."""
        where = f"{self.root}, member {self.prefix}{name}"
        if name not in self.members:
            raise SourceError(f"{where}: is missing; fetch the file again")
        with _opened(self.root) as archive, archive.open(self.members[name]) as stream:
            content = stream.read(limit + 1)
        return _within(content, limit, where)


def open_zip(path: Path) -> ZipFiles:
    """List a zip file's members after checking each of them.

    Raises:
        SourceError: It is damaged or cut off, or a member is a link, is encrypted, is there twice, would leave the
            folder it is unpacked into, or would inflate without measure.
    """
    with _opened(path) as archive:
        items = archive.infolist()
    if len(items) > _MAX_MEMBERS:
        raise SourceError(f"{path}: has {len(items)} members, more than any bundle; do not use this file")
    if sum(item.file_size for item in items) > _MAX_INFLATED or sum(item.compress_size for item in items) > (
        path.stat().st_size
    ):
        # members that overlap in the file claim more packed bytes than it has
        raise SourceError(f"{path}: would inflate without measure; do not use this file")
    seen: set[str] = set()
    for item in items:
        fault = _member_fault(item, seen)
        if fault:
            raise SourceError(f"{path}: member {item.filename[:80]!r} {fault}; do not use this file")
        seen.add(item.filename)
    # what a Mac adds to every zip file is no part of it
    files = [item.filename for item in items if not item.is_dir() and not item.filename.startswith("__MACOSX/")]
    tops = {name.split("/", 1)[0] for name in files if "/" in name}
    prefix = f"{tops.pop()}/" if len(tops) == 1 and all("/" in name for name in files) else ""
    # a zip of the bundle's own folders has `configs` on top, which is no wrapping
    prefix = "" if prefix in ("configs/", "models/") else prefix
    return ZipFiles(path, prefix, {name.removeprefix(prefix): name for name in files})


def _member_fault(item: zipfile.ZipInfo, seen: set[str]) -> str:
    name, mode = item.filename, item.external_attr >> 16
    parts = PurePosixPath(name).parts
    if not parts or name.startswith("/") or "\\" in name or ".." in parts or ":" in parts[0] or "\0" in name:
        return "would be written outside its folder"
    if stat.S_ISLNK(mode) or (stat.S_IFMT(mode) not in (0, stat.S_IFREG, stat.S_IFDIR)):
        return "is a link or a device"
    if item.flag_bits & _ENCRYPTED:
        return "is encrypted"
    if name in seen:
        return "is there twice"
    ratio = _MAX_RATIO_LARGE if item.file_size > _LARGE else _MAX_RATIO
    if item.file_size > ratio * item.compress_size + MAX_TEXT:
        return f"would inflate from {item.compress_size} to {item.file_size} bytes"
    return ""


@contextmanager
def _opened(path: Path) -> Iterator[zipfile.ZipFile]:
    try:
        with zipfile.ZipFile(path) as archive:
            yield archive
    except (zipfile.BadZipFile, zipfile.LargeZipFile, EOFError, NotImplementedError, ValueError, RuntimeError) as error:
        raise SourceError(f"{path}: is cut off or damaged ({error}); fetch it again") from None
    except OSError as error:
        raise SourceError(f"{path}: cannot be read ({error.strerror or error}); fetch it again") from None
    except Exception as error:
        # zlib.error, lzma.LZMAError and their like have no common base
        raise SourceError(f"{path}: is damaged ({type(error).__name__}); fetch it again") from None


def _within(content: bytes, limit: int, where: str) -> bytes:
    if len(content) > limit:
        raise SourceError(f"{where}: has more than {limit} bytes; no file of this kind is so large, so it is not read")
    return content
