"""``dvc repro``, ``monai-tl run`` and a scheduled deployment on a real server: one result."""

from __future__ import annotations

import base64
import json
import os
import re
import shutil
import signal
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from prefect_server import Server, serving
from workspaces import Place, clone, events, make_real, make_site, until

pytestmark = pytest.mark.pipeline

STEPS = (
    *("ingest", "split", "plan", "preprocess"),
    *("finetune@transfer-0-0", "finetune@scratch-0-0"),
    *("predict", "evaluate", "export"),
)


@pytest.fixture(scope="module")
def base(tmp_path_factory) -> Place:
    root = tmp_path_factory.mktemp("ways")
    return make_real(root / "base", make_site(root / "site"))


@pytest.fixture(scope="module")
def repro(base) -> tuple[Place, subprocess.Popen[bytes]]:
    """``dvc repro``, which goes on beside the flow: both are mostly imports on one core."""
    place = clone(base, base.folder.parent / "by_dvc")
    return place, place.start("dvc", "repro", output=place.folder.parent / "by_dvc.log")


@pytest.fixture(scope="module")
def by_dvc(repro) -> Place:
    place, process = repro
    assert process.wait(600) == 0, (place.folder.parent / "by_dvc.log").read_text()
    return place


@pytest.fixture(scope="module")
def by_flow(base, repro) -> Place:
    """Killed once in the middle of training, then run to its end."""
    place = clone(base, base.folder.parent / "by_flow")
    log = place.folder.parent / "by_flow.log"
    started = place.start("monai_tl", "run", "--plain", output=log)
    # past its first step of training
    until(lambda: any(line.startswith("finetune@transfer-0-0: 1") for line in events(log)), 400, "training")
    os.kill(place.find("-m flows").pid, signal.SIGKILL)
    place.wait_for_end()
    assert started.wait(10) != 0
    text = place.run("monai_tl", "run", "--plain")
    assert "ingest: unchanged" in text
    assert "finetune@transfer-0-0: ran" in text
    return place


@pytest.fixture(scope="module")
def served(base) -> Iterator[Server]:
    place = clone(base, base.folder.parent / "served")
    # the lock file and the products that are compared are the workspace's own
    with serving(place, place.folder.parent / "serve.log", "--interval", "20", "--in-place") as server:
        until(lambda: server.runs("RUNNING", "COMPLETED"), 120, "a scheduled run begins")
        # further ones would be cancelled, each after the start of a process, and take turns with those of the tests
        for deployment in server.post("deployments/filter", {}):
            server.post(f"deployments/{deployment['id']}/pause_deployment", {})
        until(lambda: server.runs("COMPLETED"), 500, "a scheduled run completes")
        yield server


@pytest.fixture(scope="module")
def scheduled(served) -> dict[str, Any]:
    return served.runs("COMPLETED")[0]


def test_the_same_lock_file_byte_for_byte(by_flow, by_dvc, served, scheduled):
    assert set(yaml.safe_load(by_dvc.lock)["stages"]) == set(STEPS)
    assert by_flow.lock == by_dvc.lock
    assert served.place.lock == by_dvc.lock


def test_two_clones_give_the_same_metrics(by_dvc, by_flow):
    for name in ("reports/metrics.json", "reports/plots/cases.csv", "reports/html/report.html"):
        assert (by_dvc.folder / name).read_bytes() == (by_flow.folder / name).read_bytes()


def test_dvc_finds_nothing_to_do_after_the_flow(by_flow):
    assert by_flow.run("dvc", "status").strip().endswith("Data and pipelines are up to date.")


def test_a_scheduled_run_is_named_by_its_data_and_its_commit(served, scheduled):
    place = served.place
    pinned = yaml.safe_load((place.folder / "data.dvc").read_text())["outs"][0]["md5"]
    head = subprocess.run(["git", "rev-parse", "HEAD"], cwd=place.folder, check=True, capture_output=True, text=True)
    assert scheduled["name"] == f"data {pinned[:8]}, model {head.stdout[:8]}"


