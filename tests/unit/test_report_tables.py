"""Tables beside the headline numbers, and the plot of sizes."""

from __future__ import annotations

import json
import math
import re
from dataclasses import replace
from importlib.resources import files

import jsonschema
import pytest
from test_report import HOSTILE, RULE, arm, make_findings

from monai_tl.looks import Look
from monai_tl.metrics.case import ClassScore
from monai_tl.metrics.cohort import ArmResult, CaseResult, summarise_arm
from monai_tl.metrics.subgroups import summarise_groups
from monai_tl.metrics.summary import MetricSummary
from monai_tl.report.counted import counts_of
from monai_tl.report.more_tables import OTHER_MEASURES, group_of_case_rows, look_sentence, measure_rows
from monai_tl.report.numbers import metrics_record
from monai_tl.report.page import render_page
from monai_tl.report.size_figure import size_plot
from monai_tl.report.tables import markdown_summary
from monai_tl.report.unfound import unfound_lines
from monai_tl.sources.evaluation_text import describe_evaluation

SCHEMA = json.loads(files("monai_tl.report").joinpath("metrics.schema.json").read_text(encoding="utf-8"))


def _measured(name: str, surface: float) -> ArmResult:
    cases = [
        CaseResult(
            f"case-{k}", f"patient-{k}",
            (ClassScore(0.8, 0.9, 3.0, 10.0, 9.0, 0.5 + 0.1 * k, 6.0, surface, 1.0, 0.1),),
        )
        for k in range(3)
    ]  # fmt: skip
    return summarise_arm(name, {0: cases}, ("liver",), RULE)


def test_other_measures_are_means_over_cases() -> None:
    findings = make_findings((_measured("transfer", 1.25), _measured("scratch", math.nan)))
    first, second = measure_rows(findings)
    assert [cell.split()[0] for cell in first.cells] == ["0.600", "1.25", "6.0", "1.00", "0.100"]
    assert second.cells[1] == "–"
    page = render_page(findings)
    assert all(f'<th scope="col">{heading}</th>' in page for _, heading, _ in OTHER_MEASURES)


def _grouped(text: str):
    arms = (arm("transfer", 0.9, 0.8, 0.7), arm("scratch", 0.5, 0.6, 0.4))
    groups = {
        one.arm: summarise_groups(
            [case.mean("dice") for case in one.cases], [case.patient_key for case in one.cases], [False] * 3,
            {"site": ["a", text, text]}, RULE,
        )
        for one in arms
    }  # fmt: skip
    return replace(make_findings(arms), subgroups=groups)


def test_groups_stand_side_by_side_with_their_warning() -> None:
    rows = group_of_case_rows(_grouped("b"))
    assert [(row.attribute, row.group, row.n_cases, row.means, row.begins) for row in rows] == [
        ("site", "a", 1, ("0.900", "0.500"), True),
        ("site", "b", 2, ("0.750", "0.500"), False),
    ]
    assert all("too few" in row.warning for row in rows)
    page = render_page(_grouped(HOSTILE))
    assert "Groups of cases" in page
    assert "<script" not in page
    assert "Groups of cases" not in render_page(make_findings((arm("transfer", 0.9), arm("scratch", 0.5))))


@pytest.mark.parametrize(
    ("number", "words"),
    [(1, "the first to be scored"), (4, "look 4 at this test set: before these models 3 other sets")],
)
def test_looks_at_the_test_set_are_told(number: int, words: str) -> None:
    findings = make_findings((arm("transfer", 0.9, 0.8), arm("scratch", 0.5, 0.6)))
    assert look_sentence(findings) == ""
    look = Look(number=number, test_set="0" * 64, models={}, models_sha256="0" * 64, by="evaluate")
    assert words in look_sentence(replace(findings, look=look))
    assert words in render_page(replace(findings, look=look))


