"""The stage with privacy: dp_sgd: the guarantee goes with the model, and what would break it does not."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from remembered import case_name, make_params, plan_of, write_cases, write_split

from monai_tl.commands import audit_privacy
from monai_tl.config import NetworkConfig, Params
from monai_tl.dataset.manifest import read_manifest
from monai_tl.dataset.splits import split_patients
from monai_tl.errors import ConfigError, DataError
from monai_tl.inference import load_models
from monai_tl.privacy_records import read_guarantee
from monai_tl.records import Split
from monai_tl.sources.card import read_source
from monai_tl.sources.privacy_text import describe_privacy
from monai_tl.stages import finetune

pytest.importorskip("opacus")
ROOT = Path(__file__).parents[2]
PATIENTS = ["patient-a", "patient-a", *(f"patient-{index}" for index in range(2, 24))]


def _params(**changes: object) -> Params:
    settings = {
        "privacy": "dp_sgd",
        "privacy_epsilon": 2.0,
        "privacy_delta": 1e-3,
        "max_steps": 30,
        "validate_every": 10,
    }
    return make_params(1, **{**settings, **changes})


def _write_split(workspace: Path) -> None:
    """As the split stage tells patients, with sides chosen here."""
    cases = read_manifest(workspace / "artifacts/cases").cases
    told = split_patients(cases, _params().split).same_patient
    write_split(workspace, range(12, 24), (range(8), range(8, 12)))
    path = workspace / "artifacts/split/split.json"
    Split.read(path).model_copy(update={"same_patient": told}).write(path)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    workspace = write_cases(tmp_path_factory.mktemp("private"), 24, PATIENTS)
    _write_split(workspace)
    finetune.run(workspace, _params(), "scratch", "0", "0")
    return workspace


def test_the_guarantee_is_of_patients_and_goes_with_the_model(trained: Path) -> None:
    folder = trained / "artifacts/models/scratch-0-0"
    guarantee = read_guarantee(folder)
    assert guarantee is not None
    # eight cases of seven patients; four of them a step, on average
    assert (guarantee.n_patients, guarantee.n_steps, guarantee.unit) == (7, 30, "patient")
    assert guarantee.sample_rate == pytest.approx(4 / 7)
    assert 1.99 <= guarantee.epsilon <= 2.0
    card = read_source(folder).card
    assert "ε = 2.00 at δ = 0.001" in card.notes
    assert "7 patients" in card.notes
    assert card.fingerprint is None
    text = describe_privacy(guarantee, None, n_models=3)
    assert "together no more than ε = 6.00 at δ = 0.003" in text


def test_nothing_beside_the_weights_tells_of_a_patients_loss(trained: Path) -> None:
    folder = trained / "artifacts/models/scratch-0-0"
    rows = (folder / "history.csv").read_text().splitlines()
    assert rows[0] == "step,phase,learning_rate,train_loss,val_dice"
    assert {row.split(",")[3] for row in rows[1:]} == {""}
    training = json.loads((folder / "training.json").read_text())
    assert (training["best_step"], training["stop_reason"]) == (30, "budget")
    assert "patient-" not in json.dumps(training)
    # windows are not chosen by anybody's images
    assert not (folder / "fast.json").exists()
    secret = (trained / ".monai_tl/privacy.key").read_bytes()
    for path in (path for path in (trained / "artifacts").rglob("*") if path.is_file()):
        content = path.read_bytes()
        assert secret not in content
        assert secret.hex().encode() not in content


def test_the_attack_that_finds_members_elsewhere_finds_none_here(trained: Path) -> None:
    (model,) = audit_privacy.run(trained, _params()).models
    assert model.guarantee is not None
    # the last weights are kept, so validation cases are strangers too
    assert model.others == "test and validation"
    loss = model.attacks[0]
    assert (loss.n_members, loss.n_others) == (7, 16)
    # the same network without privacy gives 1.0; epsilon 2 allows no rate of true positives above exp(2) times the
    # false ones and delta, and chance alone moves the area of 7 against 16 by 0.13
    assert abs(loss.auc.value - 0.5) < 0.3


def test_it_is_the_same_model_again_with_the_same_secret_and_another_with_another(
    trained: Path, tmp_path: Path
) -> None:
    params = _params(max_steps=4)
    hashes = []
    for number in range(3):
        workspace = Path(shutil.copytree(trained, tmp_path / f"w{number}"))
        if number == 2:
            (workspace / ".monai_tl/privacy.key").unlink()
        finetune.run(workspace, params, "scratch", "0", "0")
        hashes.append(read_source(workspace / "artifacts/models/scratch-0-0").card.weights.sha256)
    assert hashes[0] == hashes[1] != hashes[2]
    assert load_models([tmp_path / "w0/artifacts/models/scratch-0-0"], 1).plan == plan_of()


def test_what_cannot_be_kept_private_is_refused(trained: Path, tmp_path: Path) -> None:
    workspace = Path(shutil.copytree(trained, tmp_path / "w"))
    with pytest.raises(ConfigError, match="batch_size: is 8, but with privacy: dp_sgd"):
        finetune.run(workspace, _params(batch_size=8), "scratch", "0", "0")
    batch = NetworkConfig(name="unet", arguments={"channels": [8, 16], "strides": [2], "norm": "batch"})
    plan_of(batch).write(workspace / "artifacts/plan/plan.json")
    with pytest.raises(ConfigError, match="takes statistics over its batch"):
        finetune.run(workspace, _params(), "scratch", "0", "0")
    path = workspace / "artifacts/split/split.json"
    Split.read(path).model_copy(update={"same_patient": None}).write(path)
    with pytest.raises(DataError, match="does not tell which cases are of one"):
        finetune.run(workspace, _params(), "scratch", "0", "0")


def test_the_split_tells_patients_with_several_cases(trained: Path) -> None:
    cases = read_manifest(trained / "artifacts/cases").cases
    assert split_patients(cases, _params().split).same_patient == ((case_name(0), case_name(1)),)


_TRAIN = (
    "import sys, pathlib, yaml; sys.path[:0] = [sys.argv[2]]; from monai_tl.config import parse_params;"
    "from monai_tl.stages import finetune; w = pathlib.Path(sys.argv[1]);"
    "finetune.run(w, parse_params(yaml.safe_load((w / 'p.yaml').read_text())), 'scratch', '0', '0')"
)


@pytest.mark.slow
def test_killed_it_goes_on_to_the_same_bits(trained: Path, tmp_path: Path) -> None:
    import yaml

    params = _params(max_steps=200, validate_every=5)
    whole, cut = (Path(shutil.copytree(trained, tmp_path / name)) for name in ("whole", "cut"))
    finetune.run(whole, params, "scratch", "0", "0")
    (cut / "p.yaml").write_text(yaml.safe_dump(params.model_dump(mode="json")))
    shutil.rmtree(cut / "artifacts/models/scratch-0-0")
    command = [sys.executable, "-c", _TRAIN, str(cut), str(ROOT)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, env=environment) as one:
        while not list((cut / ".monai_tl/train").glob("*/step-*[1-9]?.*.pt")) and one.poll() is None:
            time.sleep(0.02)
        one.kill()
    assert one.returncode == -signal.SIGKILL
    assert list((cut / ".monai_tl/train").glob("*/step-*.pt"))
    finetune.run(cut, params, "scratch", "0", "0")
    names = ["artifacts/models/scratch-0-0/weights.safetensors", "artifacts/models/scratch-0-0/training.json"]
    assert all((whole / name).read_bytes() == (cut / name).read_bytes() for name in names)
