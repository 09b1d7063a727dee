"""A run in a clone: what the commit pins goes in, a branch and a filled remote come out, the workspace stays."""

from __future__ import annotations

import base64
import json
import re
import shutil
import sqlite3
import subprocess
import urllib.request
from pathlib import Path
from typing import Any

import pytest
import yaml
from stand_in import look
from workspaces import Place, end, free_port, make_real, make_site, make_stand_in, until

from monai_tl.looks import read_looks

pytestmark = [pytest.mark.pipeline, pytest.mark.long]


def git(place: Place, *arguments: str) -> str:
    done = subprocess.run(
        ["git", *arguments], cwd=place.folder, env=place.environment, check=True, capture_output=True, text=True
    )
    return done.stdout.strip()


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Place:
    root = tmp_path_factory.mktemp("clones")
    made = make_stand_in(root / "ws", make_site(root / "site"))
    made.run("dvc", "remote", "add", "--default", "store", str(root / "remote"))
    git(made, "add", "-A")
    git(made, "commit", "-qm", "A remote")
    return made


def branches(place: Place) -> list[str]:
    return git(place, "for-each-ref", "--format=%(refname:short)", "refs/heads/runs").split()


def test_results_come_on_a_branch_and_can_be_had_by_others(place: Place, tmp_path: Path) -> None:
    # not committed, so no part of the run
    (place.folder / "data/late.txt").write_text("not yet pinned")
    before = git(place, "status", "--porcelain"), git(place, "rev-parse", "HEAD")
    place.run("flows.clone")
    (branch,) = branches(place)
    assert (git(place, "status", "--porcelain"), git(place, "rev-parse", "HEAD")) == before
    assert not (place.folder / "dvc.lock").exists()
    assert git(place, "rev-parse", f"{branch}^") == before[1]
    changed = set(git(place, "diff", "--name-only", "HEAD", branch).splitlines())
    assert {"dvc.lock", "reports/metrics.json"} <= changed
    assert all(name == "dvc.lock" or name.startswith("reports/") for name in changed)
    # from the branch and the remote alone, somebody else has the model and finds it up to date
    other = Place(tmp_path / "other", place.site)
    subprocess.run(["git", "clone", "-q", "-b", branch, str(place.folder), str(other.folder)], check=True)
    other.run("dvc", "pull")
    assert "up to date" in other.run("dvc", "status")
    lock = yaml.safe_load((other.folder / "dvc.lock").read_text())
    (pinned,) = (one["md5"] for one in lock["stages"]["ingest"]["deps"] if one["path"] == "data")
    assert pinned == yaml.safe_load((place.folder / "data.dvc").read_text())["outs"][0]["md5"]


def test_again_without_a_change_makes_no_work_and_a_change_makes_a_branch(place: Place) -> None:
    (place.folder / "data/late.txt").unlink(missing_ok=True)
    (branch,) = branches(place)
    git(place, "merge", "-q", "--ff-only", branch)
    text = place.run("flows.clone")
    assert branches(place) == [branch]
    assert ": ran" not in text
    # the clone may be damaged, and data may be in the remote alone
    shutil.rmtree(place.folder / ".monai_tl/clone/.git")
    (place.folder / "data/more.txt").write_text("another study")
    place.run("dvc", "add", "-q", "data")
    place.run("dvc", "push")
    git(place, "commit", "-qam", "More data")
    shutil.rmtree(place.folder / ".dvc/cache")
    place.run("flows.clone")
    (new,) = set(branches(place)) - {branch}
    assert git(place, "rev-parse", f"{new}^") == git(place, "rev-parse", "HEAD")


