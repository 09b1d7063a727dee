"""The case cache: finished work of one case, kept outside DVC's outputs, so a kill or one new study costs one study."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from pathlib import Path

from monai_tl.files import checked_when_read, read_json, sha256_file, sweep_abandoned, temporary_folder, write_json
from monai_tl.unfinished import made_as

_MANIFEST = ".manifest.json"


@contextmanager
def tidy_cache(root: Path) -> Iterator[None]:
    """Around work over cases: what workers left that had to be ended by force goes when the work ends, well or not.

    What a living worker holds stays: that one tidies up after itself.

    Args:
        root: Of the cache that they fill.
    """
    try:
        yield
    finally:
        sweep_abandoned(root, "*")


class CaseCache:
    """A store of small folders by key.

    Args:
        root: Folder of the store, e.g. ``.monai_tl/cache``; made on first use.
    """

    def __init__(self, root: Path) -> None:
        self.root = root

    def fetch(self, key: str, destination: Path, build: Callable[[Path], None], kept: Collection[str] = ()) -> bool:
        """Fill ``destination`` from the cache, or build it and remember it.

        Entries are copied, never linked: an output edited in place must not reach the cache. An entry whose files do
        not match their recorded hashes is thrown away and built again. The destination appears whole; one that is there
        is of the same key, filled by a process that ended, or was taken for lost, before it could tell.

        Args:
            key: Hex digest over input bytes, parameters and code.
            destination: Folder to make, in one that is made by ``monai_tl.files.whole_folder``.
            build: Writes the files into the folder it is given.
            kept: Names of files that stay in the cache; see ``entry``.

        Returns:
            True when the entry came from the cache.
        """
        sweep_abandoned(self.root, "*")
        entry = self.entry(key)
        if entry.is_dir():
            if _is_intact(entry):
                _copy_whole(entry, destination, kept)
                return True
            shutil.rmtree(entry, ignore_errors=True)
        # beside the entries, so that all a killed process left is found, whatever case it was of
        with temporary_folder(self.root, key[:12]) as temporary:
            with checked_when_read():
                build(temporary)
                _copy_whole(temporary, destination, kept)
                write_json(temporary / _MANIFEST, _hashes(temporary))
            entry.parent.mkdir(exist_ok=True)
            try:
                os.replace(temporary, entry)
            except OSError:
                # another process finished the same entry first; ours is a duplicate
                if not entry.is_dir():
                    raise
        return False

    def entry(self, key: str) -> Path:
        """Folder of what ``fetch`` has remembered under a key."""
        return self.root / key[:2] / key


def _copy_whole(source: Path, destination: Path, kept: Collection[str]) -> None:
    """Copy a folder by way of a sibling; what a killed process leaves of that goes when the folder around is whole."""
    destination.parent.mkdir(parents=True, exist_ok=True)
    with made_as(destination.parent, destination.name) as temporary:
        temporary.mkdir(mode=0o700)
        try:
            shutil.copytree(source, temporary, ignore=shutil.ignore_patterns(_MANIFEST, *kept), dirs_exist_ok=True)
            os.chmod(temporary, 0o755)
            temporary.rename(destination)
        except OSError:
            if not destination.is_dir():
                raise


def _hashes(folder: Path) -> dict[str, str]:
    return {
        str(path.relative_to(folder)): sha256_file(path)
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name != _MANIFEST
    }


def _is_intact(entry: Path) -> bool:
    try:
        recorded = read_json(entry / _MANIFEST)
    except (OSError, ValueError):
        return False
    return bool(recorded == _hashes(entry))
