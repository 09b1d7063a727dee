"""``monai-tl deidentify``: a folder of DICOM as DICOM that names nobody; what may not leave is listed, never copied."""

from __future__ import annotations

import hashlib
import os
import shutil
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from monai_tl.dicom.deidentified_file import deidentify_file
from monai_tl.dicom.deidentify import Pseudonyms, check_secret, load_key
from monai_tl.dicom.listing import list_files
from monai_tl.errors import ConfigError, DataError, describe_fault
from monai_tl.new_folder import check_empty, new_folder
from monai_tl.parallel import map_cases
from monai_tl.progress import Progress
from monai_tl.records import Rejection, RejectionList

REJECTED_FILE = "rejected.json"
_KEY_FILE = Path("~/.config/monai_tl/pseudonym.key")
_CHUNK = 64
_FACES = (
    "Faces are not removed: a head scan shows who the patient is. Text in pixels that no tag tells of is not found; "
    "look at samples before the files leave."
)


@dataclass(frozen=True)
class _Chunk:
    """Files for one process; ``key`` is the secret, which repr hides."""

    source: Path
    paths: tuple[Path, ...]
    first: int
    folder: Path
    hasher: Pseudonyms


@dataclass(frozen=True)
class _Written:
    """A new file under a number, and where it belongs."""

    number: int
    item: str
    place: Path
    sha256: str
    has_pixels: bool


def run(source: Path, out: Path, *, key_file: Path | None = None) -> str:
    """Write the de-identified counterpart of each DICOM file below a folder.

    OUT gets ``<patient>/<study>/<series>/<instance>.dcm``, all hashes under the key, and ``rejected.json`` with what
    was refused or held back. The same files and key give the same bytes. OUT stays empty until all is done, and then is
    filled in one step.

    Args:
        source: Any nesting.
        out: New or empty; a ``rejected.json`` of a run that wrote nothing is replaced.
        key_file: Secret behind pseudonyms, UIDs and the shift of dates.

    Returns:
        Counts, and what was not done.

    Raises:
        ConfigError: There is no such source, OUT holds something or is in use, or one lies in the other.
        PrivacyError: The key is missing, readable by others, public, easily guessed, or in a repository.
        DataError: SRC holds no file, or none that may leave; of those rejected.json says why.
        OSError: OUT cannot be written.
    """
    _check_folders(source, out)
    key = load_key(_KEY_FILE if key_file is None else key_file)
    check_secret(key)
    hasher = Pseudonyms(key)
    with new_folder(out, (REJECTED_FILE,)) as folder:
        listing = list_files(source)
        rejected = [
            Rejection(item=_item(lost.path, source, hasher), kind="file", code=lost.code, reason=lost.reason)
            for lost in listing.unfollowed
        ]
        loose = folder / "loose"
        loose.mkdir()
        placed = _place(_deidentify(source, listing.files, loose, hasher), loose, folder, rejected)
        # copies, which have no place
        shutil.rmtree(loose)
        in_order = tuple(sorted(rejected, key=lambda one: (one.code, one.item)))
        RejectionList(rejected=in_order).write(folder / REJECTED_FILE)
    if not (placed or rejected):
        raise DataError("SRC: holds no file; give the folder that holds the DICOM files", "empty")
    if not placed:
        raise DataError(
            f"none of {len(listing.files)} files could be de-identified; {out / REJECTED_FILE} lists the reasons",
            "empty",
        )
    return _summary(placed, in_order, out)


def _check_folders(source: Path, out: Path) -> None:
    if not source.is_dir():
        fault = "is a file" if source.exists() else "there is no such folder"
        raise ConfigError(f"SRC: {fault}; give the folder that holds the DICOM files", "arguments")
    if out.is_symlink() and not out.exists():
        raise ConfigError("OUT: is a link that leads nowhere; make the folder it names, or give another", "arguments")
    inner, outer = out.resolve(), source.resolve()
    if inner.is_relative_to(outer) or outer.is_relative_to(inner):
        raise ConfigError(
            "OUT: lies in SRC, or SRC in it; keep what names patients apart from what does not", "arguments"
        )
    if out.exists() and not out.is_dir():
        raise ConfigError("OUT: is a file; give a folder", "arguments")
    check_empty(out, (REJECTED_FILE,))


