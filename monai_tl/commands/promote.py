"""``monai-tl promote``: record that the exported model may go out, unless its run says that it must not."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from monai_tl.errors import ConfigError, DataError, PromotionError, SourceError
from monai_tl.faults import parse_yaml, read_text
from monai_tl.files import held, read_json, sha256_file, sha256_of, write_json
from monai_tl.records import Audit
from monai_tl.sources.card import read_source
from monai_tl.sources.ensemble import Ensemble, read_ensemble
from monai_tl.stages.export import EXPORT_FOLDER, INDEX_FILE, MODEL_FOLDER
from monai_tl.transfer.verdict import Verdict, is_consistent
from monai_tl.verdict_words import WORDS, say_verdict
from monai_tl.workspace import VERSION_FILE

METRICS_FILE = "reports/metrics.json"
CANDIDATE_FILE = "candidate.json"
"""In the clone of a scheduled run, committed with its results: what there is to know of its model, never read as an
approval."""
PROMOTED_FILE = "promoted.json"
"""In the workspace, tracked by git: every model that was promoted, in order; entries are added and never changed."""
ACCEPT = "--accept-undecided"


def run(workspace: Path, accept_undecided: bool = False) -> str:
    """Promote the model of a finished run.

    What is refused, and then nothing is written: harm; the arm that its twin surpassed; reports of other weights than
    the exported ones; numbers that are not those that were written. What is refused unless it is accepted: a null that
    is undecided, a gain or null of one seed, no verdict, and a verdict on validation cases, which also chose the kept
    step. The same model again, right after itself, changes nothing.

    Args:
        workspace: Holds ``reports/metrics.json`` and ``artifacts/export``; gets ``promoted.json``.
        accept_undecided: Promote although it has not been shown that the pretrained start does no harm.

    Returns:
        One sentence: what was recorded.

    Raises:
        PromotionError: See above; or the run is not finished, or a file of it is damaged.
        SourceError: The exported model is damaged.
    """
    if not workspace.is_dir():
        raise PromotionError(f"{workspace.name} is no folder; give that of a finished run")
    with held(workspace):
        return _promote(workspace, accept_undecided)


def record_candidate(workspace: Path) -> Path:
    """Write down what a promotion would record of the exported model, whatever the verdict; nothing is promoted.

    Raises:
        PromotionError: The run is not finished, or a file of it is damaged.
        SourceError: The exported model is damaged.
    """
    path = workspace / CANDIDATE_FILE
    write_json(path, {"schema_version": 1, "candidate": _describe(workspace)[0]})
    return path


def _describe(workspace: Path) -> tuple[dict[str, Any], Verdict | None]:
    """The exported model as a record holds it, with its verdict."""
    metrics = _read(workspace / METRICS_FILE, "run the evaluate stage (monai-tl run)")
    check_unchanged(workspace)
    index = _read(workspace / EXPORT_FOLDER / INDEX_FILE, "run the export stage (monai-tl run)")
    folder = workspace / EXPORT_FOLDER / MODEL_FOLDER
    ensemble = read_ensemble([folder])
    models = check_models(ensemble, metrics.get("models"))
    verdict = _verdict(metrics)
    arm = index.get("arm")
    if not isinstance(arm, str):
        raise PromotionError(f"{INDEX_FILE} is damaged: it names no arm; run the export stage again")
    if any(not name.startswith(f"{arm}-") for name in models):
        raise PromotionError(f"{INDEX_FILE} names the arm {arm}, but the exported models are others; export again")
    found = {
        "model_sha256": model_digest(folder),
        "arm": arm,
        "seed": index.get("seed"),
        "models": models,
        "evaluated_on": metrics.get("evaluated_on"),
        "verdict": None if verdict is None else verdict.model_dump(mode="json"),
        "accepted_undecided": not _is_decided(verdict, metrics.get("evaluated_on") == "test"),
        "source": _origin(ensemble),
        "data": data_hashes(workspace),
    }
    return found, verdict


def model_digest(folder: Path) -> str:
    """Hex sha256 over name and content of each file of a model, as records have it in ``model_sha256``."""
    paths = sorted(path for path in folder.rglob("*") if path.is_file())
    return sha256_of(*(part for path in paths for part in (path.relative_to(folder).as_posix(), sha256_file(path))))


def _promote(workspace: Path, accept_undecided: bool) -> str:
    found, verdict = _describe(workspace)
    check_verdict(verdict, found["arm"], found["evaluated_on"] == "test", accept_undecided)
    # from here on the record below holds what is known of it
    (workspace / CANDIDATE_FILE).unlink(missing_ok=True)
    path = workspace / PROMOTED_FILE
    earlier = _earlier(path)
    if earlier and earlier[-1].get("model_sha256") == found["model_sha256"]:
        return f"The model is promoted already, as number {earlier[-1]['number']}; nothing was changed."
    entry = {"number": earlier[-1]["number"] + 1 if earlier else 1, **found}
    write_json(path, {"schema_version": 1, "promotions": [*earlier, entry]})
    said = "without a verdict" if verdict is None else f"with the verdict {WORDS[verdict.verdict]}"
    return (
        f"Promoted as number {entry['number']}: {', '.join(sorted(found['models']))} "
        f"(sha256 {found['model_sha256'][:12]}), {said}. Commit {PROMOTED_FILE}."
    )


def check_models(ensemble: Ensemble, judged: Any) -> dict[str, str]:
    """Make sure that the exported weights are whole and are those that the reports judge.

    Args:
        ensemble: The exported model.
        judged: ``models`` of metrics.json: name → sha256.

    Returns:
        Name → sha256 of each exported model.

    Raises:
        PromotionError: They are not.
    """
    found = {}
    for folder in ensemble.folders:
        source = read_source(folder)
        found[folder.name] = sha256_file(source.weights_path)
        if found[folder.name] != source.card.weights.sha256:
            raise PromotionError(
                f"{folder.name}: the exported weights are damaged or changed; run the export stage again"
            )
    if not isinstance(judged, Mapping) or any(judged.get(name) != digest for name, digest in found.items()):
        raise PromotionError(
            "reports/metrics.json does not judge the weights in artifacts/export/model; run the pipeline to its end "
            "(monai-tl run), then promote"
        )
    return found


def check_unchanged(workspace: Path) -> None:
    """Make sure that the numbers are those that the evaluate stage wrote, where dvc.lock says which these are.

    Raises:
        PromotionError: They were changed since.
    """
    recorded = _lock_entries(workspace, "evaluate", "outs").get(METRICS_FILE)
    # DVC's hash, whatever it is worth against intent: dvc.lock is in git
    found = hashlib.md5((workspace / METRICS_FILE).read_bytes(), usedforsecurity=False).hexdigest()
    if recorded not in (None, found):
        raise PromotionError(
            "reports/metrics.json is not what the pipeline wrote (dvc.lock has another hash); run it again "
            "(monai-tl run), then promote"
        )


def check_verdict(verdict: Verdict | None, arm: str, on_test: bool, accept_undecided: bool) -> None:
    """Whether a model may be promoted.

    Args:
        verdict: Of the run; None with one arm.
        arm: Exported.
        on_test: False where validation cases stood in for a test set.
        accept_undecided: Accept what is not known; what is known to be bad is never accepted.

    Raises:
        PromotionError: It may not.
    """
    said = "" if verdict is None else say_verdict(verdict.model_dump())
    if verdict is not None and verdict.verdict == "harm":
        raise PromotionError(
            f"{said} A run that did harm is not promoted: take another source or strategy, or train from "
            "scratch alone (finetune.arms: [scratch])"
        )
    if verdict is not None and verdict.verdict == "gain" and arm != "transfer":
        raise PromotionError(
            f"{said} But the exported arm is {arm}, the worse one; set export.arm to best and export again"
        )
    if accept_undecided or _is_decided(verdict, on_test):
        return
    if verdict is None:
        cause = "There is no verdict: one arm was trained, so nothing shows what the pretrained start did."
    elif not on_test:
        cause = f"{said} But that was measured on validation cases, which also chose the kept step."
    else:
        cause = said
    raise PromotionError(f"{cause} Add test cases, seeds or the missing arm, or promote it knowingly with {ACCEPT}")


def _is_decided(verdict: Verdict | None, on_test: bool) -> bool:
    return verdict is not None and verdict.decided and on_test


def data_hashes(workspace: Path) -> dict[str, str]:
    """Path → DVC's hash of what ingest read, from dvc.lock as plain YAML; empty where there is none."""
    hashes = _lock_entries(workspace, "ingest", "deps")
    return {
        path: digest for path, digest in hashes.items() if path != VERSION_FILE and not path.startswith("monai_tl/")
    }


