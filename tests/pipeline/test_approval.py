"""An approver's input in Prefect: a model goes into production when it is given, and not before."""

from __future__ import annotations

import json
import shutil
import subprocess
import time
from collections.abc import Iterator

import pytest
import yaml
from finished_run import RunShape, make_finished_run
from listener import Listener, listening
from prefect_server import Server, serving
from workspaces import ROOT, Place, until

from monai_tl.commands import promote
from monai_tl.pipeline_file import pipeline_text
from monai_tl.sources.ensemble import InferenceSettings, write_ensemble
from monai_tl.stages import evaluate

pytestmark = [pytest.mark.pipeline, pytest.mark.long]

SMALL = {"shape": (40, 36, 20), "spacing_mm": (7.0, 7.0, 9.0), "n_train": 3, "n_val": 2, "seeds": (0, 1, 2)}


def git(place: Place, *arguments: str) -> str:
    done = subprocess.run(
        ["git", *arguments], cwd=place.folder, env=place.environment, check=True, capture_output=True, text=True
    )
    return done.stdout.strip()


@pytest.fixture(scope="module")
def heard() -> Iterator[Listener]:
    with listening() as listener:
        yield listener


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory, heard: Listener) -> Iterator[Server]:
    home = tmp_path_factory.mktemp("approval")
    workspace = home / "ws"
    workspace.mkdir()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MONAI_TL_EXECUTOR", "sequential")
        params = make_finished_run(workspace, RunShape({"transfer": 2.0, "scratch": 16.0}, n_test=6, **SMALL))  # type: ignore[arg-type]
        evaluate.run(workspace, params)
    models = workspace / "artifacts/models/transfer-0-0"
    write_ensemble(workspace / "artifacts/export/model", [models], InferenceSettings())
    (workspace / "artifacts/export/index.json").write_text(json.dumps({"arm": "transfer", "seed": 0}))
    (workspace / "params.yaml").write_text(yaml.safe_dump(params.model_dump(mode="json", exclude={"curve", "inbox"})))
    (workspace / "dvc.yaml").write_text(pipeline_text(workspace))
    shutil.copytree(ROOT / "flows", workspace / "flows", ignore=shutil.ignore_patterns("__pycache__"))
    (workspace / ".gitignore").write_text("/artifacts/\n/reports/html/\n/.monai_tl/\n__pycache__/\n")
    place = Place(workspace, ROOT, {"MONAI_TL_WEBHOOK": heard.url})
    promote.run(workspace)
    git(place, "init", "-q")
    place.commit("A run")
    with serving(place, home / "serve.log", "--interval", "86400") as server:
        until(lambda: "promotion" in server.deployments(), 60, "the flow is served")
        yield server


def waiting(server: Server, run: str) -> dict:
    def look() -> dict | None:
        time.sleep(0.5)
        found = server.run_of(run)
        assert found["state_type"] not in ("FAILED", "CRASHED"), found["state"]["message"]
        return found if found["state_type"] == "PAUSED" else None

    return dict(until(look, 120, "the run waits"))


def test_nothing_goes_out_until_somebody_approves(served: Server, heard: Listener) -> None:
    place = served.place
    known = {process.pid for process in place.processes()}
    run = served.start("promotion")
    until(lambda: {process.pid for process in place.processes()} - known, 60, "its process begins")
    state = waiting(served, run)
    assert state["state"]["name"] == "Suspended"
    # no data are pinned here, and the model has no version yet
    card = yaml.safe_load((place.folder / "artifacts/export/model/transfer-0-0/card.yaml").read_text())
    assert state["name"] == f"data none, model {card['weights']['sha256'][:8]}"
    # no process of it waits
    until(lambda: {process.pid for process in place.processes()} <= known, 60, "its process ends")
    assert git(place, "tag") == ""
    shown = served.artifacts(run)["promotion"]["data"]
    assert "There was none before" in shown
    # an answer that is none is refused, and a no changes nothing
    refused = served.post(f"flow_runs/{run}/resume", {"run_input": {"approve": "perhaps"}})
    assert refused["status"] == "REJECT"
    assert served.post(f"flow_runs/{run}/resume", {"run_input": {"approve": False}})["status"] == "ACCEPT"
    assert served.ended(run)["state_type"] == "COMPLETED"
    assert git(place, "tag") == ""
    first, run = run, served.start("promotion")
    waiting(served, run)
    # whoever may approve is told, once a run, and not of what
    asked = "prefect.flow-run.Suspended"
    until(lambda: len(heard.about(asked)) >= 2, 60, "the message comes")
    assert [one["resource"] for one in heard.about(asked)] == [f"prefect.flow-run.{one}" for one in (first, run)]
    assert heard.holding("There was none before", "model", "transfer", place.folder.name) == []
    assert served.post(f"flow_runs/{run}/resume", {"run_input": {"approve": True}})["status"] == "ACCEPT"
    assert served.ended(run)["state_type"] == "COMPLETED"
    assert set(git(place, "tag").split()) == {"model@v0.0.1", "model#prod#1"}
    # the answer, and the second look, are no new question
    assert len(heard.messages) == len(heard.about(asked)) == 2


def test_a_model_that_may_not_go_out_is_not_asked_about(served: Server) -> None:
    (served.place.folder / "promoted.json").write_text("{}")
    ended = served.ended(served.start("promotion"))
    assert ended["state_type"] == "FAILED"
    assert "damaged" in ended["state"]["message"]
