"""Two workers and a scheduler as processes, one worker killed in the middle: predict and evaluate come out alike."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from balls import CASE_IDS, make_config, make_plan, train_scratch, write_workspace
from finished_run import RunShape, make_finished_run
from small_cohort import tree_digest
from workspaces import ROOT, free_port, until

from monai_tl.config import IngestConfig, Params, PlanConfig, PredictConfig
from monai_tl.labels import ClassSpec
from monai_tl.progress import Progress
from monai_tl.records import PreparedCase, Split
from monai_tl.stages import evaluate, predict

distributed = pytest.importorskip("distributed")

pytestmark = [pytest.mark.pipeline, pytest.mark.long]

N_CASES = 8


@dataclass
class Cluster:
    address: str
    workers: list[subprocess.Popen[bytes]]

    def kill_one(self) -> None:
        """With all it holds; what it was at must be done by the other."""
        self.workers[0].kill()
        self.workers[0].wait()


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Cluster]:
    port = free_port()
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "tests/support")])}
    environment |= {"OMP_NUM_THREADS": "1", "DASK_DISTRIBUTED__WORKER__DAEMON": "False"}
    address = f"127.0.0.1:{port}"
    commands = [["dask_scheduler", "--host", "127.0.0.1", "--port", str(port), "--no-dashboard", "--no-show"]]
    one = ["dask_worker", f"tcp://{address}", "--nthreads", "1", "--no-nanny", "--no-dashboard"]
    commands += [[*one, "--local-directory", str(tmp_path / f"worker-{number}")] for number in range(2)]
    running = []
    with (tmp_path / "dask.log").open("wb") as log:
        for module, *arguments in commands:
            command = [sys.executable, "-m", f"distributed.cli.{module}", *arguments]
            running.append(subprocess.Popen(command, env=environment, stdout=log, stderr=log))
    try:
        until(lambda: _n_workers(address) == 2, 90, "both workers are there")
        yield Cluster(address, running[1:])
    finally:
        for process in running:
            process.kill()
            process.wait()


def _n_workers(address: str) -> int:
    try:
        with distributed.Client(f"tcp://{address}", set_as_default=False, timeout=5) as client:
            return len(client.scheduler_info()["workers"])
    except (OSError, TimeoutError):
        return 0


def kill_at(cluster: Cluster, done: int) -> type[Progress]:
    """A progress that ends a worker when so many cases are done."""

    class Killing(Progress):
        def advance(self, note: str = "", steps: int = 1, *, is_warning: bool = False) -> None:
            super().advance(note, steps, is_warning=is_warning)
            if self.done == done:
                cluster.kill_one()

    return Killing


def check_one_is_gone(cluster: Cluster) -> None:
    assert sorted(worker.poll() is None for worker in cluster.workers) == [False, True]


@pytest.fixture
def here(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    monkeypatch.setenv("MONAI_TL_EXECUTOR", "sequential")
    monkeypatch.setenv("MONAI_TL_JOBS", "2")
    return monkeypatch


def test_predict_is_the_same_after_a_worker_was_killed(
    tmp_path: Path, cluster: Cluster, here: pytest.MonkeyPatch
) -> None:
    workspace = write_workspace(tmp_path / "ws", test=CASE_IDS[2:])
    train_scratch(workspace, max_steps=4, head_steps=2, validate_every=2)
    # more test cases of the same kind
    prepared = workspace / "artifacts/prepared"
    names = [f"case-{number:012x}" for number in range(0xA0, 0xA0 + N_CASES)]
    for number, name in enumerate(names):
        folder = shutil.copytree(prepared / CASE_IDS[2 + number % 2], prepared / name)
        PreparedCase.read(folder / "meta.json").model_copy(update={"case_id": name}).write(folder / "meta.json")
    split = Split.read(workspace / "artifacts/split/split.json")
    split.model_copy(update={"test": tuple(names)}).write(workspace / "artifacts/split/split.json")
    params = Params(
        ingest=IngestConfig(source="data", classes=(ClassSpec(name="ball"),)),
        plan=PlanConfig(source=None, network=make_plan().network),
        finetune=make_config(arms=("scratch",)),
        predict=PredictConfig(n_threads=1),
    )
    out = workspace / "artifacts/predictions"
    predict.run(workspace, params)
    expected = tree_digest(out)
    shutil.rmtree(out)
    here.setenv("MONAI_TL_EXECUTOR", f"dask://{cluster.address}")
    here.setattr(predict, "Progress", kill_at(cluster, 2))
    predict.run(workspace, params)
    check_one_is_gone(cluster)
    assert len(list((out / "scratch/seed-0").iterdir())) == N_CASES
    assert tree_digest(out) == expected
    assert not list(workspace.rglob("*.part"))


def test_evaluate_is_the_same_after_a_worker_was_killed(
    tmp_path: Path, cluster: Cluster, here: pytest.MonkeyPatch
) -> None:
    workspace = tmp_path / "ws"
    shape = RunShape({"transfer": 2.0, "scratch": 9.0}, n_test=N_CASES, shape=(40, 36, 20), spacing_mm=(7.0, 7.0, 9.0),
                     n_train=3, n_val=2)  # fmt: skip
    params = make_finished_run(workspace, shape)
    evaluate.run(workspace, params)
    reports = workspace / "reports"
    expected = tree_digest(reports)
    shutil.rmtree(reports)
    here.setenv("MONAI_TL_EXECUTOR", f"dask://{cluster.address}")
    here.setattr(evaluate, "Progress", kill_at(cluster, 3))
    evaluate.run(workspace, params)
    check_one_is_gone(cluster)
    assert tree_digest(reports) == expected
    assert not list(workspace.rglob("*.part"))