def _lock_entries(workspace: Path, stage: str, kind: str) -> dict[str, str]:
    """What dvc.lock has of a stage; empty where there is none, as after a run without DVC."""
    path = workspace / "dvc.lock"
    if not path.exists():
        return {}
    try:
        entries = parse_yaml(read_text(path, ""), path.name).get("stages", {}).get(stage, {}).get(kind, ())
        return {str(one["path"]): str(one[one.get("hash", "md5")]) for one in entries}
    except (ConfigError, KeyError, TypeError, AttributeError):
        raise PromotionError(
            "dvc.lock cannot be read, so nothing tells whether the results are those of its record; bring it back "
            "from git ('git checkout -- dvc.lock') or run again (monai-tl run), then promote"
        ) from None


def _read(path: Path, remedy: str) -> dict[str, Any]:
    try:
        content = read_json(path)
    except FileNotFoundError:
        raise PromotionError(f"{path.name} is missing: the run is not finished; {remedy}") from None
    except ValueError:
        content = None
    if not isinstance(content, dict):
        raise PromotionError(f"{path.name} is damaged; {remedy}")
    return content


def _verdict(metrics: Mapping[str, Any]) -> Verdict | None:
    if "verdict" in metrics and metrics["verdict"] is None:
        return None
    try:
        found = Verdict.model_validate(metrics.get("verdict"))
    except ValidationError:
        found = None
    if found is None or not is_consistent(found):
        raise PromotionError("metrics.json holds a damaged verdict; run the evaluate stage again")
    return found


def _earlier(path: Path) -> list[dict[str, Any]]:
    """Earlier entries as they are on disk, so that what a later version wrote there is kept."""
    if not path.exists():
        return []
    content = _read(path, "bring it back from git")
    earlier = content.get("promotions")
    if not isinstance(earlier, list) or [
        one.get("number") if isinstance(one, dict) else None for one in earlier
    ] != list(range(1, len(earlier) + 1)):
        raise PromotionError(f"{path.name} is damaged; bring it back from git")
    return earlier


def _origin(ensemble: Ensemble) -> dict[str, str | None]:
    """Where the first model's weights came from, with the licence and citation that stayed with them."""
    folder = ensemble.folders[0]
    try:
        audit = Audit.read(folder / "audit.json")
    except DataError as error:
        raise SourceError(str(error)) from None
    card = read_source(folder).card
    return {"name": audit.source, "sha256": audit.source_sha256, "licence": card.licence, "citation": card.citation}