def test_a_second_run_in_the_clone_is_told_at_once_and_the_first_goes_on(place: Place) -> None:
    """Its checkout would change what the first one trains on."""
    slow = Place(place.folder, place.site, {**place.extra, "STAND_IN_SLOW": "evaluate:8"})
    params, log = place.folder / "params.yaml", place.folder.parent / "first.log"
    content = yaml.safe_load(params.read_text())
    params.write_text(yaml.safe_dump({**content, "evaluate": {**content["evaluate"], "seed": 4}}))
    git(place, "commit", "-qam", "Other parameters: evaluate runs again")
    known, pins = set(branches(place)), git(place, "rev-parse", "HEAD")
    first = slow.start("flows.clone", output=log)
    stage = until(lambda: slow.find("stand_in.py evaluate") or first.poll() is not None, 300, "the first is at work")
    # so that it outlasts the other, however slow the machine is
    stage.suspend()
    (place.folder / "later.txt").write_text("of the next run")
    git(place, "add", "later.txt")
    git(place, "commit", "-qm", "A commit that the second would check out")
    assert "another run of this workspace is going on" in place.run("flows.clone", check=False)
    assert not (place.folder / ".monai_tl/clone/later.txt").exists()
    stage.resume()
    assert first.wait(300) == 0, log.read_text()
    (branch,) = set(branches(place)) - known
    assert git(place, "rev-parse", f"{branch}^") == pins


def test_looks_of_the_clone_count_in_the_workspace(place: Place) -> None:
    looking = Place(place.folder, place.site, {**place.extra, "STAND_IN_LOOKS": "1"})
    look(place.folder, "of the workspace")
    # a run that was killed left one in the clone
    look(place.folder / ".monai_tl/clone", "of a run that was killed")
    params = place.folder / "params.yaml"
    content = yaml.safe_load(params.read_text())
    params.write_text(yaml.safe_dump({**content, "evaluate": {**content.get("evaluate", {}), "seed": 5}}))
    git(place, "commit", "-qam", "Other parameters: evaluate runs again")
    before = set(branches(place))
    looking.run("flows.clone")
    found = read_looks(place.folder).looks
    assert [one.number for one in found] == [1, 2, 3]
    assert [one.models["transfer-0-0"] for one in found][:2] == ["of the workspace", "of a run that was killed"]
    # it is no part of the branch, so merging it never meets another version of the file
    (branch,) = set(branches(place)) - before
    assert "test_looks.json" not in git(place, "ls-tree", "-r", "--name-only", branch).splitlines()
    # in the clone too it was the third
    assert read_looks(place.folder / ".monai_tl/clone").looks[-1] == found[-1]


def _ask(place: Place, url: str, file: str, body: dict[str, Any] | None = None, **more: str) -> bytes:
    auth = base64.b64encode((place.folder / ".monai_tl" / file).read_bytes().strip()).decode()
    headers = {"Authorization": f"Basic {auth}", "Content-Type": "application/json", **more}
    content = None if body is None else json.dumps(body).encode()
    with urllib.request.urlopen(urllib.request.Request(url, content, headers), timeout=30) as answer:
        return bytes(answer.read())


def test_served_the_dashboard_links_to_the_report_that_the_clone_made(place: Place) -> None:
    port, log = free_port(), place.folder.parent / "serve.log"
    api = f"http://127.0.0.1:{port}/api"

    def asked(what: str, wanted: dict[str, Any]) -> list[dict[str, Any]]:
        token = json.loads(_ask(place, f"{api}/csrf-token?client=test", "server.auth"))["token"]
        named = {"Prefect-Csrf-Token": token, "Prefect-Csrf-Client": "test"}
        return list(json.loads(_ask(place, f"{api}/{what}/filter", "server.auth", wanted, **named)))

    def links() -> list[str]:
        return [str(one["data"]) for one in asked("artifacts", {"artifacts": {"key": {"any_": ["report"]}}})]

    process = place.start("monai_tl", "serve", "--port", str(port), "--interval", "15", output=log)
    try:
        until(lambda: "Runs:" in log.read_text() or process.poll() is not None, 120, "the server starts")
        (link, *_) = until(links, 300, "a run in the clone is done")
        address = re.search(r"\((http://[^)]*)\)", link)
        assert address is not None
        made = (place.folder / ".monai_tl/clone/reports/html/report.html").read_bytes()
        assert _ask(place, address[1], "report.auth") == made
        assert address[1] in log.read_text().replace("\n", "")
        pinned = yaml.safe_load(git(place, "show", "HEAD:data.dvc"))["outs"][0]["md5"]
        # of a run that was cancelled before it began there is nothing to tell
        done = {"state": {"type": {"any_": ["COMPLETED"]}}, "deployment_id": {"is_null_": False}}
        scheduled = until(lambda: asked("flow_runs", {"flow_runs": done}), 120, "a scheduled run is done")
        head = git(place, "rev-parse", "HEAD")
        assert {one["name"] for one in scheduled} == {f"data {pinned[:8]}, model {head[:8]}"}
    finally:
        code = end(process)
    assert code == 0, log.read_text()


