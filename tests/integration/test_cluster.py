"""Work over cases here and on a Dask cluster of separate processes: the same files, also when a worker is killed."""

from __future__ import annotations

import json
import os
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cluster_work import end_itself, work_of
from ingested import make_case, small_params, write_cases
from small_cohort import tree_digest

from monai_tl.config import EvaluateConfig, IngestConfig
from monai_tl.dataset.manifest import read_manifest
from monai_tl.dataset.nifti import write_image
from monai_tl.errors import ConfigError, WorkerLostError
from monai_tl.labels import ClassSpec
from monai_tl.parallel import map_cases
from monai_tl.progress import Progress
from monai_tl.scoring import score_arms
from monai_tl.stages import plan, preprocess, split
from monai_tl.stages.ingest import ingest

distributed = pytest.importorskip("distributed")

N_CASES = 12
KEY = bytes(range(32))
HERE = ("sequential", "loky")


@pytest.fixture(scope="module")
def cluster() -> Iterator[Any]:
    with distributed.LocalCluster(n_workers=2, threads_per_worker=1, processes=True, dashboard_address=None) as started:
        yield started


def address_of(cluster: Any) -> str:
    return "dask://" + str(cluster.scheduler_address).removeprefix("tcp://")


def use(monkeypatch: pytest.MonkeyPatch, executor: str) -> None:
    monkeypatch.setenv("MONAI_TL_EXECUTOR", executor)
    monkeypatch.setenv("MONAI_TL_JOBS", "2")


@pytest.fixture(scope="module")
def decathlon(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twelve cases, of which one is no image."""
    root = tmp_path_factory.mktemp("decathlon")
    pairs = []
    for number in range(N_CASES):
        image, label, affine = make_case(number)
        write_image(root / f"imagesTr/case_{number:03d}.nii.gz", image, affine)
        write_image(root / f"labelsTr/case_{number:03d}.nii.gz", label, affine)
        pairs.append({"image": f"imagesTr/case_{number:03d}.nii.gz", "label": f"labelsTr/case_{number:03d}.nii.gz"})
    (root / "imagesTr/case_004.nii.gz").write_bytes(b"no image")
    (root / "dataset.json").write_text(json.dumps({"name": "t", "modality": {"0": "CT"}, "training": pairs}))
    return root


def ingested(source: Path, folder: Path, progress: Progress | None = None) -> str:
    """Digest of what ingest makes of the folder with a cache of its own."""
    config = IngestConfig(source=str(source), classes=(ClassSpec(name="liver"),), max_rejected_fraction=0.5)
    summary = ingest(source, folder / "cases", config, KEY, folder / "cache", progress or Progress("ingest"))
    assert len(summary.dataset.case_ids) == N_CASES - 1
    assert [one.kind for one in summary.rejected] == ["case"]
    assert not list(folder.rglob("*.part"))
    return tree_digest(folder / "cases")


class KillingProgress(Progress):
    """Ends a worker of the cluster when the third case is done."""

    cluster: Any = None
    killed: int | None = None

    def advance(self, note: str = "", steps: int = 1, *, is_warning: bool = False) -> None:
        super().advance(note, steps, is_warning=is_warning)
        if self.done == 3:
            self.killed = next(iter(self.cluster.workers.values())).pid
            os.kill(self.killed, signal.SIGKILL)


def test_ingest_gives_the_same_bytes_everywhere_also_when_a_worker_is_killed(
    decathlon: Path, cluster: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    digests = {}
    for executor in (*HERE, address_of(cluster)):
        use(monkeypatch, executor)
        digests[executor] = ingested(decathlon, tmp_path / executor.replace("/", ""))
    progress = KillingProgress("ingest")
    progress.cluster = cluster
    digests["killed"] = ingested(decathlon, tmp_path / "killed", progress)
    assert progress.killed is not None
    assert progress.done == N_CASES
    assert len(set(digests.values())) == 1


def test_preparing_and_scoring_give_the_same_everywhere(
    cluster: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    params = small_params()
    write_cases(tmp_path / "one", 8)
    found = {}
    for executor in (*HERE, address_of(cluster)):
        use(monkeypatch, executor)
        workspace = tmp_path / executor.replace("/", "")
        shutil.copytree(tmp_path / "one", workspace)
        for stage in (split, plan, preprocess):
            stage.run(workspace, params)
        manifest = read_manifest(workspace / "artifacts/cases")
        predictions = workspace / "artifacts/predictions/scratch/seed-0"
        case_ids = manifest.dataset.case_ids
        # a box for a prediction, and one that is missing
        predictions.mkdir(parents=True)
        for case_id in case_ids[1:]:
            image = np.zeros(manifest.case(case_id).spatial_shape, np.uint8)
            image[8:20, 8:20, 4:12] = 1
            write_image(predictions / f"{case_id}.nii.gz", image, np.asarray(manifest.case(case_id).affine))
        scores = score_arms(
            manifest, predictions.parents[1], ["scratch"], [0], case_ids, EvaluateConfig(), Progress("evaluate")
        )
        found[executor] = (tree_digest(workspace / "artifacts/prepared"), repr(scores))
    assert len(set(found.values())) == 1


def test_the_work_is_done_in_the_processes_of_the_cluster(cluster: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    use(monkeypatch, address_of(cluster))
    found = list(map_cases(work_of, range(40), takes_all_cores=True))
    assert [number for number, _ in found] == list(range(40))
    workers = {nanny.pid for nanny in cluster.workers.values()}
    assert {pid for _, pid in found} <= workers
    # what takes seconds in all is not sent
    assert {pid for _, pid in map_cases(work_of, range(4), brief=True)}.isdisjoint(workers)


def test_a_cluster_of_one_worker_does_the_work_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    with distributed.LocalCluster(n_workers=1, threads_per_worker=1, dashboard_address=None) as one:
        use(monkeypatch, address_of(one))
        assert {pid for _, pid in map_cases(work_of, range(4))}.isdisjoint({os.getpid()})
        # last: it ends each worker that takes it
        with pytest.raises(WorkerLostError, match="one and the same case"):
            list(map_cases(end_itself, range(4)))


def test_a_scheduler_that_does_not_answer_is_a_fault_of_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("monai_tl.cluster.CONNECT_S", 1)
    use(monkeypatch, "dask://127.0.0.1:1")
    with pytest.raises(ConfigError, match="no Dask scheduler answers"):
        list(map_cases(work_of, range(3)))


def test_a_worker_with_other_code_is_refused(cluster: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("monai_tl.cluster.own_code", lambda: "of another version")
    use(monkeypatch, address_of(cluster))
    with pytest.raises(ConfigError, match="another version of monai_tl"):
        list(map_cases(work_of, range(3)))
