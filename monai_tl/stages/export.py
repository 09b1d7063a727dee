"""Stage export: DICOM SEG on the source series, and the chosen model, for ``segment`` and as a MONAI bundle."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from monai_tl import __version__
from monai_tl.certainty_records import CERTAINTY_FILE, Certainty, sum_up
from monai_tl.config import Arm, ExportConfig, Params
from monai_tl.dataset.manifest import Manifest, read_manifest
from monai_tl.dicom.deidentify import Pseudonyms, load_key
from monai_tl.dicom.image_series import ImageSeries
from monai_tl.dicom.index import index_folder
from monai_tl.dicom.segmentation import Algorithm
from monai_tl.errors import PrivacyError, StageError
from monai_tl.files import read_json, sha256_of, whole_folder, write_json
from monai_tl.parallel import map_cases
from monai_tl.privacy_records import PrivacyAudit, read_guarantee
from monai_tl.progress import Progress
from monai_tl.records import model_name, predictions_of
from monai_tl.sources.bundle import write_bundle
from monai_tl.sources.card import read_source
from monai_tl.sources.ensemble import InferenceSettings, write_ensemble
from monai_tl.sources.privacy_text import describe_privacy
from monai_tl.stages.export_case import ExportTask, export_case
from monai_tl.verdict_words import WORDS

EXPORT_FOLDER = "artifacts/export"
INDEX_FILE = "index.json"
MODEL_FOLDER = "model"


def run(workspace: Path, params: Params) -> None:
    """Write ``artifacts/export``: ``seg/<case_id>.dcm``, ``nifti/<case_id>.nii.gz``, ``model/``, ``bundle/`` and
    ``index.json``.

    A case from DICOM becomes a SEG that refers to its source series; a case from NIfTI becomes a label NIfTI. A case
    that fails is listed in index.json; the others go on. There ``left_blank`` names the attributes of the source that
    break the rules of DICOM and so stay empty in the SEG. ``model`` holds the networks of all folds with the settings
    they were judged with; the bundle holds the best of them. Where several seeds were trained the first goes out: it
    was named before any result was seen (docs/decisions/0010-seeds.md).

    Args:
        workspace: Holds the products of all stages before.
        params: Section ``export``; ``ingest`` for the source and the key; ``finetune`` for the folds and the seed;
            ``predict`` and ``preprocess`` to be recorded with the model.

    Raises:
        StageError: There is nothing to export, or every case failed.
        PrivacyError: The key is missing, or another than ingest used.
        SourceError: A model cannot be read.
    """
    artifacts = workspace / "artifacts"
    arm, reason = choose_arm(params.export, params.finetune.arms, workspace / "reports/metrics.json")
    seed = params.finetune.seed
    models = [artifacts / "models" / model_name(arm, fold, seed) for fold in sorted(params.finetune.folds)]
    manifest = read_manifest(artifacts / "cases")
    predictions = sorted((artifacts / "predictions" / predictions_of(arm, seed)).glob("*.nii.gz"))
    if not predictions:
        raise StageError("export", f"arm {arm} has no predictions; run the predict stage again")
    progress = Progress("export", total=len(predictions) + 1)
    with whole_folder(workspace / EXPORT_FOLDER) as folder:
        done: list[dict[str, Any]] = []
        failed: list[dict[str, str]] = []
        for outcome in map_cases(export_case, _tasks(workspace, params, manifest, predictions, models, folder)):
            (failed if "code" in outcome else done).append(outcome)
            progress.advance(outcome["case_id"])
        if not done:
            raise StageError("export", f"every case failed; the first: {failed[0]['reason']}", failed[0]["case_id"])
        best = best_model(models)
        privacy = privacy_section(workspace, params, best, len(models), progress)
        write_bundle(best, folder / "bundle", _metrics(workspace / "reports/metrics.json", arm), arm, privacy)
        settings = InferenceSettings(
            predict=params.predict, preprocess=params.preprocess, min_slices=params.ingest.min_slices
        )
        write_ensemble(folder / MODEL_FOLDER, models, settings)
        _write_certainty(artifacts / "predictions" / CERTAINTY_FILE, arm, seed, folder / MODEL_FOLDER)
        content = {
            "arm": arm,
            "seed": seed,
            "arm_reason": reason,
            "identity": params.export.identity,
            "model": best.name,
        }
        write_json(folder / INDEX_FILE, {**content, "bundle": "bundle", "cases": done, "failed": failed})
    progress.advance(f"{len(done)} cases and a bundle of {best.name}")


def _write_certainty(found: Path, arm: Arm, seed: int, model: Path) -> None:
    """How sure the model was of its test cases, for whoever applies it later to see whether that changes."""
    if not found.is_file():
        return
    runs = [one for one in Certainty.read(found).runs if (one.arm, one.seed) == (arm, seed)]
    summed = sum_up(case for one in runs for case in one.cases.values())
    if summed is not None:
        summed.write(model / CERTAINTY_FILE)


def choose_arm(config: ExportConfig, arms: Sequence[Arm], metrics_path: Path) -> tuple[Arm, str]:
    """The arm to hand over, and why.

    ``best`` is the transfer arm unless the verdict on it is harm; a run with one arm has no choice.

    Raises:
        StageError: The arm asked for was not trained, or metrics.json is missing or damaged.
    """
    if config.arm != "best":
        if config.arm not in arms:
            raise StageError("export", f"export.arm is {config.arm!r}, but finetune.arms has only {', '.join(arms)}")
        return config.arm, "named by export.arm"
    if len(arms) == 1:
        return arms[0], "the only arm"
    try:
        verdict = read_json(metrics_path)["verdict"]["verdict"]
    except (OSError, ValueError, KeyError, TypeError):
        raise StageError("export", "reports/metrics.json holds no verdict; run the evaluate stage again") from None
    if verdict == "harm":
        return "scratch", "the pretrained start did harm"
    return "transfer", f"the verdict on the pretrained start is {WORDS.get(verdict, verdict)}"


def _metrics(path: Path, arm: Arm) -> dict[str, Any]:
    try:
        metrics: dict[str, Any] = read_json(path)
        if arm in metrics["arms"]:
            return metrics
    except (OSError, ValueError, KeyError, TypeError):
        pass
    raise StageError("export", f"reports/metrics.json holds no scores of arm {arm}; run the evaluate stage again")


def privacy_section(workspace: Path, params: Params, model: Path, n_models: int, progress: Progress) -> str:
    """What the card says of privacy.

    An audit of other weights is left out and this said: a night's run must not fail since training gave a new model.

    Raises:
        DataError: The audit named by ``export.privacy_audit`` is missing or damaged.
    """
    found = None
    if params.export.privacy_audit is not None:
        audit = PrivacyAudit.read(workspace / params.export.privacy_audit)
        digest = read_source(model).card.weights.sha256
        found = next((one for one in audit.models if one.weights_sha256 == digest), None)
        if found is None:
            progress.warn("export.privacy_audit is of other weights and left out; run 'monai-tl audit-privacy' again")
    return describe_privacy(read_guarantee(model), found, n_models)


def best_model(folders: Sequence[Path]) -> Path:
    """The fold with the best validation Dice; the first of equals."""

    def score(folder: Path) -> float:
        try:
            value = read_json(folder / "training.json").get("best_val_dice")
        except (OSError, ValueError, AttributeError):
            raise StageError("export", f"{folder.name} has no readable training.json; run finetune again") from None
        return -math.inf if value is None else float(value)

    return max(folders, key=score)


def _tasks(
    workspace: Path, params: Params, manifest: Manifest, predictions: Sequence[Path], models: Sequence[Path], out: Path
) -> list[ExportTask]:
    cases = manifest.select(tuple(path.name.removesuffix(".nii.gz") for path in predictions))
    key, series = b"", dict[str, ImageSeries]()
    if any(case.provenance.kind == "dicom" for case in cases):
        key = load_key(Path(params.ingest.key_file))
        hasher = Pseudonyms(key)
        if hasher.key_id != manifest.dataset.key_id:
            raise PrivacyError(
                "the pseudonym key is not the one the cases were made with; point ingest.key_file to that"
            )
        found = index_folder(workspace / params.ingest.source, hasher)
        series = {hasher.hash_uid(one.name): one for one in found.series}
    cards = [read_source(folder).card for folder in models]
    hashes = [card.weights.sha256 for card in cards]
    name = cards[0].name if len(cards) == 1 else f"{cards[0].name} and {len(cards) - 1} more"
    algorithm = Algorithm(f"monai_tl {name}", __version__, hashes[0] if len(hashes) == 1 else sha256_of(*hashes))
    return [
        ExportTask(
            case=case,
            series=series.get(case.provenance.series),
            prediction=path,
            folder=out,
            scheme=manifest.dataset.scheme,
            algorithm=algorithm,
            config=params.export,
            key=key,
            min_slices=params.ingest.min_slices,
        )
        for case, path in zip(cases, predictions, strict=True)
    ]
