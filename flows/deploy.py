"""Serves the flows on their schedules: ``python -m flows.deploy --interval 86400`` or ``--cron '0 2 * * *'``.

The interval is the training's; the inbox is served where params.yaml has a section ``inbox``, every ``inbox.every_s``
seconds. ``monai-tl serve`` starts this beside a server; PREFECT_API_URL must name one.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import sys
from datetime import timedelta
from pathlib import Path

from prefect import serve
from prefect.client.schemas.objects import ConcurrencyLimitConfig, ConcurrencyLimitStrategy
from prefect.types.entrypoint import EntrypointType

from flows.clone import training_in_clone
from flows.guards import SILENCE_S, set_up
from flows.inbox import inbox
from flows.pipeline import training
from flows.promotion import promotion
from monai_tl.config import load_params

_ONE = ConcurrencyLimitConfig(
    # whoever takes a run and dies before it begins holds the place of the next ones no longer than this
    limit=1, collision_strategy=ConcurrencyLimitStrategy.CANCEL_NEW, grace_period_seconds=SILENCE_S,
)  # fmt: skip


def deployment_name(workspace: Path) -> str:
    """Differs between workspaces on one server and tells nothing of where they are."""
    return f"workspace-{hashlib.sha256(str(workspace.resolve()).encode()).hexdigest()[:8]}"


def serve_flows(workspace: Path, interval_s: float | None, cron: str | None, in_clone: bool = False) -> None:
    """Serve until stopped. One run of a flow at a time; one that would overlap is cancelled: the next does its work.

    Args:
        workspace: The current folder; runs start in it.
        interval_s: Time between starts of the training, seconds.
        cron: Cron schedule of the training instead of the interval.
        in_clone: Train in a clone and put results on branches, see ``flows.clone``.
    """
    # the processes of single runs import the workspace's flows by name
    os.environ["PYTHONPATH"] = os.pathsep.join(
        part for part in (str(workspace), os.environ.get("PYTHONPATH", "")) if part
    )
    chosen = training_in_clone if in_clone else training
    served = [
        chosen.to_deployment(
            name=deployment_name(workspace),
            interval=None if cron else timedelta(seconds=interval_s or 86_400),
            cron=cron,
            concurrency_limit=_ONE,
            entrypoint_type=EntrypointType.MODULE_PATH,
            tags=["training"],
        ),
        promotion.to_deployment(
            name=deployment_name(workspace), entrypoint_type=EntrypointType.MODULE_PATH, tags=["promotion"]
        ),
    ]
    settings = load_params(workspace).inbox
    if settings is not None:
        served.append(
            inbox.to_deployment(
                name=deployment_name(workspace),
                interval=timedelta(seconds=settings.every_s),
                parameters={"training": f"{chosen.name}/{deployment_name(workspace)}"},
                concurrency_limit=_ONE,
                entrypoint_type=EntrypointType.MODULE_PATH,
                tags=["inbox"],
            )
        )
    set_up()
    # typed as values or coroutines
    serve(*served, pause_on_shutdown=True, limit=len(served))  # type: ignore[arg-type]


def main() -> int:
    """Entry point."""
    parser = argparse.ArgumentParser(prog="python -m flows.deploy")
    parser.add_argument("--interval", type=float, default=86_400.0, help="seconds between runs")
    parser.add_argument("--cron", help="cron schedule; takes the place of the interval")
    parser.add_argument("--clone", action="store_true", help="train in a clone; results go to branches runs/…")
    given = parser.parse_args()
    serve_flows(Path.cwd(), given.interval, given.cron, given.clone)
    return 0


if __name__ == "__main__":
    sys.exit(main())