def test_a_scheduled_run_shows_its_stages(served, scheduled):
    tasks = served.post("task_runs/filter", {"task_runs": {"flow_run_id": {"any_": [scheduled["id"]]}}, "limit": 50})
    assert {task["name"] for task in tasks} == set(STEPS)
    assert {task["state_type"] for task in tasks} == {"COMPLETED"}


def test_a_scheduled_run_shows_progress_summary_metrics_and_a_plot(served, scheduled):
    found = served.artifacts(scheduled["id"])
    assert {"stages", "summary", "metrics", "learning-curves", "refused", "model"} <= set(found)
    bars = {key: float(item["data"]) for key, item in found.items() if key.startswith("progress")}
    assert bars == {f"progress-{step.partition('@')[0]}": 100.0 for step in STEPS}
    where = re.search(r"`(artifacts/[^`]*)`", found["model"]["data"])[1]
    assert any((served.place.folder / where).rglob("*.safetensors"))
    assert str(served.place.folder) not in found["model"]["data"]
    reports = served.place.folder / "reports"
    assert found["summary"]["data"] == (reports / "html/summary.md").read_text()
    metrics = json.loads((reports / "metrics.json").read_text())
    rows = {(row["arm"], row["class"]): row for row in json.loads(found["metrics"]["data"])}
    for arm, record in metrics["arms"].items():
        assert rows[arm, "all"]["dice"] == record["dice"]["mean"]
        assert rows[arm, "liver"]["dice low"] == record["classes"]["liver"]["dice"]["low"]
    assert "data:image/svg+xml;base64," in found["learning-curves"]["data"]
    outcomes = {row["stage"]: row["outcome"] for row in json.loads(found["stages"]["data"])}
    assert outcomes == dict.fromkeys(STEPS, "ran")


def test_a_scheduled_run_lists_the_refused_study_by_pseudonym_and_code(served, scheduled):
    found = served.artifacts(scheduled["id"])["refused"]
    cases = served.place.folder / "artifacts/cases"
    rejected = json.loads((cases / "rejected.json").read_text())["rejected"]
    rows = json.loads(found["data"])
    assert [(row["item"], row["code"]) for row in rows] == [(one["item"], one["code"]) for one in rejected]
    # of the cohort: one study has a gap, one file is no DICOM
    assert {"missing_slice"} <= {row["code"] for row in rows}
    assert {row["kind"] for row in rows} >= {"series", "file"}
    assert all(re.fullmatch(r"(series|file|label)-[0-9a-f]{12}", row["item"]) for row in rows)


def test_the_link_to_the_report_opens_for_whoever_has_the_password(served, scheduled):
    address = re.search(r"\((http://[^)]*)\)", served.artifacts(scheduled["id"])["report"]["data"])[1]
    with pytest.raises(urllib.error.HTTPError, match="401"):
        urllib.request.urlopen(address, timeout=30)
    # who may read the report cannot start runs, and the other password is not for it
    with pytest.raises(urllib.error.HTTPError, match="401"):
        urllib.request.urlopen(urllib.request.Request(address, headers=served.password()), timeout=30)
    own = (served.place.folder / ".monai_tl/report.auth").read_bytes().strip()
    headers = {"Authorization": f"Basic {base64.b64encode(own).decode()}"}
    with urllib.request.urlopen(urllib.request.Request(address, headers=headers), timeout=30) as answer:
        assert answer.read() == (served.place.folder / "reports/html/report.html").read_bytes()


def test_nothing_of_a_patient_reaches_the_dashboard(served, scheduled):
    from monai_tl.commands.phantom import canaries

    wal = served.place.folder / ".monai_tl/prefect/prefect.db-wal"
    database = (served.place.folder / ".monai_tl/prefect/prefect.db").read_bytes()
    database += wal.read_bytes() if wal.is_file() else b""
    assert b"finetune@transfer-0-0" in database
    assert [text for text in canaries(0, 1, 8) if text.encode() in database] == []


