"""Stage predict: each arm's models over the test cases, back on each case's native grid."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any, TypeVar

from monai_tl.certainty_records import CERTAINTY_FILE, CaseCertainty, Certainty, RunCertainty
from monai_tl.config import Params, PredictConfig
from monai_tl.dataset.manifest import read_unprepared
from monai_tl.errors import ConfigError, DataError, StageError, describe_fault
from monai_tl.files import checked_when_read, whole_folder, write_json
from monai_tl.metrics.calibration import Reals, fit_temperature
from monai_tl.parallel import map_cases
from monai_tl.progress import Progress
from monai_tl.records import Rejection, Split, model_name, predictions_of
from monai_tl.sources.card import read_source
from monai_tl.stages.predict_case import PredictTask, kept_predictor, predict_one, sum_losses

FAILED_FILE = "failed.json"
MODELS_FILE = "models.json"
"""sha256 of the weights that predicted, by the name of their folder."""
METHOD_FILE = "method.json"
"""By arm, seed and folds, since each model has its own fast mode: mode, number format and why, versions; what the
labels' bits depend on beside models and cases."""
Rounds = list[tuple[tuple[int, ...], tuple[str, ...]]]
"""Which folds' models predict which cases."""
Found = TypeVar("Found")


def run(workspace: Path, params: Params) -> None:
    """Predict with every arm and seed: ``artifacts/predictions/<arm>/seed-<seed>/<case_id>.nii.gz``,
    ``failed.json``, ``models.json``, ``method.json`` and ``certainty.json``.

    The models of a seed's folds are averaged; seeds are not, since their spread is part of the verdict. Without a test
    set each validation case is predicted by its own fold's model instead, which has not trained on it; such scores are
    a little too good, since that case chose the best step.

    With a test set the validation cases are predicted too, each by its own fold's model, for the temperature alone:
    what is kept of them are sums. Without one there is no temperature: it would be judged on what it was fitted on.

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
    fitting = validation_rounds(split, params.finetune.folds) if split.test and params.predict.calibration else []
    unprepared = read_unprepared(workspace / "artifacts/prepared")
    runs = list(product(params.finetune.arms, params.finetune.seeds))
    n_cases = sum(len(case_ids) for _, case_ids in [*rounds, *fitting])
    progress = Progress("predict", total=len(runs) * n_cases)
    failed: list[dict[str, Any]] = []
    models: dict[str, str] = {}
    methods: dict[str, dict[str, Any]] = {}
    certain: list[RunCertainty] = []
    # no stage reads a label map before its hash was checked
    with whole_folder(workspace / "artifacts/predictions") as out, checked_when_read():
        for arm, seed in runs:
            one = _Run(workspace, out, arm, seed, params.predict, unprepared, progress)
            temperature, n_fitted = one.fit_temperature(fitting)
            faults, cases = one.predict(rounds, temperature)
            models |= one.models
            methods |= one.methods
            certain.append(one.certainty(temperature, n_fitted, cases))
            for case_id, fault in faults.items():
                code, reason = describe_fault(fault)
                failed.append({"case_id": case_id, "arm": arm, "seed": seed, "code": code, "reason": reason})
        write_json(out / FAILED_FILE, {"failed": failed})
        write_json(out / MODELS_FILE, models)
        write_json(out / METHOD_FILE, methods)
        Certainty(runs=tuple(certain)).write(out / CERTAINTY_FILE)


class _Run:
    """One arm and seed: its rounds one after the other, the cases of a round several at a time."""

    def __init__(
        self, workspace: Path, out: Path, arm: str, seed: int, config: PredictConfig,
        unprepared: Mapping[str, Rejection], progress: Progress,
    ) -> None:  # fmt: skip
        self.artifacts, self.arm, self.seed, self.config = workspace / "artifacts", arm, seed, config
        self.out = out / predictions_of(arm, seed)
        self.name = f"{arm} seed {seed}"
        self.unprepared, self.progress = unprepared, progress
        self.models: dict[str, str] = {}
        self.methods: dict[str, dict[str, Any]] = {}
        self.n_members = self.n_models = 0

    def fit_temperature(self, rounds: Rounds) -> tuple[float | None, int]:
        """The temperature and of how many cases it is; None without a case."""
        losses: list[tuple[Reals, int]] = []
        for folds, case_ids in rounds:
            usable = [case_id for case_id in case_ids if case_id not in self.unprepared]
            work = self._work(folds, None)
            for case_id, found in zip(usable, self._map(sum_losses, usable, work), strict=True):
                is_fault = isinstance(found, Exception)
                words = " left out of the temperature" if is_fault else ""
                self.progress.advance(f"{self.name} validation {case_id}{words}", is_warning=is_fault)
                losses += [] if isinstance(found, Exception) else [found]
            for case_id in sorted(set(case_ids) - set(usable)):
                self.progress.advance(f"{self.name} validation {case_id} left out of the temperature")
        fitted = [one for one in losses if one[1]]
        return (round(fit_temperature(fitted), 6) if fitted else None), len(fitted)

    def predict(
        self, rounds: Rounds, temperature: float | None
    ) -> tuple[dict[str, Exception], dict[str, CaseCertainty]]:
        """The faults, and what is known of the certainty of the others.

        Raises:
            StageError: Every case failed.
        """
        faults: dict[str, Exception] = {}
        cases: dict[str, CaseCertainty] = {}
        for folds, case_ids in rounds:
            work = self._work(folds, temperature)
            # here too, so that a model that cannot be loaded is known before any case
            predictor = kept_predictor(work.folders, work.weights, self.config.n_threads)
            self.models |= dict(zip([folder.name for folder in work.folders], work.weights, strict=True))
            words = f"folds {' '.join(map(str, folds))}" if len(folds) > 1 else f"fold {folds[0]}"
            self.methods[f"{self.name}, {words}"] = predictor.describe(self.config)
            self.n_members = predictor.count_members(self.config) if self.config.disagreement else 0
            self.n_models = len(folds)
            for case_id in case_ids:
                if case_id in self.unprepared:
                    faults[case_id] = DataError(self.unprepared[case_id].reason, self.unprepared[case_id].code)
                    self.progress.advance(f"{self.name} {case_id} failed", is_warning=True)
            usable = [case_id for case_id in case_ids if case_id not in self.unprepared]
            for case_id, found in zip(usable, self._map(predict_one, usable, work), strict=True):
                is_fault = isinstance(found, Exception)
                if isinstance(found, Exception):
                    faults[case_id] = found
                else:
                    cases[case_id] = found
                self.progress.advance(f"{self.name} {case_id}{' failed' if is_fault else ''}", is_warning=is_fault)
        if not cases:
            first, fault = next(iter(faults.items()))
            _, reason = describe_fault(fault)
            raise StageError("predict", f"{self.name}: every case failed; the first fault: {reason}", first) from fault
        return faults, cases

    def certainty(self, temperature: float | None, n_fitted: int, cases: Mapping[str, CaseCertainty]) -> RunCertainty:
        """For the file."""
        return RunCertainty(
            arm=self.arm,
            seed=self.seed,
            temperature=temperature,
            n_validation_cases=n_fitted,
            members=None if self.n_members == 0 else "models" if self.n_models > 1 else "mirrored passes",
            n_members=self.n_members,
            cases=dict(sorted(cases.items())),
        )

    def _work(self, folds: Sequence[int], temperature: float | None) -> PredictTask:
        folders = tuple(self.artifacts / "models" / model_name(self.arm, fold, self.seed) for fold in folds)
        weights = tuple(read_source(folder).card.weights.sha256 for folder in folders)
        return PredictTask(folders, weights, self.artifacts / "prepared", self.out, self.config, temperature)

    @staticmethod
    def _map(function: Callable[..., Found], case_ids: Sequence[str], work: PredictTask) -> Iterator[Found]:
        return map_cases(partial(function, work=work), case_ids, takes_all_cores=True)


def validation_rounds(split: Split, folds: Sequence[int]) -> Rounds:
    """Each fold's model over its own validation cases."""
    return [((fold,), split.folds[fold].val) for fold in folds if split.folds[fold].val]


def plan_rounds(split: Split, folds: Sequence[int]) -> Rounds:
    """Which folds' models predict which cases: all of them the test set, or each its own validation cases.

    Raises:
        ConfigError: There is neither.
    """
    if split.test:
        return [(tuple(folds), split.test)]
    rounds = validation_rounds(split, folds)
    if not rounds:
        raise ConfigError(
            "split: there is neither a test nor a validation case to predict; ingest more labelled studies"
        )
    return rounds
