"""``inbox.model: null``: each study is done with the model that is in stage prod when its turn comes."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from sqlite3 import connect

import pytest
from inbox_world import study_uid, write_model, write_params, write_study, write_workspace
from workspaces import ROOT

from monai_tl.commands import inbox, promote, registry
from monai_tl.dicom.deidentify import Pseudonyms, load_key
from monai_tl.files import sha256_file, write_json

pytestmark = [pytest.mark.pipeline, pytest.mark.long]


def call(workspace: Path, *command: str) -> None:
    subprocess.run(command, cwd=workspace, check=True, stdout=subprocess.DEVNULL)


def put_in_prod(workspace: Path) -> None:
    """A commit with the model as DVC has it and its record, and the tag that a promotion sets once it has judged."""
    digest = promote.model_digest(workspace / "artifacts/export/model")
    write_json(workspace / promote.PROMOTED_FILE, {"promotions": [{"number": 1, "model_sha256": digest}]})
    call(workspace, sys.executable, "-m", "dvc", "add", "-q", "artifacts/export")
    call(workspace, "git", "add", "--all")
    call(workspace, "git", "commit", "-qm", "A model")
    registry._gto(workspace, "assign", registry.MODEL, "HEAD", "--stage", registry.PROD)


def make(workspace: Path, seed: int) -> str:
    """The workspace's model is another one, and in production; the digest of its weights."""
    shutil.rmtree(workspace / "artifacts", ignore_errors=True)
    folder = write_model(workspace / "artifacts/export/model", seed=seed)
    put_in_prod(workspace)
    return sha256_file(folder / "weights.safetensors")


@pytest.fixture
def workspace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("MONAI_TL_EXECUTOR", "sequential")
    for role in ("AUTHOR", "COMMITTER"):
        monkeypatch.setenv(f"GIT_{role}_NAME", "t")
        monkeypatch.setenv(f"GIT_{role}_EMAIL", "t@localhost")
    made = write_workspace(tmp_path)
    shutil.rmtree(made / "model")
    write_params(tmp_path, model=None, every_s=1, folder=str(tmp_path / "inbox"), outbox=str(tmp_path / "outbox"))
    (tmp_path / "inbox").mkdir()
    shutil.copytree(ROOT / "flows", made / "flows", ignore=shutil.ignore_patterns("__pycache__"))
    call(made, "git", "init", "-q")
    call(made, sys.executable, "-m", "dvc", "init", "-q")
    (made / ".gitignore").write_text("/.monai_tl/\n")
    return made


class _Enough(Exception):
    pass


def test_the_model_in_production_is_the_one_that_works_from_the_next_pass_on(workspace: Path) -> None:
    folder, digests = workspace.parent / "inbox", {}
    digests["a"] = make(workspace, seed=3)

    def promote_another() -> None:
        digests["b"] = make(workspace, seed=4)

    def go_back() -> None:
        registry.undo(workspace)

    def stop() -> None:
        raise _Enough

    # what happens after each pass in which a study was done, while the same process goes on
    coming: list[Callable[[], None]] = [promote_another, go_back, stop]
    told: list[str] = []

    def tell(text: str) -> None:
        told.append(text)
        coming[len(told) - 1]()
        write_study(folder / f"{len(told)}", len(told))

    write_study(folder / "0", 0)
    with pytest.raises(_Enough):
        inbox.run(workspace, tell=tell)
    assert digests["a"] != digests["b"]
    hasher = Pseudonyms(load_key(workspace.parent / "key"))
    with closing(connect(workspace.parent / "outbox/.ledger/ledger.sqlite")) as base:
        models = dict(base.execute("SELECT study, model FROM studies WHERE state = 'done'"))
    found = [models[hasher.item("study", study_uid(number))] for number in range(3)]
    assert found == [digests["a"], digests["b"], digests["a"]]
