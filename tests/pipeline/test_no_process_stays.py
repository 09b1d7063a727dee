"""Whatever is killed, and whenever, nothing of a run stays behind and the next run finishes."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from workspaces import Place, end, events, free_port, make_site, make_stand_in, until

from flows.server import is_healthy

pytestmark = pytest.mark.pipeline

STEPS = 9


@pytest.fixture(scope="module")
def server(tmp_path_factory) -> Iterator[str]:
    """URL of a server for the runs that need none of their own: starting one is most of a run's work."""
    port = free_port()
    url = f"http://127.0.0.1:{port}/api"
    process = subprocess.Popen(
        [sys.executable, "-m", "prefect", "server", "start", "--host", "127.0.0.1", "--port", str(port), "--no-ui"],
        env={**os.environ, "PREFECT_HOME": str(tmp_path_factory.mktemp("prefect"))},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        until(lambda: is_healthy(url), 120, "the server starts")
        yield url
    finally:
        os.killpg(process.pid, signal.SIGTERM)
        process.wait(30)


@pytest.fixture(scope="module")
def place(tmp_path_factory, server) -> Place:
    root = tmp_path_factory.mktemp("kill")
    site = make_site(root / "site")
    made = make_stand_in(root / "workspace", site)
    made.extra["PREFECT_API_URL"] = server
    return made


def slow(place: Place, stage: str, seconds: float) -> Place:
    """The same workspace, one of its stages slower, with a mark of its own for its processes."""
    return Place(place.folder, place.site, {**place.extra, "STAND_IN_SLOW": f"{stage}:{seconds:g}"})


def forget_results(place: Place) -> None:
    """Make every stage new again."""
    source = place.folder / "sources/pretrained/content.txt"
    source.write_text(source.read_text() + ".")
    data = place.folder / "data/content.txt"
    data.write_text(data.read_text() + ".")
    place.run("dvc", "add", "-q", "data")


def stage_runs(log: Path, stage: str) -> bool:
    return f"{stage}: running" in events(log)


# flow: the process that Prefect runs in; run: the command the user started
@pytest.mark.parametrize(
    ("who", "number", "stage", "has_own_server"),
    [
        ("flow", signal.SIGKILL, "ingest", True),
        ("run", signal.SIGKILL, "plan", True),
        ("run", signal.SIGTERM, "ingest", False),
        ("run", signal.SIGINT, "split", False),
        ("flow", signal.SIGTERM, "ingest", False),
        ("supervisor", signal.SIGKILL, "ingest", True),
        ("dvc", signal.SIGKILL, "ingest", False),
    ],
)
def test_killed_in_a_stage(place, tmp_path, who, number, stage, has_own_server):
    forget_results(place)
    slowed = slow(place, stage, 20.0)
    if has_own_server:
        del slowed.extra["PREFECT_API_URL"]
    log = tmp_path / "run.log"
    started = slowed.start("monai_tl", "run", "--plain", output=log)
    until(lambda: stage_runs(log, stage), 120, f"{stage} starts")
    until(lambda: slowed.find("stand_in.py", stage), 30, "the stage's process")
    victim = {
        "run": lambda: psutil.Process(started.pid),
        "flow": lambda: slowed.find("-m flows"),
        "dvc": lambda: slowed.find("dvc repro"),
        "supervisor": lambda: psutil.Process(slowed.find("-m flows").ppid()),
    }[who]()
    os.kill(victim.pid, number)
    slowed.wait_for_end()
    assert started.wait(10) != 0


@pytest.mark.parametrize("seconds", [0.3, 1.5, 4.0])
def test_killed_while_starting(place, tmp_path, seconds):
    slowed = slow(place, "ingest", 20.0)
    # the server's start is among the moments
    del slowed.extra["PREFECT_API_URL"]
    started = slowed.start("monai_tl", "run", "--plain", output=tmp_path / "run.log")
    with pytest.raises(AssertionError, match="never"):
        until(lambda: None, seconds, "never")
    started.kill()
    slowed.wait_for_end()
    started.wait(10)


def test_the_next_run_finishes_and_is_the_plain_one(place, tmp_path):
    # a lock file cut short by a kill in the middle of DVC's write, and a lock of a process id that another program has
    place.run("monai_tl", "run", "--plain")
    whole = place.lock
    (place.folder / "dvc.lock").write_bytes(whole[: whole.index(b"cmd:") + 4])
    stale = {"read": {}, "write": {str(place.folder / "artifacts/cases"): {"pid": os.getpid(), "cmd": "repro"}}}
    (place.folder / ".dvc/tmp/rwlock").write_text(json.dumps(stale))
    place.run("monai_tl", "run", "--plain")
    assert place.run("dvc", "status").strip().endswith("Data and pipelines are up to date.")
    assert place.lock == whole


def test_a_second_run_of_a_busy_workspace_is_a_clear_message(place, tmp_path):
    forget_results(place)
    slowed = slow(place, "ingest", 30.0)
    log = tmp_path / "run.log"
    started = slowed.start("monai_tl", "run", "--plain", output=log)
    until(lambda: stage_runs(log, "ingest"), 120, "ingest starts")
    text = place.run("monai_tl", "run", "--plain", check=False)
    assert "another run of this workspace is going on" in text
    assert "Traceback" not in text
    assert end(started) == 130
    slowed.wait_for_end(10.0)


def test_a_stage_past_its_time_out_is_ended(place, tmp_path):
    slowed = slow(place, "ingest", 60.0)
    slowed.extra["MONAI_TL_STAGE_TIME_OUT_S"] = "3"
    text = slowed.run("monai_tl", "run", "--plain", check=False)
    assert "stopped after 3 s" in text
    slowed.wait_for_end(10.0)


def test_a_stage_that_fails_tells_why(place):
    params = (place.folder / "params.yaml").read_text()
    try:
        (place.folder / "stand_in.py").write_text("raise SystemExit('monai-tl: the lamp is broken; mend it')\n")
        text = place.run("monai_tl", "run", "--plain", check=False)
    finally:
        (place.folder / "stand_in.py").write_text((Path(__file__).parents[1] / "support/stand_in.py").read_text())
        assert (place.folder / "params.yaml").read_text() == params
    assert "the lamp is broken; mend it" in text
    assert "Traceback" not in text


def test_a_pass_of_the_inbox_past_its_time_out_is_ended_with_children_of_children(place, tmp_path):
    """Each process that does a pass starts a family first, one of it in a session of its own, and then hangs."""
    hook = (
        "import subprocess, sys, time\n"
        "if sys.orig_argv[-2:] == ['inbox', '--once'] and 'monai_tl.supervise' not in sys.orig_argv:\n"
        "    subprocess.Popen(['sh', '-c', 'setsid sleep 300 & sleep 300'])\n"
        "    open('begun', 'w').close()\n"
        "    time.sleep(300)\n"
    )
    (tmp_path / "hook").mkdir()
    (tmp_path / "hook/sitecustomize.py").write_text(hook)
    path = os.pathsep.join([str(tmp_path / "hook"), str(place.site)])
    limited = Place(place.folder, place.site, {**place.extra, "PYTHONPATH": path, "MONAI_TL_STAGE_TIME_OUT_S": "3"})
    text = limited.run("flows.inbox", check=False)
    assert "stopped after 3 s; the next run goes on with what is left" in text
    assert (place.folder / "begun").exists()
    limited.wait_for_end(10.0)


@pytest.mark.long
def test_a_stage_of_the_clone_past_its_time_out_is_ended(place):
    forget_results(place)
    place.commit("Other data")
    slowed = slow(place, "ingest", 300.0)
    slowed.extra["MONAI_TL_STAGE_TIME_OUT_S"] = "3"
    text = slowed.run("flows.clone", check=False)
    assert "stopped after 3 s, the time-out of a stage" in text
    slowed.wait_for_end(10.0)
