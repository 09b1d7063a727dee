"""One case for the stage predict: its label map, and what is kept of its probabilities; the work of one process."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from monai_tl.certainty_records import CaseCertainty
from monai_tl.config import PredictConfig
from monai_tl.dataset.nifti import write_image
from monai_tl.errors import DataError
from monai_tl.fast_records import FAST_FILE
from monai_tl.inference import Predictor, load_models
from monai_tl.metrics.calibration import Reals
from monai_tl.metrics.counting import CaseCounting
from monai_tl.records import PreparedCase


@dataclass(frozen=True)
class PredictTask:
    """What each process needs beside the case; ``weights`` are the sha256 of the models' weights."""

    folders: tuple[Path, ...]
    weights: tuple[str, ...]
    prepared: Path
    out: Path
    config: PredictConfig
    temperature: float | None


_FAULTS = (DataError, ValueError, RuntimeError, MemoryError)


def predict_one(case_id: str, work: PredictTask) -> CaseCertainty | Exception:
    """Predict one case; its fault if it has one."""
    predictor = kept_predictor(work.folders, work.weights, work.config.n_threads)
    try:
        n_members = predictor.count_members(work.config) if work.config.disagreement else 0
        reference = _prepared_label(work.prepared / case_id) if work.config.calibration else None
        counting = CaseCounting(reference, n_members, work.temperature)
        predict_case(predictor, work.prepared / case_id, work.out, work.config, counting)
        return counting.record()
    except _FAULTS as error:
        return error


def sum_losses(case_id: str, work: PredictTask) -> tuple[Reals, int] | Exception:
    """What a temperature is fitted on; no label map is made."""
    predictor = kept_predictor(work.folders, work.weights, work.config.n_threads)
    try:
        counting = CaseCounting(_prepared_label(work.prepared / case_id), fits=True)
        for slab in predictor.stream(_prepared_image(work.prepared / case_id), work.config):
            counting.add(slab.axis, slab.start, slab.values)
        return counting.losses()
    except _FAULTS as error:
        return error


def kept_predictor(folders: tuple[Path, ...], weights: tuple[str, ...], n_threads: int) -> Predictor:
    """Loaded once a process; anew where the models have changed, since workers outlive a run."""
    paths = [folder / FAST_FILE for folder in folders]
    return _keep_predictor(folders, weights, tuple(p.read_bytes() if p.is_file() else b"" for p in paths), n_threads)


@lru_cache(maxsize=1)
def _keep_predictor(
    folders: tuple[Path, ...], weights: tuple[str, ...], fast: tuple[bytes, ...], n_threads: int
) -> Predictor:
    return load_models(folders, n_threads)


def predict_case(
    predictor: Predictor, prepared: Path, out: Path, config: PredictConfig, counting: CaseCounting | None = None
) -> Path:
    """Predict one prepared case and write its label map on the native grid.

    Args:
        predictor: Models of one arm and seed.
        prepared: ``artifacts/prepared/<case_id>``.
        out: Folder for ``<case_id>.nii.gz``.
        config: Mode and windows.
        counting: Sees the probabilities.

    Returns:
        The file written: uint8, on the grid of the case's image.nii.gz.
    """
    record = PreparedCase.read(prepared / "meta.json")
    label = predictor.predict_label(_prepared_image(prepared), record, config, counting)
    path = out / f"{prepared.name}.nii.gz"
    out.mkdir(parents=True, exist_ok=True)
    write_image(path, label, np.asarray(record.native_affine))
    return path


def _prepared_image(prepared: Path) -> NDArray[Any]:
    return _prepared_array(prepared, "image")


def _prepared_label(prepared: Path) -> NDArray[np.uint8]:
    return np.asarray(_prepared_array(prepared, "label"))


def _prepared_array(prepared: Path, name: str) -> NDArray[Any]:
    try:
        return np.asanyarray(np.load(prepared / f"{name}.npy", mmap_mode="r", allow_pickle=False))
    except (OSError, ValueError, EOFError) as error:
        raise DataError(f"case {prepared.name}: its prepared {name} cannot be read; run preprocess again") from error
