"""``monai-tl whois``: which files a pseudonymous item is. For the holder of the key, on the terminal alone."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from monai_tl import DEFAULT_KEY_FILE
from monai_tl.config import IngestConfig, load_params
from monai_tl.dicom.deidentify import Pseudonyms, load_key
from monai_tl.dicom.index import index_folder
from monai_tl.dicom.listing import list_files
from monai_tl.errors import ConfigError, DataError, PrivacyError
from monai_tl.inbox.arrivals import files_of_studies
from monai_tl.records import Dataset
from monai_tl.stages.ingest import CASES_FOLDER, read_listed, source_folder

_ITEM = re.compile(r"(series|file|label|case|study)-[0-9a-f]{12}")


def run(
    items: Sequence[str], workspace: Path, source: Path | None = None, key_file: Path = Path(DEFAULT_KEY_FILE)
) -> Iterator[str]:
    """Look the input through again with the key, and tell where each item lies. Nothing is written.

    Args:
        items: As in rejected.json, e.g. ``series-45c98ea69736``; case ids, and studies of the inbox, too.
        workspace: Folder that holds params.yaml; not looked at where there is a ``source``.
        source: Folder of DICOM that ``convert``, ``deidentify`` or ``segment`` was given.
        key_file: The secret they were given; only used with ``source``.

    Yields:
        Lines for the user's own terminal: they hold names of folders and files, which may name patients.

    Raises:
        ConfigError: params.yaml is wrong, or an argument has not the form of an item.
        PrivacyError: The key is missing, readable by others, or not the one the cases were made with.
        DataError: The source is missing, or an item is not in it; what was found is told first.
    """
    for number, item in enumerate(items, start=1):
        if not _ITEM.fullmatch(item):
            raise ConfigError(
                f"whois: argument {number} is no item; one looks like series-45c98ea69736: copy it from rejected.json",
                "arguments",
            )
    if source is not None:
        places = _dicom_places(source, Pseudonyms(load_key(key_file)), items)
        yield from _tell(items, places, f"{source}; it was removed or changed, or the item comes from another key")
        return
    config = load_params(workspace).ingest
    hasher = Pseudonyms(load_key(Path(config.key_file)))
    made = workspace / CASES_FOLDER / "dataset.json"
    if made.is_file() and Dataset.read(made).key_id != hasher.key_id:
        raise PrivacyError("the pseudonym key is not the one the cases were made with; point ingest.key_file to that")
    where = (
        f"{config.source}, where ingest.source points; it was removed or changed, or the item comes from another "
        "workspace or key"
    )
    yield from _tell(items, _places(source_folder(workspace, config), config, hasher, items), where)


def _tell(items: Sequence[str], places: Mapping[str, Sequence[Path]], where: str) -> Iterator[str]:
    for item in items:
        if item in places:
            yield from _describe(item, places[item])
    unknown = [item for item in items if item not in places]
    if unknown:
        raise DataError(f"{', '.join(unknown)}: not in {where}")


def _dicom_places(source: Path, hasher: Pseudonyms, items: Sequence[str]) -> Mapping[str, Sequence[Path]]:
    """Every file by its own item, since ``deidentify`` judges files alone; series, labels and cases by the index."""
    listing = list_files(source)
    paths = (*listing.files, *(lost.path for lost in listing.unfollowed))
    files: dict[str, tuple[Path, ...]] = {
        hasher.item("file", path.relative_to(source).as_posix()): (path,) for path in paths
    }
    if any(item.startswith("study-") for item in items):
        # of the inbox
        files |= files_of_studies(source, hasher)
    if files.keys() >= set(items):
        # no further header need be read
        return files
    index = index_folder(source, hasher)
    return {**files, **index.places, **{hasher.case_id(one.study_uid, one.name): one.paths for one in index.series}}


def _places(
    source: Path, config: IngestConfig, hasher: Pseudonyms, items: Sequence[str]
) -> Mapping[str, Sequence[Path]]:
    """Files by item and by case id."""
    listed = read_listed(source, config)
    if listed is None:
        return _dicom_places(source, hasher, items)
    places: dict[str, Sequence[Path]] = {}
    for case in listed.cases:
        paths = [path for path in (*case.images, case.label) if path is not None]
        text = f"{listed.name}|{case.name}"
        names = (hasher.item("file", text), hasher.item("series", text), hasher.case_id("nifti", text))
        places.update(dict.fromkeys(names, paths))
    return places


def _describe(item: str, paths: Sequence[Path]) -> Iterator[str]:
    """A file by its path; more of them by folder, with their number and one name."""
    if len(paths) == 1:
        yield f"{item}: {_printable(paths[0])}"
        return
    yield f"{item}: {len(paths)} files"
    for folder, count in sorted(Counter(path.parent for path in paths).items()):
        first = min(path.name for path in paths if path.parent == folder)
        yield f"  {count} in {_printable(folder)}, e.g. {_printable(Path(first))}"


def _printable(path: Path) -> str:
    # a name may hold bytes that are no text, or codes that steer a terminal
    text = str(path)
    return text if text.isprintable() else ascii(text)
