"""Stage evaluate: scores on the native grid, intervals over patients, the verdict, the report."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from monai_tl.certainty_records import CERTAINTY_FILE, Certainty
from monai_tl.config import Params
from monai_tl.dataset.manifest import Manifest, read_manifest
from monai_tl.dataset.nifti import read_image, read_label
from monai_tl.dicom.deidentify import load_key
from monai_tl.errors import StageError
from monai_tl.files import code_digest, read_json, temporary_folder, whole_folder, write_json, write_text
from monai_tl.geometry import spacing_of
from monai_tl.looks import record_look
from monai_tl.metrics.certainty import judge_calibration, judge_uncertainty
from monai_tl.metrics.cohort import ArmResult, BootstrapRule, summarise_arm
from monai_tl.metrics.lesion_summary import summarise_lesions
from monai_tl.progress import Progress
from monai_tl.records import Plan, Split, model_name, predictions_of, read_refused
from monai_tl.report.findings import Failure, Findings, read_model
from monai_tl.report.more_tables import markdown_more
from monai_tl.report.numbers import format_cases, format_history, metrics_record
from monai_tl.report.overlays import Overlay, choose_cases, display_window, draw_planes, look_through
from monai_tl.report.page import render_page
from monai_tl.report.tables import markdown_summary
from monai_tl.scoring import judge_arms, score_arms, subgroups_of
from monai_tl.sources.card import read_source
from monai_tl.stages import STATE_FOLDER
from monai_tl.transfer.forgetting import Forgetting

_CODE = (
    "dataset", "metrics", "report", "scoring", "stages.evaluate", "transfer", "unfound_words", "verdict_words",
)  # fmt: skip
"""Code that decides what the report says of given predictions."""


def run(workspace: Path, params: Params) -> None:
    """Score each arm's predictions and write the report.

    Writes ``reports/metrics.json``, ``reports/plots/cases.csv``, ``reports/plots/history.csv``,
    ``reports/html/report.html`` and ``reports/html/summary.md``; with a test set ``test_looks.json`` counts this look.

    Args:
        workspace: Holds ``artifacts/cases``, ``split``, ``plan``, ``prepared/failed.json``, ``models`` and
            ``predictions``.
        params: Sections ``evaluate``, ``finetune`` (its arms, folds and seeds) and ``predict`` (which counts as part of
            a look); where forgetting is measured ``plan``, ``preprocess`` and ``ingest`` (its key) too.

    Raises:
        DataError: A record is missing or damaged.
        StageError: A prediction is damaged, on another grid, holds an unknown class, or is of other weights than the
            model folders hold.
    """
    findings = gather_findings(workspace, params)
    check_predicted(findings, workspace / "artifacts/predictions/models.json")
    if findings.on_test:
        tested = set(findings.split.test)
        test_cases = [case for case in findings.cases if case.case_id in tested]
        look = record_look(workspace, test_cases, findings.weights, params.predict, "evaluate")
        findings = replace(findings, look=look)
    reports = workspace / "reports"
    with whole_folder(reports / "html") as out:
        write_text(out / "report.html", render_page(findings))
        write_text(out / "summary.md", markdown_summary(findings) + markdown_more(findings))
    write_text(
        reports / "plots/cases.csv",
        format_cases(findings.arms, findings.class_names, params.evaluate.tolerances_mm(findings.class_names)),
    )
    write_text(reports / "plots/history.csv", format_history(findings.models))
    write_json(reports / "metrics.json", metrics_record(findings))


def gather_findings(workspace: Path, params: Params) -> Findings:
    """Score everything and read what the earlier stages left."""
    artifacts, settings = workspace / "artifacts", params.evaluate
    manifest = read_manifest(artifacts / "cases")
    split = Split.read(artifacts / "split/split.json")
    plan = Plan.read(artifacts / "plan/plan.json")
    names = manifest.dataset.scheme.names
    case_ids = evaluated_cases(split, params.finetune.folds)
    # the pretrained arm first: it leads every table and decides which cases are shown
    arm_names = sorted(params.finetune.arms, key=lambda arm: (arm != "transfer", arm))
    seeds = params.finetune.seeds
    progress = Progress("evaluate", total=len(arm_names) * len(seeds) * len(case_ids) + 1)
    bootstrap = BootstrapRule(settings.n_bootstrap, settings.confidence, settings.seed)
    results = score_arms(
        manifest, artifacts / "predictions", arm_names, seeds, case_ids, settings, progress,
        settings.lesions,
    )  # fmt: skip
    arms = tuple(summarise_arm(arm, results[arm], names, bootstrap) for arm in arm_names)
    models = tuple(
        read_model(artifacts / "models" / model_name(arm, fold, seed), arm, fold, seed)
        for arm in arm_names
        for fold in sorted(params.finetune.folds)
        for seed in seeds
    )
    certainty = Certainty.read(artifacts / "predictions" / CERTAINTY_FILE)
    runs = {arm.arm: [run for run in certainty.runs if run.arm == arm.arm and run.seed in seeds] for arm in arms}
    calibration = {arm.arm: judge_calibration(runs[arm.arm], arm, bootstrap) for arm in arms}
    uncertainty = {arm.arm: judge_uncertainty(runs[arm.arm], arm, bootstrap) for arm in arms}
    table = None if settings.groups is None else workspace / settings.groups
    broken = [line.item for line in plan.adaptations if line.status == "broken"]
    findings = Findings(
        class_names=names,
        settings=settings,
        on_test=bool(split.test),
        arms=arms,
        verdict=judge_arms(arms, bootstrap, settings.null_margin, broken),
        cases=manifest.cases,
        rejections=read_refused(artifacts),
        failures=read_failures(artifacts / "predictions/failed.json", arms),
        split=split,
        plan=plan,
        models=models,
        overlays=draw_overlays(manifest, artifacts / "predictions", arms, seeds[0], plan),
        forgetting=_forgetting(workspace, params),
        subgroups={arm.arm: subgroups_of(arm, manifest.cases, bootstrap, settings.lesions, table) for arm in arms},
        calibration={arm: found for arm, found in calibration.items() if found is not None},
        uncertainty={arm: found for arm, found in uncertainty.items() if found is not None},
        lesions={
            arm.arm: {name: summarise_lesions(arm, names.index(name), bootstrap) for name in settings.lesions}
            for arm in arms
        },
        evaluation_code=code_digest(*_CODE),
    )
    progress.advance("report")
    return findings


def check_predicted(findings: Findings, path: Path) -> None:
    """Make sure that the models described are those that made the predictions.

    Raises:
        StageError: They are not, or nothing says which did.
    """
    try:
        predicted = read_json(path)
    except (OSError, ValueError):
        predicted = None
    if predicted != findings.weights:
        raise StageError("evaluate", "the predictions are of other weights than artifacts/models; run predict again")


def _forgetting(workspace: Path, params: Params) -> Forgetting | None:
    """What tuning with the first seed cost on the source's own task; None unless a set of it is given."""
    settings = params.evaluate
    if settings.source_set is None or params.plan.source is None:
        return None
    # torch is loaded for this alone
    from monai_tl.stages.forgetting import Applied, measure_forgetting

    folds = sorted(params.finetune.folds)
    models = [workspace / "artifacts/models" / model_name("transfer", fold, params.finetune.seed) for fold in folds]
    state = workspace / STATE_FOLDER
    state.mkdir(exist_ok=True)
    with temporary_folder(state, "forgetting") as work:
        return measure_forgetting(
            read_source(workspace / params.plan.source),
            models,
            workspace / settings.source_set,
            load_key(Path(params.ingest.key_file)),
            Applied(params.predict, params.preprocess, settings),
            state / "cache",
            work / "work",
        )


