"""Which models may go out: verdicts as evaluate writes them, and records that are only ever added to."""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from finished_run import CITATION, RunShape, make_finished_run, sha256_bytes

from monai_tl.commands import promote
from monai_tl.config import Params
from monai_tl.errors import PromotionError, StageError
from monai_tl.sources.ensemble import InferenceSettings, write_ensemble
from monai_tl.stages import evaluate

SMALL = {"shape": (40, 36, 20), "spacing_mm": (7.0, 7.0, 9.0), "n_train": 3, "n_val": 2}


def make(
    workspace: Path, transfer_mm: float, scratch_mm: float, n_test: int = 6, seeds: tuple[int, ...] = (0, 1, 2)
) -> tuple[Path, Params]:
    """A run whose arms stray so far, evaluated by the stage, with the transfer arm exported."""
    strays = {"transfer": transfer_mm, "scratch": scratch_mm}
    shape = RunShape(strays, n_test=n_test, seeds=seeds, **SMALL)  # type: ignore[arg-type]
    params = make_finished_run(workspace, shape)
    evaluate.run(workspace, params)
    export(workspace, "transfer")
    return workspace, params


def export(workspace: Path, arm: str) -> None:
    shutil.rmtree(workspace / "artifacts/export", ignore_errors=True)
    model = workspace / f"artifacts/models/{arm}-0-0"
    write_ensemble(workspace / "artifacts/export/model", [model], InferenceSettings())
    (workspace / "artifacts/export/index.json").write_text(json.dumps({"arm": arm, "seed": 0}))


@pytest.fixture(scope="module", autouse=True)
def _sequential():
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MONAI_TL_EXECUTOR", "sequential")
        yield


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """One run for each verdict."""
    strays = {"gain": (2.0, 12.0), "harm": (12.0, 2.0), "undecided": (6.0, 6.3)}
    return {word: make(tmp_path_factory.mktemp(word), *pair)[0] for word, pair in strays.items()}


@pytest.fixture
def copy(runs: dict[str, Path], tmp_path: Path):
    return lambda word: Path(shutil.copytree(runs[word], tmp_path / word))


def promotions(workspace: Path) -> list[dict]:
    return json.loads((workspace / "promoted.json").read_text())["promotions"]


def refuse(workspace: Path, match: str, **options: bool) -> None:
    """It is refused with these words, and nothing changes."""
    before = {path: path.read_bytes() for path in workspace.rglob("*") if path.is_file()}
    with pytest.raises(PromotionError, match=match):
        promote.run(workspace, **options)
    assert {path: path.read_bytes() for path in workspace.rglob("*") if path.is_file()} == before


def test_a_gain_is_recorded_with_all_that_it_rests_on(copy) -> None:
    workspace = copy("gain")
    lock = {"stages": {"ingest": {"deps": [
        {"path": "data", "hash": "md5", "md5": "0123.dir", "size": 3, "nfiles": 2},
        {"path": "monai_tl/config.py", "hash": "md5", "md5": "77"},
        {"path": "monai_tl.version", "hash": "md5", "md5": "78"},
    ]}}}  # fmt: skip
    (workspace / "dvc.lock").write_text(yaml.safe_dump({"schema": "2.0", **lock}))
    assert promote.run(workspace).startswith("Promoted as number 1: transfer-0-0")
    (entry,) = promotions(workspace)
    metrics = json.loads((workspace / "reports/metrics.json").read_text())
    assert entry["verdict"] == metrics["verdict"]
    assert entry["verdict"]["verdict"] == "gain"
    assert entry["verdict"]["low"] > 0
    assert entry["data"] == {"data": "0123.dir"}
    assert entry["source"] == {
        "name": "abdomen_a", "licence": "Apache-2.0", "citation": CITATION,
        "sha256": json.loads((workspace / "artifacts/models/transfer-0-0/audit.json").read_text())["source_sha256"],
    }  # fmt: skip
    weights = workspace / "artifacts/models/transfer-0-0/weights.safetensors"
    assert entry["models"] == {"transfer-0-0": sha256_bytes(weights.read_bytes())}
    assert (entry["number"], entry["arm"], entry["seed"], entry["accepted_undecided"]) == (1, "transfer", 0, False)


