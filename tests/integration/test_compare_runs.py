"""``monai-tl compare``: evaluated folders, workspaces and revisions of a real repository with DVC."""

from __future__ import annotations

import csv
import io
import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from test_evaluate_folders import save
from typer.testing import CliRunner

from monai_tl.cli import app
from monai_tl.commands import evaluate
from monai_tl.commands.compare import run
from monai_tl.errors import ConfigError, DataError
from monai_tl.metrics.summary import bootstrap_mean

ROOT = Path(__file__).parents[2]
SHAPE = (10, 10, 10)


@pytest.fixture(autouse=True)
def _sequential(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MONAI_TL_EXECUTOR", "sequential")


def scores_text(
    dice: np.ndarray,
    patients: list[str] | None = None,
    failed: frozenset[int] = frozenset(),
    redrawn: frozenset[int] = frozenset(),
    tolerance_mm: float = 2.0,
) -> str:
    """``cases.csv`` of an evaluation with one class; surface Dice is Dice."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    header = ["case", "patient", "class", "failed", "tolerance_mm", "dice", "surface_dice", "hd95_mm", "reference_ml"]
    writer.writerow(header)
    for index, value in enumerate(dice):
        cell = "" if np.isnan(value) else f"{value:.6f}"
        patient = patients[index] if patients else str(index)
        reference = f"{index + 3 + 0.001 * (index in redrawn):.6f}"
        row = [f"case-{index:02d}", patient, "liver", int(index in failed), tolerance_mm, cell, cell]
        writer.writerow([*row, f"{10 * (1 - value):.6f}", reference])
    return text.getvalue()


def folder(path: Path, text: str) -> str:
    path.mkdir(parents=True)
    (path / "cases.csv").write_text(text, encoding="utf-8")
    return str(path)


def pairs_of(tmp_path: Path, given: list[str], **options: object) -> list[dict]:
    run(given, tmp_path, out=tmp_path / "pairs.json", **options)  # type: ignore[arg-type]
    return json.loads((tmp_path / "pairs.json").read_text(encoding="utf-8"))["pairs"]


def test_two_folders_that_were_evaluated(tmp_path: Path) -> None:
    """From masks to the sentence: B outlines each of 8 balls of voxels rightly, A loses a part."""
    for index in range(8):
        label = np.zeros(SHAPE, dtype=np.uint8)
        label[2:8, 2:8, 2 : 4 + index % 3] = 1
        worse = label.copy()
        worse[2 : 3 + index % 2] = 0
        save(tmp_path / f"r/{index}.nii", label)
        save(tmp_path / f"a/{index}.nii", worse)
        save(tmp_path / f"b/{index}.nii", label)
    for name in "ab":
        evaluate.run(tmp_path / name, tmp_path / "r", tmp_path / f"scored-{name}")
    given = [str(tmp_path / "scored-a"), str(tmp_path / "scored-b")]
    (pair,) = pairs_of(tmp_path, given)
    expected = np.mean([1 - 2 * part / (1 + part) for part in ([5 / 6, 4 / 6] * 4)])
    assert pair["difference"] == pytest.approx(expected, abs=1e-6)
    assert (pair["second_is"], pair["n_cases"], pair["n_patients"]) == ("better", 8, 8)
    assert pair["p"] == pytest.approx(2.0**-7, abs=1e-6)
    (reverse,) = pairs_of(tmp_path, given[::-1])
    assert (reverse["second_is"], reverse["difference"]) == ("worse", -pair["difference"])
    (distance,) = pairs_of(tmp_path, given, metric="hd95_mm")
    assert distance["difference"] < 0
    assert distance["second_is"] == "better"


def test_three_are_compared_in_pairs_and_corrected_for_their_number(tmp_path: Path) -> None:
    generator = np.random.default_rng(2)
    base = generator.uniform(0.6, 0.8, 20)
    dice = {"a": base, "b": base + generator.normal(0.012, 0.025, 20), "c": base + generator.normal(0.05, 0.02, 20)}
    given = [folder(tmp_path / name, scores_text(values)) for name, values in dice.items()]
    pairs = pairs_of(tmp_path, given)
    assert [(Path(pair["first"]).name, Path(pair["second"]).name) for pair in pairs] == [
        ("a", "b"),
        ("a", "c"),
        ("b", "c"),
    ]
    p = sorted(pair["p"] for pair in pairs)
    expected = [3 * p[0], max(3 * p[0], 2 * p[1]), max(3 * p[0], 2 * p[1], p[2])]
    assert sorted(pair["p_holm"] for pair in pairs) == pytest.approx(expected, abs=3e-6)
    values = np.round(dice["b"], 6) - np.round(dice["a"], 6)
    interval = bootstrap_mean(values, [f"{index:02d}" for index in range(20)], 5000, 0.95, np.random.default_rng(0))
    assert (pairs[0]["low"], pairs[0]["high"]) == pytest.approx((interval.low, interval.high), abs=2e-6)


def test_what_is_significant_alone_is_undecided_among_several(tmp_path: Path) -> None:
    values = np.random.default_rng(7).normal(0.0, 0.03, 24)
    # moved to where Student's p is 0.03, between 0.05 / 3 and 0.05
    values = values - values.mean() + 2.31 * values.std(ddof=1) / np.sqrt(24)
    base = np.full(24, 0.7)
    given = [folder(tmp_path / name, scores_text(one)) for name, one in (("a", base), ("b", base + values))]
    (alone,) = pairs_of(tmp_path, given)
    assert alone["second_is"] == "better"
    noise = np.random.default_rng(8).normal(0.0, 0.03, 24)
    given.append(folder(tmp_path / "c", scores_text(base + noise - noise.mean())))
    among = pairs_of(tmp_path, given)[0]
    assert among["p"] == alone["p"]
    assert among["second_is"] == "undecided"
    assert among["smallest_detectable"] > alone["smallest_detectable"]
    assert "would show a difference of" in run(given, tmp_path)


def test_a_missing_prediction_scores_worst_and_two_compare_nothing(tmp_path: Path) -> None:
    first, second = np.full(8, 0.8), np.full(8, 0.8)
    first[0] = second[0] = second[1] = 0.0
    given = [
        folder(tmp_path / "a", scores_text(first, failed=frozenset({0}))),
        folder(tmp_path / "b", scores_text(second, failed=frozenset({0, 1}))),
    ]
    (pair,) = pairs_of(tmp_path, given)
    assert (pair["n_cases"], pair["n_undefined"]) == (7, 1)
    assert pair["difference"] == pytest.approx(-0.8 / 7, abs=1e-6)


def test_a_false_positive_on_an_empty_reference_counts_against_the_right_one(tmp_path: Path) -> None:
    first, second = np.full(8, 0.8), np.full(8, 0.8)
    first[0], second[0] = np.nan, 0.0
    given = [folder(tmp_path / "a", scores_text(first)), folder(tmp_path / "b", scores_text(second))]
    (pair,) = pairs_of(tmp_path, given)
    assert pair["difference"] == pytest.approx(-1.0 / 8, abs=1e-6)


def test_few_patients_decide_nothing_whatever_the_number_of_scans(tmp_path: Path) -> None:
    patients = [str(index // 4) for index in range(20)]
    given = [
        folder(tmp_path / "a", scores_text(np.full(20, 0.5), patients)),
        folder(tmp_path / "b", scores_text(np.full(20, 0.9), patients)),
    ]
    (pair,) = pairs_of(tmp_path, given)
    assert (pair["n_patients"], pair["second_is"]) == (5, "undecided")
    assert "5 patients are too few to tell; at least 6 are needed" in run(given, tmp_path)


def test_patients_that_are_enough_for_one_pair_are_too_few_for_three(tmp_path: Path) -> None:
    """Six patients give p = 2^-5 at best: 0.03 for one pair, 0.09 for the best of three."""
    levels = {"a": 0.5, "b": 0.7, "c": 0.9}
    given = [folder(tmp_path / name, scores_text(np.full(6, level))) for name, level in levels.items()]
    assert [pair["second_is"] for pair in pairs_of(tmp_path, given[:2])] == ["better"]
    assert [pair["second_is"] for pair in pairs_of(tmp_path, given)] == ["undecided"] * 3
    assert run(given, tmp_path).count("6 patients are too few to tell; at least 7 are needed") == 3


def test_cases_whose_references_were_redrawn_are_left_out_and_told(tmp_path: Path) -> None:
    first, second = np.full(12, 0.7), np.full(12, 0.8)
    # what counts against another reference would turn the mean
    second[:3] = 0.0
    given = [
        folder(tmp_path / "a", scores_text(first)),
        folder(tmp_path / "b", scores_text(second, redrawn=frozenset({0, 1, 2}))),
    ]
    (pair,) = pairs_of(tmp_path, given)
    assert pair["difference"] == pytest.approx(0.1)
    assert (pair["n_cases"], pair["n_other_reference"], pair["n_in_one_only"]) == (9, 3, 0)
    assert "3 cases whose references differ are left out" in run(given, tmp_path)
    all_redrawn = folder(tmp_path / "c", scores_text(second, redrawn=frozenset(range(12))))
    with pytest.raises(DataError, match=r"a and .*c were scored against other references in all 12 cases"):
        run([given[0], all_redrawn], tmp_path)


def test_surface_dice_at_another_tolerance_is_refused(tmp_path: Path) -> None:
    values = np.linspace(0.5, 0.7, 9)
    given = [
        folder(tmp_path / "a", scores_text(values)),
        folder(tmp_path / "b", scores_text(values + 0.1, tolerance_mm=3.0)),
    ]
    with pytest.raises(DataError, match=r"a took 2 mm as agreement for surface Dice of liver, .*b 3 mm"):
        run(given, tmp_path, metric="surface_dice")
    # no tolerance enters Dice
    assert pairs_of(tmp_path, given)[0]["second_is"] == "better"


def test_a_table_that_does_not_tell_what_matters_is_compared_with_a_word(tmp_path: Path) -> None:
    def without(name: str, *columns: str) -> str:
        rows = list(csv.DictReader(io.StringIO(scores_text(np.linspace(0.5, 0.7, 9)))))
        text = io.StringIO()
        kept = [column for column in rows[0] if column not in columns]
        writer = csv.DictWriter(text, kept, extrasaction="ignore")
        writer.writeheader()
        writer.writerows(rows)
        return folder(tmp_path / name, text.getvalue())

    whole = without("whole")
    assert pairs_of(tmp_path, [whole, without("again")], metric="surface_dice")[0]["doubts"] == []
    poor = without("poor", "patient", "reference_ml", "tolerance_mm")
    said = run([whole, poor], tmp_path, metric="surface_dice")
    for words in ("references are the same is not known: ", "tolerances are the same is not known: "):
        assert f"{words}{poor} does not tell them" in said
    assert "nobody said whose" not in said
    assert "nobody said whose the cases are, and each counts as a patient" in run(
        [without("a", "patient"), without("b", "patient")], tmp_path
    )


def test_whose_the_cases_are_is_taken_from_whoever_knows(tmp_path: Path) -> None:
    """12 cases: one table makes pairs of them, another triples; together each six in a row are one patient's."""
    values = np.linspace(0.5, 0.7, 12)
    pairs, triples = [str(index // 2) for index in range(12)], [str(index // 3) for index in range(12)]
    alone = folder(tmp_path / "alone", scores_text(values))
    paired = folder(tmp_path / "paired", scores_text(values + 0.1, pairs))
    tripled = folder(tmp_path / "tripled", scores_text(values + 0.2, triples))
    for given in ([alone, paired], [paired, alone]):
        assert pairs_of(tmp_path, given)[0]["n_patients"] == 6
    assert pairs_of(tmp_path, [paired, tripled])[0]["n_patients"] == 2


def test_a_folder_evaluated_without_a_table_says_so_when_compared(tmp_path: Path) -> None:
    label = np.zeros(SHAPE, dtype=np.uint8)
    label[2:8, 2:8, 2:8] = 1
    for index in range(6):
        save(tmp_path / f"r/{index}.nii", label)
        save(tmp_path / f"a/{index}.nii", label)
    evaluate.run(tmp_path / "a", tmp_path / "r", tmp_path / "one")
    (tmp_path / "whose.csv").write_text("case,patient\n" + "".join(f"{n},p{n // 2}\n" for n in range(6)))
    evaluate.run(tmp_path / "a", tmp_path / "r", tmp_path / "two", cases=tmp_path / "whose.csv", tolerance_mm=1.0)
    (pair,) = pairs_of(tmp_path, [str(tmp_path / "one"), f"{tmp_path / 'one'}/cases.csv"])
    assert (pair["n_patients"], len(pair["doubts"])) == (6, 1)
    (pair,) = pairs_of(tmp_path, [str(tmp_path / "one"), str(tmp_path / "two")])
    assert (pair["n_patients"], pair["doubts"]) == (3, [])
    with pytest.raises(DataError, match=r"2 mm as agreement for surface Dice of value 1, .* 1 mm"):
        run([str(tmp_path / "one"), str(tmp_path / "two")], tmp_path, metric="surface_dice")


@pytest.mark.parametrize("fault", ["a seed with other cases", "a case twice", "cut short"])
def test_a_damaged_table_is_told_by_name(tmp_path: Path, fault: str) -> None:
    lines = run_text(0.0).splitlines()
    lines = {
        "a seed with other cases": [line for line in lines if not line.startswith("transfer,1,case-3,")],
        "a case twice": [*lines, lines[1]],
        "cut short": [*lines[:3], lines[3].rsplit(",", 5)[0]],
    }[fault]
    damaged = folder(tmp_path / "damaged", "\n".join(lines) + "\n")
    whole = folder(tmp_path / "whole", run_text(0.1))
    with pytest.raises(DataError, match=r"damaged: .*cases\.csv .*evaluate again"):
        run([whole, damaged], tmp_path)


def test_what_cannot_be_compared_is_said(tmp_path: Path) -> None:
    a = folder(tmp_path / "a", scores_text(np.full(4, 0.5)))
    other = folder(tmp_path / "other", scores_text(np.full(4, 0.5)).replace("case-", "else-"))
    classes = folder(tmp_path / "classes", scores_text(np.full(4, 0.5)).replace("liver", "spleen"))
    (tmp_path / "empty").mkdir()
    with pytest.raises(ConfigError, match="two or more different"):
        run([a], tmp_path)
    with pytest.raises(ConfigError, match="--metric: 'beauty' is none of"):
        run([a, other], tmp_path, metric="beauty")
    with pytest.raises(DataError, match="no case in common"):
        run([a, other], tmp_path)
    with pytest.raises(DataError, match="other classes"):
        run([a, classes], tmp_path)
    with pytest.raises(ConfigError, match=r"holds neither cases\.csv"):
        run([a, str(tmp_path / "empty")], tmp_path)
    with pytest.raises(ConfigError, match="no-such-thing: is no folder, and for a revision"):
        run([a, "no-such-thing"], tmp_path)


def run_text(shift: float) -> str:
    """``reports/plots/cases.csv`` of a run with two arms and three seeds."""
    generator = np.random.default_rng(1)
    lines = ["arm,seed,case_id,class,dice,hd95_mm,reference_ml,patient,failed"]
    for arm, gain in (("transfer", shift), ("scratch", 0.0)):
        for seed in range(3):
            for index in range(10):
                dice = 0.7 + gain + 0.02 * float(generator.standard_normal())
                lines.append(f"{arm},{seed},case-{index},liver,{dice:.6f},5.0,{index}.5,p{index},0")
    return "\n".join(lines) + "\n"


def git(where: Path, *arguments: str) -> None:
    subprocess.run(
        ["git", "-c", "user.name=x", "-c", "user.email=x@y", *arguments], cwd=where, check=True, capture_output=True
    )


@pytest.fixture(scope="module")
def versioned(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A workspace with two commits of results and an experiment."""
    workspace = tmp_path_factory.mktemp("versioned")
    shutil.copytree(ROOT / "flows", workspace / "flows", ignore=shutil.ignore_patterns("__pycache__"))
    git(workspace, "init", "-q")
    subprocess.run([sys.executable, "-m", "dvc", "init", "-q"], cwd=workspace, check=True, capture_output=True)
    table = workspace / "reports/plots/cases.csv"
    table.parent.mkdir(parents=True)
    for tag, shift in (("first", 0.0), ("second", 0.1)):
        table.write_text(run_text(shift), encoding="utf-8")
        git(workspace, "add", "-A")
        git(workspace, "commit", "-q", "-m", tag)
        git(workspace, "tag", tag)
    commit = subprocess.run(
        ["git", "rev-parse", "first"], cwd=workspace, check=True, capture_output=True, text=True
    ).stdout.strip()
    git(workspace, "update-ref", f"refs/exps/{commit[:2]}/{commit[2:]}/run-0123", commit)
    return workspace


def test_revisions_and_experiments_and_the_workspace_itself(versioned: Path, tmp_path: Path) -> None:
    pairs = pairs_of(tmp_path, [str(versioned / "reports/plots/cases.csv"), str(versioned)])
    assert pairs[0]["difference"] == 0.0
    for earlier in ("first", "run-0123"):
        run([earlier, "second"], versioned, out=tmp_path / "out.json")
        (pair,) = json.loads((tmp_path / "out.json").read_text(encoding="utf-8"))["pairs"]
        assert pair["difference"] == pytest.approx(0.1, abs=1e-6)
        assert (pair["second_is"], pair["covers_seeds"], pair["n_patients"]) == ("better", True, 10)
    (pair,) = pairs_of(tmp_path, [str(versioned), str(versioned / "reports/plots/cases.csv")], arm="scratch")
    assert pair["difference"] == 0.0


def test_a_revision_that_is_not_there_or_of_no_results_is_said(versioned: Path) -> None:
    for name in ("third", "-x"):
        with pytest.raises(ConfigError, match=f"{name}: is no revision or experiment of this workspace"):
            run([name, "second"], versioned)
    git(versioned, "rm", "-q", "--cached", "reports/plots/cases.csv")
    git(versioned, "commit", "-q", "-m", "none")
    git(versioned, "tag", "-f", "none")
    git(versioned, "add", "reports/plots/cases.csv")
    git(versioned, "commit", "-q", "-m", "again")
    with pytest.raises(ConfigError, match="or its results were not committed"):
        run(["none", "second"], versioned)


def test_the_command_prints_a_table_and_sentences(tmp_path: Path) -> None:
    a = folder(tmp_path / "a", scores_text(np.linspace(0.5, 0.7, 9)))
    b = folder(tmp_path / "b", scores_text(np.linspace(0.6, 0.81, 9)))
    done = CliRunner().invoke(app, ["compare", a, b])
    assert done.exit_code == 0, done.output
    assert f"{b} is better than {a}; true of these trainings; other seeds may not agree." in done.output
    assert "| p (Holm) |" in done.output
    same = CliRunner().invoke(app, ["compare", a, f"{a}/cases.csv"])
    assert f"{a} and {a}/cases.csv score the same in every case" in same.output
