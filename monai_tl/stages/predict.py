"""Stage predict: each arm's models over the test cases, back on each case's native grid."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np

from monai_tl.config import Params, PredictConfig
from monai_tl.dataset.manifest import read_unprepared
from monai_tl.dataset.nifti import write_image
from monai_tl.errors import ConfigError, DataError, StageError, describe_fault
from monai_tl.files import whole_folder, write_json
from monai_tl.inference import Predictor, load_models
from monai_tl.parallel import map_cases
from monai_tl.progress import Progress
from monai_tl.records import PreparedCase, Split, model_name, predictions_of
from monai_tl.sources.card import read_source

FAILED_FILE = "failed.json"
MODELS_FILE = "models.json"
"""sha256 of the weights that predicted, by the name of their folder."""
METHOD_FILE = "method.json"
"""Mode, number format and why, versions: what the labels' bits depend on beside models and cases."""


def run(workspace: Path, params: Params) -> None:
    """Predict with every arm and seed: ``artifacts/predictions/<arm>/seed-<seed>/<case_id>.nii.gz``,
    ``failed.json``, ``models.json`` and ``method.json``.

    The models of a seed's folds are averaged; seeds are not, since their spread is part of the verdict. Without a test
    set each validation case is predicted by its own fold's model instead, which has not trained on it; such scores are
    a little too good, since that case chose the best step.

    A case that fails, or that preprocess could not prepare, is listed with code and reason and scored worst later; the
    others go on.

    Args:
        workspace: Holds ``artifacts/prepared``, ``artifacts/split``, ``artifacts/models``.
        params: Sections ``finetune`` (arms, folds and seeds) and ``predict``.

    Raises:
        SourceError: A model cannot be loaded.
        StageError: Every case of an arm and seed failed, so the fault is not the cases'.
    """
    split = Split.read(workspace / "artifacts/split/split.json")
    rounds = plan_rounds(split, params.finetune.folds)
    prepared = workspace / "artifacts/prepared"
    unprepared = read_unprepared(prepared)
    runs = list(product(params.finetune.arms, params.finetune.seeds))
    progress = Progress("predict", total=len(runs) * sum(len(case_ids) for _, case_ids in rounds))
    failed: list[dict[str, Any]] = []
    models: dict[str, str] = {}
    method: dict[str, Any] = {}
    with whole_folder(workspace / "artifacts/predictions") as out:
        for arm, seed in runs:
            name = f"{arm} seed {seed}"
            faults: dict[str, Exception] = {}
            n_cases = 0
            for folds, case_ids in rounds:
                folders = [workspace / "artifacts/models" / model_name(arm, fold, seed) for fold in folds]
                weights = {folder.name: read_source(folder).card.weights.sha256 for folder in folders}
                models |= weights
                # here too, so that a model that cannot be loaded is known before any case
                predictor = _predictor(tuple(folders), tuple(weights.values()), params.predict.n_threads)
                method = predictor.describe(params.predict)
                n_cases += len(case_ids)
                for case_id in case_ids:
                    if case_id in unprepared:
                        faults[case_id] = DataError(unprepared[case_id].reason, unprepared[case_id].code)
                        progress.advance(f"{name} {case_id} failed", is_warning=True)
                usable = [case_id for case_id in case_ids if case_id not in unprepared]
                work = _Work(
                    tuple(folders), tuple(weights.values()), prepared, out / predictions_of(arm, seed), params.predict
                )
                results = map_cases(partial(_predict, work=work), usable, takes_all_cores=True)
                for case_id, fault in zip(usable, results, strict=True):
                    faults |= {} if fault is None else {case_id: fault}
                    is_fault = fault is not None
                    progress.advance(f"{name} {case_id}{' failed' if is_fault else ''}", is_warning=is_fault)
            if len(faults) == n_cases:
                first, fault = next(iter(faults.items()))
                _, reason = describe_fault(fault)
                raise StageError("predict", f"{name}: every case failed; the first fault: {reason}", first) from fault
            for case_id, fault in faults.items():
                code, reason = describe_fault(fault)
                failed.append({"case_id": case_id, "arm": arm, "seed": seed, "code": code, "reason": reason})
        write_json(out / FAILED_FILE, {"failed": failed})
        write_json(out / MODELS_FILE, models)
        write_json(out / METHOD_FILE, method)


@dataclass(frozen=True)
class _Work:
    """What each process needs beside the case; ``weights`` are the sha256 of the models' weights."""

    folders: tuple[Path, ...]
    weights: tuple[str, ...]
    prepared: Path
    out: Path
    config: PredictConfig


def _predict(case_id: str, work: _Work) -> Exception | None:
    """Predict one case; its fault if it has one."""
    predictor = _predictor(work.folders, work.weights, work.config.n_threads)
    try:
        predict_case(predictor, work.prepared / case_id, work.out, work.config)
    except (DataError, ValueError, RuntimeError, MemoryError) as error:
        return error
    return None


@lru_cache(maxsize=1)
def _predictor(folders: tuple[Path, ...], weights: tuple[str, ...], n_threads: int) -> Predictor:
    """Loaded once a process; anew where the weights in the folders have changed, since workers outlive a run."""
    return load_models(folders, n_threads)


def plan_rounds(split: Split, folds: Sequence[int]) -> list[tuple[tuple[int, ...], tuple[str, ...]]]:
    """Which folds' models predict which cases: all of them the test set, or each its own validation cases.

    Raises:
        ConfigError: There is neither.
    """
    if split.test:
        return [(tuple(folds), split.test)]
    rounds: list[tuple[tuple[int, ...], tuple[str, ...]]] = [
        ((fold,), split.folds[fold].val) for fold in folds if split.folds[fold].val
    ]
    if not rounds:
        raise ConfigError(
            "split: there is neither a test nor a validation case to predict; ingest more labelled studies"
        )
    return rounds


def predict_case(predictor: Predictor, prepared: Path, out: Path, config: PredictConfig) -> Path:
    """Predict one prepared case and write its label map on the native grid.

    Args:
        predictor: Models of one arm and seed.
        prepared: ``artifacts/prepared/<case_id>``.
        out: Folder for ``<case_id>.nii.gz``.
        config: Mode and windows.

    Returns:
        The file written: uint8, on the grid of the case's image.nii.gz.
    """
    record = PreparedCase.read(prepared / "meta.json")
    try:
        image = np.load(prepared / "image.npy", mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise DataError(f"case {prepared.name}: its prepared image cannot be read; run preprocess again") from error
    label = predictor.predict_label(image, record, config)
    path = out / f"{prepared.name}.nii.gz"
    out.mkdir(parents=True, exist_ok=True)
    write_image(path, label, np.asarray(record.native_affine))
    return path
