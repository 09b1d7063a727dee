"""A run in a clone: what the commit pins goes in, a branch and a filled remote come out, the workspace stays."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest
import yaml
from workspaces import Place, make_real, make_site, make_stand_in

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


def test_the_model_of_a_run_is_the_candidate_and_comes_by_its_name(tmp_path: Path) -> None:
    """With the real stages: the version holds what a person decides by, and DVC hands out its files."""
    made = make_real(tmp_path / "ws", make_site(tmp_path / "site"))
    made.extra |= {"MONAI_TL_EXECUTOR": "sequential"}
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
    made.run("dvc", "artifacts", "get", ".", "model", "--stage", "candidate", "-o", str(tmp_path / "fetched"))
    ours = made.folder / ".monai_tl/clone/artifacts/export/model"
    names = {path.relative_to(ours) for path in ours.rglob("*") if path.is_file()}
    fetched = tmp_path / "fetched"
    assert names == {path.relative_to(fetched) for path in fetched.rglob("*") if path.is_file()}
    assert all((fetched / name).read_bytes() == (ours / name).read_bytes() for name in names)
    # the next night finds nothing new, and leaves no other version
    git(made, "merge", "-q", "--ff-only", branch)
    made.run("flows.clone")
    assert len(git(made, "tag").split()) == 2
