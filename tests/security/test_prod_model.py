"""Row 8: the model that works is the one that was promoted, and as it was exported."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from inbox_world import write_model
from workspaces import ROOT

from monai_tl.commands import promote, registry
from monai_tl.commands.segment import load_model
from monai_tl.errors import ConfigError, DataError
from monai_tl.files import write_json
from monai_tl.integrity import MANIFEST, seal


def call(workspace: Path, *command: str) -> None:
    subprocess.run(command, cwd=workspace, check=True, capture_output=True)


@pytest.fixture
def workspace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A model in production, as git and DVC hold it; files of a line, since nothing loads them."""
    for role in ("AUTHOR", "COMMITTER"):
        monkeypatch.setenv(f"GIT_{role}_NAME", "t")
        monkeypatch.setenv(f"GIT_{role}_EMAIL", "t@localhost")
    model = tmp_path / "artifacts/export/model"
    model.mkdir(parents=True)
    (model / "card.yaml").write_text("classes: [liver, spleen]\n")
    (model / "weights.safetensors").write_text("weights")
    (tmp_path / "flows").mkdir()
    for name in ("__init__.py", "revision.py"):
        shutil.copyfile(ROOT / "flows" / name, tmp_path / "flows" / name)
    (tmp_path / ".gitignore").write_text("/.monai_tl/\n")
    call(tmp_path, "git", "init", "-q")
    call(tmp_path, sys.executable, "-m", "dvc", "init", "-q")
    call(tmp_path, sys.executable, "-m", "dvc", "add", "-q", "artifacts/export")
    record(tmp_path, promote.model_digest(model))
    return tmp_path


def record(workspace: Path, digest: str | None) -> None:
    """Commit what a promotion notes, and tag the commit as GTO does."""
    path = workspace / promote.PROMOTED_FILE
    write_json(path, {"promotions": [{"number": 1, "model_sha256": digest}]})
    # as an editor may leave it
    path.write_text(path.read_text().removesuffix("\n"))
    call(workspace, "git", "add", "-A")
    call(workspace, "git", "commit", "-qm", "A model")
    for tag in ("model@v0.0.1", "model#prod#1"):
        call(workspace, "git", "tag", "-fam", "x", tag)


def tamper(path: Path) -> None:
    """Of another order of classes, and of the same size and mode."""
    mode = path.stat().st_mode
    path.chmod(0o644)
    path.write_text("classes: [spleen, liver]\n")
    path.chmod(mode)


def test_the_kept_copy_and_dvcs_object_are_those_of_the_record(workspace: Path) -> None:
    folder = registry.fetch_prod(workspace)
    whole = {path.name: path.read_text() for path in folder.iterdir()}
    assert whole["card.yaml"] == "classes: [liver, spleen]\n"
    # the copy alone: brought anew
    tamper(folder / "card.yaml")
    (folder / "added.txt").write_text("")
    assert {path.name: path.read_text() for path in registry.fetch_prod(workspace).iterdir()} == whole
    # and what it comes from
    tamper(folder / "card.yaml")
    objects = [path for path in (workspace / ".dvc/cache/files/md5").glob("??/*") if path.is_file()]
    (found,) = [path for path in objects if path.read_text() == whole["card.yaml"]]
    tamper(found)
    with pytest.raises(DataError, match=r"the model of v0\.0\.1 .* promoted\.json .*doctor --cache") as caught:
        registry.fetch_prod(workspace)
    assert caught.value.code == "integrity"
    assert sorted(path.name for path in folder.parent.iterdir()) == [folder.name]
    # nor is one taken of which nothing tells what it was
    record(workspace, None)
    with pytest.raises(ConfigError, match=r"v0\.0\.1 .* no record .*promote"):
        registry.fetch_prod(workspace)


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("exported") / "export"
    write_model(folder / "model")
    (folder / "index.json").write_text("{}")
    seal(folder)
    return folder


@pytest.fixture
def export(exported: Path, tmp_path: Path) -> Path:
    shutil.copytree(exported, tmp_path / "export")
    return tmp_path / "export"


@pytest.mark.parametrize("sealed", ["export", "model"])
def test_a_sealed_model_is_loaded_as_it_was_sealed(export: Path, sealed: str) -> None:
    """Its weights have their sha256 in the card; the card itself has nothing but the manifest."""
    if sealed == "model":
        (export / MANIFEST).unlink()
        seal(export / "model")
    loaded = load_model([export / "model"])
    assert loaded.predictor.plan.spacing_mm == (4.0, 4.0, 4.0)
    plan = export / "model/plan.json"
    plan.write_text(plan.read_text().replace("4.0", "5.0"))
    with pytest.raises(DataError, match=r"plan\.json has other content") as caught:
        load_model([export / "model"])
    assert caught.value.code == "integrity"


def test_what_is_no_part_of_the_model_does_not_keep_it_from_working(export: Path) -> None:
    (export / "index.json").unlink()
    load_model([export / "model"])
    # a list of somebody's downloads
    (export / MANIFEST).write_text(f"{'0' * 64}  other.zip\n")
    load_model([export / "model"])
    (export / MANIFEST).unlink()
    load_model([export / "model"])


def test_a_file_that_was_added_to_a_sealed_model_is_seen(export: Path) -> None:
    (export / "model/inference.json").write_text("{}")
    with pytest.raises(DataError, match=r"inference\.json was added"):
        load_model([export / "model"])