def _deidentify(source: Path, paths: list[Path], folder: Path, hasher: Pseudonyms) -> Iterator[_Written | Rejection]:
    chunks = [
        _Chunk(source, tuple(paths[start : start + _CHUNK]), start, folder, hasher)
        for start in range(0, len(paths), _CHUNK)
    ]
    progress = Progress("deidentify", total=len(paths))
    refused = 0
    for outcomes in map_cases(_deidentify_chunk, chunks):
        refused += sum(isinstance(outcome, Rejection) for outcome in outcomes)
        progress.advance(f"{refused} refused" if refused else "", steps=len(outcomes))
        yield from outcomes


def _deidentify_chunk(chunk: _Chunk) -> list[_Written | Rejection]:
    found: list[_Written | Rejection] = []
    for number, path in enumerate(chunk.paths, start=chunk.first):
        item = _item(path, chunk.source, chunk.hasher)
        try:
            made = deidentify_file(path, path.relative_to(chunk.source).as_posix(), chunk.hasher)
        except Exception as error:
            code, reason = describe_fault(error)
            found.append(Rejection(item=item, kind="file", code=code, reason=reason))
            continue
        # outside the try: a full disk is no fault of the file's
        (chunk.folder / str(number)).write_bytes(made.content)
        digest = hashlib.sha256(made.content).hexdigest()
        found.append(_Written(number, item, made.place, digest, made.has_pixels))
    return found


def _place(
    outcomes: Iterable[_Written | Rejection], loose: Path, tree: Path, rejected: list[Rejection]
) -> list[_Written]:
    """Give the new files their names; copies are dropped, instances of different content under one UID all refused."""
    first_of: dict[str, _Written] = {}
    clashing: dict[str, list[_Written]] = {}
    for outcome in outcomes:
        if isinstance(outcome, Rejection):
            rejected.append(outcome)
            continue
        # an instance has one place, whatever its files say of patient and series
        name = outcome.place.name
        first = first_of.setdefault(name, outcome)
        if first is outcome:
            (tree / outcome.place).parent.mkdir(parents=True, exist_ok=True)
            os.replace(loose / str(outcome.number), tree / outcome.place)
        elif outcome.sha256 != first.sha256:
            clashing.setdefault(name, [first]).append(outcome)
    for name, group in clashing.items():
        _remove(tree, first_of.pop(name).place)
        rejected += [_clash(one) for one in group]
    return list(first_of.values())


def _remove(tree: Path, place: Path) -> None:
    """A file, and the folders that it leaves empty."""
    (tree / place).unlink()
    for folder in [tree / parent for parent in place.parents][:-1]:
        if any(folder.iterdir()):
            break
        folder.rmdir()


def _clash(written: _Written) -> Rejection:
    reason = "files of different content share one instance identifier; keep one version"
    return Rejection(item=written.item, kind="file", code="conflicting_instance", reason=reason)


def _item(path: Path, source: Path, hasher: Pseudonyms) -> str:
    return hasher.item("file", path.relative_to(source).as_posix())


def _summary(placed: list[_Written], rejected: tuple[Rejection, ...], out: Path) -> str:
    patients, series = {one.place.parts[0] for one in placed}, {one.place.parts[:3] for one in placed}
    lines = [
        f"{len(placed)} files of {len(patients)} patients and {len(series)} series written to {out}, {len(rejected)} "
        "refused or held back"
    ]
    if rejected:
        counts = Counter(one.code for one in rejected)
        codes = ", ".join(f"{code} {count}" for code, count in sorted(counts.items()))
        lines.append(f"{REJECTED_FILE}: {codes}")
    if any(one.has_pixels for one in placed):
        lines.append(_FACES)
    return "\n".join(lines)
