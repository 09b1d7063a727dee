"""A server's guards: one GPU slot, an end for runs whose process is gone, messages to whoever watches."""

from __future__ import annotations

import os
import signal
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from listener import Listener, listening
from prefect_server import Server, serving
from workspaces import free_port, make_site, make_stand_in, until

pytestmark = [pytest.mark.pipeline, pytest.mark.long]


@pytest.fixture(scope="module")
def heard() -> Iterator[Listener]:
    with listening() as listener:
        yield listener


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory, heard: Listener) -> Iterator[Server]:
    root = tmp_path_factory.mktemp("guards")
    place = make_stand_in(root / "ws", make_site(root / "site"))
    place.extra |= {"MONAI_TL_GPUS": "1", "MONAI_TL_WEBHOOK": heard.url, "STAND_IN_SLOW": "finetune:12"}
    # in place: who holds the slot is a process of the training itself
    with serving(place, root / "serve.log", "--interval", "86400", "--in-place") as server:
        until(lambda: "training" in server.deployments(), 60, "the flow is served")
        # for what is run beside it
        place.extra |= {"PREFECT_API_URL": server.url, "PREFECT_API_AUTH_STRING": server.auth}
        yield server


def slots(server: Server) -> tuple[int, int]:
    """Of the GPU: how many there are, and how many are taken."""
    time.sleep(0.3)
    found = server.post("v2/concurrency_limits/filter", {})
    (limit,) = (one for one in found if one["name"] == f"monai_tl-gpu-{socket.gethostname()}")
    return limit["limit"], limit["active_slots"]


def test_guards_exist_once_however_often_they_are_set_up(served: Server) -> None:
    before = served.post("automations/filter", {})
    assert len(before) == 3
    for _ in range(2):
        served.place.run("flows.guards")
    after = served.post("automations/filter", {})
    assert {one["id"] for one in after} == {one["id"] for one in before}
    assert slots(served) == (1, 0)


def test_a_killed_run_gives_its_slot_back_is_marked_as_crashed_and_the_next_takes_over(
    served: Server, heard: Listener
) -> None:
    place = served.place
    first = place.start("flows")
    run = until(lambda: served.runs("RUNNING"), 60, "the run begins")[0]["id"]
    until(lambda: slots(served) == (1, 1), 90, "a training holds the slot")
    flow = place.find("-m flows", "-m flows")
    os.kill(first.pid, signal.SIGKILL)
    assert flow is not None
    first.wait()
    # whoever runs next waits for nothing that the dead one held but the lease of the slot
    second = served.start("training")
    killed = time.monotonic()
    ended = served.ended(run, 240)
    assert ended["state_type"] == "CRASHED"
    assert "has shown no life" in ended["state"]["message"]
    assert time.monotonic() - killed < 240
    assert served.ended(second)["state_type"] == "COMPLETED"
    assert slots(served) == (1, 0)
    told = until(lambda: heard.about("prefect.flow-run.Crashed"), 60, "the message comes")
    assert told[0]["resource"] == f"prefect.flow-run.{run}"


def test_a_run_that_fails_is_told_without_a_word_of_its_content(served: Server, heard: Listener) -> None:
    (served.place.folder / "params.yaml").write_text("ingest: {source: KANARI}\n")
    run = served.start("training")
    assert served.ended(run)["state_type"] == "FAILED"
    told = until(lambda: heard.about("prefect.flow-run.Failed"), 60, "the message comes")
    assert [one["resource"] for one in told] == [f"prefect.flow-run.{run}"]
    assert all(set(one) == {"event", "time", "resource"} for one in heard.messages)


def test_the_address_of_the_webhook_is_not_shown(served: Server) -> None:
    found = served.post("block_documents/filter", {"include_secrets": False})
    shown = [one["data"]["url"] for one in found if one["name"] == "monai-tl-messages"]
    assert len(shown) == 1
    assert "geheim" not in shown[0]


def test_a_slot_is_free_again_after_the_server_was_killed(tmp_path: Path) -> None:
    place = make_stand_in(tmp_path / "ws", make_site(tmp_path / "site"))
    place.extra |= {"MONAI_TL_GPUS": "1", "STAND_IN_SLOW": "finetune:60"}
    port = free_port()
    serve = place.start(
        "monai_tl", "serve", "--port", str(port), "--interval", "86400", "--in-place", output=tmp_path / "log"
    )
    until(lambda: "Dashboard" in (tmp_path / "log").read_text(), 120, "the server starts")
    server = Server(place, f"http://127.0.0.1:{port}/api", tmp_path / "log")
    until(lambda: "training" in server.deployments(), 60, "the flow is served")
    server.start("training")
    until(lambda: slots_of(server) == (1, 1), 180, "a training holds the slot")
    for process in place.processes():
        process.kill()
    serve.wait()
    place.wait_for_end()
    with serving(place, tmp_path / "again.log", "--interval", "86400", "--in-place") as server:
        until(lambda: slots_of(server) == (1, 0), 240, "the lease has ended")


def slots_of(server: Server) -> tuple[int, int] | None:
    """None while there is no limit yet."""
    try:
        return slots(server)
    except ValueError:
        return None
