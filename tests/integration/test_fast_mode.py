"""The stage tries fast mode on validation cases, and prediction goes by what it found."""

from __future__ import annotations

import shutil
from pathlib import Path
from statistics import fmean

import numpy as np
import pytest
from balls import CASE_IDS, make_params, write_workspace
from ladder_runs import KilledError

import monai_tl.stages.finetune
from monai_tl.config import PredictConfig
from monai_tl.dataset.patches import load_case
from monai_tl.errors import DataError
from monai_tl.fast_records import FAST_FILE, TOLERANCE, FastRecord
from monai_tl.inference import load_models
from monai_tl.metrics.overlap import dice
from monai_tl.networks.windows import collect_probabilities
from monai_tl.records import Fold, Split
from monai_tl.report.findings import read_model
from monai_tl.stages.finetune import run
from monai_tl.training.tuning import Tuning

VALIDATION = CASE_IDS[:3]


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three cases validate, one trains."""
    folder = write_workspace(tmp_path_factory.mktemp("fast"))
    Split(test=(), folds=(Fold(train=CASE_IDS[3:], val=VALIDATION),)).write(folder / "artifacts/split/split.json")
    run(folder, make_params(max_steps=24), "scratch", "0", "0")
    return folder


def test_what_is_recorded_is_what_the_loaded_model_does(workspace: Path) -> None:
    model = workspace / "artifacts/models/scratch-0-0"
    record = FastRecord.read(model / FAST_FILE)
    predictor = load_models([model], 1)
    assert predictor.fast == record
    assert record.n_cases == 3
    apart = []
    for case_id in VALIDATION:
        case = load_case(workspace / "artifacts/prepared" / case_id)
        exact = predictor.predict_probabilities(case.image)
        fast = collect_probabilities(predictor.stream(case.image, PredictConfig(mode="fast")), exact.shape[1:])  # type: ignore[arg-type]
        scores = [dice(np.asarray(case.label) > 0, values.argmax(axis=0) > 0) for values in (exact, fast)]
        apart.append(scores[1] - scores[0])
    held = record.trials[-1]
    assert held.difference == pytest.approx(fmean(apart), abs=1e-6)
    assert held.is_within == (abs(fmean(apart)) + np.std(apart, ddof=1) / 3**0.5 <= TOLERANCE)
    assert held.is_within or (record.windows, record.precision) == ("exact", "float32")
    assert read_model(model, "scratch", 0, 0).fast == record
    said = predictor.describe(PredictConfig(mode="fast"))
    assert (said["n_trial_cases"], said["keeps_dice"]) == (3, held.is_within)


def test_nothing_is_tried_where_nobody_wants_it(tmp_path: Path) -> None:
    folder = write_workspace(tmp_path)
    Split(test=(), folds=(Fold(train=CASE_IDS[3:], val=VALIDATION),)).write(folder / "artifacts/split/split.json")
    run(folder, make_params(max_steps=8, try_fast=False), "scratch", "0", "0")
    assert not (folder / "artifacts/models/scratch-0-0" / FAST_FILE).exists()


def test_with_one_validation_case_nothing_was_tried(tmp_path: Path) -> None:
    folder = write_workspace(tmp_path)
    run(folder, make_params(max_steps=8), "scratch", "0", "0")
    model = folder / "artifacts/models/scratch-0-0"
    assert not (model / FAST_FILE).exists()
    # statistics over the window
    said = load_models([model], 1).describe(PredictConfig(mode="fast"))
    assert (said["windows"], said["n_trial_cases"]) == ("the plan's patch, overlap 0.5", 0)
    assert said["keeps_dice"] is None


@pytest.mark.parametrize("error", [MemoryError(), RuntimeError("out of memory"), ValueError("no such window")])
def test_an_error_of_the_trial_loses_no_model(
    error: Exception, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = write_workspace(tmp_path)

    def fail(*_: object) -> None:
        raise error

    monkeypatch.setattr(monai_tl.stages.finetune, "try_fast_mode", fail)
    run(folder, make_params(max_steps=8), "scratch", "0", "0")
    model = folder / "artifacts/models/scratch-0-0"
    assert not (model / FAST_FILE).exists()
    assert load_models([model], 1).fast is None
    assert f"fast mode could not be tried ({type(error).__name__}), so it may cost Dice" in capsys.readouterr().out


def test_an_end_in_the_trial_loses_no_training_and_changes_nothing(
    workspace: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As a kill: no handler runs that could save anything."""
    folder = write_workspace(tmp_path)
    Split(test=(), folds=(Fold(train=CASE_IDS[3:], val=VALIDATION),)).write(folder / "artifacts/split/split.json")
    seen: list[list[str]] = []

    def end(*_: object) -> None:
        models = folder / "artifacts/models"
        seen.append([path.name for path in models.iterdir()] if models.is_dir() else [])
        raise KilledError

    with monkeypatch.context() as patched:
        patched.setattr(monai_tl.stages.finetune, "try_fast_mode", end)
        with pytest.raises(KilledError):
            run(folder, make_params(max_steps=24), "scratch", "0", "0")
    # nothing half-made where models are looked for
    assert seen == [[]]

    def step(*_: object, **__: object) -> None:
        raise AssertionError("trained again")

    with monkeypatch.context() as patched:
        patched.setattr(Tuning, "step", step)
        run(folder, make_params(max_steps=24), "scratch", "0", "0")
    again, whole = (one / "artifacts/models/scratch-0-0" for one in (folder, workspace))
    assert (again / "weights.safetensors").read_bytes() == (whole / "weights.safetensors").read_bytes()
    assert (again / FAST_FILE).read_bytes() == (whole / FAST_FILE).read_bytes()


def test_a_damaged_record_is_said(workspace: Path, tmp_path: Path) -> None:
    model = tmp_path / "model"
    shutil.copytree(workspace / "artifacts/models/scratch-0-0", model)
    (model / FAST_FILE).write_text('{"windows": "all"}')
    with pytest.raises(DataError, match=r"fast\.json is no valid FastRecord"):
        load_models([model], 1)
