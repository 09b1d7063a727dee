"""The evaluate stage over a whole, made-up workspace: files, numbers, refusals, and the page."""

from __future__ import annotations

import csv
import io
import json
import shutil
import subprocess
import sys
from html.parser import HTMLParser
from importlib.resources import files
from pathlib import Path

import jsonschema
import numpy as np
import pytest
from finished_run import RunShape, case_id, make_finished_run, remove_prediction
from rich.console import Console
from scipy import ndimage

from monai_tl.config import Params
from monai_tl.dataset.nifti import read_label, write_image
from monai_tl.errors import ConfigError, DataError, StageError
from monai_tl.files import sha256_file
from monai_tl.geometry import spacing_of
from monai_tl.metrics.overlap import dice
from monai_tl.records import Rejection, RejectionList
from monai_tl.report.terminal import show_results
from monai_tl.stages.evaluate import run

SMALL = {"shape": (40, 36, 20), "spacing_mm": (7.0, 7.0, 9.0)}
PRODUCTS = ("metrics.json", "plots/cases.csv", "plots/history.csv", "html/report.html", "html/summary.md")


@pytest.fixture(autouse=True)
def _sequential(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MONAI_TL_EXECUTOR", "sequential")


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Params]:
    workspace = tmp_path_factory.mktemp("finished")
    shape = RunShape({"transfer": 2.0, "scratch": 12.0}, n_test=6, n_train=3, n_val=2, **SMALL)  # type: ignore[arg-type]
    return workspace, make_finished_run(workspace, shape)


@pytest.fixture(scope="module")
def evaluated(finished: tuple[Path, Params]) -> Path:
    workspace, params = finished
    run(workspace, params)
    return workspace / "reports"


def copied(finished: tuple[Path, Params], tmp_path: Path) -> Path:
    shutil.copytree(finished[0] / "artifacts", tmp_path / "artifacts")
    return tmp_path


def metrics_of(workspace: Path) -> dict:
    return json.loads((workspace / "reports/metrics.json").read_text(encoding="utf-8"))


