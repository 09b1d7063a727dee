"""``pull``: a bundle of the table into a folder, verified, with a record of what came."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from urllib.parse import quote, unquote, urlsplit

import yaml

from monai_tl.errors import SourceError, WeightsError
from monai_tl.files import write_text
from monai_tl.sources.download import Expected, Fetched, Patience, accept, fetch, hash_file, only_one, part_of
from monai_tl.sources.kinds import own_card_of
from monai_tl.sources.packed_files import METADATA, open_zip
from monai_tl.sources.pull_record import PullRecord, record_path
from monai_tl.sources.zoo import ZooEntry


def pull(
    entry: ZooEntry,
    folder: Path,
    index: str | None = None,
    patience: Patience | None = None,
    tell: Callable[[int, int | None], None] = lambda *_: None,
) -> Path:
    """Bring a bundle into a folder.

    Args:
        entry: Of the table.
        folder: Made if missing; gets the zip file, its record, and lines of a card where the table has some.
        index: Folder, ``file://`` or http(s) address that holds the zip file in place of the zoo's host.
        patience: Of the download.
        tell: Told of its progress.

    Returns:
        The zip file, which ``plan.source`` can name.

    Raises:
        SourceError: It cannot be reached, or another file has its place.
        WeightsError: What came is not what was published.
    """
    out = folder / entry.file_name
    url, local = _origin(entry, index)
    if out.exists():
        found = _check_there(out, entry)
    elif local is not None:
        found = _copy(local, out, entry)
    else:
        found = fetch(url, out, _expected(entry), patience or Patience(), tell)
    if not open_zip(out).has(METADATA):
        raise SourceError(f"{out} holds no MONAI bundle (no {METADATA}); remove it and report this")
    record = PullRecord(
        name=entry.name,
        version=entry.version,
        url=url,
        published=f"sha1:{entry.sha1}",
        sha256=found.sha256,
        n_bytes=found.n_bytes,
        licence=entry.licence,
        citation=entry.citation,
    )
    if not record_path(out).exists():
        record.write(record_path(out))
    _write_lines(entry, out)
    return out


def _origin(entry: ZooEntry, index: str | None) -> tuple[str, Path | None]:
    """The address, and the file where it is one."""
    if index is None:
        return entry.url, None
    parts = urlsplit(index)
    if parts.scheme in ("http", "https"):
        return f"{index.rstrip('/')}/{quote(entry.file_name)}", None
    if parts.scheme == "file":
        if parts.netloc not in ("", "localhost"):
            raise SourceError(f"{index}: names another machine; give a folder of this one")
        index = unquote(parts.path)
    elif "://" in index:
        raise SourceError(f"{index}: is no folder and no http or https address; give one of these as --index")
    path = Path(index).expanduser()
    local = path / entry.file_name if path.is_dir() else path
    return local.absolute().as_uri(), local


def _expected(entry: ZooEntry) -> Expected:
    return Expected(entry.sha1, entry.sha256)


def _check_there(out: Path, entry: ZooEntry) -> Fetched:
    if not out.is_file():
        raise SourceError(f"{out} is there and is no file; remove it, or give another folder with --to")
    found = hash_file(out)
    difference = _expected(entry).find_difference(found)
    if difference is not None:
        raise SourceError(
            f"{out} is there and is another file (it has {difference}), which is not overwritten; remove it, or give "
            "another folder with --to"
        )
    return found


def _copy(local: Path, out: Path, entry: ZooEntry) -> Fetched:
    if not local.is_file():
        raise SourceError(f"{local} is not there; copy {entry.file_name} into the folder that --index names")
    expected = _expected(entry)
    difference = expected.find_difference(hash_file(local))
    if difference is not None:
        raise WeightsError(
            f"{local}: is not the file that is wanted (it has {difference}); copy or fetch it again"
            + ("" if expected.sha256 is None else ", or look at where the --sha256 is from")
        )
    out.parent.mkdir(parents=True, exist_ok=True)
    part = part_of(out, expected)
    with only_one(out):
        shutil.copyfile(local, part)
        return accept(part, out, expected, str(local))


def _write_lines(entry: ZooEntry, out: Path) -> None:
    """Lines that the bundle does not state; a user's own file stays."""
    place = own_card_of(out)
    if entry.lines and not place.exists():
        text = yaml.safe_dump(entry.lines, sort_keys=False)
        write_text(place, f"# not in the bundle's files; from the documentation of the bundle and its data\n{text}")
