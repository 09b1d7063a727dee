"""What has arrived: the files below the inbox, sorted into studies, and which of these are whole."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from monai_tl.dicom.deidentify import Pseudonyms
from monai_tl.dicom.delivery import digest_of, read_delivered
from monai_tl.dicom.listing import list_files
from monai_tl.errors import DicomError
from monai_tl.files import sha256_of
from monai_tl.inbox.entries import Known
from monai_tl.inbox.ledger import Ledger

COMPLETE_FILE = ".complete"
"""An empty file of this name says that a folder is whole: what it holds need not settle."""


@dataclass(frozen=True)
class Arrived:
    """A whole study as it lies in the inbox.

    Attributes:
        content: Hex sha256 over the digests of its files, whatever their names and order, each once.
        study: ``study-`` and 12 hex digits.
        paths: One file for each digest. Patient data: never written.
        stamps: Of ``paths``, to see whether they change while they are worked on.
        arrived: Of the oldest file, Unix seconds.
        fault: Code and reason, where it cannot even be told what it is.
    """

    content: str
    study: str
    paths: tuple[Path, ...] = field(repr=False)
    stamps: tuple[str, ...] = field(repr=False)
    arrived: float
    fault: tuple[str, str] | None = None

    def is_unchanged(self) -> bool:
        """Whether its files are still those that were looked at."""
        return all(_stamp_of(path) == stamp for path, stamp in zip(self.paths, self.stamps, strict=True))


@dataclass(frozen=True)
class Label:
    """A SEG or RTSTRUCT that has settled in the inbox.

    Attributes:
        content: Digest of its data set.
        path: Patient data: never written.
        arrived: Unix seconds.
    """

    content: str
    study: str
    path: Path = field(repr=False)
    arrived: float


@dataclass
class Look:
    """What one look at the inbox found.

    Attributes:
        whole: By content.
        labels: By content.
        n_settling: Studies of which something has changed just now.
        n_without_images: Studies of labels and the like alone.
        n_other: Files that are no DICOM.
        n_new: Studies that were never seen before.
    """

    whole: dict[str, Arrived] = field(default_factory=dict)
    labels: dict[str, Label] = field(default_factory=dict)
    n_settling: int = 0
    n_without_images: int = 0
    n_other: int = 0
    n_new: int = 0


@dataclass(frozen=True)
class _File:
    """A file below the inbox.

    Attributes:
        known: Without a digest until it is needed.
        start: First byte that counts for the digest.
        changed: Unix seconds.
        fault: Code and reason, where nothing can be read from it.
        is_label: A SEG or RTSTRUCT.
    """

    path: Path
    known: Known
    start: int
    changed: float
    fault: tuple[str, str] | None = None
    is_label: bool = False

    def read(self) -> Known:
        """With its digest; of a file that cannot be read its stamp stands for it."""
        if self.known.digest:
            return self.known
        try:
            digest = digest_of(self.path, self.start)
        except DicomError:
            digest = sha256_of("unreadable", self.known.stamp)
        return replace(self.known, digest=digest)


def look(root: Path, hasher: Pseudonyms, ledger: Ledger, settle_s: float) -> Look:
    """Look at the inbox, and enter in the ledger what is new and whole.

    A study is whole when nothing of it, nor beside it in its folders, has changed for ``settle_s``, or its folders say
    so (``COMPLETE_FILE``). The time of a file's last change is the file system's own (ctime): copying cannot set it
    back. Hidden files and folders are still being made, and are passed over.

    Args:
        root: Any nesting; one study may lie in several folders, and one folder may hold several.
        hasher: Of the project's key.
        ledger: Remembers what files hold, so that each is read once.
        settle_s: Seconds.

    Raises:
        DicomError: There is no such folder.
    """
    if not root.is_dir():
        words = "inbox.folder: there is no such folder; make it, or give the one that studies come to"
        raise DicomError(words, "missing_folder")
    known, settled = ledger.known_files(), ledger.settled()
    files = [file for path in _visible(root) if (file := _look_at(path, root, hasher, known)) is not None]
    folders: dict[Path, list[_File]] = defaultdict(list)
    for file in files:
        folders[file.path.parent].append(file)
    settling = _settling(folders, settle_s)
    units = _units(folders, root, hasher)
    found = Look(n_other=sum(not file.known.study and file.fault is None for file in files))
    fresh: list[Known] = [file.known for file in files if not file.known.study and file.fault is None]
    unseen: list[tuple[str, str, int, float]] = []
    for study, unit in sorted(units.items()):
        if any(file.path.parent in settling for file in unit):
            found.n_settling += 1
            continue
        counted = [file for file in unit if file.known.is_image or file.fault is not None]
        others = [file for file in unit if not file.known.is_image and file.fault is None]
        labels = [replace(file, known=file.read()) for file in others if file.is_label]
        found.labels |= {one.known.digest: Label(one.known.digest, study, one.path, one.changed) for one in labels}
        fresh += [*(file.known for file in others if not file.is_label), *(one.known for one in labels)]
        if not counted:
            found.n_without_images += 1
            continue
        read = [file.read() for file in counted]
        fresh += [one for one, file in zip(read, counted, strict=True) if file.fault is None]
        arrived = _arrived(study, counted, [one.digest for one in read])
        found.whole[arrived.content] = arrived
        if arrived.content not in settled:
            unseen.append((arrived.content, study, len(arrived.paths), arrived.arrived))
    found.n_new = ledger.see_all(unseen)
    ledger.remember(
        (one for one in fresh if known.get(one.place) != one), known.keys() - {file.known.place for file in files}
    )
    return found


def files_of_studies(root: Path, hasher: Pseudonyms) -> dict[str, tuple[Path, ...]]:
    """The files of each study by the name it has in the ledger. Patient data: for ``monai-tl whois``, never written."""
    folders: dict[Path, list[_File]] = defaultdict(list)
    for path in _visible(root):
        file = _look_at(path, root, hasher, {})
        if file is not None:
            folders[path.parent].append(file)
    units = _units(folders, root, hasher)
    return {study: tuple(sorted(file.path for file in unit)) for study, unit in units.items()}


def _visible(root: Path) -> Iterator[Path]:
    for path in list_files(root).files:
        if not any(part.startswith(".") for part in path.relative_to(root).parts):
            yield path


def _stamp_of(path: Path) -> str:
    try:
        facts = path.stat()
    except OSError:
        return ""
    return f"{facts.st_size} {facts.st_mtime_ns} {facts.st_ctime_ns} {facts.st_ino}"


def _look_at(path: Path, root: Path, hasher: Pseudonyms, known: Mapping[str, Known]) -> _File | None:
    """None for a file that is gone since it was listed."""
    stamp = _stamp_of(path)
    if not stamp:
        return None
    changed = int(stamp.split()[2]) / 1e9
    name = path.relative_to(root).as_posix()
    place = hasher.place(name)
    if place in known and known[place].stamp == stamp:
        # what has a digest and is no image is a label
        return _File(path, known[place], 0, changed, is_label=bool(known[place].digest) and not known[place].is_image)
    try:
        delivered = read_delivered(path)
    except DicomError as error:
        fault = None if error.code == "not_dicom" else (error.code, str(error))
        return _File(path, Known(place, stamp, "", False, ""), 0, changed, fault)
    # where an anonymiser has blanked the UID a folder is taken for a study
    identity = delivered.study_uid or f"no uid|{name.rpartition('/')[0]}"
    unread = Known(place, stamp, hasher.item("study", identity), delivered.is_image, "")
    return _File(path, unread, delivered.start, changed, is_label=delivered.is_label)


def _settling(folders: Mapping[Path, Sequence[_File]], settle_s: float) -> set[Path]:
    """Folders in which something has changed just now."""
    now = time.time()
    return {
        folder
        for folder, files in folders.items()
        # without the sign of the difference: a clock that was set back keeps no study waiting for ever
        if any(abs(now - file.changed) < settle_s for file in files) and not (folder / COMPLETE_FILE).exists()
    }


def _units(folders: Mapping[Path, Sequence[_File]], root: Path, hasher: Pseudonyms) -> dict[str, list[_File]]:
    """Files by study. One that cannot be read goes with the study of its folder, where that holds a single one."""
    units: dict[str, list[_File]] = defaultdict(list)
    for folder, files in folders.items():
        studies = {file.known.study for file in files if file.known.study}
        for file in files:
            if file.known.study:
                units[file.known.study].append(file)
            elif file.fault is not None:
                alone = hasher.item("study", f"folder|{folder.relative_to(root).as_posix()}")
                units[next(iter(studies)) if len(studies) == 1 else alone].append(file)
    return units


def _arrived(study: str, files: Sequence[_File], digests: Sequence[str]) -> Arrived:
    # a file that came twice counts once
    by_digest = dict(sorted(zip(digests, files, strict=True), key=lambda one: one[0]))
    lost = all(file.fault is not None for file in files)
    return Arrived(
        content=sha256_of(*by_digest),
        study=study,
        paths=tuple(file.path for file in by_digest.values()),
        stamps=tuple(file.known.stamp for file in by_digest.values()),
        arrived=min(file.changed for file in files),
        fault=files[0].fault if lost else None,
    )
