"""The inbox as a deployment on a real server: runs come on their schedule, show what became of studies, and tell."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Iterator
from typing import Any

import pytest
import yaml
from inbox_world import (
    CANARIES,
    segs,
    series_uid,
    sources_of,
    study_uid,
    write_model,
    write_study,
    write_workspace,
)
from listener import Listener, listening
from prefect_server import Server, serving
from targets import make_fingerprint
from workspaces import ROOT, Place, until

from monai_tl.pipeline_file import pipeline_text

pytestmark = [pytest.mark.pipeline, pytest.mark.long]


@pytest.fixture(scope="module")
def heard() -> Iterator[Listener]:
    with listening() as listener:
        yield listener


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory, heard: Listener) -> Iterator[Server]:
    home = tmp_path_factory.mktemp("served")
    # trained on cases of quite another size, so that the studies below are a drift
    model = write_model(home / "model", make_fingerprint(class_volumes_ml={"ball": 5.0}, class_present={"ball": 9}))
    workspace = write_workspace(home, model, every_s=15, drift_window=2)
    for number in range(2):
        write_study(workspace / f"inbox/{CANARIES[0]}{number}", number)
    write_study(workspace / "inbox/gap", 7, leave_out=(4,))
    (workspace / "dvc.yaml").write_text(pipeline_text(workspace))
    # in no repository: the training, which is not at test, has nothing to clone
    place = Place(workspace, ROOT, {"MONAI_TL_EXECUTOR": "sequential", "MONAI_TL_WEBHOOK": heard.url})
    with serving(place, home / "serve.log", "--interval", "86400", "--in-place") as server:
        (first, *_) = until(lambda: runs(server, "COMPLETED", "FAILED", "CRASHED"), 240, "a scheduled run ends")
        assert first["state_type"] == "COMPLETED", first["state"]["message"]
        yield server


def runs(server: Server, *states: str) -> list[dict[str, Any]]:
    return server.runs(*states, flow="inbox")


def test_a_scheduled_run_segments_what_has_come(served: Server) -> None:
    assert sources_of(segs(served.place.folder)) == [series_uid(0), series_uid(1)]


def test_a_scheduled_run_is_named_by_the_weights_it_works_with(served: Server) -> None:
    card = yaml.safe_load((served.place.folder / "model/card.yaml").read_text())
    assert runs(served, "COMPLETED")[0]["name"] == f"data none, model {card['weights']['sha256'][:8]}"


def test_it_shows_counts_studies_and_reasons(served: Server) -> None:
    found = served.artifacts(runs(served, "COMPLETED")[0]["id"])
    assert {"progress-inbox", "inbox", "inbox-studies", "inbox-refused", "inbox-drift"} <= set(found)
    assert "| done | 2 |" in found["inbox"]["data"]
    assert "| quarantined | 1 |" in found["inbox"]["data"]
    assert [row["code"] for row in json.loads(found["inbox-refused"]["data"])] == ["missing_slice"]
    rows = json.loads(found["inbox-studies"]["data"])
    assert [row["state"] for row in rows] == ["done", "done"]


def test_drift_and_quarantine_are_events(served: Server) -> None:
    drift = until(lambda: served.events("monai_tl.inbox.drift"), 60, "the event arrives")
    assert len(drift) == 1
    assert drift[0]["payload"]["score"] > drift[0]["payload"]["bound"]
    # 5 ml in training; every other feature is nearer: 300 mm against 64 mm is a distance of 2.2
    assert "farthest from the training in volume of ball" in drift[0]["payload"]["words"]
    given_up = until(lambda: served.events("monai_tl.inbox.quarantine"), 60, "the event arrives")
    assert len(given_up[0]["payload"]["studies"]) == 1


def test_drift_and_quarantine_are_each_told_once_and_without_content(served: Server, heard: Listener) -> None:
    drift, given_up = "monai_tl.inbox.drift", "monai_tl.inbox.quarantine"
    until(lambda: heard.about(drift) and heard.about(given_up), 60, "the messages come")
    # two more runs, which find nothing new
    n_before = len(runs(served, "COMPLETED"))
    until(lambda: len(runs(served, "COMPLETED")) >= n_before + 2, 120, "two runs complete")
    time.sleep(2)
    assert [len(heard.about(event)) for event in (drift, given_up)] == [1, 1]
    assert len(heard.messages) == 2
    studies = served.events(given_up)[0]["payload"]["studies"]
    assert heard.holding(*CANARIES, *studies, *map(study_uid, (0, 1, 7)), *map(series_uid, (0, 1, 7)), "study-") == []


def test_a_run_of_which_the_inbox_is_gone_fails_and_the_next_ones_go_on(served: Server) -> None:
    folder = served.place.folder
    shutil.move(folder / "inbox", folder / "away")
    run = until(lambda: runs(served, "FAILED"), 120, "a run fails")[0]
    assert "inbox.folder: there is no such folder" in run["state"]["message"]
    n_before = len(runs(served, "COMPLETED"))
    shutil.move(folder / "away", folder / "inbox")
    write_study(folder / "inbox/late", 3)
    until(lambda: len(segs(folder)) == 3, 120, "the late study is segmented")
    until(lambda: len(runs(served, "COMPLETED")) > n_before, 120, "a run completes")
    assert sources_of(segs(folder)) == [series_uid(0), series_uid(1), series_uid(3)]


def test_nothing_of_a_patient_reaches_the_dashboard(served: Server) -> None:
    state = served.place.folder / ".monai_tl/prefect"
    database = b"".join(path.read_bytes() for path in state.glob("prefect.db*"))
    assert b"segment new studies" in database
    secrets = [*CANARIES, *(uid(number) for uid in (study_uid, series_uid) for number in (0, 1, 3, 7))]
    assert [text for text in secrets if text.encode() in database] == []
