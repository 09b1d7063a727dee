"""A server for whom the clock on the wall may be set back: ``python -m flows.clock -- COMMAND …`` runs one.

Prefect plans by that clock. Set back by an hour, each service of its server sleeps until the time at which it was due
next; and the runs of the hour that comes again exist already, so that none is planned for it. COMMAND is started anew
when that happens, and then, as at each start, schedules are renewed that have runs of a time that has not been yet.
PREFECT_API_URL and PREFECT_API_AUTH_STRING say where the server answers.
"""

from __future__ import annotations

import argparse
import logging
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from prefect import get_client
from prefect.client.orchestration import SyncPrefectClient
from prefect.client.schemas.actions import DeploymentScheduleCreate
from prefect.client.schemas.filters import FlowFilter, FlowFilterName, FlowRunFilter
from prefect.client.schemas.objects import DeploymentSchedule
from prefect.client.schemas.responses import DeploymentResponse
from prefect.client.schemas.sorting import FlowRunSort

from flows.server import is_healthy
from flows.takeover import FLOWS

BACK_S = 10.0
"""A clock that is set back by less costs no more than this."""
MARGIN_S = 60.0
"""A run this far ahead of the server's clock is of a time to come; no transfer takes so long."""
_SUPERVISED = (sys.executable, "-m", "monai_tl.supervise", "--grace", "15", "--")
_TICK_S = 1.0
_N_LOOKED_AT = 200
"""The most runs that the server tells at once."""
_logger = logging.getLogger(__name__)


class WallClock:
    """Tells whether the clock on the wall was set back since it was asked last."""

    def __init__(self) -> None:
        self._ahead = _ahead()

    def set_back_by(self) -> float:
        """Seconds; negative where it was set forward."""
        before, self._ahead = self._ahead, _ahead()
        return before - self._ahead


def _ahead() -> float:
    """How far the clock on the wall is ahead of the one that nobody sets, s."""
    return time.time() - time.monotonic()


def run(command: Sequence[str], api_url: str) -> int:
    """Run a server until it ends by itself, or this process is asked to end.

    Args:
        command: Program and arguments of the server.
        api_url: Of its API, to ask whether it answers.

    Returns:
        The server's exit status.
    """
    clock = WallClock()
    while True:
        # ends with this block or this process, with all that it started
        with subprocess.Popen([*_SUPERVISED, *command], stdin=subprocess.PIPE) as server:
            status = _watch(server, clock, api_url)
        if status is not None:
            return status
        _logger.warning("the clock was set back: the server starts anew")


def _watch(server: subprocess.Popen[bytes], clock: WallClock, api_url: str) -> int | None:
    """The status with which the server ended; None when the clock was set back."""
    is_renewed = False
    while (status := server.poll()) is None:
        time.sleep(_TICK_S)
        if clock.set_back_by() > BACK_S:
            return None
        if not is_renewed and is_healthy(api_url):
            is_renewed = _try_to_renew()
    return status


def _try_to_renew() -> bool:
    try:
        renewed = renew_schedules(datetime.now(UTC))
    except Exception as error:
        # a server that is busy is asked again, and one that cannot be asked goes on without
        _logger.warning("schedules could not be looked at: %s", type(error).__name__)
        return False
    if renewed:
        _logger.warning("schedules renewed, as their runs are of a time to come: %s", ", ".join(renewed))
    return True


def renew_schedules(now: datetime) -> list[str]:
    """Put an equal one in the place of each schedule that has runs of a time to come; the names of their flows.

    Prefect makes one run of a schedule and a time, ever. A new schedule has its own, and the old one's planned runs go
    with it; those that began stay to be looked at.

    Args:
        now: Of the server's clock.
    """
    names = []
    with get_client(sync_client=True) as client:
        for flow in FLOWS:
            wanted = FlowFilter(name=FlowFilterName(any_=[flow]))
            for deployment in client.read_deployments(flow_filter=wanted):
                old = [one for one in deployment.schedules if _is_of_the_future(client, one, now)]
                for schedule in old:
                    _replace(client, deployment, schedule, [one for one in deployment.schedules if one not in old])
                names += [flow] * len(old)
    return names


def _is_of_the_future(client: SyncPrefectClient, schedule: DeploymentSchedule, now: datetime) -> bool:
    wanted = {"created_by": {"id_": [schedule.id]}, "expected_start_time": {"after_": now}}
    runs = client.read_flow_runs(
        flow_run_filter=FlowRunFilter.model_validate(wanted),
        sort=FlowRunSort.EXPECTED_START_TIME_DESC,
        limit=_N_LOOKED_AT,
    )
    latest = now + timedelta(seconds=MARGIN_S)
    return any(run.state is not None and run.state.timestamp > latest for run in runs)


def _replace(
    client: SyncPrefectClient,
    deployment: DeploymentResponse,
    old: DeploymentSchedule,
    others: Sequence[DeploymentSchedule],
) -> None:
    # one that was killed between the two steps has made the new one
    if not any(_content(one) == _content(old) for one in others):
        client.create_deployment_schedules(deployment.id, [DeploymentScheduleCreate(**_content(old))])
    client.delete_deployment_schedule(deployment.id, old.id)


def _content(schedule: DeploymentSchedule) -> dict[str, Any]:
    return {name: getattr(schedule, name) for name in ("schedule", "active", "max_scheduled_runs", "parameters")}


def _end(number: int, frame: object) -> None:
    raise SystemExit(128 + number)


def main() -> int:
    """Entry point."""
    parser = argparse.ArgumentParser(prog="python -m flows.clock")
    parser.add_argument("command", nargs="+", help="program and arguments of the server, after --")
    given = parser.parse_args()
    url = os.environ.get("PREFECT_API_URL")
    if not url:
        parser.error("set PREFECT_API_URL to the address of the server's API")
    logging.basicConfig(format="%(message)s", stream=sys.stdout)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, _end)
    return run(given.command, url)


if __name__ == "__main__":
    sys.exit(main())