class Page(HTMLParser):
    """What a browser would fetch, and the ids."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.links: list[str] = []
        self.ids: list[str] = []
        self.tags: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        for name, value in attrs:
            if name in {"src", "href", "xlink:href", "srcset", "action", "data"}:
                self.links.append(value or "")
            if name == "id":
                self.ids.append(value or "")


def test_every_product_is_there(evaluated: Path) -> None:
    assert {str(path.relative_to(evaluated)) for path in evaluated.rglob("*.*")} == set(PRODUCTS)


def test_metrics_say_what_the_files_hold(finished: tuple[Path, Params], evaluated: Path) -> None:
    """The mean Dice of each class, computed again from the NIfTI files."""
    workspace, _ = finished
    metrics = json.loads((evaluated / "metrics.json").read_text(encoding="utf-8"))
    assert metrics["schema_version"] == 1
    assert (metrics["evaluated_on"], metrics["n_test_cases"], metrics["n_test_patients"]) == ("test", 6, 6)
    assert metrics["rejected"] == {"duplicate": 1, "localizer": 1, "missing_slice": 2, "not_dicom": 1}
    test = [case_id(index) for index in range(6)]
    for arm in ("transfer", "scratch"):
        for value, name in enumerate(("liver", "tumour"), start=1):
            expected = []
            for case in test:
                reference, _ = read_label(workspace / "artifacts/cases" / case / "label.nii.gz")
                prediction, _ = read_label(workspace / "artifacts/predictions" / arm / f"seed-0/{case}.nii.gz")
                expected.append(dice(reference == value, prediction == value))
            found = metrics["arms"][arm]["classes"][name]["dice"]
            assert found["mean"] == pytest.approx(np.mean(expected), abs=1e-6)
            assert found["low"] <= found["mean"] <= found["high"]
            assert (found["n"], found["n_empty"], found["n_failed"]) == (6, 0, 0)
    arms = metrics["arms"]
    difference = arms["transfer"]["dice"]["mean"] - arms["scratch"]["dice"]["mean"]
    assert metrics["verdict"]["difference"] == pytest.approx(difference, abs=2e-6)
    assert metrics["verdict"]["verdict"] == "gain"


def test_plots_hold_each_case_and_each_step(evaluated: Path) -> None:
    with (evaluated / "plots/cases.csv").open(encoding="utf-8", newline="") as stream:
        rows = list(csv.DictReader(stream))
    header = ["arm", "seed", "case_id", "class", "dice", "surface_dice", "hd95_mm", "reference_ml", "prediction_ml"]
    header += ["iou", "hd100_mm", "mean_surface_distance_mm", "volume_error_ml", "relative_volume_error"]
    assert list(rows[0]) == [*header, "patient", "failed", "tolerance_mm"]
    assert {row["patient"] for row in rows} == {str(number) for number in range(1, 7)}
    assert len(rows) == 2 * 6 * 2
    assert all(0 <= float(row["dice"]) <= 1 for row in rows)
    with (evaluated / "plots/history.csv").open(encoding="utf-8", newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert list(rows[0]) == ["arm", "fold", "seed", "step", "val_dice", "train_loss"]
    assert {row["arm"] for row in rows} == {"transfer", "scratch"}
    assert sum(bool(row["val_dice"]) for row in rows) == 16


def test_the_look_at_the_test_set_is_counted(finished: tuple[Path, Params], evaluated: Path) -> None:
    workspace, _ = finished
    metrics = json.loads((evaluated / "metrics.json").read_text(encoding="utf-8"))
    looks = json.loads((workspace / "test_looks.json").read_text(encoding="utf-8"))["looks"]
    assert [look["number"] for look in looks] == [1]
    assert looks[0]["models"] == metrics["models"]
    assert metrics["test_set_look"]["models_sha256"] == looks[0]["models_sha256"]


def test_subgroups_stand_beside_the_means(evaluated: Path) -> None:
    metrics = json.loads((evaluated / "metrics.json").read_text(encoding="utf-8"))
    rows = {(row["attribute"], row["group"]): row for row in metrics["subgroups"]["transfer"]}
    sites = [rows["site", name] for name in ("site-a", "site-b")]
    assert [row["n"] for row in sites] == [3, 3]
    overall = metrics["arms"]["transfer"]["dice"]["mean"]
    assert (sites[0]["mean"] + sites[1]["mean"]) / 2 == pytest.approx(overall, abs=2e-6)
    assert sites[0]["warning"] == "3 patients: too few for an interval"
    # all slices are alike, and nobody said which scanner
    assert {attribute for attribute, _ in rows} == {"site", "reference volume, ml", "tumour, ml"}


def test_calibration_is_that_of_the_kept_counts_and_the_record_keeps_to_its_schema(
    finished: tuple[Path, Params], evaluated: Path
) -> None:
    """ECE of all test cases from the file that predict writes, by another formula: bin by bin, weighted."""
    metrics = json.loads((evaluated / "metrics.json").read_text(encoding="utf-8"))
    schema = json.loads(files("monai_tl.report").joinpath("metrics.schema.json").read_text(encoding="utf-8"))
    jsonschema.validate(metrics, schema)
    kept = json.loads((finished[0] / "artifacts/predictions/certainty.json").read_text(encoding="utf-8"))
    for run_record in kept["runs"]:
        for key, name in (("reliability", "before"), ("scaled", "after")):
            tables = [case[key] for case in run_record["cases"].values()]
            sums = {one: np.sum([table[one] for table in tables], axis=0) for one in tables[0]}
            n, confidence, right = sums["n"], sums["confidence"], sums["n_right"]
            there = n > 0
            gaps = np.abs(confidence[there] / n[there] - right[there] / n[there])
            found = metrics["calibration"][run_record["arm"]][name]
            assert found["ece"] == pytest.approx(np.average(gaps, weights=n[there]), abs=2e-6)
            assert sum(one["n_voxels"] for one in found["bins"]) == n.sum()


def test_uncertainty_orders_the_cases_by_what_predict_kept(finished: tuple[Path, Params], evaluated: Path) -> None:
    metrics = json.loads((evaluated / "metrics.json").read_text(encoding="utf-8"))
    kept = json.loads((finished[0] / "artifacts/predictions/certainty.json").read_text(encoding="utf-8"))
    with (evaluated / "plots/cases.csv").open(encoding="utf-8", newline="") as stream:
        rows = list(csv.DictReader(stream))
    for one in kept["runs"]:
        own = [row for row in rows if row["arm"] == one["arm"]]
        errors = {case: 1 - np.mean([float(r["dice"]) for r in own if r["case_id"] == case]) for case in one["cases"]}
        ordered = [errors[case] for case in sorted(errors, key=lambda case: one["cases"][case]["disagreement"])]
        found = metrics["uncertainty"][one["arm"]]
        np.testing.assert_allclose(found["risk"], [np.mean(ordered[: k + 1]) for k in range(6)], atol=3e-6)
        assert found["area"] == pytest.approx(np.mean(found["risk"]), abs=2e-6)
        assert found["best_area"] <= found["area"]


def test_lesions_are_those_of_the_files(finished: tuple[Path, Params], evaluated: Path) -> None:
    workspace, _ = finished
    metrics = json.loads((evaluated / "metrics.json").read_text(encoding="utf-8"))
    for arm in ("transfer", "scratch"):
        found = metrics["arms"][arm]["lesions"]
        assert set(found) == {"tumour"}
        n_lesions, false = 0, []
        for index in range(6):
            reference, _ = read_label(workspace / "artifacts/cases" / case_id(index) / "label.nii.gz")
            prediction, _ = read_label(workspace / "artifacts/predictions" / arm / f"seed-0/{case_id(index)}.nii.gz")
            n_lesions += ndimage.label(reference == 2, np.ones((3, 3, 3)))[1]
            parts, n_parts = ndimage.label(prediction == 2, np.ones((3, 3, 3)))
            # one reference lesion a case: every part is too much but one that covers it by an IoU of 0.1
            lesion = reference == 2
            shares = [(lesion & (parts == k)).sum() / (lesion | (parts == k)).sum() for k in range(1, n_parts + 1)]
            false.append(n_parts - any(share >= 0.1 for share in shares))
        assert found["tumour"]["n_reference_lesions"] == n_lesions
        assert found["tumour"]["lesion_false_positives"]["mean"] == pytest.approx(np.mean(false), abs=1e-6)


def test_a_table_groups_by_age_and_sex(finished: tuple[Path, Params], tmp_path: Path) -> None:
    workspace = copied(finished, tmp_path)
    rows = [f"{case_id(index)},{30 + 10 * index},{'FM'[index % 2]}" for index in range(6)]
    (workspace / "people.csv").write_text("\n".join(["case,age,sex", *rows]))
    params = finished[1]
    params = params.model_copy(update={"evaluate": params.evaluate.model_copy(update={"groups": "people.csv"})})
    run(workspace, params)
    found = {(row["attribute"], row["group"]): row["n"] for row in metrics_of(workspace)["subgroups"]["transfer"]}
    assert [found["age", group] for group in ("18–40", "40–65", "65–80", "≥80")] == [1, 3, 1, 1]
    assert (found["sex", "F"], found["sex", "M"]) == (3, 3)
    (workspace / "people.csv").write_text("\n".join(["case,age,sex", *rows[1:]]))
    with pytest.raises(ConfigError, match="1 of 6 cases have no row"):
        run(workspace, params)


def test_predictions_without_their_certainty_are_made_again(finished: tuple[Path, Params], tmp_path: Path) -> None:
    workspace = copied(finished, tmp_path)
    (workspace / "artifacts/predictions/certainty.json").unlink()
    with pytest.raises(DataError, match="is missing; run the stage that makes it"):
        run(workspace, finished[1])


def test_page_is_whole_and_asks_for_nothing(evaluated: Path) -> None:
    text = (evaluated / "html/report.html").read_text(encoding="utf-8")
    page = Page(text)
    assert all(link.startswith(("data:image/png;base64,", "#")) for link in page.links), page.links[:5]
    # of each case three still pictures, and for the viewer the image and a layer
    assert sum(link.startswith("data:") for link in page.links) == 9 + 6
    assert len(set(page.ids)) == len(page.ids)
    assert {"link", "iframe", "object"}.isdisjoint(page.tags)
    assert page.tags.count("script") == 2
    assert "http://" not in text
    assert "https://" not in text
    assert "url(#" in text
    assert "url(h" not in text.replace(" ", "")
    assert "@import" not in text
    order = [
        "of one seed: the pretrained start raised",
        "The arms",
        "What came in",
        "The source's contract",
        "What the pretrained weights",
        "How the arms learned",
        "Case by case",
        'id="boxes-',
        'id="sizes-',
        "Groups of cases",
        'id="calibration"',
        'id="certainty-',
        "Worst, median and best",
        "How it was done",
        "What these numbers do not",
        "Licences and citations",
    ]
    places = [text.index(words) for words in order]
    assert places == sorted(places)
    assert len(text.encode()) < 15_000_000


def test_page_tells_of_licence_citation_and_refusals(evaluated: Path) -> None:
    text = (evaluated / "html/report.html").read_text(encoding="utf-8")
    for words in ("Apache-2.0", "small abdominal network", "missing_slice", "not_dicom", "seed 0", "2 threads"):
        assert words in text
    summary = (evaluated / "html/summary.md").read_text(encoding="utf-8")
    for words in (
        "Gain, but of one seed: the pretrained start",
        "| transfer | all |",
        "| series | missing_slice | 2 |",
    ):
        assert words in summary


def test_no_trace_of_time_place_or_patient(finished: tuple[Path, Params], evaluated: Path) -> None:
    workspace, _ = finished
    for product in PRODUCTS:
        text = (evaluated / product).read_text(encoding="utf-8")
        assert str(workspace) not in text
        assert "patient-0" not in text
        assert not any(f"20{year}-" in text for year in range(24, 40)), product


def test_twice_gives_the_same_bytes_and_so_do_workers(
    finished: tuple[Path, Params], evaluated: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    workspace = copied(finished, tmp_path)
    monkeypatch.setenv("MONAI_TL_EXECUTOR", "loky")
    monkeypatch.setenv("MONAI_TL_JOBS", "2")
    run(workspace, finished[1])
    for product in PRODUCTS:
        assert sha256_file(workspace / "reports" / product) == sha256_file(evaluated / product), product


def test_missing_prediction_scores_worst_and_is_counted(finished: tuple[Path, Params], tmp_path: Path) -> None:
    workspace = copied(finished, tmp_path)
    before = metrics_of(finished[0])["arms"]["transfer"]["dice"]["mean"]
    remove_prediction(workspace, "transfer", case_id(2))
    run(workspace, finished[1])
    transfer = metrics_of(workspace)["arms"]["transfer"]
    assert (transfer["dice"]["n"], transfer["dice"]["n_failed"]) == (6, 1)
    assert transfer["dice"]["mean"] < before * 5 / 6 + 0.05
    # the longest diagonal of all test cases
    labels = [read_label(workspace / f"artifacts/cases/{case_id(index)}/label.nii.gz") for index in range(6)]
    diagonal = max(np.linalg.norm(np.array(label.shape) * spacing_of(affine)) for label, affine in labels)
    with (workspace / "reports/plots/cases.csv").open(encoding="utf-8", newline="") as stream:
        failed = [row for row in csv.DictReader(stream) if row["failed"] == "1"]
    assert {(row["arm"], row["case_id"]) for row in failed} == {("transfer", case_id(2))}
    assert [float(row["hd95_mm"]) for row in failed] == pytest.approx([diagonal] * 2, abs=1e-5)
    page = (workspace / "reports/html/report.html").read_text(encoding="utf-8")
    assert "geometry_error" in page
    assert "1 failed" in page


def test_a_case_that_was_not_prepared_is_listed_with_the_refused_and_scores_worst(
    finished: tuple[Path, Params], tmp_path: Path
) -> None:
    workspace = copied(finished, tmp_path)
    reason = "the image is constant, so that no scale is defined"
    one = Rejection(item=case_id(2), kind="case", code="constant", reason=reason)
    RejectionList(rejected=(one,)).write(workspace / "artifacts/prepared/failed.json")
    for arm in ("transfer", "scratch"):
        remove_prediction(workspace, arm, case_id(2))
    run(workspace, finished[1])
    metrics = metrics_of(workspace)
    assert metrics["rejected"] == {"constant": 1, "duplicate": 1, "localizer": 1, "missing_slice": 2, "not_dicom": 1}
    assert {metrics["arms"][arm]["dice"]["n_failed"] for arm in ("transfer", "scratch")} == {1}
    shown = io.StringIO()
    show_results(workspace, Console(file=shown, width=200))
    for text in (
        (workspace / "reports/html/report.html").read_text(encoding="utf-8"),
        (workspace / "reports/html/summary.md").read_text(encoding="utf-8"),
        shown.getvalue(),
    ):
        assert reason in text
        assert "constant" in text


def test_no_test_set_is_said(tmp_path: Path) -> None:
    shape = RunShape({"transfer": 3.0}, n_test=0, n_train=3, n_val=3, **SMALL)  # type: ignore[arg-type]
    run(tmp_path, make_finished_run(tmp_path, shape))
    metrics = metrics_of(tmp_path)
    assert (metrics["evaluated_on"], metrics["n_test_cases"], metrics["verdict"]) == ("validation", 3, None)
    for name in ("report.html", "summary.md"):
        text = (tmp_path / "reports/html" / name).read_text(encoding="utf-8")
        assert "There is no test set" in text
        assert "One arm" in text


def test_prediction_on_another_grid_stops_the_stage(
    finished: tuple[Path, Params], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    workspace = copied(finished, tmp_path)
    path = workspace / "artifacts/predictions/scratch/seed-0" / f"{case_id(1)}.nii.gz"
    label, affine = read_label(path)
    shifted = affine.copy()
    shifted[0, 3] += 1.0
    write_image(path, label, shifted)
    for backend in ("sequential", "loky"):
        monkeypatch.setenv("MONAI_TL_EXECUTOR", backend)
        monkeypatch.setenv("MONAI_TL_JOBS", "2")
        with pytest.raises(StageError, match=f"{case_id(1)}.*scratch.*run predict again"):
            run(workspace, finished[1])
    assert not (workspace / "reports/html").exists()


def test_damaged_prediction_and_lost_model_stop_the_stage(finished: tuple[Path, Params], tmp_path: Path) -> None:
    workspace = copied(finished, tmp_path)
    path = workspace / "artifacts/predictions/scratch/seed-0" / f"{case_id(1)}.nii.gz"
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])
    with pytest.raises(StageError, match=case_id(1)):
        run(workspace, finished[1])
    path.write_bytes(content)
    (workspace / "artifacts/models/transfer-0-0/history.csv").unlink()
    with pytest.raises(DataError, match="run finetune again"):
        run(workspace, finished[1])


@pytest.fixture(scope="module")
def of_two_seeds(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Seed 7 lacks a prediction of the transfer arm."""
    workspace = tmp_path_factory.mktemp("seeds")
    shape = RunShape(
        {"transfer": 2.0, "scratch": 12.0},
        n_test=6,
        n_train=3,
        n_val=2,
        seeds=(0, 7),
        **SMALL,  # type: ignore[arg-type]
    )
    params = make_finished_run(workspace, shape)
    remove_prediction(workspace, "transfer", case_id(2), seed=7)
    run(workspace, params)
    return workspace