def shown(database: Path, key: str) -> list[str]:
    """Artifacts of this key, in the order in which they were made."""
    with sqlite3.connect(database) as connection:
        rows = connection.execute("SELECT data FROM artifact WHERE key = ? ORDER BY created", (key,)).fetchall()
    return [str(json.loads(data)) for (data,) in rows]


def test_in_place_a_run_is_named_by_the_data_that_it_has_pinned_itself(place: Place) -> None:
    (place.folder / "data/new.txt").write_text("nobody has called dvc add")
    before = yaml.safe_load((place.folder / "data.dvc").read_text())["outs"][0]["md5"]
    place.run("flows")
    after = yaml.safe_load((place.folder / "data.dvc").read_text())["outs"][0]["md5"]
    assert after != before
    base = sqlite3.connect(place.folder / ".monai_tl/prefect/prefect.db")
    (name,) = base.execute("SELECT name FROM flow_run ORDER BY start_time DESC LIMIT 1").fetchone()
    base.close()
    assert name == f"data {after[:8]}, model {git(place, 'rev-parse', 'HEAD')[:8]}"


def test_the_model_of_a_run_is_the_candidate_and_comes_by_its_name(tmp_path: Path) -> None:
    """With the real stages: the version holds what a person decides by, and DVC hands out its files."""
    made = make_real(tmp_path / "ws", make_site(tmp_path / "site"))
    made.extra |= {"MONAI_TL_EXECUTOR": "sequential", "PREFECT_HOME": str(tmp_path / "prefect")}
    made.run("flows.clone")
    (branch,) = branches(made)
    assert set(git(made, "tag").split()) == {"model@v0.0.1", "model#candidate#1"}
    assert git(made, "rev-parse", "model@v0.0.1^{commit}") == git(made, "rev-parse", branch)
    (row,) = (line for line in made.run("monai_tl", "models").splitlines() if line.startswith("| v0"))
    cells = [cell.strip() for cell in row.strip("|").split("|")]
    pinned = yaml.safe_load((made.folder / "data.dvc").read_text())["outs"][0]["md5"]
    assert cells[:2] == ["v0.0.1", "candidate"]
    assert cells[3] == f"data {pinned[:8]}"
    assert cells[5] == "CC0-1.0" or cells[4] == "from scratch"
    # what the dashboard says of it: where the run in the clone left it, then its version, and the command is one
    left, version = shown(tmp_path / "prefect/prefect.db", "model")
    assert "`.monai_tl/clone/artifacts/export/model`" in left
    assert f"Version `v0.0.1`, branch `{branch}`" in version
    assert str(tmp_path) not in left + version
    command = re.search(r"`(dvc artifacts get [^`]*)`", version)
    assert command is not None
    made.run(*command[1].split(), "-o", str(tmp_path / "fetched"))
    ours = made.folder / ".monai_tl/clone/artifacts/export/model"
    names = {path.relative_to(ours) for path in ours.rglob("*") if path.is_file()}
    fetched = tmp_path / "fetched"
    assert names == {path.relative_to(fetched) for path in fetched.rglob("*") if path.is_file()}
    assert all((fetched / name).read_bytes() == (ours / name).read_bytes() for name in names)
    # the next night finds nothing new, and leaves no other version
    git(made, "merge", "-q", "--ff-only", branch)
    made.run("flows.clone")
    assert len(git(made, "tag").split()) == 2