def evaluated_cases(split: Split, folds: Sequence[int]) -> tuple[str, ...]:
    """The test cases; without a test set the validation cases of the trained folds, each predicted by its own fold."""
    return split.test or tuple(sorted({case_id for fold in folds for case_id in split.folds[fold].val}))


def draw_overlays(
    manifest: Manifest, predictions: Path, arms: Sequence[ArmResult], seed: int, plan: Plan
) -> tuple[Overlay, ...]:
    """Pictures of the first arm's best, median and worst case, with the outlines of all arms that have a prediction.

    The outlines and the Dice beside them are those of one seed; which cases are shown goes by the mean over the seeds.
    """
    overlays = []
    for title, case_id in choose_cases(arms[0]):
        image, affine = read_image(manifest.image_path(case_id))
        volume = image[0] if image.ndim == 4 else image
        reference, _ = read_label(manifest.label_path(case_id))
        paths = {arm.arm: predictions / predictions_of(arm.arm, seed) / f"{case_id}.nii.gz" for arm in arms}
        maps = {arm: read_label(path)[0] for arm, path in paths.items() if path.is_file()}
        window = display_window(volume, plan.intensity)
        dice = {arm.arm: case.mean("dice") for arm in arms for case in arm.by_seed[seed] if case.case_id == case_id}
        shown = (volume, reference, maps, spacing_of(affine), window)
        overlays.append(Overlay(title, case_id, dice, draw_planes(*shown), look_through(*shown)))
    return tuple(overlays)


def read_failures(path: Path, arms: Sequence[ArmResult]) -> tuple[Failure, ...]:
    """Cases without a prediction and the code that predict gave; ``missing`` where it gave none."""
    content = read_json(path)["failed"] if path.is_file() else []
    codes = {(entry["arm"], entry["seed"], entry["case_id"]): str(entry["code"]) for entry in content}
    return tuple(
        Failure(arm.arm, seed, case.case_id, codes.get((arm.arm, seed, case.case_id), "missing"))
        for arm in arms
        for seed, cases in arm.by_seed.items()
        for case in cases
        if case.failed
    )