def test_a_case_scores_the_mean_over_seeds_and_each_seed_is_told(
    of_two_seeds: Path, evaluated: Path, finished: tuple[Path, Params]
) -> None:
    metrics, alone = metrics_of(of_two_seeds), metrics_of(finished[0])
    assert metrics["seeds"] == [0, 7]
    transfer = metrics["arms"]["transfer"]
    means = {seed: one["dice"] for seed, one in transfer["seeds"]["means"].items()}
    assert means["0"] == alone["arms"]["transfer"]["dice"]["mean"]
    assert means["7"] < means["0"] - 0.1
    assert transfer["dice"]["mean"] == pytest.approx(np.mean(list(means.values())), abs=1e-6)
    assert transfer["seeds"]["sd"]["dice"] == pytest.approx(abs(means["0"] - means["7"]) / np.sqrt(2), abs=2e-6)
    assert (transfer["dice"]["n"], transfer["dice"]["n_failed"]) == (6, 1)
    verdict = metrics["verdict"]
    scratch = {seed: one["dice"] for seed, one in metrics["arms"]["scratch"]["seeds"]["means"].items()}
    differences = [means[seed] - scratch[seed] for seed in ("0", "7")]
    assert verdict["n_seeds"] == 2
    assert verdict["difference"] == pytest.approx(np.mean(differences), abs=2e-6)
    assert verdict["seed_sd"] == pytest.approx(np.std(differences, ddof=1), abs=2e-6)
    with (of_two_seeds / "reports/plots/cases.csv").open(encoding="utf-8", newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert len(rows) == 2 * 2 * 6 * 2
    assert {row["seed"] for row in rows} == {"0", "7"}


def test_one_seed_is_said_to_be_one(evaluated: Path) -> None:
    for name in ("report.html", "summary.md"):
        text = (evaluated / "html" / name).read_text(encoding="utf-8")
        assert "6 patients, one seed, whose choice the interval does not cover" in text


def test_the_seeds_are_in_every_text(of_two_seeds: Path) -> None:
    shown = io.StringIO()
    show_results(of_two_seeds, Console(file=shown, width=200))
    page = (of_two_seeds / "reports/html/report.html").read_text(encoding="utf-8")
    for text in (page, (of_two_seeds / "reports/html/summary.md").read_text(encoding="utf-8"), shown.getvalue()):
        assert "2 seeds" in text
    assert "seed 7, geometry_error" in page
    assert "one seed" not in page


def test_evaluate_needs_no_torch() -> None:
    code = (
        "import sys, monai_tl.stages.evaluate as _; sys.exit(any(name in sys.modules for name in ('torch', 'monai')))"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
