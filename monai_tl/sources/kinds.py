"""What a path is: a card folder, a finished run, a MONAI bundle, an nnU-Net results folder."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from monai_tl.errors import DataError, SourceError
from monai_tl.sources.card import CARD_FILE, Source, read_card
from monai_tl.sources.drafts import read_own_lines
from monai_tl.sources.ensemble import SETTINGS_FILE, InferenceRecord
from monai_tl.sources.nnunet_plans import DATASET, PLANS, Results, find_results
from monai_tl.sources.packed_files import METADATA, FolderFiles, PackedFiles, open_zip
from monai_tl.sources.pull_record import check_pulled

PLAN_FILE = "plan.json"


def read_kind(path: Path) -> Source:
    """Recognise a source and read it; see ``monai_tl.sources.card.read_source``.

    A card that states its weights makes a folder a card folder, whatever else lies there; a card without weights only
    adds to, or corrects, what a bundle or a results folder says.

    Raises:
        SourceError: It is none of the kinds, or has faults.
    """
    if path.is_file():
        return _read_file(path)
    if not path.is_dir():
        raise SourceError(f"{path} is no source: there is no such folder or file; check plan.source, or pull it")
    if (path / CARD_FILE).is_file() and not _adds_only(path):
        source = read_card(path)
        return replace(source, kind="run") if (path / PLAN_FILE).is_file() else source
    if (path / SETTINGS_FILE).is_file():
        return _read_export(path)
    results = find_results(path)
    if results is not None:
        return _read_results(results)
    files = FolderFiles(path)
    if files.has(METADATA):
        return _read_bundle(files, path / CARD_FILE)
    raise SourceError(
        f"{path} is no source: it has no {CARD_FILE}, no configs/metadata.json (MONAI bundle), no plans.json and "
        "dataset.json (nnU-Net results); give the folder that holds one"
    )


def _adds_only(folder: Path) -> bool:
    """Whether the folder's card speaks of weights that lie elsewhere in it."""
    is_other = (folder / METADATA).is_file() or find_results(folder) is not None
    return is_other and "weights" not in read_own_lines(folder / CARD_FILE)


def _read_file(path: Path) -> Source:
    if path.name == CARD_FILE:
        return read_kind(path.parent)
    if path.suffix.casefold() != ".zip":
        raise SourceError(
            f"{path} is no source: a weights file alone says neither its network nor its input; put it into a folder "
            f"with a {CARD_FILE} and give the folder"
        )
    check_pulled(path)
    files = open_zip(path)
    if not files.has(METADATA):
        raise SourceError(f"{path} holds no MONAI bundle (no configs/metadata.json); unpack it and give the folder")
    return _read_bundle(files, own_card_of(path))


def own_card_of(path: Path) -> Path:
    """Where a user adds to what a zip file says: ``NAME.card.yaml`` beside ``NAME.zip``."""
    return path.with_suffix(f".{CARD_FILE}")


def companions(path: Path) -> tuple[Path, ...]:
    """What lies beside a source and decides about it, so that whoever watches the source must watch this too.

    Args:
        path: As ``read_kind`` takes it.

    Returns:
        The lines beside a zip file; plans, dataset and card beside a fold; the folder around a card. Empty for others.
    """
    if path.is_file():
        own = path.parent if path.name == CARD_FILE else own_card_of(path)
        return (own,) if own.exists() else ()
    results = find_results(path) if path.is_dir() else None
    if results is None or results.fold is None:
        return ()
    return tuple(path.parent / name for name in (PLANS, DATASET, CARD_FILE) if (path.parent / name).is_file())


def _read_export(folder: Path) -> Source:
    """The model of an exported run. Of several, none is the run's one network, so the user chooses."""
    try:
        names = InferenceRecord.read(folder / SETTINGS_FILE).models
    except DataError:
        raise SourceError(f"{folder / SETTINGS_FILE} is damaged; export or copy the model again") from None
    if len(names) != 1:
        listed = ", ".join(str(folder / name) for name in names)
        raise SourceError(
            f"{folder} holds {len(names)} networks that are averaged, and a source is one network; give one of {listed}"
        )
    return read_kind(folder / names[0])


# these two look up networks, so they need torch, which reading a card does not


def _read_bundle(files: PackedFiles, own_card: Path) -> Source:
    from monai_tl.sources.bundle_reading import read_bundle

    return read_bundle(files, own_card)


def _read_results(results: Results) -> Source:
    from monai_tl.sources.nnunet_reading import read_results

    return read_results(results)
