"""What is said of a curve's points, and how it is drawn."""

from __future__ import annotations

import csv
import io
import json
import math
import re
import struct
import xml.etree.ElementTree as ElementTree
from dataclasses import replace

import numpy as np
import pytest
from curve_points import LABELS, PRETRAINED, SCRATCH, STEPS, make_findings, make_group, make_point
from matplotlib.image import imread

from monai_tl.errors import DataError
from monai_tl.metrics.cohort import BootstrapRule
from monai_tl.report import curve_figures, curve_page
from monai_tl.report.curve_figures import COLOURS, SCRATCH_COLOUR, draw_labels, draw_steps
from monai_tl.report.curve_page import curve_record, format_lines, render_curve_page
from monai_tl.transfer import curve_summary
from monai_tl.transfer.curve_summary import summarise_curve

RULE = BootstrapRule(200, 0.95, 0)
NAMES = ("lp_ft", "scratch")


@pytest.fixture(scope="module")
def findings():
    return make_findings()


def test_means_are_those_of_the_points(findings):
    for name, means in (("lp_ft", PRETRAINED), ("scratch", SCRATCH)):
        line = findings.by_labels[name]
        assert line.budgets == LABELS
        np.testing.assert_allclose(line.dice, means, atol=1e-12)
        assert (line.low < line.dice).all()
        assert (line.dice < line.high).all()


def test_savings_are_read_off_scratchs_curve_by_numpys_interpolation(findings):
    for saving, dice in zip(findings.labels_saved["lp_ft"][:4], PRETRAINED, strict=False):
        expected = 2 ** np.interp(dice, SCRATCH, np.log2(LABELS))
        assert saving.needed == pytest.approx(expected)
        assert saving.factor == pytest.approx(expected / saving.budget)
        assert saving.low <= saving.factor <= (saving.high or math.inf)
    assert [saving.bound for saving in findings.labels_saved["lp_ft"]] == [*["measured"] * 4, "at least", "at least"]
    expected = 2 ** np.interp(0.84, (0.8, 0.85), np.log2((25, 50)))
    assert findings.steps_saved["lp_ft"].budget == pytest.approx(expected)
    assert findings.steps_saved["lp_ft"].factor == pytest.approx(200 / expected)


def test_the_sentences_name_numbers_of_the_curve(findings):
    best = max(findings.labels_saved["lp_ft"], key=lambda saving: saving.low or 0.0)
    assert findings.labels_sentence == f"{best.budget:.0f} labels with lp_ft equal {best.needed:.0f} from scratch"
    assert (
        findings.steps_sentence == f"{findings.steps_saved['lp_ft'].budget:.0f} steps with lp_ft equal 200 from scratch"
    )


def test_where_scratch_never_gets_there_it_is_a_bound():
    found = make_findings(pretrained=(0.86, 0.87, 0.88, 0.88, 0.89, 0.9))
    assert found.labels_sentence == "4 labels with lp_ft beat all 160 from scratch"
    assert found.labels_saved["lp_ft"][0].factor == 40.0
    assert found.labels_saved["lp_ft"][0].high is None


def test_nothing_is_claimed_without_a_saving_or_with_too_few_patients():
    assert "No saving" in make_findings(pretrained=SCRATCH).labels_sentence
    few = make_findings(n_cases=5)
    assert few.labels_sentence == few.steps_sentence == "5 test patients are too few to say what is saved"
    assert {saving.low for saving in few.labels_saved["lp_ft"]} == {None}


def test_a_title_of_one_training_each_says_so():
    one = make_findings(n_seeds=1)
    assert "from scratch, in one training each: other seeds may differ" in one.labels_sentence
    assert "from scratch, in one training each: other seeds may differ" in one.steps_sentence
    assert "one training" not in make_findings().labels_sentence + make_findings().steps_sentence


def _by_steps(pretrained, scratch, n_cases=20):
    """The findings of curves over steps; the labels are those of both curves alike."""
    steps = {
        name: make_group(STEPS, means, name, "steps", n_seeds=1, n_cases=n_cases, spread=0.002)
        for name, means in (("lp_ft", pretrained), ("scratch", scratch))
    }
    return summarise_curve({name: group[-1:] for name, group in steps.items()}, steps, RULE)


