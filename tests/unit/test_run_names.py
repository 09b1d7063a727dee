"""Names of flow runs: which data and which model, told by digests and versions, and never at the cost of the run."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest
import yaml

from flows import naming
from monai_tl.config import PARAMS_FILE

TEMPLATE = Path(__file__).parents[2] / "monai_tl/template/params.yaml"
DATA, LATER = "1a2b3c4d" + "0" * 24 + ".dir", "55667788" + "1" * 24 + ".dir"
SHA = "9f8e7d6c" + "a" * 56


def git(folder: Path, *arguments: str) -> str:
    who = ["-c", "user.name=t", "-c", "user.email=t@localhost"]
    done = subprocess.run(["git", *who, *arguments], cwd=folder, check=True, capture_output=True, text=True)
    return done.stdout.strip()


def commit(folder: Path) -> str:
    git(folder, "add", "--all")
    git(folder, "commit", "-qm", "x")
    return git(folder, "rev-parse", "HEAD")


def write_pin(path: Path, md5: str) -> None:
    path.write_text(yaml.safe_dump({"outs": [{"md5": md5, "hash": "md5", "path": path.stem}]}))


def write_params(folder: Path, source: str = "data", **inbox: object) -> None:
    content = yaml.safe_load(TEMPLATE.read_text())
    content["ingest"]["source"] = source
    (folder / PARAMS_FILE).write_text(yaml.safe_dump({**content, **({"inbox": inbox} if inbox else {})}))


def write_card(folder: Path, sha256: str) -> None:
    folder.mkdir(parents=True)
    (folder / "card.yaml").write_text(yaml.safe_dump({"weights": {"file": "w", "sha256": sha256}}))


@pytest.fixture
def workspace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    git(tmp_path, "init", "-q")
    write_params(tmp_path, model="model")
    write_pin(tmp_path / "data.dvc", DATA)
    return tmp_path


def test_a_training_has_its_data_and_its_commit(workspace: Path) -> None:
    assert naming.of_training() == "data 1a2b3c4d, model none"
    head = commit(workspace)
    assert naming.of_training() == naming.of_training_in_clone() == f"data 1a2b3c4d, model {head[:8]}"


def test_what_is_not_committed_is_said_in_place_and_is_nothing_to_the_clone(workspace: Path) -> None:
    head = commit(workspace)
    write_pin(workspace / "data.dvc", LATER)
    assert naming.of_training() == f"data 55667788, model {head[:8]}"
    with (workspace / PARAMS_FILE).open("a") as params:
        params.write("# another thought\n")
    # no parameter, and made by every run
    (workspace / "dvc.lock").write_text("")
    assert naming.of_training() == f"data 55667788, model {head[:8]}-changed"
    assert naming.of_training_in_clone() == f"data 1a2b3c4d, model {head[:8]}"


def test_of_several_pinned_folders_it_is_the_one_that_is_read(workspace: Path) -> None:
    write_pin(workspace / "another.dvc", LATER)
    write_params(workspace, source="data/hospital_b")
    assert naming.of_training().startswith("data 1a2b3c4d,")
    write_params(workspace, source="another/of/them")
    assert naming.of_training().startswith("data 55667788,")
    write_params(workspace, source="not_pinned")
    assert naming.of_training().startswith("data none,")


def test_the_inbox_has_the_weights_it_works_with(workspace: Path) -> None:
    write_card(workspace / "model", SHA)
    assert naming.of_inbox() == "data 1a2b3c4d, model 9f8e7d6c"
    write_params(workspace, model="ensemble")
    for number, sha256 in enumerate((SHA, "b" * 64, "c" * 64)):
        write_card(workspace / f"ensemble/transfer-{number}-0", sha256)
    assert naming.of_inbox() == "data 1a2b3c4d, model 9f8e7d6c and 2 more"


def test_the_inbox_has_the_version_in_production(workspace: Path) -> None:
    write_params(workspace, every_s=60)
    commit(workspace)
    assert naming.of_inbox().endswith("model none")
    # as GTO writes them: a version is a tag of a commit, a stage is another tag of it, and the highest number counts
    for number in range(1, 12):
        (workspace / "dvc.lock").write_text(str(number))
        commit(workspace)
        git(workspace, "tag", "-am", "x", f"model@v0.0.{number}")
        git(workspace, "tag", "-am", "x", f"model#prod#{number}")
        assert naming.of_inbox().endswith(f"model v0.0.{number}")
    git(workspace, "tag", "-am", "x", "model#prod#12", "model@v0.0.3^{commit}")
    assert naming.of_inbox().endswith("model v0.0.3")
    git(workspace, "tag", "-am", "x", "model#prod!#13", "model@v0.0.3^{commit}")
    assert naming.of_inbox().endswith("model none")


def test_a_promotion_has_the_candidate_where_it_is_this_model(workspace: Path) -> None:
    write_card(workspace / "artifacts/export/model/transfer-0-0", SHA)
    assert naming.of_promotion() == "data 1a2b3c4d, model 9f8e7d6c"
    (workspace / "candidate.json").write_text(json.dumps({"model_sha256": "d" * 64}))
    commit(workspace)
    assert naming.of_promotion() == "data 1a2b3c4d, model 9f8e7d6c"
    git(workspace, "tag", "-am", "x", "model@v0.1.0")
    git(workspace, "tag", "-am", "x", "model#candidate#1")
    (workspace / "mine.txt").write_text("merged with other work")
    commit(workspace)
    assert naming.of_promotion() == "data 1a2b3c4d, model v0.1.0"
    (workspace / "candidate.json").write_text(json.dumps({"model_sha256": "e" * 64}))
    assert naming.of_promotion() == "data 1a2b3c4d, model 9f8e7d6c"


@pytest.mark.parametrize("content", ["", "outs: [", "outs: []", "outs: 3", "\0"])
def test_a_damaged_pin_is_the_run_s_to_complain_of(workspace: Path, content: str) -> None:
    (workspace / "data.dvc").write_text(content)
    commit(workspace)
    assert naming.of_training().startswith("data none, model ")
    assert naming.of_training_in_clone().startswith("data none, model ")


def test_without_git_and_parameters_there_is_a_name_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    for tell in (naming.of_training, naming.of_training_in_clone, naming.of_inbox, naming.of_promotion):
        assert tell() == "data none, model none"
    monkeypatch.setenv("PATH", str(tmp_path))
    assert naming.of_training() == "data none, model none"
