"""``monai-tl inbox``: new studies in, DICOM SEG out, each exactly once; a report of what became of them."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from monai_tl.commands.registry import fetch_prod, stage_mark
from monai_tl.commands.segment import Found, LoadedModel, Target, load_model, segment_folder
from monai_tl.config import InboxConfig, Params, load_params
from monai_tl.dicom.deidentify import Pseudonyms, load_key
from monai_tl.dicom.volume import to_ras
from monai_tl.dicom.web import DicomWeb
from monai_tl.errors import ConfigError, PacsError
from monai_tl.files import write_json
from monai_tl.inbox.arrivals import Look, look
from monai_tl.inbox.corrections import Correction, corrections_at
from monai_tl.inbox.drift import Measured, drift_of, measure, measures_to_text
from monai_tl.inbox.entries import Entry
from monai_tl.inbox.exchange import fetch_new, store_results
from monai_tl.inbox.ledger import Ledger, ledger_at
from monai_tl.inbox.report import describe, summarise
from monai_tl.inbox.settings import ledger_of, section_of
from monai_tl.inbox.work import Process, Rules, Worked, work
from monai_tl.stages import STATE_FOLDER

REPORT_FILE = "inbox.json"
"""In the state folder: the last pass, for the flow."""
_LONGEST_NAP_S = 60.0


@dataclass(frozen=True)
class _Place:
    """Everything that stays the same from pass to pass."""

    config: InboxConfig
    folder: Path
    outbox: Path
    hasher: Pseudonyms
    model: LoadedModel
    pacs: DicomWeb | None
    report: Path
    ledger: Path


def run(workspace: Path, once: bool = False, tell: Callable[[str], None] = print) -> None:
    """Work on the inbox of a workspace: once, or until interrupted.

    Args:
        workspace: Holds params.yaml with a section ``inbox``.
        once: One pass over what is whole now.
        tell: Gets the report of each pass in which something happened.

    Raises:
        ConfigError: params.yaml has faults or no section ``inbox``.
        SourceError: The model cannot be loaded.
        MonaiTLError: The ledger cannot be used.
        PacsError: With ``once``: after the pass, when the PACS could not be reached or refused something.
    """
    params = load_params(workspace)
    # before the model is fetched: one that is promoted meanwhile is seen at the next pass
    mark = _mark(workspace, params)
    place = _open(workspace, params)
    with ledger_at(place.ledger, place.hasher.key_id) as ledger:
        while True:
            now = _mark(workspace, params)
            if now != mark:
                # another version is in production
                mark, params = now, load_params(workspace)
                place = _open(workspace, params)
            found = _pass(place, ledger)
            if once or found["n_worked"] or found["faults"]:
                tell(describe(found))
            if once:
                break
            time.sleep(min(float(place.config.every_s), max(place.config.settle_s / 2.0, 1.0), _LONGEST_NAP_S))
    if found["faults"]:
        raise PacsError(found["faults"][0])


def report(workspace: Path) -> str:
    """What the ledger says; nothing is worked on.

    Raises:
        ConfigError: params.yaml has faults or no section ``inbox``.
        MonaiTLError: The ledger cannot be used.
    """
    place = _open(workspace, load_params(workspace))
    with ledger_at(place.ledger, place.hasher.key_id) as ledger:
        return describe(_summary(place, ledger, None))


def release(workspace: Path, study: str) -> str:
    """Let a study out of quarantine, e.g. after its cause was mended, and ask anew for trainings that failed.

    Args:
        workspace: Holds params.yaml.
        study: As the report names it, or ``all``.

    Raises:
        ConfigError: There is no such study in quarantine.
        MonaiTLError: The ledger cannot be used.
    """
    params = load_params(workspace)
    config = section_of(params)
    hasher = Pseudonyms(load_key(Path(params.ingest.key_file)))
    path = ledger_of(workspace, config)
    with ledger_at(path, hasher.key_id) as ledger, corrections_at(path) as table:
        n_released = ledger.release(study) + table.release(study)
    if not n_released and study != "all":
        raise ConfigError(
            f"--release: {study} is not in quarantine; monai-tl inbox --report lists what is", "arguments"
        )
    return f"{n_released} released; the next pass takes them again"


def _open(workspace: Path, params: Params) -> _Place:
    config = section_of(params)
    hasher = Pseudonyms(load_key(Path(params.ingest.key_file)))
    outbox, folder = workspace / config.outbox, workspace / config.folder
    if outbox.resolve() == folder.resolve() or folder.resolve() in outbox.resolve().parents:
        raise ConfigError("inbox.outbox: lies in inbox.folder, where results would be taken for studies; move it out")
    pacs = None if config.pacs is None else DicomWeb(config.pacs.url, config.pacs.timeout_s)
    model = fetch_prod(workspace) if config.model is None else workspace / config.model
    loaded = load_model([model], config.mode)
    outbox.mkdir(parents=True, exist_ok=True)
    return _Place(
        config,
        folder,
        outbox,
        hasher,
        loaded,
        pacs,
        workspace / STATE_FOLDER / REPORT_FILE,
        ledger_of(workspace, config),
    )


def _mark(workspace: Path, params: Params) -> str:
    return stage_mark(workspace) if section_of(params).model is None else ""


def _pass(place: _Place, ledger: Ledger) -> dict[str, Any]:
    """Fetch, work, store; a PACS that does not answer keeps nobody from what is there."""
    config = place.config
    faults = _fetch(place, ledger)
    found = look(place.folder, place.hasher, ledger, config.settle_s)
    rules = Rules(place.model.algorithm.model_sha256, config.max_attempts, config.retry_s)
    worked = work(found, place.outbox, ledger, rules, _process_of(place))
    if place.pacs is not None and config.pacs is not None and config.pacs.store:
        faults += store_results(place.pacs, place.outbox, ledger).faults
    _see_labels(place, found)
    summary = _summary(place, ledger, found, worked, faults)
    write_json(place.report, summary)
    return summary


def _see_labels(place: _Place, found: Look) -> None:
    """Labels that came back wait for the flow, which adds them to the data when no training runs."""
    if place.config.retrain_after is not None:
        with corrections_at(place.ledger) as table:
            for label in found.labels.values():
                table.see(label.content, label.study, label.arrived)


def _fetch(place: _Place, ledger: Ledger) -> list[str]:
    config = place.config
    if place.pacs is None or config.pacs is None or not config.pacs.fetch:
        return []
    place.folder.mkdir(parents=True, exist_ok=True)
    modality = place.model.predictor.plan.modality
    return fetch_new(place.pacs, config.pacs, modality, place.folder, place.hasher, ledger, config.settle_s).faults


def _process_of(place: _Place) -> Process:
    """A study's files through the model."""

    def process(files: Path, out: Path) -> Worked:
        measures: list[Measured] = []

        def watch(one: Found) -> None:
            image, _ = to_ras(one.volume)
            found = measure(image, one.affine, one.label, place.model.predictor.plan)
            measures.append(Measured(found, None if one.certainty is None else one.certainty.entropy))

        target = Target(out, place.hasher, place.config.identity)
        done = segment_folder(files, place.model, target, watch)
        refused = tuple((item.code, item.reason) for item in done.rejected)
        return Worked(len(done.lines), refused, measures_to_text(measures))

    return process


def _summary(
    place: _Place, ledger: Ledger, found: Look | None, worked: Sequence[Entry] = (), faults: Sequence[str] = ()
) -> dict[str, Any]:
    entries = ledger.entries()
    drift = drift_of(
        [entry for entry in entries if entry.state == "done"],
        place.model.fingerprint,
        place.model.predictor.plan,
        certainty=place.model.certainty,
        window=place.config.drift_window,
        bound=place.config.drift_bound,
    )
    labels: list[Correction] = []
    if place.config.retrain_after is not None:
        with corrections_at(place.ledger) as table:
            labels = table.rows()
    return summarise(entries, drift, found, worked, faults, labels)