def test_the_title_and_arrow_of_steps_end_where_scratch_has_its_last_level():
    """A plateau from 50 steps on, and a dip pooled from 100 on; the start has their Dice at 25 √2."""
    for scratch, ahead, dice, needed, factor in (
        ((0.3, 0.7, 0.7, 0.7), (0.6, 0.8, 0.85, 0.86), 0.7, 50, "1.4"),
        ((0.3, 0.6, 0.82, 0.78), (0.7, 0.9, 0.91, 0.92), 0.8, 100, "2.8"),
    ):
        found = _by_steps(ahead, scratch)
        assert found.steps_sentence.startswith(f"35 steps with lp_ft equal {needed} from scratch")
        *ends, words = curve_figures._arrow(found.steps_told, "steps")
        assert ends == pytest.approx([dice, 25 * math.sqrt(2), needed])
        assert words == f"{factor} × the steps"


@pytest.mark.parametrize(
    ("pretrained", "scratch", "row", "sentence"),
    [
        # scratch has its last level at once; both have; the start never has it; the start alone has it at once
        ((0.6, 0.8, 0.9, 0.95), (0.7,) * 4, ("35", "at most 25", "at most 0.71"), "No saving"),
        ((0.8,) * 4, (0.7,) * 4, ("at most 25", "at most 25", "open"), "No saving"),
        ((0.1, 0.2, 0.3, 0.4), (0.3, 0.5, 0.6, 0.7), ("more than 200", "200", "at most 1"), "lp_ft does not reach"),
        ((0.8, 0.8, 0.9, 0.9), (0.3, 0.5, 0.6, 0.7), ("at most 25", "200", "more than 8"), "25 or fewer steps"),
    ],
)  # fmt: skip
def test_the_table_says_which_number_of_steps_is_a_bound(pretrained, scratch, row, sentence):
    steps = {
        name: [
            make_point(160, budget, name, 0, {f"case-{c}": (mean,) for c in range(20)})
            for budget, mean in zip(STEPS, means, strict=True)
        ]
        for name, means in (("lp_ft", pretrained), ("scratch", scratch))
    }
    found = summarise_curve({name: group[-1:] for name, group in steps.items()}, steps, RULE)
    assert found.steps_sentence.startswith(sentence)
    (shown,) = curve_page._steps_rows(found)
    assert (shown[2], shown[3], shown[4].split(" (")[0]) == row
    record = curve_record(found)["steps"]["saved"]["lp_ft"]
    assert json.loads(json.dumps(record, allow_nan=False)) == record
    assert (record["factor"] is None) == (row[2] == "open")


@pytest.mark.parametrize("n_seeds", [1, 2, 3])
def test_one_curve_under_two_names_saves_nothing(n_seeds):
    """Random means, with plateaus, dips, zeros, and those that titles were once made of."""
    generator = np.random.default_rng([3, n_seeds])
    means = [(0.84,) * 4, (0.0,) * 4, (0.6, 0.8, 0.86, 0.84), (0.4, 0.75, 0.65, 0.8), (0.6, 0.84, 0.86, 0.82)]
    means += [tuple(generator.uniform(0.0, 1.0, 4).round(digits)) for digits in (1, 1, 1, 2, 2, 9, 9, 9)]
    means += [tuple(np.sort(generator.uniform(0.0, 1.0, 4))) for _ in range(4)]
    for place, (over_labels, over_steps) in enumerate(zip(means, reversed(means), strict=True)):
        groups = {}
        for axis, budgets, each in (("labels", (4, 8, 16, 32), over_labels), ("steps", STEPS, over_steps)):
            ease = generator.normal(0.0, 0.05 * (place % 2), 12)
            scratch = [
                make_point(*((budget, 200) if axis == "labels" else (32, budget)), "scratch", seed, {
                    f"case-{c}": (float(np.clip(mean + ease[c] + generator.normal(0.0, 0.01), 0.0, 1.0)) * (mean > 0),)
                    for c in range(12)
                })
                for budget, mean in zip(budgets, each, strict=True)
                for seed in range(n_seeds)
            ]  # fmt: skip
            groups[axis] = {name: [one.model_copy(update={"strategy": name}) for one in scratch] for name in NAMES}
        found = summarise_curve(groups["labels"], groups["steps"], RULE)
        assert (found.labels_told, found.steps_told) == (None, None), (over_labels, over_steps)
        assert found.labels_sentence.startswith("No saving of labels")
        assert found.steps_sentence.startswith("No saving of steps")
        saving = found.steps_saved["lp_ft"]
        assert saving.bound == "at most" or saving.factor == pytest.approx(1.0)


def test_a_factor_above_one_by_rounding_is_no_saving():
    some = make_findings().labels_saved["lp_ft"][0]
    for low, is_told in ((1.0, False), (math.nextafter(1.0, 2.0), False), (1.0 + 1e-12, False), (1.001, True)):
        told = curve_summary._best({"lp_ft": [replace(some, low=low)]})
        assert (told is not None) == is_told


