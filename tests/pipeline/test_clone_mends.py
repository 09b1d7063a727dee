"""What a kill leaves in the clone of a workspace does not stop the trainings of all later nights."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest
from workspaces import ROOT, Place

from flows import clone, remotes, versioning
from monai_tl.errors import ConfigError

pytestmark = pytest.mark.pipeline


def git(folder: Path, *arguments: str) -> None:
    subprocess.run(["git", "-c", "user.name=t", "-c", "user.email=t@l", *arguments], cwd=folder, check=True)


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One with pinned data, at the root and deeper, and a clone that was brought once."""
    folder = tmp_path_factory.mktemp("clone") / "ws"
    folder.mkdir()
    git(folder, "init", "-q")
    place = Place(folder, ROOT)
    place.run("dvc", "init", "-q")
    for name in ("data", "sources/one"):
        (folder / name).mkdir(parents=True)
        (folder / name / "image").write_text(name)
        place.run("dvc", "add", "-q", name)
    git(folder, "add", "--all")
    git(folder, "commit", "-qm", "data")
    remotes.bring_data(clone.bring_clone(folder))
    return folder


def test_a_lock_that_a_kill_has_left_is_taken_away(workspace: Path) -> None:
    there = workspace / ".monai_tl/clone"
    (there / ".git/index.lock").touch()
    for name in ("data", "sources/one"):
        shutil.rmtree(there / name)
    remotes.bring_data(clone.bring_clone(workspace), pauses_s=())
    assert [(there / name / "image").read_text() for name in ("data", "sources/one")] == ["data", "sources/one"]


def test_data_that_git_cannot_name_are_not_taken_as_none(workspace: Path, tmp_path: Path) -> None:
    broken = shutil.copytree(workspace, tmp_path / "ws")
    (broken / ".git/index").write_bytes(b"no index")
    with pytest.raises(ConfigError, match=r"git ls-files: .*index"):
        remotes.bring_data(broken, pauses_s=())


def test_a_commit_without_dvc_is_no_workspace_to_train_from(workspace: Path, tmp_path: Path) -> None:
    bare = shutil.copytree(workspace, tmp_path / "ws", ignore=shutil.ignore_patterns(".monai_tl"))
    git(bare, "rm", "-rq", "--cached", ".dvc")
    git(bare, "commit", "-qm", "no .dvc/config")
    before = (bare / ".dvc/config").read_bytes(), (bare / ".dvc/config.local").exists()
    with pytest.raises(ConfigError, match=r"no \.dvc/config; commit what 'dvc init' wrote"):
        clone.bring_clone(bare)
    assert ((bare / ".dvc/config").read_bytes(), (bare / ".dvc/config.local").exists()) == before


def test_a_training_in_the_clone_is_seen_by_its_lock_whoever_started_it(workspace: Path) -> None:
    assert not clone.is_going_on(workspace)
    handle = versioning.lock_workspace(workspace, "clone.lock")
    try:
        assert clone.is_going_on(workspace)
    finally:
        os.close(handle)
    assert not clone.is_going_on(workspace)
