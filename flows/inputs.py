"""What DVC takes stock of must be plain files: a pipe would hold it for ever, and a dead link would end it."""

from __future__ import annotations

import os
import stat
from collections import Counter
from pathlib import Path

from monai_tl.errors import DataError


def check_inputs(folder: Path) -> None:
    """See that DVC can take stock of a folder of input; as DVC does, without following links to folders.

    Args:
        folder: Need not exist: DVC says so itself.

    Raises:
        DataError: It holds what DVC cannot take; counts and how to list it, no names.
    """
    counts: Counter[str] = Counter()
    pending = [os.fsencode(folder)]
    while pending:
        try:
            entries = list(os.scandir(pending.pop()))
        except FileNotFoundError:
            continue
        except OSError:
            counts["folder that may not be opened"] += 1
            continue
        for entry in entries:
            if entry.is_dir(follow_symlinks=False):
                pending.append(entry.path)
            counts.update(_faults(entry))
    if counts:
        name, found = folder.name, ", ".join(f"{count} {what}" for what, count in sorted(counts.items()))
        raise DataError(
            f"DVC cannot take stock of the input {name}, where ingest.source points: {found}. Remove or rename them, "
            f"or grant reading: 'find -L {name} ! -type d \\( ! -type f -o ! -readable \\)' lists links and files, and "
            f"'find {name} | grep -avx \".*\"' such names"
        )


def _faults(entry: os.DirEntry[bytes]) -> list[str]:
    found = []
    try:
        entry.name.decode("utf-8")
    except UnicodeDecodeError:
        found.append("with a name that is not UTF-8")
    try:
        mode = entry.stat().st_mode
    except OSError:
        return [*found, "link that leads nowhere"]
    if not stat.S_ISREG(mode) and not stat.S_ISDIR(mode):
        found.append("pipe, socket or device, or a link to one")
    elif stat.S_ISREG(mode) and not os.access(entry.path, os.R_OK):
        found.append("file that may not be read")
    return found


def pin_of(workspace: Path, source: str) -> str | None:
    """The ``.dvc`` file that pins what the pipeline reads, relative to the workspace; None where none does.

    Args:
        workspace: Folder of dvc.yaml.
        source: ``ingest.source``: what is pinned, or a folder below it.
    """
    folders = [Path(source), *Path(source).parents]
    return next((f"{path}.dvc" for path in folders if (workspace / f"{path}.dvc").is_file()), None)
