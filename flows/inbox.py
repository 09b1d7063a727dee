"""The serving flow: new studies in, DICOM SEG out. ``python -m flows.inbox`` runs it once in the current workspace.

``monai-tl inbox --once`` does the work, in a process of its own; its ledger says what is due, so a run that is killed,
comes twice or overlaps another harms nothing. Prefect says when, and shows what the ledger says.
"""

from __future__ import annotations

import json
import logging
import sys
from collections import deque
from pathlib import Path
from typing import Any

from prefect import flow, get_run_logger, task
from prefect.cache_policies import NO_CACHE
from prefect.events import emit_event

from flows import artifacts, naming
from flows.disk import disk_faults_told
from flows.guards import gpu_slot
from flows.pipeline import main
from flows.processes import last_words, run_supervised
from flows.progress import ProgressBoard
from flows.retraining import learn
from flows.takeover import take_over
from monai_tl.errors import StageError
from monai_tl.json_lines import MARK
from monai_tl.stages import STATE_FOLDER

REPORT_FILE = "inbox.json"
DRIFT_EVENT, QUARANTINE_EVENT = "monai_tl.inbox.drift", "monai_tl.inbox.quarantine"
_TAIL_LINES = 6


@task(task_run_name="segment new studies", cache_policy=NO_CACHE, persist_result=False, tags=["inbox"])
def segment_new(workspace: Path, time_out_s: float | None) -> None:
    """One pass of the inbox.

    Raises:
        StageError: It failed as a whole, e.g. the PACS cannot be reached; studies are as the ledger says.
    """
    logger, board = get_run_logger(), ProgressBoard("inbox", 1)
    tail: deque[str] = deque(maxlen=_TAIL_LINES)

    def take(line: str) -> None:
        board.take(line)
        if not line.startswith(MARK):
            tail.append(line)
            logger.info(line)

    with gpu_slot():
        code = run_supervised(["monai_tl", "inbox", "--once"], workspace, take, time_out_s)
    if code is None:
        raise StageError("inbox", f"stopped after {time_out_s:g} s; the next run goes on with what is left")
    if code != 0:
        raise StageError("inbox", last_words(tail, code))
    board.finish("inbox", "ran")


@flow(
    name="inbox", flow_run_name=naming.of_inbox, persist_result=False, validate_parameters=True, on_running=[take_over]
)
def inbox(time_out_s: float | None = None, training: str | None = None) -> dict[str, int]:
    """Segment what has come since the last run, show what became of it, and learn from labels that came back.

    Args:
        time_out_s: A run that takes longer is ended and fails; the next one goes on. Null sets no limit.
        training: Deployment to start when enough labels have come, ``flow/name``; null starts none.

    Returns:
        How many studies are in each state.
    """
    workspace = Path.cwd()
    report = workspace / STATE_FOLDER / REPORT_FILE
    with disk_faults_told():
        # an older one says nothing of this run
        report.unlink(missing_ok=True)
        try:
            segment_new(workspace, time_out_s)
        finally:
            found = _read(report)
            if found is not None:
                artifacts.publish_inbox(found)
                _tell(found, workspace)
        if found is not None:
            learn(workspace, found, training)
    return dict(found["states"]) if found else {}


def _read(report: Path) -> dict[str, Any] | None:
    try:
        found: dict[str, Any] = json.loads(report.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return found


def _tell(found: dict[str, Any], workspace: Path) -> None:
    """Events that an automation can act on, e.g. a message to whoever watches."""
    # here, because flows.deploy imports this module
    from flows.deploy import deployment_name

    resource = {"prefect.resource.id": f"monai_tl.{deployment_name(workspace)}", "prefect.resource.role": "inbox"}
    drift, given_up = found["drift"], found["given_up"]
    if drift["alarm"] and found["n_worked"]:
        payload = {key: drift[key] for key in ("score", "bound", "n_studies", "words")}
        emit_event(event=DRIFT_EVENT, resource=resource, payload=payload)
        get_run_logger().warning(drift["words"])
    if given_up:
        emit_event(event=QUARANTINE_EVENT, resource=resource, payload={"studies": given_up})


if __name__ == "__main__":
    logging.captureWarnings(True)
    sys.exit(main(inbox))
