"""Two workers and a scheduler as processes, one worker killed in the middle: each stage over cases comes out alike."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import pytest
from balls import CASE_IDS, make_config, make_plan, train_scratch, write_workspace
from finished_run import RunShape, make_finished_run
from ingested import make_case, small_params, write_cases
from small_cohort import tree_digest
from workspaces import ROOT, free_port, until

from monai_tl.config import IngestConfig, Params, PlanConfig, PredictConfig
from monai_tl.dataset.manifest import read_manifest
from monai_tl.dataset.nifti import write_image
from monai_tl.dicom.deidentify import create_key
from monai_tl.labels import ClassSpec
from monai_tl.progress import Progress
from monai_tl.records import PreparedCase, Split
from monai_tl.stages import evaluate, ingest, plan, predict, preprocess, split

distributed = pytest.importorskip("distributed")

pytestmark = [pytest.mark.pipeline, pytest.mark.long]

N_CASES = 8


@dataclass
class Cluster:
    """``lost``: so many cases the killed worker was at."""

    address: str
    workers: list[subprocess.Popen[bytes]]
    lost: int = 0

    @contextmanager
    def loses_one(self) -> Iterator[None]:
        """One worker is ended once it holds cases of the work in this block; what it was at must be done by the other.

        It is halted first, so that it ends none of them before.
        """
        self.workers[0].send_signal(signal.SIGSTOP)
        killer = threading.Thread(target=self._kill_at_work)
        killer.start()
        yield
        killer.join(60)
        assert self.lost > 0
        assert [worker.poll() is None for worker in self.workers] == [False, True]

    def _kill_at_work(self) -> None:
        with distributed.Client(f"tcp://{self.address}", set_as_default=False, timeout=30) as client:
            names = {worker["name"]: address for address, worker in client.scheduler_info()["workers"].items()}
            self.lost = until(lambda: len(client.processing()[names["worker-0"]]), 60, "a worker that is at work")
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
    commands += [[*one, "--name", name, "--local-directory", str(tmp_path / name)] for name in ("worker-0", "worker-1")]
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


class Telling(Progress):
    """Keeps what the last one was told of each case."""

    last: ClassVar[list[str]]

    def __init__(self, *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, **named)
        Telling.last = []

    def advance(self, note: str = "", steps: int = 1, *, is_warning: bool = False) -> None:
        super().advance(note, steps, is_warning=is_warning)
        self.last.append(note)


@pytest.fixture
def here(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    monkeypatch.setenv("MONAI_TL_EXECUTOR", "sequential")
    monkeypatch.setenv("MONAI_TL_JOBS", "2")
    return monkeypatch


def write_source(folder: Path) -> None:
    """A data set as the Decathlon has them."""
    pairs = []
    for number in range(N_CASES):
        image, label, affine = make_case(number)
        pair = {part: f"{part}sTr/case_{number:03d}.nii.gz" for part in ("image", "label")}
        write_image(folder / pair["image"], image, affine)
        write_image(folder / pair["label"], label, affine)
        pairs.append(pair)
    (folder / "dataset.json").write_text(json.dumps({"name": "t", "modality": {"0": "CT"}, "training": pairs}))


def test_ingest_is_the_same_after_a_worker_was_killed(
    tmp_path: Path, cluster: Cluster, here: pytest.MonkeyPatch
) -> None:
    write_source(tmp_path / "ws/data")
    create_key(tmp_path / "key", seed=0)
    params = small_params(key_file=str(tmp_path / "key"))
    ingest.run(tmp_path / "ws", params)
    expected = tree_digest(tmp_path / "ws/artifacts/cases")
    shutil.copytree(tmp_path / "ws/data", tmp_path / "again/data")
    here.setenv("MONAI_TL_EXECUTOR", f"dask://{cluster.address}")
    here.setattr(ingest, "Progress", Telling)
    with cluster.loses_one():
        ingest.run(tmp_path / "again", params)
    manifest = read_manifest(tmp_path / "again/artifacts/cases")
    assert len(manifest.cases) == N_CASES
    assert len({case.provenance.image_sha256 for case in manifest.cases}) == N_CASES
    assert len(Telling.last) == N_CASES
    assert tree_digest(tmp_path / "again/artifacts/cases") == expected
    assert not list((tmp_path / "again").rglob("*.part"))


def test_preprocess_is_the_same_after_a_worker_was_killed(
    tmp_path: Path, cluster: Cluster, here: pytest.MonkeyPatch
) -> None:
    case_ids = write_cases(tmp_path / "ws", N_CASES)
    params = small_params()
    for stage in (split, plan):
        stage.run(tmp_path / "ws", params)
    shutil.copytree(tmp_path / "ws", tmp_path / "again")
    preprocess.run(tmp_path / "ws", params)
    expected = tree_digest(tmp_path / "ws/artifacts/prepared")
    here.setenv("MONAI_TL_EXECUTOR", f"dask://{cluster.address}")
    here.setattr(preprocess, "Progress", Telling)
    with cluster.loses_one():
        preprocess.run(tmp_path / "again", params)
    prepared = tmp_path / "again/artifacts/prepared"
    assert sorted(path.name for path in prepared.iterdir() if path.is_dir()) == sorted(case_ids)
    # of the kill and of the work done again no case is told twice, and none came from a cache
    assert sorted(Telling.last) == sorted(case_ids)
    assert tree_digest(prepared) == expected
    assert not list((tmp_path / "again").rglob("*.part"))


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
    with cluster.loses_one():
        predict.run(workspace, params)
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
    with cluster.loses_one():
        evaluate.run(workspace, params)
    assert tree_digest(reports) == expected
    assert not list(workspace.rglob("*.part"))
