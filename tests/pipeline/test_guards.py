"""A server's guards: one GPU slot, an end for runs whose process is gone, messages to whoever watches."""

from __future__ import annotations

import json
import os
import signal
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from listener import Listener, listening
from prefect_server import Server, serving
from workspaces import free_port, make_site, make_stand_in, until

from monai_tl.errors import DataError

pytestmark = [pytest.mark.pipeline, pytest.mark.long]

REPORT = "https://reports.example/liver/report.html"


@pytest.fixture(scope="module")
def heard() -> Iterator[Listener]:
    with listening() as listener:
        yield listener


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory, heard: Listener) -> Iterator[Server]:
    root = tmp_path_factory.mktemp("guards")
    place = make_stand_in(root / "ws", make_site(root / "site"))
    place.extra |= {"MONAI_TL_GPUS": "1", "MONAI_TL_WEBHOOK": heard.url, "STAND_IN_SLOW": "finetune:12"}
    # as a worker of a pool has it, beside which nothing shows reports
    place.extra |= {"MONAI_TL_REPORT_URL": REPORT}
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


def between(server: Server, run: str, key: str) -> dict[str, Any] | None:
    """A progress artifact of a run while it is neither at its beginning nor at its end."""
    time.sleep(0.5)
    found = server.artifacts(run).get(key)
    return found if found and 0.0 < float(found["data"]) < 100.0 else None


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
    # a training of twelve seconds, one of two
    seen = until(lambda: between(served, run, "progress-finetune"), 60, "the training is seen between begin and end")
    assert seen["description"].startswith("finetune")
    assert "of 2 done" in seen["description"]
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
    found = served.artifacts(second)
    assert float(found["progress-finetune"]["data"]) == 100.0
    # the dead one had brought these up to date
    assert "progress-ingest" not in found
    assert f"({REPORT})" in found["report"]["data"]
    assert json.loads(found["refused"]["data"]) == []
    assert slots(served) == (1, 0)
    told = until(lambda: heard.about("prefect.flow-run.Crashed"), 60, "the message comes")
    assert told[0]["resource"] == f"prefect.flow-run.{run}"


def test_a_run_that_fails_is_told_without_a_word_of_its_content(served: Server, heard: Listener) -> None:
    params = served.place.folder / "params.yaml"
    text = params.read_text()
    params.write_text("ingest: {source: KANARI}\n")
    run = served.start("training")
    assert served.ended(run)["state_type"] == "FAILED"
    params.write_text(text)
    told = until(lambda: heard.about("prefect.flow-run.Failed"), 60, "the message comes")
    assert [one["resource"] for one in told] == [f"prefect.flow-run.{run}"]
    assert all(set(one) == {"event", "time", "resource"} for one in heard.messages)


def test_a_stage_that_fails_by_its_data_is_run_once_and_shows_what_it_refused(served: Server, tmp_path: Path) -> None:
    folder, tries = served.place.folder, tmp_path / "tries"
    # the exit status of a DataError, after the reasons are where the stage leaves them
    listed = {"rejected": [{"item": "series-0123456789ab", "kind": "series", "code": "missing_slice",
                            "reason": "slice 3 of 40 is missing", "n_files": 39}]}  # fmt: skip
    kept = folder / ".monai_tl/rejected.json"
    (folder / "stand_in.py").write_text(
        "import pathlib, sys\n"
        f"pathlib.Path({str(tries)!r}).open('a').write('tried\\n')\n"
        f"pathlib.Path({str(kept)!r}).write_text({json.dumps(listed)!r})\n"
        f"sys.exit({DataError.exit_code})\n"
    )
    run = served.start("training")
    ended = served.ended(run)
    assert ended["state_type"] == "FAILED"
    assert ended["run_count"] == 1
    assert tries.read_text().splitlines() == ["tried"]
    shown = json.loads(served.artifacts(run)["refused"]["data"])
    assert shown == [
        {"stage": "ingest", "item": "series-0123456789ab", "kind": "series", "code": "missing_slice", "n_files": 39}
    ]


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
