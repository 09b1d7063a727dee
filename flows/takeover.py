"""An end for earlier runs that nobody else ends: before a run begins its own work.

The automations of ``flows.guards`` mark a run whose process is gone as crashed. What they have seen of a run is in the
server's memory for a moment, and goes with a server that is killed in it: such a run would be said to go on for ever.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from prefect import get_client
from prefect.client.orchestration import SyncPrefectClient
from prefect.client.schemas.filters import FlowFilter, FlowFilterName, FlowRunFilter
from prefect.client.schemas.objects import FlowRun, StateType
from prefect.events.filters import EventFilter, EventNameFilter, EventOccurredFilter, EventResourceFilter
from prefect.states import Crashed

from flows.guards import BEAT, NEVER_BEGAN, NO_LIFE, PENDING_S, SILENCE_S

FLOWS = ("training", "training-in-clone", "inbox", "promotion")
_N_LOOKED_AT = 200


def end_dead(own: UUID, pending_s: float = PENDING_S, silence_s: float = SILENCE_S) -> list[UUID]:
    """Mark as crashed what a run that begins knows to be dead; what it marked.

    That is each run of our flows that somebody took so long ago that it never will begin; and, since a deployment lets
    one run begin at a time, each other run of the same deployment that is said to go on and shows no life. All times
    are the server's: a run's state has the one at which it came to be.

    Args:
        own: The run that begins.
        pending_s: So long before, a run was taken that never will begin.
        silence_s: So long before, a dead one has last shown life.
    """
    silence, words = timedelta(seconds=silence_s), {}
    with get_client(sync_client=True) as client:
        begun = client.read_flow_run(own)
        for run in _open_runs(client):
            age = age_of(run, begun)
            if run.state_type == StateType.PENDING:
                if age > timedelta(seconds=pending_s):
                    words[run.id] = NEVER_BEGAN
                continue
            if run.deployment_id != begun.deployment_id or run.id == own:
                continue
            # of a time to come, it has lost its place to the one that begins; what it showed then says nothing of now
            if age < -silence or (age > silence and not _has_shown_life(client, run, begun, silence)):
                words[run.id] = NO_LIFE
        for identifier, message in words.items():
            client.set_flow_run_state(identifier, Crashed(message=message), force=False)
    return list(words)


def take_over(flow: Any, flow_run: FlowRun, state: Any) -> None:
    """Hook of our flows for the moment when a run begins; one that was started by hand leaves others alone."""
    if flow_run.deployment_id is not None:
        end_dead(flow_run.id)


def _open_runs(client: SyncPrefectClient) -> Sequence[FlowRun]:
    states = {"type": {"any_": [StateType.PENDING, StateType.RUNNING]}}
    return client.read_flow_runs(
        flow_filter=FlowFilter(name=FlowFilterName(any_=list(FLOWS))),
        flow_run_filter=FlowRunFilter.model_validate({"state": states}),
        limit=_N_LOOKED_AT,
    )


def age_of(run: FlowRun, begun: FlowRun) -> timedelta:
    """How long before the one began the other came to be in its state; negative where the clock was set back since."""
    return begun.state.timestamp - run.state.timestamp if begun.state and run.state else timedelta()


def _has_shown_life(client: SyncPrefectClient, run: FlowRun, begun: FlowRun, silence: timedelta) -> bool:
    since = begun.state.timestamp - silence if begun.state else datetime.min
    beats = EventFilter(
        event=EventNameFilter(name=[BEAT]),
        occurred=EventOccurredFilter.model_validate({"since": since}),
        resource=EventResourceFilter(id=[f"prefect.flow-run.{run.id}"]),
    )
    return bool(client.read_events(beats, limit=1).events)
