"""Production: tags that GTO reads, a champion that stays until it is surpassed, an approval, and a way back."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from finished_run import RunShape, make_finished_run
from workspaces import ROOT

from monai_tl.commands import candidate, promote, registry
from monai_tl.errors import ConfigError, PromotionError
from monai_tl.sources.ensemble import InferenceSettings, write_ensemble
from monai_tl.stages import evaluate

pytestmark = pytest.mark.pipeline

SMALL = {"shape": (40, 36, 20), "spacing_mm": (7.0, 7.0, 9.0), "n_train": 3, "n_val": 2, "seeds": (0, 1, 2)}
COMMITTER = ["-c", "user.name=t", "-c", "user.email=t@localhost"]


def git(workspace: Path, *arguments: str) -> str:
    done = subprocess.run(["git", *COMMITTER, *arguments], cwd=workspace, check=True, capture_output=True, text=True)
    return done.stdout


def gto(workspace: Path, *arguments: str) -> list[dict]:
    done = subprocess.run(
        [str(Path(sys.executable).parent / "gto"), "show", *arguments, "--json"],
        cwd=workspace, check=True, capture_output=True, text=True,
    )  # fmt: skip
    return json.loads(done.stdout)


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MONAI_TL_EXECUTOR", "sequential")
    for role in ("AUTHOR", "COMMITTER"):
        monkeypatch.setenv(f"GIT_{role}_NAME", "t")
        monkeypatch.setenv(f"GIT_{role}_EMAIL", "t@localhost")


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Runs whose transfer arm strays by so many mm; the same test cases in all."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MONAI_TL_EXECUTOR", "sequential")
        made = {}
        for word, strays in {"good": (4.0, 18.0), "better": (0.5, 14.0), "harm": (14.0, 0.5)}.items():
            folder = tmp_path_factory.mktemp(word)
            shape = RunShape(dict(zip(("transfer", "scratch"), strays, strict=True)), n_test=6, **SMALL)  # type: ignore[arg-type]
            params = make_finished_run(folder, shape)
            evaluate.run(folder, params)
            write_ensemble(
                folder / "artifacts/export/model", [folder / "artifacts/models/transfer-0-0"], InferenceSettings()
            )
            # the made-up weights of all runs are the same, and versions are told apart by what is in the folder
            (folder / "artifacts/export/model/note.txt").write_text(word)
            (folder / "artifacts/export/index.json").write_text(json.dumps({"arm": "transfer", "seed": 0}))
            made[word] = folder
    return made


@pytest.fixture
def workspace(tmp_path: Path) -> Path:
    folder = tmp_path / "ws"
    folder.mkdir()
    git(folder, "init", "-q")
    shutil.copytree(ROOT / "flows", folder / "flows", ignore=shutil.ignore_patterns("__pycache__"))
    (folder / ".gitignore").write_text("/artifacts/\n/reports/html/\n/.monai_tl/\n")
    git(folder, "add", "-A")
    git(folder, "commit", "-qm", "Begin")
    return folder


def take(workspace: Path, run: Path) -> None:
    """The run's products, as if the workspace had made them, and its record; committed."""
    for name in ("artifacts", "reports"):
        shutil.rmtree(workspace / name, ignore_errors=True)
        shutil.copytree(run / name, workspace / name)
    promote.run(workspace)
    commit(workspace)


def commit(workspace: Path) -> None:
    git(workspace, "add", "-A")
    git(workspace, "commit", "-qm", "A run")


def test_the_way_into_production_and_back(workspace: Path, runs: dict[str, Path]) -> None:
    take(workspace, runs["good"])
    with pytest.raises(PromotionError, match="--approve"):
        registry.to_prod(workspace, approve=False)
    assert git(workspace, "tag") == ""
    said = registry.to_prod(workspace, approve=True)
    assert "v0.0.1 is in production" in said
    assert [one["version"] for one in gto(workspace, "model#prod")] == ["v0.0.1"]
    tags = git(workspace, "tag")
    assert "already" not in said
    assert "in production already" in registry.to_prod(workspace, approve=True)
    assert git(workspace, "tag") == tags
    take(workspace, runs["better"])
    said = registry.to_prod(workspace, approve=True)
    assert "the candidate is better than v0.0.1" in said
    assert [one["version"] for one in gto(workspace, "model#prod")] == ["v0.0.2"]
    table = registry.describe_models(workspace)
    rows = [line for line in table.splitlines() if line.startswith("| v0")]
    assert [row.split(" | ")[:2] for row in rows] == [["| v0.0.2", "prod"], ["| v0.0.1", ""]]
    assert all("gain" in row and "abdomen_a" in row and "Apache-2.0" in row for row in rows)
    assert "v0.0.1 in it now" in registry.undo(workspace).replace(" is in", " in")
    assert [one["version"] for one in gto(workspace, "model#prod")] == ["v0.0.1"]
    assert "none is in it now" in registry.undo(workspace)
    with pytest.raises(PromotionError, match="nothing to undo"):
        registry.undo(workspace)


