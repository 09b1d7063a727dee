"""From models to label maps on the native grid."""

from __future__ import annotations

import hashlib
import shutil
from pathlib import Path

import nibabel
import numpy as np
import pytest
from balls import CASE_IDS, make_config, make_plan, make_unprepared, train_scratch, write_workspace
from scipy.special import log_softmax
from scipy.stats import entropy

from monai_tl.certainty_records import Certainty
from monai_tl.config import IngestConfig, Params, PlanConfig, PredictConfig
from monai_tl.errors import ContractError, StageError
from monai_tl.fast_records import FAST_FILE, FastRecord
from monai_tl.files import read_json
from monai_tl.inference import LOSSY, load_models
from monai_tl.labels import ClassSpec
from monai_tl.metrics.calibration import reference_box, region_of
from monai_tl.records import Fold, Plan, Split
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


def test_the_record_tells_of_each_model_what_its_own_fast_mode_does(workspace: Path) -> None:
    models = workspace / "artifacts/models"
    shutil.copytree(models / "scratch-0-0", models / "scratch-0-1")
    settings = {
        0: FastRecord(windows="patch", precision="float32", n_cases=4, is_within=True),
        1: FastRecord(windows="exact", precision="float32", n_cases=4, is_within=False),
    }
    for seed, record in settings.items():
        record.write(models / f"scratch-0-{seed}" / FAST_FILE)
    params = PARAMS.model_copy(
        update={
            "finetune": make_config(arms=("scratch",), seeds=(0, 1)),
            "predict": PredictConfig(n_threads=1, mode="fast"),
        }
    )
    predict.run(workspace, params)
    said = read_json(workspace / "artifacts/predictions/method.json")
    first, second = said["scratch seed 0, fold 0"], said["scratch seed 1, fold 0"]
    assert set(said) == {"scratch seed 0, fold 0", "scratch seed 1, fold 0"}
    assert (first["mode"], first["windows"], first["keeps_dice"]) == (
        "fast",
        "the plan's patch, overlap a quarter",
        True,
    )
    assert (second["mode"], second["mode_reason"]) == ("exact", LOSSY)
    # a worker that has the first model in memory does not take the second for it, though the weights are equal
    FastRecord(windows="patch", precision="float32").write(models / "scratch-0-1" / FAST_FILE)
    predict.run(workspace, params)
    assert read_json(workspace / "artifacts/predictions/method.json")["scratch seed 1, fold 0"]["mode"] == "fast"


def test_how_sure_it_is_is_kept_and_the_temperature_is_of_validation_cases(workspace: Path) -> None:
    predict.run(workspace, PARAMS)
    (found,) = Certainty.read(workspace / "artifacts/predictions/certainty.json").runs
    assert (found.arm, found.seed, found.n_validation_cases, found.members) == ("scratch", 0, 1, None)
    assert set(found.cases) == set(CASE_IDS[2:])
    predictor = load_models([workspace / "artifacts/models/scratch-0-0"], 1)

    def opened(case_id: str) -> tuple[np.ndarray, np.ndarray]:
        folder = workspace / "artifacts/prepared" / case_id
        config = PARAMS.predict
        image = np.load(folder / "image.npy")
        return predictor.predict_probabilities(image, batch_size=config.batch_size), np.load(folder / "label.npy")

    # the loss of the validation case at any other temperature is higher: the minimum, without the table of losses
    probabilities, label = opened(CASE_IDS[0])
    inside = region_of(probabilities[0], reference_box(label))
    logits, truth = np.log(np.maximum(probabilities[:, inside].astype(float), 1e-12)), label[inside]
    assert found.temperature is not None

    def loss(temperature: float) -> float:
        scaled = log_softmax(logits / temperature, axis=0)
        return -float(np.take_along_axis(scaled, truth[np.newaxis].astype(int), 0).mean())

    assert all(loss(found.temperature) <= loss(found.temperature * factor) for factor in (0.97, 1.03))
    for case_id, case in found.cases.items():
        probabilities, label = opened(case_id)
        inside = region_of(probabilities[0], reference_box(label))
        assert case.reliability is not None
        assert case.scaled is not None
        assert sum(case.reliability.n) == sum(case.scaled.n) == inside.sum()
        right = probabilities.argmax(axis=0)[inside] == label[inside]
        assert sum(case.reliability.n_right) == sum(case.scaled.n_right) == right.sum()
        assert sum(case.reliability.confidence) == pytest.approx(probabilities.max(axis=0)[inside].sum(), rel=1e-5)
        doubtful = probabilities[:, probabilities[0] < 0.9]
        assert case.entropy == pytest.approx(entropy(doubtful, axis=0).mean(), abs=1e-4)