def test_nothing_changed_is_quick_and_does_no_work(served, scheduled, record_property):
    until(lambda: not served.runs("RUNNING"), 60, "scheduled runs end")
    walls, imports = [], []
    for _ in range(2):
        started = time.monotonic()
        text = served.place.run("monai_tl", "run", "--plain")
        walls.append(time.monotonic() - started)
        assert [line for line in text.splitlines() if line in {f"{step}: unchanged" for step in STEPS}] == [
            f"{step}: unchanged" for step in STEPS
        ]
        assert ": running" not in text
        # taken in turns, so that a load by others hits both
        started = time.monotonic()
        served.place.run("flows.deploy", "--help")
        imports.append(time.monotonic() - started)
    record_property("seconds", min(walls))
    print(f"\nnothing changed: {min(walls):.1f} s; importing Prefect alone: {min(imports):.1f} s")
    # 5 s; on a machine that others load, the import of Prefect (0.9 s when idle) says how slow it is just now
    assert min(walls) < max(5.0, 5.0 * min(imports) / 0.9)


def test_a_changed_parameter_runs_what_depends_on_it_and_a_change_back_restores(by_flow, served):
    by_flow.extra |= {"PREFECT_API_URL": served.url, "PREFECT_API_AUTH_STRING": served.auth}
    params = by_flow.folder / "params.yaml"
    text, lock = params.read_text(), by_flow.lock
    by_flow.commit("A run")
    params.write_text(text.replace("confidence: 0.95", "confidence: 0.9"))
    output = by_flow.run("monai_tl", "run", "--plain")
    assert "predict: unchanged" in output
    assert "evaluate: ran" in output
    changed = by_flow.lock
    assert changed != lock
    _dvc_tells_what_changed(by_flow)
    params.write_text(text)
    output = by_flow.run("monai_tl", "run", "--plain")
    assert "evaluate: restored" in output
    assert by_flow.lock == lock


def _dvc_tells_what_changed(place: Place) -> None:
    diff = json.loads(place.run("dvc", "metrics", "diff", "--json"))["reports/metrics.json"]
    level = diff["verdict.confidence"]
    assert (level["old"], level["new"]) == (0.95, 0.9)
    # the level moves no mean
    assert [name for name in diff if name.endswith(".mean")] == []
    plots = json.loads(place.run("dvc", "plots", "show", "--json"))["data"]
    drawn = {name: spec["content"] for name, (spec,) in plots.items()}
    for name, title in (("cases", "Dice of each test case"), ("history", "Validation Dice while training")):
        content = drawn[f"reports/plots/{name}.csv"]
        assert content["title"]["text"] == title
        assert len({row["arm"] for row in content["data"]["values"]}) == 2


def test_lost_products_come_back_from_the_cache(by_flow, served):
    by_flow.extra |= {"PREFECT_API_URL": served.url, "PREFECT_API_AUTH_STRING": served.auth}
    lock = by_flow.lock
    shutil.rmtree(by_flow.folder / "artifacts/models/scratch-0-0")
    output = by_flow.run("monai_tl", "run", "--plain")
    assert "finetune@scratch-0-0: restored" in output
    assert ": ran" not in output
    assert by_flow.lock == lock


def test_another_version_of_the_package_is_refused_and_refresh_mends_it(by_dvc, tmp_path):
    site = make_site(tmp_path / "site")
    module = site / "monai_tl/stages/split.py"
    module.write_text(module.read_text() + "\n# another version\n")
    other = Place(by_dvc.folder, site)
    for command in (("monai_tl", "run"), ("dvc", "repro", "-s", "-f", "split")):
        text = other.run(*command, check=False)
        assert "monai-tl init --refresh" in text
        assert "Traceback" not in text
    other.run("monai_tl", "init", "--refresh", str(by_dvc.folder))
    assert "monai_tl.version" in other.run("dvc", "status")
    assert (
        Path(by_dvc.folder / "monai_tl.version").read_text()
        != (by_dvc.folder.parent / "base/monai_tl.version").read_text()
    )
