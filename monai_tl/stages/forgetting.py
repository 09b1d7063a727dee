"""The tuned model on a held set of its source's task, against the source itself."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from monai_tl.config import EvaluateConfig, IngestConfig, PredictConfig, PreprocessConfig
from monai_tl.dataset.manifest import Manifest, read_manifest
from monai_tl.dataset.nifti import read_image, write_image
from monai_tl.dataset.transforms import prepare_image
from monai_tl.errors import ConfigError, ContractError, DataError, describe_fault
from monai_tl.inference import Predictor, load_models
from monai_tl.labels import ClassSpec, LabelScheme
from monai_tl.metrics.cohort import BootstrapRule
from monai_tl.networks.device import place_network, set_up_torch
from monai_tl.progress import Progress
from monai_tl.records import Plan, predictions_of
from monai_tl.scoring import score_arms
from monai_tl.sources.card import Card, Source
from monai_tl.sources.grafting import grafted_network, source_network
from monai_tl.stages.ingest import ingest
from monai_tl.transfer.forgetting import Forgetting, compare_task, describe_forgetting, shared_classes
from monai_tl.transfer.planning import on_own_network


@dataclass(frozen=True)
class Applied:
    """How networks are applied and judged: as the run that is asked about."""

    predict: PredictConfig
    preprocess: PreprocessConfig
    evaluate: EvaluateConfig


def measure_forgetting(
    source: Source, models: Sequence[Path], data: Path, key: bytes, applied: Applied, cache_root: Path, work: Path
) -> Forgetting:
    """Dice of the source's task before and after tuning.

    Before: the source's network as it is. After: the tuned body with the source's own head, since the tuned head may
    lack the source's classes; and for classes that both name the tuned model as it is. All get the same input, which is
    prepared by the source's contract.

    Args:
        source: Where tuning started.
        models: Model folders tuned from it; averaged.
        data: The held set, DICOM or NIfTI, as ingest reads it. Its classes are ``evaluate.source_classes``, else the
            card's names with their label values in order.
        key: Secret behind the pseudonyms.
        applied: Windows, margins, tolerance, bootstrap.
        cache_root: Of the case cache.
        work: Empty folder for cases and label maps; the caller removes it.

    Raises:
        ConfigError: ``source_classes`` has a class that the source does not.
        ContractError: A tuned body is not the source's, or the set is of another modality.
        DataError: The set has no labelled case, or none can be prepared.
    """
    card = source.card
    # first: a source without a task of its own has no classes to ask for
    own = source_network(source)
    scheme = task_scheme(card, applied.evaluate.source_classes)
    config = IngestConfig(source=str(data), classes=scheme.classes)
    ingest(data, work / "cases", config, key, cache_root, Progress("forgetting: ingest"))
    manifest = read_manifest(work / "cases")
    check_held_set(manifest, card)
    tuned = load_models(models, applied.predict.n_threads)
    plan = plan_of_source(source, tuned.plan)
    device = set_up_torch(applied.predict.n_threads)
    grafted = [place_network(grafted_network(source, folder), device) for folder in models]
    card_values = {card.classes.index(name) + 1: value for value, name in enumerate(_card_names(scheme, card), start=1)}
    own_values = shared_classes(scheme.names, tuned.plan.scheme.names)
    arms: dict[str, tuple[Predictor, Mapping[int, int]]] = {
        "before": (Predictor((place_network(own, device),), plan), card_values),
        "source": (Predictor(tuple(grafted), plan), card_values),
    }
    if own_values:
        arms["own"] = (Predictor(tuned.networks, plan), own_values)
    case_ids = _predict(manifest, plan, arms, applied, work / "predictions")
    n_labelled = sum(case.has_label for case in manifest.cases)
    progress = Progress("forgetting: score", total=len(arms) * len(case_ids))
    scored = score_arms(manifest, work / "predictions", list(arms), (0,), case_ids, applied.evaluate, progress)
    results = {arm: by_seed[0] for arm, by_seed in scored.items()}
    chosen = {"source": scheme.names, "own": tuple(scheme.names[value - 1] for value in sorted(own_values.values()))}
    settings = applied.evaluate
    bootstrap = BootstrapRule(settings.n_bootstrap, settings.confidence, settings.seed)
    changes = tuple(
        change
        for head in ("source", "own")
        if head in results
        for change in compare_task(head, results["before"], results[head], scheme.names, chosen[head], bootstrap)
    )
    return Forgetting(
        source=card.name,
        source_sha256=card.weights.sha256,
        models=tuple(folder.name for folder in models),
        n_failed=n_labelled - len(case_ids),
        confidence=settings.confidence,
        changes=changes,
        sentence=describe_forgetting(changes[0], settings.confidence),
    )


def task_scheme(card: Card, given: Sequence[ClassSpec] | None) -> LabelScheme:
    """The classes of the held set: those given, else the card's.

    Raises:
        ConfigError: One of them is no class of the source.
    """
    if given is None:
        return LabelScheme(classes=tuple(ClassSpec(name=name) for name in card.classes))
    known = {name.casefold() for name in card.classes}
    if odd := [spec.name for spec in given if spec.name.casefold() not in known]:
        raise ConfigError(
            f"evaluate.source_classes: {', '.join(odd)} is no class of {card.name}; it has {', '.join(card.classes)}"
        )
    return LabelScheme(classes=tuple(given))


def _card_names(scheme: LabelScheme, card: Card) -> list[str]:
    spelled = {name.casefold(): name for name in card.classes}
    return [spelled[name.casefold()] for name in scheme.names]


def plan_of_source(source: Source, tuned: Plan) -> Plan:
    """How input is prepared by the source's contract; windows are the tuned plan's, where the source accepts them."""
    card = source.card
    contract = card.input
    return on_own_network(source, tuned).model_copy(
        update={
            "modality": contract.modality,
            "orientation": contract.orientation,
            "spacing_mm": contract.spacing_mm,
            "intensity": contract.intensity,
            "foreground": tuned.foreground if contract.intensity.rule == "window" else "none",
        }
    )


def check_held_set(manifest: Manifest, card: Card) -> None:
    """What was ingested must be a set of the source's task.

    Raises:
        ContractError: It is of another modality or has another number of channels.
        DataError: It has no label, or none of one of its classes: then the class has another name or value there, and
            every prediction of it would count as wrong, before and after.
    """
    dataset = manifest.dataset
    if (dataset.modality, dataset.n_channels) != (card.input.modality, card.network.n_channels):
        raise ContractError(
            f"the set to measure forgetting on is {dataset.modality} with {dataset.n_channels} channels, but "
            f"{card.name} takes {card.input.modality} with {card.network.n_channels}; give a set of the source's task"
        )
    if not any(case.has_label for case in manifest.cases):
        raise DataError("no case of the set to measure forgetting on has a label; give evaluate.source_classes")
    names = manifest.dataset.scheme.names
    if absent := [name for name in names if not any(case.class_voxels.get(name) for case in manifest.cases)]:
        raise DataError(
            f"the set to measure forgetting on: no case of it has {', '.join(absent)}; give "
            "evaluate.source_classes (or --classes) with what each class is called there, without those it lacks"
        )


def _predict(
    manifest: Manifest,
    plan: Plan,
    arms: Mapping[str, tuple[Predictor, Mapping[int, int]]],
    applied: Applied,
    out: Path,
) -> list[str]:
    """Write each network's label maps in the values of the held set; gives the cases that could be prepared.

    Raises:
        DataError: None could.
    """
    labelled = [case.case_id for case in manifest.cases if case.has_label]
    progress = Progress("forgetting: predict", total=len(labelled))
    windows, done, reason = applied.predict, [], ""
    for case_id in labelled:
        try:
            image, affine = read_image(manifest.image_path(case_id))
            prepared, record = prepare_image(image, affine, plan, applied.preprocess, case_id)
        except DataError as error:
            _, reason = describe_fault(error)
            progress.advance(f"{case_id} left out: {reason}", is_warning=True)
            continue
        for arm, (predictor, values) in arms.items():
            found = predictor.predict_label(prepared, record, windows)
            table = np.zeros(256, dtype=np.uint8)
            for value, wanted in values.items():
                table[value] = wanted
            folder = out / predictions_of(arm, 0)
            folder.mkdir(parents=True, exist_ok=True)
            write_image(folder / f"{case_id}.nii.gz", table[found], np.asarray(record.native_affine))
        done.append(case_id)
        progress.advance(case_id)
    if not done:
        raise DataError(f"no case of the set to measure forgetting on could be prepared; the last: {reason}")
    return done
