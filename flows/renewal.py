"""What a server holds of a time to come, once its clock was set back: schedules, leases and automations.

Prefect makes one run of a schedule and a time, ever, so that of the hour that comes again none is planned; leases of
dead runs end that much later; and what an automation waits for is not looked at before the hour is over.
"""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

from prefect import get_client
from prefect.automations import AutomationCore
from prefect.client.orchestration import SyncPrefectClient
from prefect.client.schemas.actions import DeploymentScheduleCreate
from prefect.client.schemas.filters import FlowFilter, FlowFilterName, FlowRunFilter
from prefect.client.schemas.objects import DeploymentSchedule
from prefect.client.schemas.sorting import FlowRunSort

from flows.guards import CRASH, STUCK
from flows.takeover import FLOWS

MARGIN_S = 60.0
"""A run this far ahead of the server's clock is of a time to come; no transfer takes so long."""
LONGEST_LEASE_S = 300.0
"""Prefect's own for a run of a deployment, and no shorter than ours; who lives renews it in time."""
_INDEX = "expirations.json"
_N_LOOKED_AT = 200
"""The most runs that the server tells at once; at most twenty planned ones lie before those that came to be."""


def shorten_leases(folder: Path, now: datetime) -> int:
    """Have leases end that a server's clock, when it was ahead, gave to runs that are dead by now.

    Args:
        folder: Of Prefect's lease storage in files; no server may be using it.
        now: By the clock on the wall.

    Returns:
        How many were too long.
    """
    latest = now + timedelta(seconds=LONGEST_LEASE_S)
    n_changed = 0
    for path in folder.glob("*.json"):
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
            ends = content if path.name == _INDEX else {"expiration": content["expiration"]}
            late = {name: latest.isoformat() for name, end in ends.items() if datetime.fromisoformat(end) > latest}
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            # damaged ones are Prefect's to take away
            continue
        if late:
            part = path.with_suffix(".tmp")
            part.write_text(json.dumps({**content, **late}), encoding="utf-8")
            os.replace(part, path)
            n_changed += path.name != _INDEX
    return n_changed


def renew(now: datetime, was_set_back: bool) -> list[str]:
    """Put equal ones in the place of schedules that have runs of a time to come, and of the automations of dead runs.

    A new schedule has its own runs, and the planned ones of the old go with it; those that began stay to be looked at.
    Another automation has nothing to wait for but what comes from now on.

    Args:
        now: Of the server's clock.
        was_set_back: Known from elsewhere; else a schedule tells.

    Returns:
        The names of the schedules' flows.
    """
    with get_client(sync_client=True) as client:
        replaced = []
        for flow in FLOWS:
            wanted = FlowFilter(name=FlowFilterName(any_=[flow]))
            for deployment in client.read_deployments(flow_filter=wanted):
                old = [one for one in deployment.schedules if _is_of_the_future(client, one, now)]
                replaced += [(flow, deployment.id, schedule, {one.id for one in old}) for schedule in old]
        # before the schedules: while old ones are there, a renewal that was cut off is done again
        if replaced or was_set_back:
            _renew_automations(client)
        for _, deployment_id, schedule, old_ids in replaced:
            _replace(client, deployment_id, schedule, old_ids)
    return [flow for flow, _, _, _ in replaced]


def _is_of_the_future(client: SyncPrefectClient, schedule: DeploymentSchedule, now: datetime) -> bool:
    wanted = {"created_by": {"id_": [schedule.id]}, "expected_start_time": {"after_": now}}
    runs = client.read_flow_runs(
        flow_run_filter=FlowRunFilter.model_validate(wanted),
        sort=FlowRunSort.EXPECTED_START_TIME_DESC,
        limit=_N_LOOKED_AT,
    )
    latest = now + timedelta(seconds=MARGIN_S)
    return any(run.state is not None and run.state.timestamp > latest for run in runs)


def _replace(client: SyncPrefectClient, deployment: UUID, old: DeploymentSchedule, all_old: set[UUID]) -> None:
    others = [one for one in client.read_deployment_schedules(deployment) if one.id not in all_old]
    made: Sequence[DeploymentSchedule] = [one for one in others if _content(one) == _content(old)]
    # there already where an earlier try was ended between the two steps
    if not made:
        made = client.create_deployment_schedules(deployment, [DeploymentScheduleCreate(**_content(old))])
    client.delete_deployment_schedule(deployment, old.id)
    if old.slug is not None:
        # of a deployment's schedules one has it at a time
        client.update_deployment_schedule(deployment, made[0].id, slug=old.slug)


def _content(schedule: DeploymentSchedule) -> dict[str, Any]:
    return {name: getattr(schedule, name) for name in ("schedule", "active", "max_scheduled_runs", "parameters")}


def _renew_automations(client: SyncPrefectClient) -> None:
    for name in (CRASH, STUCK):
        known = client.read_automations_by_name(name)
        if not known:
            continue
        fields = {field: getattr(known[0], field) for field in AutomationCore.model_fields}
        client.create_automation(AutomationCore(**fields))
        # several where an earlier try was ended between the two steps
        for one in known:
            client.delete_automation(one.id)
