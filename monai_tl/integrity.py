"""What a stage has written is what the next one reads: a manifest of sha256 in each output, checked before its use.

DVC restores outputs from its cache without looking at them again: an object there that was changed, cut short or
swapped comes back as if nothing had happened. ``SHA256SUMS`` has the form of ``sha256sum``, which checks it too.
"""

from __future__ import annotations

import configparser
import hashlib
import json
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from monai_tl.errors import ConfigError, DataError
from monai_tl.faults import parse_yaml, read_text
from monai_tl.files import write_text
from monai_tl.unfinished import PART

MANIFEST = "SHA256SUMS"
LOCK_FILES = ("dvc.lock", "curve/dvc.lock")
"""DVC's records of both pipelines, relative to the workspace."""
_CHUNK = 1 << 20
_SHOWN = 3
_MEND = (
    "it was changed, or DVC's copy of it is damaged. 'monai-tl doctor --cache' names damaged copies in DVC's cache: "
    "remove these and the folder {folder}, then run again"
)


@dataclass(frozen=True)
class Digests:
    """Of one file, read once: ours, and the one by which DVC knows it."""

    sha256: str
    md5: str


def seal(folder: Path, beside: Iterable[Path] = ()) -> None:
    """Write the manifest of a folder that is whole.

    What another process is making there is no part of it, and is gone a moment later.

    Args:
        folder: An output of a stage; a manifest in it is replaced.
        beside: Files outside it that belong to the same output.
    """
    whole = (path for path in _files(folder) if not any(map(_is_unfinished, path.parts)))
    paths = [*whole, *(Path(os.path.relpath(path, folder)) for path in beside)]
    lines = [f"{_digests(folder / path).sha256}  {path.as_posix()}\n" for path in sorted(paths)]
    write_text(folder / MANIFEST, "".join(lines))


def check_sealed(folder: Path, recorded: str | None = None) -> None:
    """Make sure that all files of a folder are as they were when it was sealed, and no others.

    Links to files are files: DVC makes them. Empty folders do not count, since DVC keeps none.

    Args:
        folder: An output of a stage. Files beside it that its manifest names are checked too.
        recorded: What dvc.lock has for the folder; None leaves that out. The manifest travels with the files, so
            that a whole folder of another run is one with them; dvc.lock is in git.

    Raises:
        DataError: Code ``integrity``: a file has other content, is missing or was added (a pipe or a link to a folder
            too); the manifest is missing or damaged; or the folder is whole but not the one that dvc.lock names.
    """
    expected = _read_manifest(folder)
    found = {path.as_posix(): _digests(folder / path) for path in _files(folder)}
    outside = {name: _digests(folder / name) for name in expected if name.startswith("../") if (folder / name).exists()}
    others = dict.fromkeys(_neither_file_nor_folder(folder) - expected.keys(), "")
    faults = _faults(expected, {**others, **{name: one.sha256 for name, one in {**found, **outside}.items()}})
    if faults:
        more = f" and {len(faults) - _SHOWN} more" if len(faults) > _SHOWN else ""
        raise _broken(folder, f"{', '.join(faults[:_SHOWN])}{more} since the stage wrote it")
    if recorded is not None:
        found[MANIFEST] = _digests(folder / MANIFEST)
        if directory_md5({name: one.md5 for name, one in found.items()}) != recorded:
            raise _broken(folder, f"it is whole, but not the one that {LOCK_FILES[0]} names")


def check_sealed_part(folder: Path, path: Path) -> None:
    """The same for one file that a folder's manifest names, or for a folder in it.

    Raises:
        DataError: Code ``integrity``.
    """
    name = Path(os.path.relpath(path, folder)).as_posix()
    expected = {key: value for key, value in _read_manifest(folder).items() if Path(key).is_relative_to(name)}
    files = [Path(name)] if path.is_file() else [one for one in _files(folder) if one.is_relative_to(name)]
    found = {one.as_posix(): _digests(folder / one).sha256 for one in files}
    for fault in _faults(expected, found):
        raise _broken(folder, f"{fault} since the stage wrote it")


