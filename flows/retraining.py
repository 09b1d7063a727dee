"""Labels that came back through the inbox: into the data, and from time to time into a new training.

The ledger holds how far each label has come, so each step may be ended at any moment and is done again by the next run:
the files are in the data or not, DVC knows them or not, and a training is asked for under a key that Prefect knows.
"""

from __future__ import annotations

import json
import os
from collections import deque
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from uuid import UUID

from prefect import get_client, get_run_logger, task
from prefect.artifacts import create_markdown_artifact
from prefect.cache_policies import NO_CACHE
from prefect.client.schemas.filters import (
    DeploymentFilter,
    DeploymentFilterId,
    FlowRunFilter,
    FlowRunFilterState,
    FlowRunFilterStateType,
)
from prefect.client.schemas.objects import FlowRun, StateType
from prefect.client.schemas.sorting import FlowRunSort
from prefect.deployments import run_deployment
from prefect.exceptions import ObjectNotFound

from flows import versioning
from flows.clone import commit_pin, is_going_on, training_in_clone
from flows.processes import last_words, run_supervised
from monai_tl.config import Params, load_params
from monai_tl.errors import StageError
from monai_tl.stages import STATE_FOLDER

REPORT_FILE = "corrections.json"
_MODULE = "monai_tl.commands.corrections"
_WAITING = ("seen", "taken", "added", "training")
_OPEN = [StateType.PENDING, StateType.RUNNING, StateType.CANCELLING, StateType.PAUSED]
_STEPS = {StateType.CANCELLED: "again", StateType.FAILED: "failed", StateType.CRASHED: "failed"}
"""A run that somebody cancelled is asked for at once; a full disk, a network or a machine that is gone may pass."""
_TAIL_LINES, _MOST_TOLD = 6, 50


def learn(workspace: Path, found: dict[str, Any], training: str | None) -> None:
    """Bring each label that came back one step on, where there is any.

    Args:
        workspace: Whose inbox it is.
        found: What the pass over the inbox has found.
        training: Deployment to start, ``flow/name``.
    """
    states = found["labels"]["states"]
    if any(states.get(state) for state in _WAITING):
        params = load_params(workspace)
        learn_from_labels(workspace, params, training, is_alarm=bool(found["drift"]["alarm"]))


@task(task_run_name="learn from labels that came back", cache_policy=NO_CACHE, persist_result=False, tags=["inbox"])
def learn_from_labels(workspace: Path, params: Params, training: str | None, is_alarm: bool) -> None:
    """See ``learn``.

    Raises:
        StageError: A label could not be judged for a reason that is not its own.
        ConfigError: Nothing pins the data, or DVC or git failed.
    """
    logger = get_run_logger()
    try:
        handle = versioning.lock_workspace(workspace)
    except versioning.WorkspaceBusyError:
        logger.info("labels wait: another run holds the workspace")
        return
    in_clone = training is not None and training.startswith(f"{training_in_clone.name}/")
    try:
        for run in _note(workspace, handle, "look")["runs"]:
            step = _step_after(run)
            if step:
                logger.info("the training that new labels asked for: %s", step)
                _note(workspace, handle, step, run)
        noted = _note(workspace, handle, "take")
        if noted["states"].get("taken"):
            pin = versioning.add_data(workspace, params.ingest.source, handle)
            if in_clone:
                # a clone has what is committed
                commit_pin(workspace, pin, "Labels that came through the inbox")
            noted = _note(workspace, handle, "added")
        is_time = _is_time(noted, params, is_alarm)
        if is_time and in_clone and is_going_on(workspace):
            # it would find the clone busy, and fail
            logger.info("labels wait: a training goes on in the clone")
        elif is_time:
            run = _ask_for_training(training, noted["key"], noted["n_cases"], logger.info)
            if run:
                noted = _note(workspace, handle, "training", run)
        _show(noted)
    finally:
        os.close(handle)


def _note(workspace: Path, handle: int, *step: str) -> dict[str, Any]:
    """Let the ledger's keeper do a step; what it says then."""
    tail: deque[str] = deque(maxlen=_TAIL_LINES)
    code = run_supervised([_MODULE, *step], workspace, tail.append, pass_fds=[handle])
    if code != 0:
        raise StageError("labels", last_words(tail, code))
    found: dict[str, Any] = json.loads((workspace / STATE_FOLDER / REPORT_FILE).read_text(encoding="utf-8"))
    return found


def _show(noted: dict[str, Any]) -> None:
    """On the dashboard: how far the labels have come, and what a person should know of them."""
    counts = "\n".join(f"| {state} | {count} |" for state, count in sorted(noted["states"].items()))
    told = "\n".join(f"| {row['study']} | {row['code']} | {row['reason']} |" for row in noted["told"][-_MOST_TOLD:])
    text = f"| labels | |\n|---|---|\n{counts}\n\n| study | | reason |\n|---|---|---|\n{told}\n"
    create_markdown_artifact(text, key="inbox-labels", description="Labels that came back, and trainings on them")
    for reason in noted["failed"]:
        get_run_logger().warning(reason)


def _is_time(noted: dict[str, Any], params: Params, is_alarm: bool) -> bool:
    """Whether enough labels have come, or one has and the studies have moved away from what was trained on."""
    enough = params.inbox.retrain_after if params.inbox else None
    return enough is not None and (noted["n_cases"] >= enough or (is_alarm and noted["n_cases"] > 0))


def _step_after(run: str) -> str:
    """What became of a training: ``done``, ``again``, ``failed``, or empty while it goes on."""
    with get_client(sync_client=True) as client:
        try:
            state = client.read_flow_run(UUID(run)).state
        except ObjectNotFound:
            # another server, or a database that was cleared
            return "again"
    if state is None or not state.is_final():
        return ""
    return _STEPS.get(state.type, "done")


def _ask_for_training(training: str | None, key: str, n_cases: int, tell: Any) -> str:
    """Start the training, unless one goes on; the run's id, or empty.

    The key makes it one run, however often it is asked for: a process that is killed before it has noted the run gets
    the same one the next time.
    """
    if training is None:
        tell("%d series have new labels: time to train (monai-tl run)", n_cases)
        return ""
    with get_client(sync_client=True) as client:
        try:
            deployment = client.read_deployment_by_name(training)
        except ObjectNotFound:
            tell("%d series have new labels, but there is no deployment %s; run 'monai-tl serve'", n_cases, training)
            return ""
        going_on: Sequence[FlowRun] = client.read_flow_runs(
            deployment_filter=DeploymentFilter(id=DeploymentFilterId(any_=[deployment.id])),
            flow_run_filter=FlowRunFilter(state=FlowRunFilterState(type=FlowRunFilterStateType(any_=_OPEN))),
            sort=FlowRunSort.START_TIME_ASC,
            limit=1,
        )
    if going_on:
        tell("%d series have new labels; a training goes on, so the next comes after it", n_cases)
        return ""
    run: Any = run_deployment(training, timeout=0, idempotency_key=key, as_subflow=False, tags=["new labels"])
    tell("%d series have new labels: training as %s", n_cases, run.name)
    return str(run.id)