def test_twice_is_once_and_another_model_is_added_without_touching_the_first(copy) -> None:
    workspace = copy("gain")
    promote.run(workspace)
    content = (workspace / "promoted.json").read_bytes()
    assert "already, as number 1" in promote.run(workspace)
    assert (workspace / "promoted.json").read_bytes() == content
    # a later version may have written more into it
    record = json.loads(content)
    record["promotions"][0]["tag"] = "night 7"
    (workspace / "promoted.json").write_text(json.dumps(record))
    settings = workspace / "artifacts/export/model/inference.json"
    settings.write_text(settings.read_text().replace('"overlap": 0.5', '"overlap": 0.25'))
    assert promote.run(workspace).startswith("Promoted as number 2")
    first, second = promotions(workspace)
    assert first == record["promotions"][0]
    assert second["model_sha256"] != first["model_sha256"]
    export(workspace, "transfer")
    promote.run(workspace)
    assert [one["number"] for one in promotions(workspace)] == [1, 2, 3]
    assert promotions(workspace)[2]["model_sha256"] == first["model_sha256"]


def test_harm_is_refused_whatever_is_accepted(copy) -> None:
    workspace = copy("harm")
    for accept in (False, True):
        refuse(workspace, r"Harm: the pretrained start lowered .* not promoted", accept_undecided=accept)
    export(workspace, "scratch")
    refuse(workspace, "Harm", accept_undecided=True)
    assert not (workspace / "promoted.json").exists()