def check_if_sealed(folder: Path) -> None:
    """The same for a folder that was sealed by itself, or as part of the one it lies in; of any other nothing is known.

    Raises:
        DataError: Code ``integrity``.
    """
    folder = folder.resolve()
    if (folder / MANIFEST).is_file():
        check_sealed(folder)
    # a file of that name may also be somebody's own, of other things
    elif (folder.parent / MANIFEST).is_file() and any(
        Path(name).is_relative_to(folder.name) for name in _read_manifest(folder.parent)
    ):
        check_sealed_part(folder.parent, folder)


def recorded_outputs(workspace: Path) -> dict[str, str]:
    """Path of each output → DVC's hash of it, from DVC's lock files as plain YAML; empty where there is none.

    Raises:
        DataError: Code ``integrity``: a lock file cannot be read.
    """
    found: dict[str, str] = {}
    for name in LOCK_FILES:
        if not (workspace / name).exists():
            continue
        try:
            stages = parse_yaml(read_text(workspace / name, ""), name).get("stages", {})
            outputs = [one for entry in stages.values() for one in entry.get("outs", ())]
            found |= {str(one["path"]): str(one[one.get("hash", "md5")]) for one in outputs}
        except (ConfigError, KeyError, TypeError, AttributeError):
            raise DataError(
                f"{name}: cannot be read, so nothing tells whether inputs are those of its record; bring it back from "
                f"git ('git checkout -- {name}'), or remove it, and run again",
                "integrity",
            ) from None
    return found


def damaged_copies(workspace: Path) -> list[Path]:
    """Objects of DVC's cache whose content is not what their name says; reads the whole cache."""
    return [
        path
        for path in sorted(_cache_of(workspace).glob("??/*"))
        if path.is_file() and _digests(path).md5 != f"{path.parent.name}{path.name}".removesuffix(".dir")
    ]


def _cache_of(workspace: Path) -> Path:
    """Where DVC keeps objects: in the workspace, unless its configuration says otherwise."""
    configuration = configparser.ConfigParser(interpolation=None)
    configuration.read([workspace / ".dvc/config", workspace / ".dvc/config.local"], encoding="utf-8")
    return workspace / ".dvc" / configuration.get("cache", "dir", fallback="cache") / "files" / "md5"


def _broken(folder: Path, what: str) -> DataError:
    return DataError(f"{folder}: {what}; {_MEND.format(folder=folder)}", "integrity")


def _faults(expected: Mapping[str, str], found: Mapping[str, str]) -> list[str]:
    return [
        *(f"{name} has other content" for name in sorted(expected.keys() & found) if expected[name] != found[name]),
        *(f"{name} is missing" for name in sorted(expected.keys() - found)),
        *(f"{name} was added" for name in sorted(found.keys() - expected)),
    ]


def _read_manifest(folder: Path) -> dict[str, str]:
    try:
        lines = (folder / MANIFEST).read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError):
        raise _broken(
            folder, f"{MANIFEST} is missing or damaged, so nothing tells whether the files are whole"
        ) from None
    parts = [line.partition("  ") for line in lines]
    return {name: digest for digest, _, name in parts}


def _files(folder: Path) -> list[Path]:
    found = (path.relative_to(folder) for path in folder.rglob("*") if path.is_file())
    return sorted(path for path in found if path != Path(MANIFEST))


def _is_unfinished(name: str) -> bool:
    return name.startswith(".") and name.endswith(PART)


def _neither_file_nor_folder(folder: Path) -> set[str]:
    """Pipes, sockets, devices, links to folders and links to nothing."""
    paths = (path for path in folder.rglob("*") if not path.is_file() and (path.is_symlink() or not path.is_dir()))
    return {path.relative_to(folder).as_posix() for path in paths}


def _digests(path: Path) -> Digests:
    ours, theirs = hashlib.sha256(), hashlib.md5(usedforsecurity=False)
    with path.open("rb") as stream:
        while chunk := stream.read(_CHUNK):
            ours.update(chunk)
            theirs.update(chunk)
    return Digests(ours.hexdigest(), theirs.hexdigest())


def directory_md5(files: Mapping[str, str]) -> str:
    """DVC's hash of a folder: of its list of hashes and names, as JSON in the order of names."""
    listed = [{"md5": files[name], "relpath": name} for name in sorted(files)]
    return hashlib.md5(json.dumps(listed, sort_keys=True).encode(), usedforsecurity=False).hexdigest() + ".dir"
