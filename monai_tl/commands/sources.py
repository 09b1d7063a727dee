"""``monai-tl sources``: what can be pulled, what a source is, whether its weights fit, and pulling it."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import yaml

from monai_tl.errors import MonaiTLError, SourceError
from monai_tl.sources.card import CARD_FILE, Source, read_source
from monai_tl.sources.drafts import IncompleteSourceError
from monai_tl.sources.pull import pull as pull_entry
from monai_tl.sources.pull_record import PullRecord, record_path
from monai_tl.sources.zoo import ZOO, find_entry

FOLDER = "sources"
_SHA256 = re.compile("[0-9a-fA-F]{64}")
_UNKNOWN_SIZE = "size not published"
_MISSING = "# needed, and not in the source: "


def describe_all(workspace: Path) -> Iterator[str]:
    """Lines of ``list``: the table, then what lies in the workspace's folder of sources."""
    yield "To pull (monai-tl sources pull NAME):"
    for entry in ZOO:
        there = workspace / FOLDER / entry.file_name
        size = f"{there.stat().st_size / 1e6:.0f} MB, pulled" if there.is_file() else _UNKNOWN_SIZE
        yield f"  {entry.name} {entry.version}: {entry.task}; {entry.modality}, {entry.network}"
        yield f"      licence {entry.licence}; {size}; data: {entry.data}"
    found = _found(workspace / FOLDER)
    yield f"In {workspace / FOLDER}:" if found else f"In {workspace / FOLDER}: no source"
    for path in found:
        yield f"  {_in_one_line(path)}"


def _found(folder: Path) -> list[Path]:
    if not folder.is_dir():
        return []
    return sorted(
        path for path in folder.iterdir() if not path.name.startswith(".") and (path.is_dir() or path.suffix == ".zip")
    )


def _in_one_line(path: Path) -> str:
    try:
        source = read_source(path)
    except MonaiTLError as error:
        return f"{path.name}: not usable as it is; {str(error).splitlines()[0]}"
    card = source.card
    what = ", ".join(card.classes[:4]) + (f" and {len(card.classes) - 4} more" if len(card.classes) > 4 else "")
    task = what or "features, no classes"
    return f"{path.name} ({source.kind}): {task}; {card.input.modality}, {card.network.name}; {card.licence}"


def describe(path: Path) -> Iterator[str]:
    """Lines of ``show``: the card; of an incomplete source a draft to complete.

    Raises:
        SourceError: It cannot be read; for an incomplete one after the draft.
    """
    try:
        source = read_source(path)
    except IncompleteSourceError as error:
        yield from _draft(error)
        raise
    from monai_tl.networks.builders import groups_of
    from monai_tl.sources.own_load import build_own

    card = source.card
    content = card.model_dump(mode="json", exclude_none=True)
    yield f"# {path}: {source.kind}"
    yield _as_yaml(content)
    module = build_own(source)
    n_parameters = sum(tensor.numel() for tensor in module.parameters())
    groups = groups_of(card.network.config, module)
    yield f"# parameters: {n_parameters:,}"
    yield f"# layer groups, input to output: {', '.join(group.name for group in groups)}"
    yield f"# weights: {source.weights_path}"
    for note in source.notes:
        yield f"# note: {note}"
    if _is_limited(card.licence):
        yield "# the licence limits use: read it before you pass on what you make of these weights"


def _as_yaml(content: dict[str, Any]) -> str:
    # lists and small mappings in one line each, as docs/sources.md writes a card
    return yaml.safe_dump(content, sort_keys=False, allow_unicode=True, width=120, default_flow_style=None).rstrip()


def _is_limited(licence: str) -> bool:
    return any(word in licence.casefold() for word in ("-nc", "noncommercial", "non-commercial", "not for commercial"))


def _draft(error: IncompleteSourceError) -> Iterator[str]:
    content = {key: value for key, value in error.draft.items() if key != "weights"}
    yield f"# a draft; write the missing lines into {CARD_FILE} (a folder's) or NAME.{CARD_FILE} (beside a zip file)"
    yield _as_yaml(content)
    for key, why in error.missing.items():
        yield f"{_MISSING}{key} ({why.splitlines()[0]})"


def check(path: Path) -> Iterator[str]:
    """Lines of ``check``: the source's weights brought into its own network, tensor by tensor.

    Raises:
        SourceError: It cannot be read.
        WeightsError: The weights are damaged, unsafe, or do not fit the network that the source states.
    """
    source = read_source(path)
    yield f"{path}: {source.kind}, {source.card.network.name}, {len(source.card.classes)} classes"
    yield from _load_report(source)
    for note in source.notes:
        yield f"note: {note}"


def _load_report(source: Source) -> Iterator[str]:
    from monai_tl.sources.own_load import load_own

    audit = load_own(source)
    yield f"weights: sha256 {audit.source_sha256}"
    counted = [item for item in audit.tensors if item.status != "unused"]
    yield f"{sum(item.status == 'matched' for item in counted)} of {len(counted)} tensors matched"
    for item in audit.tensors:
        if item.status != "matched":
            yield f"  {item.status} {item.name} ({item.n_parameters}): {item.detail}"
    for note in audit.notes:
        yield f"  {note}"
    yield f"share of the body's parameters: {audit.share_body:.1%}"


def pull(
    name: str, to: Path, index: str | None, sha256: str | None, timeout_s: float, tell: Callable[[str], None]
) -> str:
    """Bring a bundle of the table into a folder.

    Args:
        name: In the table; ``NAME@VERSION`` asks for a version.
        to: Folder.
        index: Where to take it from, in place of the zoo's host.
        sha256: Which the zip file must have beside the published SHA-1, in hex.
        timeout_s: For each answer.
        tell: Told how much has come, at every tenth.

    Returns:
        What to do next.

    Raises:
        SourceError: It cannot be reached, its place is taken, or ``sha256`` is none.
        WeightsError: What came is not what was published.
    """
    from monai_tl.sources.download import Patience

    if timeout_s <= 0:
        raise SourceError(f"--timeout is {timeout_s:g} s; give a time above 0")
    plain, _, version = name.partition("@")
    entry = find_entry(plain, version or None)
    if sha256 is not None:
        if not _SHA256.fullmatch(sha256):
            raise SourceError("--sha256 takes the 64 hexadecimal digits of a SHA-256, as NAME.pulled.json has them")
        entry = entry._replace(sha256=sha256.lower())
    path = pull_entry(entry, to, index, Patience(timeout_s=timeout_s), _by_tenths(tell))
    record = PullRecord.read(record_path(path))
    asked = "it is the one asked for, and its" if sha256 else "its"
    return (
        f"{path}\n  sha256 {record.sha256} ({record.n_bytes} bytes), recorded in {record_path(path).name}; {asked} "
        f"sha1 is the one the zoo publishes\n  licence {entry.licence}; learned from {entry.data}\n"
        f"  cite: {entry.citation}\nLook at it with 'monai-tl sources check {path}', then set plan.source to it"
    )


def _by_tenths(tell: Callable[[str], None]) -> Callable[[int, int | None], None]:
    told = [0]

    def progress(n_bytes: int, expected: int | None) -> None:
        step = max(1, (expected or 200_000_000) // 10)
        if n_bytes // step > told[0]:
            told[0] = n_bytes // step
            tell(f"{n_bytes / 1e6:.0f} MB" + (f" of {expected / 1e6:.0f}" if expected else ""))

    return progress
