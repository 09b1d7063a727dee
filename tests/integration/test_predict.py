"""From models to label maps on the native grid."""

from __future__ import annotations

import hashlib
import shutil
from pathlib import Path

import nibabel
import numpy as np
import pytest
from balls import CASE_IDS, make_config, make_plan, make_unprepared, train_scratch, write_workspace

from monai_tl.config import IngestConfig, Params, PlanConfig, PredictConfig
from monai_tl.errors import ContractError, StageError
from monai_tl.files import read_json
from monai_tl.inference import load_models
from monai_tl.labels import ClassSpec
from monai_tl.records import Plan
from monai_tl.stages import predict

PARAMS = Params(
    ingest=IngestConfig(source="data", classes=(ClassSpec(name="ball"),)),
    plan=PlanConfig(source=None, network=make_plan().network),
    finetune=make_config(arms=("scratch",)),
    predict=PredictConfig(n_threads=1),
)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    workspace = write_workspace(tmp_path_factory.mktemp("trained"), test=CASE_IDS[2:])
    train_scratch(workspace, max_steps=40)
    return workspace


@pytest.fixture
def workspace(trained: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(trained, tmp_path / "workspace"))


def test_test_cases_are_predicted_on_their_grid(workspace: Path) -> None:
    predict.run(workspace, PARAMS)
    out = workspace / "artifacts/predictions"
    assert sorted(path.name for path in (out / "scratch/seed-0").iterdir()) == [
        f"{case_id}.nii.gz" for case_id in CASE_IDS[2:]
    ]
    assert read_json(out / "failed.json") == {"failed": []}
    weights = workspace / "artifacts/models/scratch-0-0/weights.safetensors"
    assert read_json(out / "models.json") == {"scratch-0-0": hashlib.sha256(weights.read_bytes()).hexdigest()}
    for case_id in CASE_IDS[2:]:
        image = nibabel.load(out / "scratch/seed-0" / f"{case_id}.nii.gz")
        prediction, label = np.asarray(image.dataobj), np.load(workspace / "artifacts/prepared" / case_id / "label.npy")
        assert prediction.dtype == np.uint8
        assert np.array_equal(image.affine, np.diag([2.0, 2.0, 2.0, 1.0]))
        assert 2 * (prediction * label).sum() / (prediction.sum() + label.sum()) > 0.85


def test_twice_gives_the_same_bytes(workspace: Path) -> None:
    contents = []
    for _ in range(2):
        predict.run(workspace, PARAMS)
        contents.append(
            [path.read_bytes() for path in sorted(workspace.glob("artifacts/predictions/scratch/seed-0/*"))]
        )
    assert contents[0] == contents[1]


def test_a_cluster_gives_the_same_bytes(workspace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    distributed = pytest.importorskip("distributed")
    contents = []
    with distributed.LocalCluster(n_workers=2, threads_per_worker=1, processes=True, dashboard_address=None) as cluster:
        for executor in ("loky", "dask://" + cluster.scheduler_address.removeprefix("tcp://")):
            monkeypatch.setenv("MONAI_TL_EXECUTOR", executor)
            predict.run(workspace, PARAMS)
            found = sorted((workspace / "artifacts/predictions").rglob("*.*"))
            contents.append({str(path): path.read_bytes() for path in found if path.is_file()})
    assert len(contents[0]) == 6
    assert contents[0] == contents[1]


def test_a_case_that_fails_is_listed_and_does_not_stop_the_others(workspace: Path) -> None:
    (workspace / "artifacts/prepared" / CASE_IDS[2] / "image.npy").write_bytes(b"\x93NUMPY\x01\x00")
    predict.run(workspace, PARAMS)
    out = workspace / "artifacts/predictions"
    assert [path.name for path in (out / "scratch/seed-0").iterdir()] == [f"{CASE_IDS[3]}.nii.gz"]
    (failed,) = read_json(out / "failed.json")["failed"]
    assert (failed["arm"], failed["case_id"], failed["code"]) == ("scratch", CASE_IDS[2], "damaged")
    assert "run preprocess again" in failed["reason"]


def test_a_case_that_was_not_prepared_has_no_prediction_and_keeps_its_reason(workspace: Path) -> None:
    make_unprepared(workspace, CASE_IDS[2])
    predict.run(workspace, PARAMS)
    out = workspace / "artifacts/predictions"
    assert [path.name for path in (out / "scratch/seed-0").iterdir()] == [f"{CASE_IDS[3]}.nii.gz"]
    assert read_json(out / "failed.json")["failed"] == [
        {"arm": "scratch", "seed": 0, "case_id": CASE_IDS[2], "code": "constant", "reason": "the image is constant"}
    ]


def test_when_every_case_fails_the_stage_does(workspace: Path) -> None:
    for case_id in CASE_IDS[2:]:
        (workspace / "artifacts/prepared" / case_id / "image.npy").unlink()
    with pytest.raises(StageError, match="every case failed"):
        predict.run(workspace, PARAMS)
    assert not (workspace / "artifacts/predictions").exists()


def test_without_a_test_set_each_fold_predicts_its_own_validation_cases(trained: Path, tmp_path: Path) -> None:
    workspace = write_workspace(tmp_path)
    shutil.copytree(trained / "artifacts/models", workspace / "artifacts/models")
    predict.run(workspace, PARAMS)
    found = [path.name for path in (workspace / "artifacts/predictions/scratch/seed-0").iterdir()]
    assert found == [f"{CASE_IDS[0]}.nii.gz"]


def test_models_of_two_plans_are_not_averaged(workspace: Path) -> None:
    first = workspace / "artifacts/models/scratch-0-0"
    second = Path(shutil.copytree(first, first.with_name("scratch-1-0")))
    assert len(load_models([first, second], 1).networks) == 2
    plan = Plan.read(second / "plan.json")
    plan.model_copy(update={"spacing_mm": (1.0, 1.0, 1.0)}).write(second / "plan.json")
    with pytest.raises(ContractError, match="another plan"):
        load_models([first, second], 1)
    with pytest.raises(ContractError, match="no model folder"):
        load_models([], 1)


def test_seeds_are_predicted_apart_and_not_averaged(trained: Path, tmp_path: Path) -> None:
    workspace = Path(shutil.copytree(trained, tmp_path / "work"))
    train_scratch(workspace, max_steps=8, seeds=(1,))
    both = PARAMS.model_copy(update={"finetune": make_config(arms=("scratch",), seeds=(1, 0))})
    predict.run(workspace, both)
    out = workspace / "artifacts/predictions/scratch"
    together = {path.relative_to(out): path.read_bytes() for path in out.rglob("*.nii.gz")}
    assert len(together) == 4
    name = f"{CASE_IDS[2]}.nii.gz"
    assert together[Path("seed-0") / name] != together[Path("seed-1") / name]
    predict.run(workspace, PARAMS)
    assert (out / "seed-0" / name).read_bytes() == together[Path("seed-0") / name]
