"""What was pulled: a record beside the file that pins its sha256, so that a changed file is found."""

from __future__ import annotations

from pathlib import Path

from monai_tl.errors import DataError, SourceError, WeightsError
from monai_tl.files import sha256_file
from monai_tl.records import Record


class PullRecord(Record):
    """``NAME.pulled.json``.

    Attributes:
        name, version: In the table.
        url: Where it came from.
        published: The checksum that its publisher states, ``sha1:…``; it was checked.
        sha256: Of what came; checked whenever the source is read.
        n_bytes: Its size.
        licence, citation: As published.
    """

    name: str
    version: str
    url: str
    published: str
    sha256: str
    n_bytes: int
    licence: str
    citation: str


def record_path(path: Path) -> Path:
    """Where the record of a file is."""
    return path.with_suffix(".pulled.json")


def check_pulled(path: Path) -> None:
    """Compare a file with its record, if it has one.

    Raises:
        WeightsError: It is not what was pulled.
        SourceError: The record is damaged.
    """
    place = record_path(path)
    if not place.is_file():
        return
    try:
        record = PullRecord.read(place)
    except DataError:
        raise SourceError(f"{place} is damaged; remove it and pull {path.name} again") from None
    if path.stat().st_size != record.n_bytes or sha256_file(path) != record.sha256:
        raise WeightsError(f"{path} is not what was pulled (sha256 {record.sha256[:12]}…); remove it and pull it again")