def test_mirrored_passes_disagree_and_what_is_not_asked_for_is_not_kept(workspace: Path) -> None:
    mirrored = PARAMS.predict.model_copy(update={"flips": ("LR",), "calibration": False})
    predict.run(workspace, PARAMS.model_copy(update={"predict": mirrored}))
    (found,) = Certainty.read(workspace / "artifacts/predictions/certainty.json").runs
    assert (found.temperature, found.n_validation_cases) == (None, 0)
    assert (found.members, found.n_members) == ("mirrored passes", 2)
    predictor = load_models([workspace / "artifacts/models/scratch-0-0"], 1)
    for case_id, case in found.cases.items():
        assert case.reliability is None
        image = np.load(workspace / "artifacts/prepared" / case_id / "image.npy")
        # along I, which is left to right in RAS
        masks = [
            1 - predictor.predict_probabilities(np.flip(image, 1) if turned else image, batch_size=2)[0] > 0.5
            for turned in (False, True)
        ]
        masks[1] = np.flip(masks[1], 0)
        overlap = 2 * (masks[0] & masks[1]).sum() / (masks[0].sum() + masks[1].sum())
        assert case.disagreement == pytest.approx(1 - overlap, abs=5e-3)
    alone = mirrored.model_copy(update={"disagreement": False})
    predict.run(workspace, PARAMS.model_copy(update={"predict": alone}))
    (found,) = Certainty.read(workspace / "artifacts/predictions/certainty.json").runs
    assert (found.members, found.cases[CASE_IDS[2]].disagreement) == (None, None)


def test_models_of_two_folds_are_the_members_and_each_has_its_own_validation_cases(workspace: Path) -> None:
    models = workspace / "artifacts/models"
    shutil.copytree(models / "scratch-0-0", models / "scratch-1-0")
    folds = tuple(Fold(train=CASE_IDS[1 - k : 2 - k], val=CASE_IDS[k : k + 1]) for k in range(2))
    Split(test=CASE_IDS[2:], folds=folds).write(workspace / "artifacts/split/split.json")
    predict.run(workspace, PARAMS.model_copy(update={"finetune": make_config(arms=("scratch",), folds=(0, 1))}))
    (found,) = Certainty.read(workspace / "artifacts/predictions/certainty.json").runs
    assert (found.members, found.n_members, found.n_validation_cases) == ("models", 2, 2)
    # twice the same model
    assert {case.disagreement for case in found.cases.values()} == {0.0}


def test_the_labels_do_not_depend_on_what_is_kept(workspace: Path) -> None:
    contents = []
    for asked in (True, False):
        config = PARAMS.predict.model_copy(update={"flips": ("SI",), "calibration": asked, "disagreement": asked})
        predict.run(workspace, PARAMS.model_copy(update={"predict": config}))
        found = sorted(workspace.glob("artifacts/predictions/scratch/seed-0/*"))
        contents.append([path.read_bytes() for path in found])
    assert contents[0] == contents[1]


def test_a_validation_case_that_cannot_be_read_is_left_out_of_the_temperature(workspace: Path) -> None:
    (workspace / "artifacts/prepared" / CASE_IDS[0] / "label.npy").write_bytes(b"")
    predict.run(workspace, PARAMS)
    (found,) = Certainty.read(workspace / "artifacts/predictions/certainty.json").runs
    assert (found.temperature, found.n_validation_cases) == (None, 0)
    assert all(case.reliability is not None and case.scaled is None for case in found.cases.values())


def test_twice_gives_the_same_bytes(workspace: Path) -> None:
    contents = []
    for _ in range(2):
        predict.run(workspace, PARAMS)
        contents.append(
            [path.read_bytes() for path in sorted(workspace.glob("artifacts/predictions/scratch/seed-0/*"))]
        )
    assert contents[0] == contents[1]


@pytest.mark.long
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
    # a temperature would be judged on what it was fitted on
    (one,) = Certainty.read(workspace / "artifacts/predictions/certainty.json").runs
    assert one.temperature is None
    assert one.cases[CASE_IDS[0]].reliability is not None


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
