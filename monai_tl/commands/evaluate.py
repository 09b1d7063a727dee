"""``monai-tl evaluate``: anybody's predictions against references, NIfTI or DICOM SEG, without a workspace."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType

from monai_tl.case_table import CaseTable, read_case_table
from monai_tl.commands.evaluate_case import Outcome, Task, score_pair, scores_together
from monai_tl.commands.evaluate_files import LabelFile, Pair, look_through, one_kind, pair_files
from monai_tl.commands.evaluate_results import (
    CASES_FILE,
    METRICS_FILE,
    SUMMARY_FILE,
    Evaluation,
    evaluation_record,
    format_scores,
    format_summary,
)
from monai_tl.config import EvaluateConfig
from monai_tl.dicom.structures import scheme_of
from monai_tl.errors import ConfigError, DataError
from monai_tl.files import write_json, write_text
from monai_tl.labels import MAX_CLASSES, ClassSpec, LabelScheme, read_scheme
from monai_tl.metrics.cohort import BootstrapRule, CaseResult, summarise_arm
from monai_tl.metrics.lesion_summary import summarise_lesions
from monai_tl.metrics.subgroups import THICKNESS_BANDS_MM, band_numbers, summarise_groups, tercile_groups
from monai_tl.new_folder import new_folder
from monai_tl.parallel import map_cases
from monai_tl.progress import Progress

PRODUCTS = (CASES_FILE, METRICS_FILE, SUMMARY_FILE)
_MOST_FAULTS = 10


def run(
    predictions: Path,
    references: Path,
    out: Path,
    *,
    classes: Path | None = None,
    cases: Path | None = None,
    lesions: Sequence[str] = (),
    tolerance_mm: float = EvaluateConfig().surface_tolerance_mm,
    class_tolerances_mm: Mapping[str, float] = MappingProxyType({}),
    confidence: float = EvaluateConfig().confidence,
) -> str:
    """Score every reference's prediction on the reference's own grid; a missing one scores worst.

    Writes ``cases.csv`` (which names the cases as their files are called), ``metrics.json`` and ``summary.md`` (which
    do not), all or none.

    Args:
        predictions: Folder of NIfTI label maps or DICOM SEG, any nesting.
        references: The same, of what they are judged by.
        out: New or empty, or holds an earlier evaluation, which is replaced.
        classes: YAML file with the classes as ``convert --labels`` takes it; needed where NIfTI meets SEG. None: each
            value, or each name of a segment, is a class.
        cases: CSV file with a column ``case``, maybe ``patient``, and columns to group by.
        lesions: Classes that are also counted lesion by lesion.
        tolerance_mm: Of surface Dice.
        class_tolerances_mm: That of classes that need another, by name.
        confidence: Of the intervals.

    Returns:
        The summary.

    Raises:
        ConfigError: An argument is wrong, or not a single prediction belongs to a reference.
        DataError: Files cannot be read or do not lie on one grid; each is told by its number in the order of names.
    """
    if not min(tolerance_mm, *class_tolerances_mm.values(), math.inf) > 0.0 or not 0.5 < confidence < 1.0:
        raise ConfigError(
            "--tolerance-mm and --class-tolerance must be above 0, --confidence between 0.5 and 1", "arguments"
        )
    settings = EvaluateConfig(
        surface_tolerance_mm=tolerance_mm, class_tolerances_mm=dict(class_tolerances_mm), confidence=confidence
    )
    _refuse_one_folder(predictions, references)
    with new_folder(out, PRODUCTS) as made:
        files = one_kind(look_through(references, "--references"), look_through(predictions, "--predictions"))
        evaluation = _evaluate(files[0], files[1], classes, cases, tuple(lesions), settings)
        summary = format_summary(evaluation)
        write_text(made / CASES_FILE, format_scores(evaluation))
        write_json(made / METRICS_FILE, evaluation_record(evaluation))
        write_text(made / SUMMARY_FILE, summary)
    return summary


def read_tolerances(texts: Sequence[str]) -> dict[str, float]:
    """``NAME=MM`` of the command line, each.

    Raises:
        ConfigError: One is none, or a name is given twice.
    """
    found: dict[str, float] = {}
    for text in texts:
        name, _, number = text.rpartition("=")
        try:
            value = float(number)
        except ValueError:
            value = math.nan
        if not name or name in found or not math.isfinite(value):
            raise ConfigError(f"--class-tolerance: {text!r} is no NAME=MM, or names a class twice", "arguments")
        found[name] = value
    return found


def _refuse_one_folder(predictions: Path, references: Path) -> None:
    """References against themselves would be perfect; predictions below the references would be references too."""
    one, other = predictions.resolve(), references.resolve()
    if one == other:
        raise ConfigError("--predictions and --references are one folder; give two", "arguments")
    if one.is_relative_to(other) or other.is_relative_to(one):
        raise ConfigError(
            "--predictions and --references: one lies in the other, so its files would count as both; put them side by "
            "side",
            "arguments",
        )


def _evaluate(
    references: Sequence[LabelFile],
    predictions: Sequence[LabelFile],
    classes: Path | None,
    cases: Path | None,
    lesions: tuple[str, ...],
    settings: EvaluateConfig,
) -> Evaluation:
    pairs, n_unused = pair_files(references, predictions)
    named = "a case is called as its file below --references, without the ending"
    table = read_case_table(cases, [pair.name for pair in pairs], named)
    _check_faults(pairs, [fault for pair in pairs for fault in [_looked_fault(pair)]])
    scheme = _classes_found(pairs) if classes is None else read_scheme(classes)
    for option, named_classes in (("--lesions", lesions), ("--class-tolerance", settings.class_tolerances_mm)):
        if unknown := [name for name in named_classes if name not in scheme.names]:
            raise ConfigError(f"{option}: {unknown[0]!r} is none of the classes {', '.join(scheme.names)}", "arguments")
    counted = tuple(scheme.names.index(name) for name in dict.fromkeys(lesions))
    tasks = [Task(pair, scheme, classes is None, counted, settings.tolerances_mm(scheme.names)) for pair in pairs]
    progress = Progress("evaluate", total=len(tasks))
    outcomes = []
    for task, outcome in zip(tasks, map_cases(score_pair, tasks), strict=True):
        outcomes.append(outcome)
        progress.advance(f"case {task.pair.number}{'' if task.pair.prediction else ' has no prediction'}")
    _check_faults(pairs, [outcome.fault for outcome in outcomes])
    return _summarise(pairs, outcomes, scheme, counted, table, n_unused, settings)


def _summarise(
    pairs: Sequence[Pair],
    outcomes: Sequence[Outcome],
    scheme: LabelScheme,
    counted: tuple[int, ...],
    table: CaseTable,
    n_unused: int,
    settings: EvaluateConfig,
) -> Evaluation:
    bootstrap = BootstrapRule(settings.n_bootstrap, settings.confidence, settings.seed)
    # in the order of case ids, which is that of the pairs
    results = [
        CaseResult(pair.name, patient, scores, pair.prediction is None, outcome.lesions or {})
        for pair, outcome, scores, patient in zip(
            pairs, outcomes, scores_together(outcomes), table.patients, strict=True
        )
    ]
    sizes = [sum(outcome.reference_ml) for outcome in outcomes]
    attributes = {
        "reference volume, ml": tercile_groups(sizes),
        **{
            f"{scheme.names[index]}, ml": tercile_groups([outcome.reference_ml[index] for outcome in outcomes])
            for index in counted
        },
        "thickest voxel side, mm": band_numbers([one.thickness_mm for one in outcomes], THICKNESS_BANDS_MM, upper=True),
        **table.attributes,
    }
    notes = [] if table.is_given else ["nobody said whose the cases are (--cases): each counts as a patient of its own"]
    if n_unused:
        notes.append(f"{n_unused} prediction{' has' if n_unused == 1 else 's have'} no reference and no score")
    n_missing = sum(pair.prediction is None for pair in pairs)
    if n_unused and n_missing:
        notes.append(
            f"{n_missing} reference{' has' if n_missing == 1 else 's have'} no prediction and the worst score; where "
            "they were meant for those without a reference, give both the same names"
        )
    result = summarise_arm("predictions", {0: results}, scheme.names, bootstrap)
    return Evaluation(
        result=result,
        class_names=scheme.names,
        lesions={scheme.names[index]: summarise_lesions(result, index, bootstrap) for index in counted},
        subgroups=summarise_groups(
            [case.mean("dice") for case in results],
            table.patients,
            [case.failed for case in results],
            attributes,
            bootstrap,
        ),
        bootstrap=bootstrap,
        tolerances_mm=settings.tolerances_mm(scheme.names),
        knows_patients=table.is_given,
        n_unused=n_unused,
        notes=tuple(notes),
    )


def _looked_fault(pair: Pair) -> str | None:
    if pair.reference.fault is not None:
        return f"reference: {pair.reference.fault}"
    if pair.prediction is not None and pair.prediction.fault is not None:
        return f"prediction: {pair.prediction.fault}"
    return None


def _check_faults(pairs: Sequence[Pair], faults: Sequence[str | None]) -> None:
    found = [f"  case {pair.number}: {fault}" for pair, fault in zip(pairs, faults, strict=True) if fault is not None]
    if not found:
        return
    more = [f"  and {len(found) - _MOST_FAULTS} more"] if len(found) > _MOST_FAULTS else []
    raise DataError(
        f"{len(found)} of {len(pairs)} cases cannot be scored (numbers are in the order of the references' names); "
        "mend them, or take a prediction away, which then scores worst\n" + "\n".join([*found[:_MOST_FAULTS], *more])
    )


def _classes_found(pairs: Sequence[Pair]) -> LabelScheme:
    """Each value or name of a segment is a class, of predictions too: else a false one would not count."""
    files = [file for pair in pairs for file in (pair.reference, pair.prediction) if file is not None]
    kinds = {file.kind for file in files}
    if len(kinds) > 1:
        raise ConfigError(
            "--classes: is needed where NIfTI meets DICOM SEG; it says which value is which segment", "arguments"
        )
    if kinds == {"seg"}:
        return scheme_of(
            (one for file in files for one in file.structures), frozenset(word for file in files for word in file.words)
        )
    values = sorted({value for file in files for value in file.values})
    if not values or values[0] < 1 or len(values) > MAX_CLASSES:
        raise ConfigError(
            f"--classes: is needed: the label files hold {len(values)} values besides 0"
            + (", of which some are negative" if values and values[0] < 0 else ""),
            "arguments",
        )
    return LabelScheme(classes=tuple(ClassSpec(name=f"value {value}", values=(value,)) for value in values))
