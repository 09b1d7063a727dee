"""Everything the report tells, gathered: scores, verdict, trained models, the data's way in."""

from __future__ import annotations

import csv
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from monai_tl.config import EvaluateConfig
from monai_tl.errors import DataError
from monai_tl.fast_records import FAST_FILE, FastRecord
from monai_tl.files import read_json
from monai_tl.looks import Look
from monai_tl.metrics.certainty import Calibration, Uncertainty
from monai_tl.metrics.cohort import ArmResult
from monai_tl.metrics.lesion_summary import LesionSummary
from monai_tl.metrics.subgroups import Subgroup
from monai_tl.records import Audit, CaseRecord, Plan, Rejection, Split, model_name
from monai_tl.report.overlays import Overlay
from monai_tl.sources.card import Card, read_source
from monai_tl.transfer.forgetting import Forgetting
from monai_tl.transfer.verdict import Verdict


@dataclass(frozen=True)
class HistoryPoint:
    """One row of history.csv; None where it was not measured."""

    step: int
    phase: str
    train_loss: float | None
    val_dice: float | None


@dataclass(frozen=True)
class TrainedModel:
    """What a finetune run left behind, without its weights.

    Attributes:
        training: ``training.json``: seed, strategy, steps, threads, versions …
        card: Of the model as a source; it carries the licence and citation of where it came from.
        fast: What fast mode does with it; None where that was not tried.
    """

    arm: str
    fold: int
    seed: int
    audit: Audit
    history: tuple[HistoryPoint, ...]
    training: Mapping[str, Any]
    card: Card
    fast: FastRecord | None = None


@dataclass(frozen=True)
class Failure:
    """A case that a seed of an arm has no prediction of, and the short word why."""

    arm: str
    seed: int
    case_id: str
    code: str


@dataclass(frozen=True)
class Findings:
    """The content of the report.

    Attributes:
        settings: How it was measured.
        on_test: False when there is no test set and validation cases stand in for it.
        arms: The pretrained arm first.
        verdict: None with one arm.
        cases: All cases that came in.
        overlays: Cases shown as pictures.
        forgetting: None without a held set of the source's task.
        subgroups: Arm → its mean foreground Dice, group by group.
        look: Which look at the test set this is; None on validation cases.
        calibration, uncertainty: Of each arm of which predict kept what they need.
        lesions: Arm → class → its lesions, of the classes that are counted so.
        evaluation_code: Digest of the code that scored.
    """

    class_names: tuple[str, ...]
    settings: EvaluateConfig
    on_test: bool
    arms: tuple[ArmResult, ...]
    verdict: Verdict | None
    cases: tuple[CaseRecord, ...]
    rejections: tuple[Rejection, ...]
    failures: tuple[Failure, ...]
    split: Split
    plan: Plan
    models: tuple[TrainedModel, ...]
    overlays: tuple[Overlay, ...]
    forgetting: Forgetting | None = None
    subgroups: Mapping[str, tuple[Subgroup, ...]] = field(default_factory=dict)
    look: Look | None = None
    calibration: Mapping[str, Calibration] = field(default_factory=dict)
    uncertainty: Mapping[str, Uncertainty] = field(default_factory=dict)
    lesions: Mapping[str, Mapping[str, LesionSummary]] = field(default_factory=dict)
    evaluation_code: str = ""

    @property
    def weights(self) -> dict[str, str]:
        """Name of each model → sha256 of its weights."""
        return {model_name(one.arm, one.fold, one.seed): one.card.weights.sha256 for one in self.models}

    @property
    def n_cases(self) -> int:
        """Evaluated cases."""
        return len(self.arms[0].cases)

    @property
    def n_patients(self) -> int:
        """Patients behind the evaluated cases."""
        return len({case.patient_key for case in self.arms[0].cases})

    @property
    def seeds(self) -> tuple[int, ...]:
        """With which each arm was trained."""
        return tuple(self.arms[0].by_seed)

    @property
    def set_name(self) -> str:
        """``test`` or ``validation``."""
        return "test" if self.on_test else "validation"


def read_model(folder: Path, arm: str, fold: int, seed: int) -> TrainedModel:
    """Read the records of one finetune run.

    Raises:
        DataError: A file is missing or damaged.
        SourceError: The model's card is.
    """
    audit = Audit.read(folder / "audit.json")
    card = read_source(folder).card
    try:
        training = read_json(folder / "training.json")
        with (folder / "history.csv").open(encoding="utf-8", newline="") as stream:
            history = tuple(_history_point(row) for row in csv.DictReader(stream))
    except FileNotFoundError as error:
        raise DataError(f"{error.filename} is missing; run finetune again") from None
    except (KeyError, ValueError) as error:
        raise DataError(
            f"{folder} holds a damaged history.csv or training.json ({error}); run finetune again"
        ) from None
    path = folder / FAST_FILE
    fast = FastRecord.read(path) if path.is_file() else None
    return TrainedModel(arm, fold, seed, audit, history, training, card, fast)


def _history_point(row: Mapping[str, str]) -> HistoryPoint:
    def number(name: str) -> float | None:
        return float(row[name]) if row[name] else None

    return HistoryPoint(int(row["step"]), row["phase"], number("train_loss"), number("val_dice"))