@pytest.mark.slow
def test_among_many_equal_strategies_the_best_is_seldom_called_a_saving():
    """Four strategies that are scratch by another name, patients drawn anew; 5 % is promised over all 12 savings.

    Titles from the single intervals claimed a saving in a quarter of such trials."""
    budgets, n_cases, n_trials = (4, 8, 16, 32), 16, 120
    generator = np.random.default_rng(0)
    claims = 0
    for trial in range(n_trials):
        ease = generator.normal(0, 0.06, n_cases)

        def points(strategy, ease=ease):
            return [
                make_point(n, 200, strategy, 0, {
                    f"case-{c}": (float(0.4 + 0.07 * np.log2(n) + ease[c] + generator.normal(0, 0.03)),) * 2
                    for c in range(n_cases)
                })
                for n in budgets
            ]  # fmt: skip

        groups = {name: points(name) for name in ("a", "b", "c", "d", "scratch")}
        last = {name: group[-1:] for name, group in groups.items()}
        found = summarise_curve(groups, last, BootstrapRule(1000, 0.95, trial))
        claims += "No saving" not in found.labels_sentence
    assert claims / n_trials <= 0.05 + 3 * math.sqrt(0.05 * 0.95 / n_trials)


def test_a_class_that_only_some_points_find_counts_for_all_of_them():
    """Case b lacks the tumour: who predicts nothing there is right (1), who predicts some is wrong (0)."""
    cases = {"a": (0.8, 0.6), "b": (0.9, None)}
    one = make_point(4, 10, "scratch", 0, cases)
    wrong = make_point(8, 10, "scratch", 0, {"a": (0.8, 0.6), "b": (0.9, 0.0)})
    group = {"scratch": [one, wrong]}
    line = summarise_curve(group, {"scratch": [one]}, RULE).by_labels["scratch"]
    assert line.dice.tolist() == pytest.approx([(0.7 + 0.95) / 2, (0.7 + 0.45) / 2])
    # undefined everywhere: left out everywhere
    right = make_point(8, 10, "scratch", 0, cases)
    line = summarise_curve({"scratch": [one, right]}, {"scratch": [one]}, RULE).by_labels["scratch"]
    assert line.dice.tolist() == pytest.approx([(0.7 + 0.9) / 2] * 2)


def test_points_of_other_test_cases_or_one_patient_are_refused():
    one = make_point(4, 10, "scratch", 0, {"a": (0.8, 0.6), "b": (0.9, 0.5)})
    other = make_point(8, 10, "scratch", 0, {"a": (0.8, 0.6), "c": (0.9, 0.5)})
    with pytest.raises(DataError, match="different cases"):
        summarise_curve({"scratch": [one, other]}, {"scratch": [one]}, RULE)
    alone = make_point(4, 10, "scratch", 0, one.dice, patients={"a": "p", "b": "p"})
    with pytest.raises(DataError, match="two test patients"):
        summarise_curve({"scratch": [alone]}, {"scratch": [alone]}, RULE)


def test_without_scratch_there_are_lines_and_no_savings():
    one = make_point(4, 10, "full", 0, {"a": (0.8, 0.6), "b": (0.9, 0.5)})
    found = summarise_curve({"full": [one]}, {"full": [one]}, RULE)
    assert found.labels_saved == found.steps_saved == {}
    assert "Labels saved" not in render_curve_page(found, draw_labels(found)["svg"], draw_steps(found)["svg"])


def test_tables_and_metrics_hold_the_lines(findings):
    rows = list(csv.DictReader(io.StringIO(format_lines(findings.by_labels, "labels"))))
    assert [(int(row["labels"]), row["strategy"]) for row in rows] == [
        (n, name) for name in ("lp_ft", "scratch") for n in LABELS
    ]
    assert [float(row["dice"]) for row in rows] == pytest.approx([*PRETRAINED, *SCRATCH], abs=1e-6)
    record = curve_record(findings)
    assert json.loads(json.dumps(record, allow_nan=False)) == record
    assert record["labels"]["saved"]["lp_ft"]["160"]["high"] is None
    assert record["labels"]["dice"]["scratch"]["8"]["mean"] == pytest.approx(0.48)


def test_figures_are_whole_and_the_same_each_time(findings):
    for draw in (draw_labels, draw_steps):
        first, second = draw(findings), draw(make_findings())
        assert first == second
        root = ElementTree.fromstring(first["svg"])
        assert root.tag.endswith("svg")
        text = first["svg"].decode()
        assert COLOURS[0] in text
        assert SCRATCH_COLOUR in text
        assert first["png"].startswith(b"\x89PNG")
        width, height = struct.unpack(">II", first["png"][16:24])
        assert width > 1000 < 3 * height


