"""A run that begins ends what is dead: what the server's automations never saw, since a killed server forgot it."""

from __future__ import annotations

import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import pytest
from prefect import flow, get_client
from prefect.client.schemas.objects import FlowRun, State, StateType
from prefect.events import emit_event
from prefect.events.filters import EventFilter, EventIDFilter
from prefect.testing.utilities import prefect_test_harness
from workspaces import until

from flows import takeover
from flows.takeover import age_of, end_dead, take_over

pytestmark = pytest.mark.pipeline


@flow(name="training")
def training() -> None:
    """Never called: its runs are made as a worker would."""


@flow(name="inbox")
def inbox() -> None:
    """Likewise."""


@flow(name="somebody-else")
def foreign() -> None:
    """Likewise."""


@pytest.fixture(scope="module", autouse=True)
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """A real one, with a database of its own and no automation."""
    with prefect_test_harness(server_startup_timeout=180):
        yield


def deploy(one: Any) -> UUID:
    with get_client(sync_client=True) as client:
        return client.create_deployment(client.create_flow(one), "here")


def run_of(deployment: UUID, *states: StateType) -> UUID:
    with get_client(sync_client=True) as client:
        run = client.create_flow_run_from_deployment(deployment)
        for state in states:
            client.set_flow_run_state(run.id, State(type=state), force=True)
        return run.id


def states(*runs: UUID) -> list[str]:
    with get_client(sync_client=True) as client:
        return [str(client.read_flow_run(run).state_type.value) for run in runs]


def is_known(event: UUID) -> bool:
    with get_client(sync_client=True) as client:
        return bool(client.read_events(EventFilter(id=EventIDFilter(id=[event])), limit=1).events)


def test_only_what_is_dead_is_ended() -> None:
    first, second, other = deploy(training), deploy(inbox), deploy(foreign)
    stuck = run_of(first, StateType.PENDING)
    stuck_inbox = run_of(second, StateType.PENDING)
    silent = run_of(first, StateType.PENDING, StateType.RUNNING)
    alive = run_of(first, StateType.PENDING, StateType.RUNNING)
    inbox_silent = run_of(second, StateType.PENDING, StateType.RUNNING)
    not_ours = run_of(other, StateType.PENDING)
    planned = run_of(first)
    everyone = [stuck, stuck_inbox, silent, alive, inbox_silent, not_ours, planned]
    before = states(*everyone)

    # nothing of it is old enough
    early = run_of(first, StateType.PENDING, StateType.RUNNING)
    with get_client(sync_client=True) as client:
        take_over(None, client.read_flow_run(early), None)
        client.set_flow_run_state(early, State(type=StateType.COMPLETED))
    assert states(*everyone) == before

    time.sleep(3.0)
    beat = time.monotonic()
    event = emit_event("prefect.flow-run.heartbeat", resource={"prefect.resource.id": f"prefect.flow-run.{alive}"})
    assert event is not None
    until(lambda: is_known(event.id), 60, "the server has the sign of life")
    # shorter than any run has been what it is, and longer ago than the sign of life
    own = run_of(first, StateType.PENDING, StateType.RUNNING)
    silence_s = time.monotonic() - beat + 1.5
    ended = end_dead(own, pending_s=silence_s, silence_s=silence_s)
    assert set(ended) == {stuck, stuck_inbox, silent}
    after = dict(zip(everyone, before, strict=True)) | dict.fromkeys(ended, "CRASHED")
    assert states(*everyone, own) == [*after.values(), "RUNNING"]


@pytest.mark.parametrize("set_back", [timedelta(), timedelta(hours=2)])
def test_after_a_clock_was_set_back_runs_are_of_a_time_to_come(set_back: timedelta) -> None:
    began = datetime(2026, 5, 1, 12, tzinfo=UTC)
    old, own = (
        FlowRun(flow_id=uuid4(), state=State(type=StateType.RUNNING, timestamp=moment))
        for moment in (began - timedelta(hours=1) + set_back, began)
    )
    assert age_of(old, own) == timedelta(hours=1) - set_back


def test_one_of_a_time_to_come_is_dead_where_another_of_its_deployment_begins(monkeypatch: pytest.MonkeyPatch) -> None:
    """What it showed in that time says nothing of now; one that was taken then may begin yet."""
    first, second = deploy(training), deploy(inbox)
    running, taken = (run_of(first, StateType.PENDING, *more) for more in ((StateType.RUNNING,), ()))
    elsewhere = run_of(second, StateType.PENDING, StateType.RUNNING)
    emit_event("prefect.flow-run.heartbeat", resource={"prefect.resource.id": f"prefect.flow-run.{running}"})
    own = run_of(first, StateType.PENDING, StateType.RUNNING)
    # the server stamps states itself: here the one that begins is two hours earlier instead
    real = takeover.age_of
    monkeypatch.setattr(takeover, "age_of", lambda run, begun: real(run, begun) - timedelta(hours=2))
    # and runs that other tests have left
    assert running in end_dead(own)
    assert states(running, taken, elsewhere, own) == ["CRASHED", "PENDING", "RUNNING", "RUNNING"]