def test_sizes_have_a_panel_a_class_and_one_when_they_are_many() -> None:
    names = ("liver", "tumour")
    arms = (arm("transfer", 0.9, 0.8, 0.7, names=names), arm("scratch", 0.5, 0.6, 0.4, names=names))
    plot = size_plot(arms, names)
    assert re.findall(r">Dice by size: ([^<]*)<", plot) == ["liver", "tumour"]
    assert plot.count("reference volume, ml") == 2
    many = tuple(f"organ {k}" for k in range(9))
    arms = (arm("transfer", 0.9, 0.8, 0.7, names=many),)
    assert re.findall(r">Dice by size: ([^<]*)<", size_plot(arms, many)) == ["all classes"]


def test_nothing_with_a_size_gives_no_plot() -> None:
    score = ClassScore(math.nan, math.nan, math.nan, 0.0, 0.0)
    empty = summarise_arm("transfer", {0: [CaseResult("case-0", "p", (score,))]}, ("liver",), RULE)
    assert size_plot((empty,), ("liver",)) == ""


def test_what_a_mean_is_over_stands_beside_it() -> None:
    def summary(n: int, n_empty: int = 0, n_failed: int = 0) -> MetricSummary:
        return MetricSummary(mean=0.5, low=0.4, high=0.6, n=n, n_empty=n_empty, n_failed=n_failed)

    assert counts_of({"IoU": summary(1), "HD100": summary(1)}) == "1 case"
    assert (
        counts_of({"IoU": summary(9, 2, 1), "HD100": summary(11)}) == "IoU: 9 cases, 2 empty, 1 failed; HD100: 11 cases"
    )
    page = render_page(_grouped(HOSTILE))
    assert page.count(">Counted</th>") >= 3
    assert ">1 case</td>" in page


def _learnt(name: str, *seeds: tuple[float, float]) -> ArmResult:
    """Volumes that each seed predicts of two classes in three cases, whose references have 2 ml of each."""

    def score(predicted: float) -> ClassScore:
        return ClassScore(0.5 if predicted else 0.0, 0.5, 9.0, 2.0, predicted)

    by_seed = {
        seed: [CaseResult(f"case-{k}", f"p{k}", (score(head), score(tail))) for k in range(3)]
        for seed, (head, tail) in enumerate(seeds)
    }
    return summarise_arm(name, by_seed, ("head", "tail"), RULE)


def test_a_class_that_a_training_never_finds_is_named() -> None:
    """On the page and in its summary, in metrics.json and on the card of the model that is concerned."""
    arms = (_learnt("transfer", (2.0, 1.0), (2.0, 0.0)), _learnt("scratch", (0.0, 1.0), (0.0, 1.0)))
    findings = replace(make_findings(arms), class_names=("head", "tail"))
    lines = unfound_lines(findings)
    assert lines[:-1] == [
        "transfer: tail is found in none of the 3 test cases that have it, with seed 1.",
        "scratch: head is found in none of the 3 test cases that have it, with any seed.",
    ]
    assert "finetune.max_steps" in lines[-1]
    record = metrics_record(findings)
    assert record["never_found"] == [
        {"arm": "transfer", "class": "tail", "seeds": [1], "n_seeds": 2, "n_cases": 3},
        {"arm": "scratch", "class": "head", "seeds": [0, 1], "n_seeds": 2, "n_cases": 3},
    ]
    jsonschema.validate(json.loads(json.dumps(record)), SCHEMA)
    page, summary = render_page(findings), markdown_summary(findings)
    assert all(line in page and line in summary for line in lines)
    for place, name in enumerate(("transfer", "scratch")):
        card = describe_evaluation(record, name)
        assert lines[place] in card
        assert lines[1 - place] not in card
        assert lines[-1] in card


def test_nothing_is_said_of_classes_that_are_found_somewhere() -> None:
    assert unfound_lines(replace(make_findings((_learnt("transfer", (2.0, 1.0)),)), class_names=("head", "tail"))) == []
