"""The training flow: the stages in order. ``python -m flows`` runs it once in the current workspace."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Callable
from contextlib import nullcontext, suppress
from pathlib import Path
from typing import Any

from httpx import HTTPError, TransportError
from prefect import flow, get_run_logger, task
from prefect.cache_policies import NO_CACHE
from prefect.events.worker import EventsWorker
from prefect.logging.handlers import APILogHandler
from prefect.settings import PREFECT_API_AUTH_STRING, PREFECT_API_URL, temporary_settings

from flows import artifacts, naming, progress, versioning
from flows.disk import disk_faults_told
from flows.guards import gpu_slot
from flows.server import server_for
from flows.takeover import take_over
from monai_tl.config import load_params
from monai_tl.errors import MonaiTLError, StageError
from monai_tl.json_lines import MARK, OUTCOME_MARK, VARIABLE, mark_line

_DELIVERY_S = 10.0
_ON_GPU = frozenset(("finetune", "predict", "evaluate", "curve_label", "curve_step"))
"""Stages that run networks; on a machine with a GPU they take turns at it."""


@task(task_run_name="{step.name}", cache_policy=NO_CACHE, persist_result=False, tags=["stage"])
def bring_up_to_date(
    step: versioning.Step,
    workspace: Path,
    lock_handle: int,
    was_changed: list[Any] | None,
    board: progress.ProgressBoard,
    time_out_s: float | None,
) -> versioning.Outcome:
    """One step: nothing where DVC finds nothing changed, else DVC's own run of it."""
    logger = get_run_logger()

    def relay(line: str) -> None:
        board.take(line)
        _tell(line) if line.startswith(MARK) else logger.info(line)

    outcome: versioning.Outcome = "unchanged"
    if was_changed is not None:
        _tell_outcome(step.name, "running")
        with gpu_slot() if step.stage in _ON_GPU else nullcontext():
            outcome = versioning.reproduce(
                step, workspace, lock_handle, relay, time_out_s=time_out_s, was_changed=was_changed
            )
    logger.info("%s: %s", step.name, outcome)
    _tell_outcome(step.name, outcome)
    board.finish(step.name, outcome)
    return outcome


@flow(
    name="training",
    flow_run_name=naming.of_training,
    persist_result=False,
    validate_parameters=True,
    on_running=[take_over],
)
def training(stage_time_out_s: float | None = None) -> dict[str, str]:
    """Bring every stage of the current workspace up to date and show the result.

    Args:
        stage_time_out_s: A stage that takes longer is ended and fails the run; null sets no limit.

    Returns:
        The outcome of each step: ran, restored or unchanged.
    """
    workspace = Path.cwd()
    with disk_faults_told(), versioning.held(workspace) as inspection:
        lock_handle, changes = inspection.lock_handle, inspection.changes
        steps = versioning.steps(load_params(workspace))
        pins = [name for name in changes if name.endswith(".dvc")]
        for name in pins:
            versioning.reproduce(name, workspace, lock_handle, get_run_logger().info)
        if pins:
            naming.rename(naming.of_training())
        tell_plan(len(steps))
        boards = progress.boards_of(steps)
        outcomes: dict[str, str] = {}
        for step in steps:
            # past the first change every later step is DVC's to judge: its inputs may be new
            stale = any(outcome != "unchanged" for outcome in outcomes.values())
            was_changed = changes.get(step.address, [] if stale else None)
            try:
                outcomes[step.address] = bring_up_to_date(
                    step, workspace, lock_handle, was_changed, boards[step.stage], stage_time_out_s
                )
            except StageError:
                # perhaps by what it refused; a server that is away must not hide why
                with suppress(HTTPError):
                    artifacts.publish_refused(workspace, step.stage)
                raise
        artifacts.publish_results(workspace, outcomes)
    return outcomes


def _tell(line: str) -> None:
    if os.environ.get(VARIABLE) == "json":
        sys.stdout.write(line + "\n")
        sys.stdout.flush()


def tell_plan(n_steps: int) -> None:
    """Tell ``monai-tl run`` how many steps there are."""
    _tell(mark_line(OUTCOME_MARK, {"n_steps": n_steps}))


def _tell_outcome(name: str, outcome: str) -> None:
    _tell(mark_line(OUTCOME_MARK, {"stage": name, "outcome": outcome}))


def _deliver() -> None:
    """Send what Prefect still holds of logs and events, while the server is there to take it."""
    APILogHandler().flush()
    EventsWorker.drain_all(timeout=_DELIVERY_S)


def main(run: Callable[[float | None], object] = training) -> int:
    """Run a flow once; the exit status is the error's, see monai_tl.errors."""
    workspace = Path.cwd()
    limit = os.environ.get("MONAI_TL_STAGE_TIME_OUT_S")
    try:
        load_params(workspace)
        with (
            server_for(workspace) as server,
            temporary_settings({PREFECT_API_URL: server.api_url, PREFECT_API_AUTH_STRING: server.auth}),
        ):
            try:
                run(float(limit) if limit else None)
            finally:
                _deliver()
    except MonaiTLError as error:
        sys.stderr.write(f"monai-tl: {error}\n")
        return error.exit_code
    except TransportError:
        sys.stderr.write("monai-tl: the Prefect server answers no longer; start it again, then run again\n")
        return 1
    except KeyboardInterrupt:
        sys.stderr.write("monai-tl: interrupted\n")
        return 130
    return 0


if __name__ == "__main__":
    logging.captureWarnings(True)
    sys.exit(main())