@pytest.mark.parametrize("n_seeds", [1, 3])
def test_nothing_of_a_figure_is_cut_off(n_seeds):
    found = make_findings(n_seeds=n_seeds)
    for draw in (draw_labels, draw_steps):
        pixels = imread(io.BytesIO(draw(found)["png"]))
        assert pixels.min() < 0.5
        for edge in (pixels[:, -8:], pixels[:, :8], pixels[:8], pixels[-8:]):
            assert (edge[..., :3] == 1.0).all()


def _shown_beside_the_arrow(draw, found, monkeypatch, things):
    monkeypatch.setitem(curve_figures._STYLE, "svg.fonttype", "none")
    texts = [element.text or "" for element in ElementTree.fromstring(draw(found)["svg"]).iter()]
    return [text for text in texts if text.endswith(f"the {things}")]


@pytest.mark.parametrize("pretrained", [PRETRAINED, (0.86, 0.87, 0.88, 0.88, 0.89, 0.9), SCRATCH])
def test_the_arrow_shows_the_saving_of_the_sentence(pretrained, monkeypatch):
    found = make_findings(pretrained=pretrained)
    for draw, told, sentence, things in (
        (draw_labels, found.labels_told, found.labels_sentence, "labels"),
        (draw_steps, found.steps_told, found.steps_sentence, "steps"),
    ):
        shown = _shown_beside_the_arrow(draw, found, monkeypatch, things)
        if "No saving" in sentence or "does not reach" in sentence:
            assert (told, shown) == (None, [])
            continue
        name, saving = told
        assert f"{saving.budget:.0f}" in sentence
        assert name in sentence
        ratio = (200 if things == "steps" else saving.needed) / saving.budget
        more = "more than " if "beat all" in sentence or "or fewer" in sentence else ""
        assert shown == [f"{more}{ratio:.2g} × the {things}"]


def test_what_may_be_any_smaller_is_not_told(monkeypatch):
    """Where a curve does not reach the other's Dice the factor is only bounded from above."""
    labels, steps = curve_summary.labels_saved, curve_summary.steps_saved
    bounded = {
        "labels_saved": lambda *given: tuple(replace(one, bound="at most") for one in labels(*given)),
        "steps_saved": lambda *given: replace(steps(*given), bound="at most", budget_bound="at least"),
    }
    for name, one in bounded.items():
        monkeypatch.setattr(curve_summary, name, one)
    found = make_findings()
    assert max(one.low or 0.0 for one in (*found.labels_saved["lp_ft"], found.steps_saved["lp_ft"])) > 1.0
    assert (found.labels_told, "No saving" in found.labels_sentence) == (None, True)
    assert (found.steps_told, "does not reach" in found.steps_sentence) == (None, True)
    assert _shown_beside_the_arrow(draw_labels, found, monkeypatch, "labels") == []
    assert _shown_beside_the_arrow(draw_steps, found, monkeypatch, "steps") == []


def test_the_page_needs_nothing_else_and_shows_each_saving(findings):
    page = render_curve_page(findings, draw_labels(findings)["svg"], draw_steps(findings)["svg"])
    assert page.count("<svg") == 2
    assert not re.search(r"<script|<link|<img|https?://(?!www\.w3\.org)", page)
    ids = re.findall(r' id="([^"]+)"', page)
    doubled = {one for one in ids if ids.count(one) > 1}
    bodies = {one: set(re.findall(rf'<[^<>]* id="{re.escape(one)}"[^<>]*>', page)) for one in doubled}
    # the same glyph or mark in both figures
    assert all(len(found) == 1 for found in bodies.values())
    for saving in findings.labels_saved["lp_ft"]:
        word = "more than " if saving.bound == "at least" else ""
        assert f'<td class="num">{word}{saving.needed:.0f}</td>' in page
    assert "or more" in page
    # as the report: any screen, light or dark, and nothing that could run or be fetched
    for part in ("width=device-width", "prefers-color-scheme: dark", "default-src 'none'"):
        assert part in page


def colour_blind(colour: str) -> np.ndarray:
    """sRGB as seen without green receptors, linear light (Viénot, Brettel & Mollon 1999)."""
    rgb = np.array([int(colour[k : k + 2], 16) / 255 for k in (1, 3, 5)])
    linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
    matrix = np.array([[0.29275, 0.70725, 0.0], [0.29275, 0.70725, 0.0], [-0.02234, 0.02234, 1.0]])
    return matrix @ linear


def test_colours_differ_without_green_receptors():
    seen = [colour_blind(colour) for colour in (*COLOURS[:3], SCRATCH_COLOUR)]
    distances = [math.dist(a, b) for k, a in enumerate(seen) for b in seen[:k]]
    assert min(distances) > 0.1