def test_a_worse_candidate_or_one_that_is_the_same_stays_a_candidate(workspace: Path, runs: dict[str, Path]) -> None:
    take(workspace, runs["better"])
    registry.to_prod(workspace, approve=True)
    tags = git(workspace, "tag")
    take(workspace, runs["good"])
    for accept in (False, True):
        with pytest.raises(PromotionError, match=r"the candidate is worse than v0\.0\.1"):
            registry.to_prod(workspace, approve=True, accept_undecided=accept)
    # other weights, the same scores
    take(workspace, runs["better"])
    (workspace / "artifacts/export/model/note.txt").write_text("another")
    promote.run(workspace)
    commit(workspace)
    with pytest.raises(PromotionError, match="score the same in every case"):
        registry.to_prod(workspace, approve=True)
    assert git(workspace, "tag") == tags
    assert "v0.0.2 is in production" in registry.to_prod(workspace, approve=True, accept_undecided=True)


def test_a_run_leaves_a_candidate_with_its_verdict_even_of_harm(
    workspace: Path, runs: dict[str, Path], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(workspace)
    take(workspace, runs["good"])
    registry.to_prod(workspace, approve=True)
    for name in ("artifacts", "reports"):
        shutil.rmtree(workspace / name)
        shutil.copytree(runs["harm"] / name, workspace / name)
    assert candidate.main(["record"]) == 0
    commit(workspace)
    assert [candidate.main(["register", "HEAD"]) for _ in range(2)] == [0, 0]
    # the same model, run again: a new commit, but no new version
    git(workspace, "commit", "-q", "--allow-empty", "-m", "The next night")
    assert candidate.main(["register", "HEAD"]) == 0
    said = capsys.readouterr().out.splitlines()
    assert len(said) == 3
    assert all("v0.0.2 is the candidate" in line for line in said)
    assert [one["version"] for one in gto(workspace, "model#candidate")] == ["v0.0.2"]
    assert [one["version"] for one in gto(workspace, "model#prod")] == ["v0.0.1"]
    rows = [line for line in registry.describe_models(workspace).splitlines() if line.startswith("| v0")]
    assert [row.split(" | ")[1] for row in rows] == ["candidate", "prod"]
    assert "harm" in rows[0]
    assert "gain" in rows[1]
    with pytest.raises(PromotionError, match="A run that did harm"):
        registry.to_prod(workspace, approve=True, accept_undecided=True)
    # one that is taken is a candidate no more
    take(workspace, runs["better"])
    registry.to_prod(workspace, approve=True)
    rows = [line for line in registry.describe_models(workspace).splitlines() if line.startswith("| v0")]
    assert [row.split(" | ")[1] for row in rows] == ["prod", "candidate", ""]
    assert "gain" in rows[0]


def test_without_a_finished_run_there_is_no_candidate(
    workspace: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(workspace)
    assert candidate.main(["record"]) == PromotionError.exit_code
    assert "the run is not finished" in capsys.readouterr().err
    assert candidate.main(["register", "HEAD"]) == ConfigError.exit_code
    assert "holds no record of a model" in capsys.readouterr().err


def test_harm_and_what_is_not_committed_never_come_in(workspace: Path, runs: dict[str, Path]) -> None:
    for name in ("artifacts", "reports"):
        shutil.copytree(runs["harm"] / name, workspace / name)
    with pytest.raises(PromotionError, match="A run that did harm is not promoted"):
        registry.to_prod(workspace, approve=True, accept_undecided=True)
    for name in ("artifacts", "reports"):
        shutil.rmtree(workspace / name)
        shutil.copytree(runs["good"] / name, workspace / name)
    with pytest.raises(PromotionError, match=r"Not committed yet: .*promoted\.json"):
        registry.to_prod(workspace, approve=True)
    assert git(workspace, "tag") == ""


def test_without_a_version_the_inbox_says_what_to_do(workspace: Path) -> None:
    with pytest.raises(ConfigError, match=r"no version is in stage prod.*--approve"):
        registry.fetch_prod(workspace)
    assert "No version yet" in registry.describe_models(workspace)


@pytest.mark.long
def test_the_model_in_production_comes_from_dvc(workspace: Path, runs: dict[str, Path]) -> None:
    """Fetched as it was at its version, though the workspace has another one now."""
    dvc = [sys.executable, "-m", "dvc"]
    subprocess.run([*dvc, "init", "-q"], cwd=workspace, check=True)
    (workspace / ".gitignore").write_text("/.monai_tl/\n/reports/html/\n/artifacts/cases\n/artifacts/models\n")
    for word in ("good", "better"):
        for name in ("artifacts", "reports"):
            shutil.rmtree(workspace / name, ignore_errors=True)
            shutil.copytree(runs[word] / name, workspace / name)
        subprocess.run([*dvc, "add", "-q", "artifacts/export"], cwd=workspace, check=True)
        promote.run(workspace)
        commit(workspace)
        if word == "good":
            registry.to_prod(workspace, approve=True)
            before = registry.stage_mark(workspace)
    folder = registry.fetch_prod(workspace)
    assert (folder / "note.txt").read_text() == "good"
    assert folder == registry.fetch_prod(workspace)
    registry.to_prod(workspace, approve=True)
    assert registry.stage_mark(workspace) != before
    assert (registry.fetch_prod(workspace) / "note.txt").read_text() == "better"
