"""The flow of ``monai-tl curve``: what the points need, the points, their summary, and a DVC experiment of it all."""

from __future__ import annotations

import logging
import sys
from pathlib import Path

from prefect import flow, get_run_logger

from flows import artifacts, naming, progress, versioning
from flows.disk import disk_faults_told
from flows.experiments import experiment_name, save_experiment
from flows.pipeline import bring_up_to_date, main, tell_plan
from monai_tl.config import load_params
from monai_tl.stages import CURVE, CURVE_FILE, CURVE_TEMPLATE

PREPARING = ("ingest", "split", "plan", "preprocess")
"""Stages of the training pipeline that the points build on; what it trains itself is not theirs to run."""
_SUMMARY = "curve"
_LOCK = str(Path(CURVE_FILE).with_suffix(".lock"))
_KEPT = (
    "dvc.lock",
    *(CURVE_FILE, _LOCK, CURVE_TEMPLATE),
    *("reports/curve/.gitignore", "reports/curve/curve.json", "reports/curve/labels.csv", "reports/curve/steps.csv"),
)


@flow(name="curve", flow_run_name=naming.of_training, persist_result=False, validate_parameters=True)
def curve(stage_time_out_s: float | None = None) -> dict[str, str]:
    """Bring every point of the current workspace's curve up to date, sum them up, and keep them as an experiment.

    Args:
        stage_time_out_s: A point that takes longer is ended and fails the run; null sets no limit.

    Returns:
        The outcome of each step: ran, restored or unchanged.
    """
    workspace = Path.cwd()
    logger = get_run_logger()
    with disk_faults_told(), versioning.held(workspace) as inspection:
        lock_handle, changes = inspection.lock_handle, inspection.changes
        params = load_params(workspace)
        pins = [name for name in changes if name.endswith(".dvc")]
        for name in pins:
            versioning.reproduce(name, workspace, lock_handle, logger.info)
        if pins:
            naming.rename(naming.of_training())
        preparing = [step for step in versioning.steps(params) if step.stage in PREPARING]
        points = versioning.steps(params, CURVE, CURVE_FILE)
        tell_plan(len(preparing) + len(points))
        boards = progress.boards_of((*preparing, *points))
        outcomes: dict[str, str] = {}
        for step in (*preparing, *points):
            # one point is no input of another: only what they all build on makes DVC look again
            before = [address for address in outcomes if step.stage == _SUMMARY or not address.startswith(CURVE_FILE)]
            stale = any(outcomes[address] != "unchanged" for address in before)
            was_changed = changes.get(step.address, [] if stale else None)
            outcomes[step.address] = bring_up_to_date(
                step, workspace, lock_handle, was_changed, boards[step.stage], stage_time_out_s
            )
        name = experiment_name("curve", workspace / _LOCK)
        if save_experiment(workspace, name, _KEPT):
            logger.info("experiment %s", name)
        artifacts.publish_curve(workspace, {step.name: outcomes[step.address] for step in (*preparing, *points)})
    return outcomes


if __name__ == "__main__":
    logging.captureWarnings(True)
    sys.exit(main(curve))
