"""Predictions on disk against their references: scores by case, arm and seed, and the verdict over the arms."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from monai_tl.case_table import read_case_table
from monai_tl.config import EvaluateConfig
from monai_tl.dataset.manifest import Manifest
from monai_tl.dataset.nifti import read_label
from monai_tl.dataset.splits import patients_of
from monai_tl.errors import ConfigError, DataError, GeometryError, StageError
from monai_tl.geometry import Affine, same_grid, spacing_of
from monai_tl.metrics.case import ClassScore, Extent, class_volumes_ml, score_case, worst_scores
from monai_tl.metrics.cohort import ArmResult, BootstrapRule, CaseResult
from monai_tl.metrics.lesions import LesionScore, no_prediction, score_lesions
from monai_tl.metrics.subgroups import Subgroup, group_column, summarise_groups, tercile_groups
from monai_tl.parallel import map_cases
from monai_tl.progress import Progress
from monai_tl.records import CaseRecord, predictions_of
from monai_tl.transfer.verdict import Verdict, judge, paired_differences

LabelMap = NDArray[np.uint8]


@dataclass(frozen=True)
class ScoreTask:
    """One case of one arm and seed, for a worker process."""

    arm: str
    seed: int
    case_id: str
    reference: Path
    prediction: Path
    n_classes: int
    tolerances_mm: tuple[float, ...]
    extent: Extent
    lesions: tuple[int, ...] = ()


@dataclass(frozen=True)
class ScoreOutcome:
    """What a worker found.

    Attributes:
        lesions: Of the classes asked for, from 0.
        failed: There is no prediction.
        fault: Why the prediction cannot be scored at all; as text, because not every error survives the way back.
    """

    scores: tuple[ClassScore, ...]
    failed: bool = False
    fault: str | None = None
    lesions: Mapping[int, LesionScore] = field(default_factory=dict)


def score_arms(
    manifest: Manifest,
    predictions: Path,
    arms: Sequence[str],
    seeds: Sequence[int],
    case_ids: Sequence[str],
    settings: EvaluateConfig,
    progress: Progress,
    lesions: Sequence[str] = (),
) -> dict[str, dict[int, list[CaseResult]]]:
    """Score each case of each arm and seed, several at a time.

    A missing prediction scores worst and is marked as failed. Classes in ``lesions`` are counted lesion by lesion too.

    Returns:
        Arm → seed → one result a case, in the order of ``case_ids``.

    Raises:
        ConfigError: A class of ``lesions`` is none of the data set.
        StageError: A prediction is damaged, on another grid, or holds an unknown class.
    """
    names = manifest.dataset.scheme.names
    if unknown := [name for name in lesions if name not in names]:
        raise ConfigError(f"evaluate.lesions: {unknown[0]!r} is none of the classes {', '.join(names)}")
    records = [manifest.case(case_id) for case_id in case_ids]
    extent = Extent.widest(Extent.of_grid(record.spatial_shape, record.spacing_mm) for record in records)
    tasks = [
        ScoreTask(
            arm=arm,
            seed=seed,
            case_id=case_id,
            reference=manifest.label_path(case_id),
            prediction=predictions / predictions_of(arm, seed) / f"{case_id}.nii.gz",
            n_classes=len(names),
            tolerances_mm=settings.tolerances_mm(names),
            extent=extent,
            lesions=tuple(names.index(name) for name in lesions),
        )
        for arm in arms
        for seed in seeds
        for case_id in case_ids
    ]
    patients = patients_of(manifest.cases)
    results: dict[str, dict[int, list[CaseResult]]] = {arm: {seed: [] for seed in seeds} for arm in arms}
    faults: list[StageError] = []
    outcomes = map_cases(score_prediction, tasks, finished=partial(_tell, progress))
    for task, outcome in zip(tasks, outcomes, strict=True):
        name = f"{task.arm} seed {task.seed}"
        if outcome.fault is not None:
            faults.append(StageError("evaluate", f"{name}: {outcome.fault}", task.case_id))
        result = CaseResult(task.case_id, patients[task.case_id], outcome.scores, outcome.failed, outcome.lesions)
        results[task.arm][task.seed].append(result)
    if faults:
        raise faults[0]
    return results


def _tell(progress: Progress, task: ScoreTask, outcome: ScoreOutcome) -> None:
    missing = " has no prediction" if outcome.failed else ""
    progress.advance(f"{task.arm} seed {task.seed} {task.case_id}{missing}", is_warning=outcome.failed)


def score_prediction(task: ScoreTask) -> ScoreOutcome:
    """Score one case; a missing prediction scores worst."""
    try:
        reference, affine = read_label(task.reference)
        spacing_mm = spacing_of(affine)
        if not task.prediction.is_file():
            missed = {index: no_prediction(np.asarray(reference == index + 1)) for index in task.lesions}
            volumes_ml = class_volumes_ml(reference, task.n_classes, spacing_mm)
            return ScoreOutcome(worst_scores(volumes_ml, task.extent), failed=True, lesions=missed)
        prediction = _read_prediction(task.prediction, reference, affine)
        scores = score_case(reference, prediction, task.n_classes, spacing_mm, task.tolerances_mm)
        lesions = {index: score_lesions(reference == index + 1, prediction == index + 1) for index in task.lesions}
        return ScoreOutcome(scores, lesions=lesions)
    except DataError as error:
        return ScoreOutcome((), fault=str(error))


def _read_prediction(path: Path, reference: LabelMap, affine: Affine) -> LabelMap:
    prediction, its_affine = read_label(path)
    if not same_grid(affine, reference.shape, its_affine, prediction.shape):
        raise GeometryError(
            f"the prediction's grid {prediction.shape} is not the case's {reference.shape}, or lies elsewhere; "
            "run predict again"
        )
    return prediction


def subgroups_of(
    arm: ArmResult,
    cases: Sequence[CaseRecord],
    bootstrap: BootstrapRule,
    lesions: Sequence[str] = (),
    table: Path | None = None,
) -> tuple[Subgroup, ...]:
    """The mean foreground Dice of an arm by what the cases' records tell: site, scanner, slices, size.

    Age and sex are in no record: de-identified cases do not keep them; a table may tell them.

    Args:
        arm: Its cases.
        cases: Records of these, and maybe of others.
        bootstrap: How intervals are drawn.
        lesions: Classes whose volume groups the cases too.
        table: CSV with a column ``case`` and what to group by besides; None: there is none.

    Raises:
        ConfigError: The table is missing, is none, or lacks a case.
    """
    known = {case.case_id: case for case in cases}
    records = [known[case.case_id] for case in arm.cases]
    scanners = [record.provenance.scanner for record in records]
    sizes = [math.prod(record.spacing_mm) * sum(record.class_voxels.values()) / 1000.0 for record in records]
    thickness = [
        scanner.get("SliceThickness", f"{max(record.spacing_mm):g}")
        for scanner, record in zip(scanners, records, strict=True)
    ]
    attributes = {
        "site": [record.site for record in records],
        "scanner vendor": group_column("vendor", [scanner.get("Manufacturer", "") for scanner in scanners]),
        "field strength, T": group_column(
            "field_strength", [scanner.get("MagneticFieldStrength", "") for scanner in scanners]
        ),
        "slice thickness, mm": group_column("slice_thickness_mm", thickness),
        "reference volume, ml": tercile_groups(sizes),
        **{
            f"{name}, ml": tercile_groups(
                [math.prod(record.spacing_mm) * record.class_voxels.get(name, 0) / 1000.0 for record in records]
            )
            for name in lesions
        },
        **read_case_table(table, [case.case_id for case in arm.cases], "give each test case by its id").attributes,
    }
    return summarise_groups(
        [case.mean("dice") for case in arm.cases],
        [case.patient_key for case in arm.cases],
        [case.failed for case in arm.cases],
        attributes,
        bootstrap,
    )


HARDLY_LEARNT = 0.2
"""Mean Dice of a twin below which a gain over it says more about the budget than about the start."""


def judge_arms(
    arms: Sequence[ArmResult], bootstrap: BootstrapRule, null_margin: float, broken: Sequence[str] = ()
) -> Verdict | None:
    """The verdict of transfer over scratch, paired by case and seed; None unless both are there.

    Args:
        arms: Of a run.
        bootstrap: How the interval is drawn.
        null_margin: See ``judge``.
        broken: Broken lines of the source's contract, see ``judge``.
    """
    by_name = {arm.arm: arm for arm in arms}
    if not {"transfer", "scratch"} <= set(by_name):
        return None
    transfer, scratch = by_name["transfer"], by_name["scratch"]
    verdict = judge(
        paired_differences(transfer, scratch),
        [case.patient_key for case in transfer.cases],
        bootstrap.n_bootstrap,
        bootstrap.confidence,
        null_margin,
        bootstrap.seed,
        broken,
    )
    twin = [case.mean("dice") for case in scratch.cases]
    twin_dice = float(np.nanmean(twin)) if np.isfinite(twin).any() else 1.0
    if verdict.verdict != "gain" or twin_dice >= HARDLY_LEARNT:
        return verdict
    note = (
        f" The twin hardly learnt (mean Dice {twin_dice:.2f}): with more steps (finetune.max_steps) it may come closer."
    )
    return verdict.model_copy(update={"sentence": verdict.sentence + note})