@pytest.mark.slow
def test_the_command_says_why_and_ends_with_its_own_status(copy) -> None:
    workspace = copy("harm")
    command = [sys.executable, "-m", "monai_tl", "promote", "--accept-undecided", "--workspace", str(workspace)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == PromotionError.exit_code == 7
    assert done.stderr.startswith("monai-tl: Harm: the pretrained start lowered the mean Dice by")
    assert "Traceback" not in done.stderr
    assert not (workspace / "promoted.json").exists()


def test_an_undecided_null_needs_a_word(copy) -> None:
    workspace = copy("undecided")
    refuse(workspace, "No difference shown, but undecided.*--accept-undecided")
    promote.run(workspace, accept_undecided=True)
    (entry,) = promotions(workspace)
    assert entry["accepted_undecided"] is True
    assert (entry["verdict"]["verdict"], entry["verdict"]["decided"]) == ("null", False)


@pytest.mark.parametrize(("strays", "word"), [((2.0, 12.0), "Gain"), ((12.0, 2.0), "Harm"), ((2.0, 2.0), "Null")])
def test_one_seed_needs_a_word_and_its_harm_is_harm(tmp_path: Path, strays: tuple[float, float], word: str) -> None:
    workspace, _ = make(tmp_path, *strays, seeds=(0,))
    refuse(workspace, "No difference shown, but" if word == "Null" else f"{word}, but of one seed")
    if word == "Harm":
        refuse(workspace, "not promoted", accept_undecided=True)
        return
    promote.run(workspace, accept_undecided=True)
    assert promotions(workspace)[0]["accepted_undecided"] is True


def test_the_arm_that_its_twin_surpassed_is_refused(copy) -> None:
    workspace = copy("gain")
    export(workspace, "scratch")
    refuse(workspace, "exported arm is scratch, the worse one", accept_undecided=True)


def test_a_verdict_on_validation_cases_needs_a_word(tmp_path: Path) -> None:
    shape = RunShape({"transfer": 2.0, "scratch": 12.0}, n_test=0, **{**SMALL, "n_val": 6})  # type: ignore[arg-type]
    evaluate.run(tmp_path, make_finished_run(tmp_path, shape))
    export(tmp_path, "transfer")
    refuse(tmp_path, "Gain, but of one seed: .*validation cases")
    promote.run(tmp_path, accept_undecided=True)
    assert promotions(tmp_path)[0]["evaluated_on"] == "validation"


def test_reports_of_other_weights_are_refused(copy) -> None:
    workspace = copy("gain")
    metrics = workspace / "reports/metrics.json"
    content = json.loads(metrics.read_text())
    for models in ({**content["models"], "transfer-0-0": "f" * 64}, {"scratch-0-0": "f" * 64}, None, ["x"]):
        metrics.write_text(json.dumps({**content, "models": models}))
        refuse(workspace, "does not judge the weights", accept_undecided=True)
    metrics.write_text(json.dumps(content))
    (workspace / "artifacts/export/model/transfer-0-0/weights.safetensors").write_bytes(b"other weights")
    refuse(workspace, "damaged or changed", accept_undecided=True)


@pytest.mark.parametrize(
    ("word", "changes"),
    [
        ("harm", {"verdict": "gain"}), ("harm", {"verdict": "null"}), ("harm", {"verdict": "null", "decided": False}),
        ("undecided", {"verdict": "gain", "decided": True}), ("gain", {"n_seeds": 1}), ("gain", {"low": None}),
        ("harm", {"verdict": "null", "decided": True, "low": None, "high": None}),
    ],
)  # fmt: skip
def test_a_verdict_whose_word_is_not_that_of_its_numbers_is_refused(copy, word: str, changes: dict) -> None:
    workspace = copy(word)
    path = workspace / "reports/metrics.json"
    content = json.loads(path.read_text())
    path.write_text(json.dumps({**content, "verdict": {**content["verdict"], **changes}}))
    refuse(workspace, "damaged verdict", accept_undecided=True)


def test_numbers_that_the_pipeline_did_not_write_are_refused(copy) -> None:
    workspace = copy("gain")
    path = workspace / "reports/metrics.json"
    wrote = hashlib.md5(path.read_bytes(), usedforsecurity=False).hexdigest()
    out = {"path": "reports/metrics.json", "hash": "md5", "md5": wrote, "size": 1}
    (workspace / "dvc.lock").write_text(yaml.safe_dump({"schema": "2.0", "stages": {"evaluate": {"outs": [out]}}}))
    content = path.read_text()
    path.write_text(content.replace('"n_test_cases": 6', '"n_test_cases": 600'))
    refuse(workspace, "not what the pipeline wrote", accept_undecided=True)
    path.write_text(content)
    promote.run(workspace)


def test_an_arm_that_the_exported_models_are_not_of_is_refused(copy) -> None:
    workspace = copy("gain")
    export(workspace, "scratch")
    (workspace / "artifacts/export/index.json").write_text(json.dumps({"arm": "transfer", "seed": 0}))
    refuse(workspace, "names the arm transfer, but", accept_undecided=True)


@pytest.mark.long
def test_promotions_at_the_same_time_are_all_kept(copy) -> None:
    """Each of three processes has a model of its own; a promotion that read an older list would drop another's."""
    workspace = copy("gain")
    script = (
        "import sys, time; from pathlib import Path; from monai_tl.commands import promote\n"
        "read = promote._earlier\n"
        "promote._earlier = lambda path: (read(path), time.sleep(1.5))[0]\n"
        "promote.sha256_of = lambda *parts: sys.argv[2]\n"
        "promote.run(Path(sys.argv[1]))"
    )
    started = [
        subprocess.Popen([sys.executable, "-c", script, str(workspace), f"{number:064x}"]) for number in range(3)
    ]
    assert [one.wait() for one in started] == [0] * 3
    assert sorted(one["model_sha256"] for one in promotions(workspace)) == [f"{number:064x}" for number in range(3)]
    assert [one["number"] for one in promotions(workspace)] == [1, 2, 3]


def test_predictions_of_other_weights_are_not_evaluated(tmp_path: Path) -> None:
    workspace, params = make(tmp_path, 2.0, 12.0)
    record = workspace / "artifacts/predictions/models.json"
    record.write_text(record.read_text().replace("transfer-0-0", "transfer-1-0"))
    with pytest.raises(StageError, match=r"other weights.*run predict again"):
        evaluate.run(workspace, params)


@pytest.mark.parametrize("name", ["reports/metrics.json", "artifacts/export/index.json", "promoted.json"])
@pytest.mark.parametrize("text", ["", "[]", "{", '{"promotions": [{"number": 2}], "verdict": {"verdict": "gain"}}'])
def test_damaged_records_are_refused_in_words(copy, name: str, text: str) -> None:
    workspace = copy("gain")
    (workspace / name).write_text(text)
    refuse(workspace, "damaged|does not judge", accept_undecided=True)


def test_an_unfinished_run_is_refused(copy) -> None:
    workspace = copy("gain")
    (workspace / "reports/metrics.json").unlink()
    refuse(workspace, "metrics.json is missing: the run is not finished")


def test_without_a_dvc_lock_nothing_is_known_and_with_a_strange_one_nothing_goes_out(copy) -> None:
    workspace = copy("gain")
    assert promote.data_hashes(workspace) == {}
    (workspace / "dvc.lock").write_text("schema: '2.0'\n")
    assert promote.data_hashes(workspace) == {}
    for text in ("", "stages: []", "stages: {ingest: {deps: [1]}, evaluate: [1]}", "a: ["):
        (workspace / "dvc.lock").write_text(text)
        with pytest.raises(PromotionError, match=r"dvc\.lock cannot be read"):
            promote.data_hashes(workspace)
        refuse(workspace, r"dvc\.lock cannot be read.*git checkout")
