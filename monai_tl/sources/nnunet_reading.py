"""nnU-Net v2 results folders: dataset.json, plans.json and a checkpoint, read as data.

nnU-Net never reorients: its networks saw the axes of the training files, last axis first, permuted by the plan. Which
way these axes ran is written nowhere, so files in RAS order are assumed and said; the order of the axes is known.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from monai_tl.errors import SourceError, WeightsError
from monai_tl.networks.builders import find_network
from monai_tl.sources.bundle_preprocessing import is_length
from monai_tl.sources.bundle_reading import plain_name, put_trained_window
from monai_tl.sources.card import CARD_FILE, Source
from monai_tl.sources.config_text import parse_config
from monai_tl.sources.drafts import Draft, read_own_lines
from monai_tl.sources.nnunet_plans import (
    DATASET,
    FOLD,
    PLANS,
    Results,
    find_configuration,
    read_architecture,
    read_intensity,
)
from monai_tl.sources.packed_files import MAX_WEIGHTS, FolderFiles

_CHECKPOINTS = ("checkpoint_final.pth", "checkpoint_best.pth")
_REORIENTED = ("NibabelIOWithReorient", "SimpleITKIOWithReorient")
_READERS = ("SimpleITKIO", "NibabelIO", *_REORIENTED)
_STORED = "SAR"
"""Axes of an array of a file in RAS order, as nnU-Net reads it: last axis first."""
_NUMBER = re.compile(r"[0-9]{1,9}")
_CITATION = "Isensee et al. 2021, nnU-Net, doi:10.1038/s41592-020-01008-z"
_MODALITIES = (
    ("CT", r"\bCT\b|computed"),
    ("PT", r"\bPET\b|\bPT\b"),
    ("MR", r"MRI?\b|T1|T2|FLAIR|ADC|DWI|DCE|\bPD\b"),
)


def read_results(results: Results) -> Source:
    """Read a results folder as a source.

    Raises:
        IncompleteSourceError: Part of the contract is not there or cannot be expressed; each line is listed.
        SourceError: A file is damaged, or the network is none that is built here.
        WeightsError: There is no checkpoint.
    """
    files = FolderFiles(results.folder)
    plans = parse_config(PLANS, files.read(PLANS)).content
    dataset = parse_config(DATASET, files.read(DATASET)).content
    draft = Draft()
    name, configuration = find_configuration(plans, results.folder)
    channels = _channels(dataset)
    _put_classes(dataset, draft)
    network = read_architecture(configuration, f"{results.folder / PLANS}, configuration {name}")
    outputs = len(draft.content.get("classes", ())) + (draft.content.get("output") == "softmax")
    _check_network(network, results.folder / PLANS)
    draft.put("network", {**network, "n_channels": len(channels), "n_outputs": outputs})
    _put_input(plans, configuration, channels, draft)
    weights_name = _checkpoint(files, results, draft)
    sha256 = hashlib.sha256(files.read(weights_name, MAX_WEIGHTS)).hexdigest()
    draft.put("weights", {"file": Path(weights_name).name, "sha256": sha256})
    draft.put("name", _source_name(plans, name))
    draft.put("licence", str(dataset.get("licence") or dataset.get("license") or "not stated in the results folder"))
    draft.put("citation", " | ".join(filter(None, [str(dataset.get("reference") or ""), _CITATION])))
    draft.put("notes", "; ".join([f"read from an nnU-Net results folder ({name})", *draft.notes]))
    own_card = results.folder / CARD_FILE
    card = draft.finish(results.folder, read_own_lines(own_card), own_card)
    return Source(card, results.folder, "nnunet", weights_name, tuple(draft.notes))


def _check_network(network: Mapping[str, Any], plans: Path) -> None:
    faults = find_network(network["name"]).faults_of(network["arguments"])
    if faults:
        raise SourceError(f"{plans}: its network cannot be built: {'; '.join(faults)}")


def _source_name(plans: Mapping[str, Any], configuration: str) -> str:
    name = re.sub(r"[^A-Za-z0-9._-]+", "-", f"{plans.get('dataset_name', 'nnunet')}-{configuration}").strip("-.")
    return name[:64] if name[:1].isalnum() else "nnunet"


def _channels(dataset: Mapping[str, Any]) -> list[str]:
    named = dataset.get("channel_names", dataset.get("modality"))
    if not isinstance(named, dict) or not named:
        raise SourceError(f"{DATASET}: has no channel_names, so the network's input is not known; add them")
    return [str(named[key]) for key in sorted(named, key=lambda key: int(key) if _NUMBER.fullmatch(key) else 0)]


def _put_classes(dataset: Mapping[str, Any], draft: Draft) -> None:
    labels = dataset.get("labels")
    if not isinstance(labels, dict) or not labels:
        raise SourceError(f"{DATASET}: has no labels, so the network's outputs are not known; add them")
    if all(_NUMBER.fullmatch(key) and isinstance(value, str) for key, value in labels.items()):
        # nnU-Net 1 wrote value → name
        labels = {value: int(key) for key, value in labels.items()}
    kept = {str(key): value for key, value in labels.items() if key not in ("ignore", "background")}
    if any(isinstance(value, list) and len(value) > 1 for value in kept.values()):
        # one sigmoid a region, in the order of dataset.json
        draft.put("classes", [plain_name(name, draft.notes) for name in kept])
        draft.put("output", "sigmoid")
        return
    kept = {key: value[0] if isinstance(value, list) and value else value for key, value in kept.items()}
    order = sorted(kept, key=lambda name: kept[name] if isinstance(kept[name], int) else -1)
    if [kept[name] for name in order] != list(range(1, len(order) + 1)):
        raise SourceError(f"{DATASET}: labels {dict(kept)} are not 1, 2, 3 …, so the outputs' meaning is not known")
    draft.put("classes", [plain_name(name, draft.notes) for name in order])
    draft.put("output", "softmax")


def _put_input(plans: Mapping[str, Any], configuration: Mapping[str, Any], channels: list[str], draft: Draft) -> None:
    modalities = {next((code for code, form in _MODALITIES if re.search(form, name, re.I)), "") for name in channels}
    if len(modalities) == 1 and modalities != {""}:
        draft.put("input.modality", modalities.pop())
    else:
        draft.lack("input.modality", f"{DATASET} names the channels {', '.join(channels)}, which tell no modality")
    draft.put("input.channels", channels)
    spacing = configuration.get("spacing")
    if isinstance(spacing, list) and len(spacing) == 3 and all(is_length(size) for size in spacing):
        draft.put("input.spacing_mm", [float(size) for size in spacing])
    else:
        draft.lack("input.spacing_mm", f"{PLANS} has no spacing of three lengths")
    _put_orientation(plans, draft)
    try:
        rule, notes = read_intensity(plans, configuration, len(channels))
    except SourceError as error:
        draft.lack("input.intensity", str(error))
    else:
        draft.put("input.intensity", rule)
        draft.notes += notes
    put_trained_window(draft, configuration.get("patch_size"))


def _put_orientation(plans: Mapping[str, Any], draft: Draft) -> None:
    reader = plans.get("image_reader_writer")
    order = plans.get("transpose_forward", [0, 1, 2])
    if not isinstance(reader, str) or reader not in _READERS:
        draft.lack("input.orientation", f"{PLANS} names the reader {reader!r}, whose axes are not known")
        return
    if not isinstance(order, list) or sorted(map(str, order)) != ["0", "1", "2"]:
        draft.lack("input.orientation", f"{PLANS} has transpose_forward {order!r}, no order of three axes")
        return
    axes = "".join(_STORED[int(axis)] for axis in order)
    draft.put("input.orientation", axes)
    if reader not in _REORIENTED:
        draft.notes.append(
            f"orientation {axes} holds for training files in RAS order, which is assumed: nnU-Net takes the axes as "
            f"they are stored. With its usual mirroring in training the direction of an axis matters little; else "
            f"state input.orientation in {CARD_FILE}"
        )


def _checkpoint(files: FolderFiles, results: Results, draft: Draft) -> str:
    folds = sorted(path.name for path in results.folder.iterdir() if path.is_dir() and FOLD.fullmatch(path.name))
    folds.sort(key=lambda name: (name != "fold_all", int(name[5:]) if name[5:].isdigit() else -1))
    wanted = [results.fold] if results.fold else folds
    found = [f"{fold}/{name}" for fold in wanted for name in _CHECKPOINTS if fold and files.has(f"{fold}/{name}")]
    if not found:
        places = ", ".join(map(str, wanted)) or "any fold_*"
        raise WeightsError(
            f"{results.folder}: has no {' or '.join(_CHECKPOINTS)} in {places}; copy the checkpoint there"
        )
    if len(folds) > 1 and results.fold is None:
        draft.notes.append(f"{found[0].split('/')[0]} of {len(folds)} folds is taken; give the folder of another")
    if found[0].endswith(_CHECKPOINTS[1]):
        draft.notes.append(f"there is no {_CHECKPOINTS[0]}, so {_CHECKPOINTS[1]} is taken")
    return found[0]
