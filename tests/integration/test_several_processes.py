"""Two processes that torchrun starts train as one does: gloo, on the CPU."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from balls import CASE_IDS, make_runnable, write_workspace
from ladder_runs import BATCH, INSTANCE, N_STEPS, PLAIN_INSTANCE, make_settings, make_trainer, make_unet, train

from monai_tl.effort import read_effort
from monai_tl.errors import CheckpointError, ConfigError
from monai_tl.integrity import check_sealed
from monai_tl.records import Fold, Split
from monai_tl.training.checkpoint import read_newest
from monai_tl.training.ranks import Ranks

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]


WATCH = """
import os, sys

def note(event, arguments):
    if event == "open":
        path, mode, flags = arguments
        names = [path] if flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT) else []
    elif event == "os.rename":
        names = arguments[:2]
    elif event in ("os.mkdir", "os.rmdir", "os.remove", "os.link", "os.symlink", "os.truncate", "shutil.rmtree"):
        names = arguments[:1]
    else:
        return
    for name in names:
        if isinstance(name, str | os.PathLike) and os.path.abspath(name).startswith(os.environ["WATCHED"] + os.sep):
            line = f"{event} {os.path.relpath(name, os.environ['WATCHED'])}\\n".encode()
            os.write(log, line)

if "RANK" in os.environ:
    log = os.open(f"{os.environ['WATCHED']}-{os.environ['RANK']}", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    sys.addaudithook(note)
"""
"""Notes what a process does to the files of a folder, beside it in a file by the number of the process."""


def _start(folder: Path, *module: str) -> subprocess.CompletedProcess[str]:
    """Two processes by torchrun that work on a folder, and are watched."""
    folder.mkdir(exist_ok=True)
    hook = folder.with_name("hook")
    hook.mkdir(exist_ok=True)
    (hook / "sitecustomize.py").write_text(WATCH)
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", *module]
    environment = {**os.environ, "PYTHONPATH": f"{hook}{os.pathsep}{ROOT}", "OMP_NUM_THREADS": "1"}
    environment["WATCHED"] = str(folder)
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=240, check=False)


def _train(folder: Path, **settings: Any) -> subprocess.CompletedProcess[str]:
    return _start(folder, str(ROOT / "tests/support/train_ranks.py"), str(folder), json.dumps(settings))


def _written(folder: Path, rank: int) -> set[str]:
    """What one of the processes made, changed or removed."""
    return {line.partition(" ")[2] for line in folder.with_name(f"{folder.name}-{rank}").read_text().splitlines()}


def _losses(path: Path) -> list[float]:
    return [row["train_loss"] for row in json.loads(path.read_text())]


def test_the_same_batches_give_the_same_losses(tmp_path: Path) -> None:
    """Layers thaw on the way, and the rate is looked for before: each must happen in both processes alike."""
    settings: dict[str, Any] = {"strategy": "gradual", "ema_decay": 0.7, "find_learning_rate": True}
    result = _train(tmp_path / "two", **settings)
    assert result.returncode == 0, result.stderr
    config = make_settings(**settings)
    one = train(tmp_path / "one", config, make_unet(PLAIN_INSTANCE, dropout=0.0))
    expected = [row.train_loss for row in one.outcome.position.history]
    assert len(expected) == N_STEPS
    found = _losses(tmp_path / "two" / "history.json")
    assert found == pytest.approx(expected, abs=1e-5)
    # the other process came to the same losses, and wrote nothing but these
    assert _losses(tmp_path / "two" / "rank-1.json") == found
    assert _written(tmp_path / "two", 1) == {"rank-1.json"}
    assert any(name.endswith(".pt") for name in _written(tmp_path / "two", 0))
    # what the weights give: some of them (a bias before a normalisation) move by rounding alone
    scores = {row.step: row.val_dice for row in one.outcome.position.history if row.val_dice is not None}
    rows = json.loads((tmp_path / "two" / "history.json").read_text())
    assert {row["step"]: row["val_dice"] for row in rows if row["step"] in scores} == pytest.approx(scores, abs=1e-4)


def test_of_the_stage_that_torchrun_starts_the_first_process_alone_writes(tmp_path: Path) -> None:
    """The command of docs/scaling.md: manifest and effort are written around the training, not in it."""
    workspace = write_workspace(tmp_path / "work")
    split = Split(test=(), folds=(Fold(train=CASE_IDS[3:], val=CASE_IDS[:3]),))
    split.write(workspace / "artifacts/split/split.json")
    result = _start(workspace, *make_runnable(workspace))
    assert result.returncode == 0, result.stderr
    assert _written(workspace, 1) == set()
    model = workspace / "artifacts/models/scratch-0-0"
    check_sealed(model)
    assert json.loads((model / "training.json").read_text())["n_ranks"] == 2
    # the second process would wait for the trial longer than it may
    assert not (model / "fast.json").exists()
    assert set(read_effort(workspace / ".monai_tl").stages) == {"finetune-scratch-0-0"}


@pytest.mark.long
@pytest.mark.parametrize("rank", [0, 1])
def test_a_killed_process_ends_the_others_and_they_go_on_later(rank: int, tmp_path: Path) -> None:
    """Dropout draws other masks in each process, so each must find its own random state again."""
    settings: dict[str, Any] = {"strategy": "full", "dropout": 0.3, "validate_every": 3}
    whole = _train(tmp_path / "whole", **settings)
    assert whole.returncode == 0, whole.stderr
    folder = tmp_path / "cut"
    killed = _train(folder, kill=[rank, 7], **settings)
    assert killed.returncode != 0
    assert f"rank {1 - rank}: another of the processes that train together ended" in killed.stderr
    assert "goes on from the last checkpoint" in killed.stderr
    state = read_newest(folder / "checkpoints")
    assert state is not None
    assert state["step"] == 6
    with pytest.raises(CheckpointError, match=r"and 2 process\(es\); going on with others"):
        train(folder / "checkpoints", make_settings("full", validate_every=3), make_unet(PLAIN_INSTANCE))
    again = _train(folder, **settings)
    assert again.returncode == 0, again.stderr
    assert (folder / "history.json").read_bytes() == (tmp_path / "whole" / "history.json").read_bytes()
    weights = [torch.load(path / "weights.pt", weights_only=True) for path in (folder, tmp_path / "whole")]
    assert all(torch.equal(tensor, weights[1][name]) for name, tensor in weights[0].items())


@pytest.mark.parametrize("norm", [BATCH, INSTANCE], ids=["batch", "running statistics"])
def test_statistics_of_a_batch_are_not_taken_of_a_share(norm: Any, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="takes statistics of its batch, and each process sees only a share"):
        make_trainer(tmp_path, make_settings("full"), make_unet(norm), ranks=Ranks(0, 2))
    make_trainer(tmp_path, make_settings("full"), make_unet(norm), ranks=Ranks(0, 1))


def test_features_are_computed_by_one_process(tmp_path: Path) -> None:
    config = make_settings("feature_extraction")
    with pytest.raises(ConfigError, match="one process is enough"):
        make_trainer(tmp_path, config, make_unet(PLAIN_INSTANCE), ranks=Ranks(0, 2))


def test_a_batch_that_cannot_be_shared_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"finetune\.batch_size: is 3, which 2 processes cannot share evenly"):
        Ranks(0, 2).check(3, "key")


def test_shares_are_the_whole_batch() -> None:
    batch = list(range(6))
    assert [sample for rank in range(3) for sample in batch[Ranks(rank, 3).share(6)]] == batch
