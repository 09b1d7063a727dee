"""Serves the training flow on a schedule: ``python -m flows.deploy --interval 86400`` or ``--cron '0 2 * * *'``.

``monai-tl serve`` starts this beside a server; PREFECT_API_URL must name one.
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

from flows.pipeline import training


def deployment_name(workspace: Path) -> str:
    """Differs between workspaces on one server and tells nothing of where they are."""
    return f"workspace-{hashlib.sha256(str(workspace.resolve()).encode()).hexdigest()[:8]}"


def serve_training(workspace: Path, interval_s: float | None, cron: str | None) -> None:
    """Serve until stopped. One run at a time; a run that would overlap is cancelled, since the next one does its work.

    Args:
        workspace: The current folder; runs start in it.
        interval_s: Time between starts, seconds.
        cron: Cron schedule instead of the interval.
    """
    # the processes of single runs import the workspace's flows by name
    os.environ["PYTHONPATH"] = os.pathsep.join(
        part for part in (str(workspace), os.environ.get("PYTHONPATH", "")) if part
    )
    deployment = training.to_deployment(
        name=deployment_name(workspace),
        interval=None if cron else timedelta(seconds=interval_s or 86_400),
        cron=cron,
        concurrency_limit=ConcurrencyLimitConfig(limit=1, collision_strategy=ConcurrencyLimitStrategy.CANCEL_NEW),
        entrypoint_type=EntrypointType.MODULE_PATH,
        tags=["training"],
    )
    serve(deployment, pause_on_shutdown=True, limit=1)  # type: ignore[arg-type] # typed as value or coroutine


def main() -> int:
    """Entry point."""
    parser = argparse.ArgumentParser(prog="python -m flows.deploy")
    parser.add_argument("--interval", type=float, default=86_400.0, help="seconds between runs")
    parser.add_argument("--cron", help="cron schedule; takes the place of the interval")
    given = parser.parse_args()
    serve_training(Path.cwd(), given.interval, given.cron)
    return 0


if __name__ == "__main__":
    sys.exit(main())
