"""A model as it goes out: the networks of all folds of an arm, and how they were applied when they were judged."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from monai_tl.config import IngestConfig, PredictConfig, PreprocessConfig
from monai_tl.errors import ContractError, DataError, SourceError
from monai_tl.records import Record
from monai_tl.sources.card import CARD_FILE, FileName

SETTINGS_FILE = "inference.json"
_MIN_SLICES = int(IngestConfig.model_fields["min_slices"].default)


class InferenceSettings(Record):
    """What a result depends on beside weights and plan.

    Attributes:
        predict: Windows and threads.
        preprocess: Crop margin and storage type.
        min_slices: A series with fewer is refused.
    """

    predict: PredictConfig = PredictConfig()
    preprocess: PreprocessConfig = PreprocessConfig()
    min_slices: int = _MIN_SLICES


class InferenceRecord(Record):
    """``inference.json``.

    Attributes:
        models: Model folders beside this file; their probabilities are averaged.
        settings: How they were applied when they were judged.
    """

    models: tuple[FileName, ...]
    settings: InferenceSettings


@dataclass(frozen=True)
class Ensemble:
    """Model folders to average, and how to apply them.

    Attributes:
        settings: None where nothing records them: the folders come straight from training.
    """

    folders: tuple[Path, ...]
    settings: InferenceSettings | None


def write_ensemble(folder: Path, models: Sequence[Path], settings: InferenceSettings) -> None:
    """Write a folder that stands alone: a copy of each model, and inference.json.

    Args:
        folder: Must not exist.
        models: Model folders of one run; their names stay.
        settings: How they were applied when they were judged.
    """
    folder.mkdir(parents=True)
    for model in models:
        shutil.copytree(model, folder / model.name)
    InferenceRecord(models=tuple(model.name for model in models), settings=settings).write(folder / SETTINGS_FILE)


def read_ensemble(folders: Sequence[Path]) -> Ensemble:
    """Find the models that folders hold.

    Args:
        folders: Each written by ``write_ensemble``, or one model of the finetune stage.

    Raises:
        SourceError: A folder is neither, or its inference.json is damaged.
        ContractError: They were judged with different settings, so there is no one way to apply them.
    """
    models: list[Path] = []
    settings: list[InferenceSettings | None] = []
    for folder in folders:
        if not (folder / SETTINGS_FILE).is_file():
            _check_model(folder)
            models.append(folder)
            settings.append(None)
            continue
        try:
            record = InferenceRecord.read(folder / SETTINGS_FILE)
        except DataError:
            raise SourceError(f"{folder / SETTINGS_FILE} is damaged; export or copy the model again") from None
        models += [folder / name for name in record.models]
        settings.append(record.settings)
    if any(one != settings[0] for one in settings):
        raise ContractError("the models were judged with different settings; give models of one run only")
    return Ensemble(tuple(models), settings[0] if settings else None)


def _check_model(folder: Path) -> None:
    if not (folder / CARD_FILE).is_file():
        raise SourceError(
            f"{folder} is no model: it has neither {SETTINGS_FILE} nor {CARD_FILE}; give artifacts/export/model of a "
            "finished run, or a folder of artifacts/models"
        )
    if not (folder / "plan.json").is_file():
        raise SourceError(
            f"{folder} is a source that has not been fine-tuned: it has no plan.json, which says how its input is "
            "prepared; give artifacts/export/model of a finished run, or a folder of artifacts/models"
        )
