"""Serves the flows on the schedules of params.yaml: ``python -m flows.deploy``.

The training comes by ``serve``, which ``--interval`` or ``--cron`` override; the inbox by ``inbox.every_s`` where there
is a section ``inbox``. ``monai-tl serve`` starts this beside a server; PREFECT_API_URL must name one.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import sys
from datetime import timedelta
from pathlib import Path
from typing import Any

from prefect import serve
from prefect.client.schemas.objects import ConcurrencyLimitConfig, ConcurrencyLimitStrategy
from prefect.deployments.runner import RunnerDeployment
from prefect.types.entrypoint import EntrypointType

from flows.clone import training_in_clone
from flows.guards import SILENCE_S, set_up
from flows.inbox import inbox
from flows.pipeline import training
from flows.promotion import promotion
from monai_tl.config import ServeConfig, load_params

_ONE = ConcurrencyLimitConfig(
    # whoever takes a run and dies before it begins holds the place of the next ones no longer than this
    limit=1, collision_strategy=ConcurrencyLimitStrategy.CANCEL_NEW, grace_period_seconds=SILENCE_S,
)  # fmt: skip


def deployment_name(workspace: Path) -> str:
    """Differs between workspaces on one server and tells nothing of where they are."""
    return f"workspace-{hashlib.sha256(str(workspace.resolve()).encode()).hexdigest()[:8]}"


def deployments(workspace: Path, schedule: ServeConfig, in_place: bool = False) -> list[RunnerDeployment]:
    """What is served: the training, the promotion, and the inbox where params.yaml has a section of it.

    One run of a flow at a time; one that would overlap is cancelled: the next does its work.

    Args:
        workspace: Holds params.yaml.
        schedule: Of the training.
        in_place: Train in the workspace itself instead of its clone, see ``flows.clone``.
    """
    name, inbox_settings = deployment_name(workspace), load_params(workspace).inbox
    chosen = training if in_place else training_in_clone
    when = {"interval": timedelta(seconds=schedule.every_s)} if schedule.cron is None else {"cron": schedule.cron}
    wanted: list[tuple[Any, str, dict[str, Any]]] = [(chosen, "training", when), (promotion, "promotion", {})]
    if inbox_settings is not None:
        when = {"interval": timedelta(seconds=inbox_settings.every_s)}
        wanted.append((inbox, "inbox", {**when, "parameters": {"training": f"{chosen.name}/{name}"}}))
    return [
        flow.to_deployment(
            name=name, concurrency_limit=_ONE, entrypoint_type=EntrypointType.MODULE_PATH, tags=[tag], **more
        )
        for flow, tag, more in wanted
    ]


def serve_flows(workspace: Path, schedule: ServeConfig, in_place: bool = False) -> None:
    """Serve until stopped.

    Args:
        workspace: The current folder; runs start in it.
        schedule: As of ``deployments``.
        in_place: Likewise.
    """
    # the processes of single runs import the workspace's flows by name
    os.environ["PYTHONPATH"] = os.pathsep.join(
        part for part in (str(workspace), os.environ.get("PYTHONPATH", "")) if part
    )
    served = deployments(workspace, schedule, in_place)
    set_up()
    serve(*served, pause_on_shutdown=True, limit=len(served))


def main() -> int:
    """Entry point."""
    parser = argparse.ArgumentParser(prog="python -m flows.deploy")
    parser.add_argument("--interval", type=int, help="seconds between runs, instead of serve.every_s")
    parser.add_argument("--cron", help="cron schedule, instead of serve.cron")
    parser.add_argument("--in-place", action="store_true", help="train in the workspace itself, not in its clone")
    given = parser.parse_args()
    workspace = Path.cwd()
    schedule = load_params(workspace).serve.overridden(given.interval, given.cron)
    serve_flows(workspace, schedule, given.in_place)
    return 0


if __name__ == "__main__":
    sys.exit(main())
