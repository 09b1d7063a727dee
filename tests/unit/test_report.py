"""Parts of the report: numbers as text, rows, pictures, escaping."""

from __future__ import annotations

import math
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from monai_tl.config import EvaluateConfig, IntensityConfig, NetworkConfig
from monai_tl.labels import ClassSpec, LabelScheme
from monai_tl.metrics.case import ClassScore
from monai_tl.metrics.cohort import ArmResult, BootstrapRule, CaseResult, summarise_arm
from monai_tl.records import Adaptation, Audit, Plan, Rejection, Shift, ShiftFeature, Split, TensorAudit
from monai_tl.report.audit_table import group_rows, size_in_words
from monai_tl.report.choice import DECIDED_FROM, choices
from monai_tl.report.figures import box_plots
from monai_tl.report.findings import Failure, Findings, HistoryPoint, TrainedModel
from monai_tl.report.overlays import choose_cases, display_window, draw_planes
from monai_tl.report.page import render_page, split_headline
from monai_tl.report.tables import markdown_summary, number, percent, rejection_rows, signed, thousands
from monai_tl.scoring import judge_arms
from monai_tl.sources.accounting import describe_audit
from monai_tl.sources.card import Card
from monai_tl.transfer.recommend import recommend

HOSTILE = "<script>alert('x')</script>"
RULE = BootstrapRule(300, 0.95, 0)


def result(case: str, *dices: float, failed: bool = False) -> CaseResult:
    scores = tuple(ClassScore(dice, dice, math.nan if math.isnan(dice) else 5.0, 10.0, 9.0) for dice in dices)
    return CaseResult(case, f"patient of {case}", scores, failed)


def arm(name: str, *values: float, names: tuple[str, ...] = ("liver",)) -> ArmResult:
    cases = [result(f"case-{index}", *[value] * len(names)) for index, value in enumerate(values)]
    return summarise_arm(name, {0: cases}, names, RULE)


def make_findings(arms: tuple[ArmResult, ...], names: tuple[str, ...] = ("liver",), text: str = "text") -> Findings:
    plan = Plan(
        modality="CT", n_channels=1, scheme=LabelScheme(classes=(ClassSpec(name="liver"),)), spacing_mm=(1.0, 1.0, 1.0),
        intensity=IntensityConfig(rule="zscore"), patch_size_vox=(8, 8, 8), network=NetworkConfig(name="net"),
        source=f"sources/{text}",
        adaptations=(Adaptation(item=text, source=text, target=text, status="adapted", reason=text),),
    )  # fmt: skip
    audit = Audit(
        source=text, source_sha256=None, share_body=1.0, share_all=1.0, groups={}, notes=(text,),
        tensors=(TensorAudit(name=text, group=text, n_parameters=10, status="fresh", detail=text),),
    )  # fmt: skip
    card = Card.model_validate(
        {"name": "card", "network": {"name": "net", "n_channels": 1, "n_outputs": 2}, "licence": text, "citation": text,
         "weights": {"file": "weights.safetensors", "sha256": "0" * 64}, "classes": ["liver"],
         "input": {"modality": "CT", "channels": ["CT"], "orientation": "RAS", "spacing_mm": [1, 1, 1],
                   "intensity": {"rule": "zscore"}}}
    )  # fmt: skip
    history = (HistoryPoint(1, text, 1.0, None), HistoryPoint(2, text + "2", 0.5, 0.7))
    return Findings(
        class_names=names,
        settings=EvaluateConfig(),
        on_test=True,
        arms=arms,
        verdict=judge_arms(arms, RULE, 0.01),
        cases=(),
        rejections=(Rejection(item=text, kind="series", code=text, reason=text),),
        failures=(Failure("transfer", 0, text, text),),
        split=Split(test=("case-0",), folds=()),
        plan=plan,
        models=(TrainedModel("transfer", 0, 0, audit, history, {"strategy": text, "versions": {text: text}}, card),),
        overlays=(),
        evaluation_code="0" * 64,
    )


def test_hostile_text_is_shown_and_not_run() -> None:
    names = (HOSTILE,)
    arms = (arm("transfer", 0.9, 0.8, 0.7, names=names), arm("scratch", 0.5, 0.6, 0.4, names=names))
    page = render_page(make_findings(arms, names, HOSTILE))
    assert "<script" not in page
    assert page.count("&lt;script&gt;") > 15
    summary = markdown_summary(make_findings(arms, names, HOSTILE + "|x"))
    assert "<script" not in summary
    rows = [line for line in summary.splitlines() if line.startswith("| ")]
    assert all(len(re.findall(r"(?<!\\)\|", row)) in {5, 7} for row in rows)


def test_an_accepted_broken_contract_stands_at_the_top_and_the_shift_in_a_table() -> None:
    findings = make_findings((arm("transfer", 0.9, 0.8, 0.7), arm("scratch", 0.5, 0.6, 0.4)))
    assert "accepted" not in render_page(findings)
    assert "How far these cases lie" not in render_page(findings)
    reason = f"a case has 14% {HOSTILE}|"
    broken = Adaptation(
        item="field of view", source="256", target="36", status="broken", reason=reason, advice="x", accepted=True
    )
    features = (
        ShiftFeature(name="voxel size R-L", source=1.0, target=4.0, unit="mm", measure="log2 ratio", distance=2.0),
        ShiftFeature(
            name="volume", source=None, target=None, unit="ml", measure="log2 ratio", distance=None, note=HOSTILE
        ),
    )
    shift = Shift(score=2.0, largest="voxel size R-L", basis="fingerprint", features=features)
    plan = findings.plan.model_copy(update={"adaptations": (broken,), "shift": shift, "notes": ("a note",)})
    told = replace(findings, plan=plan)
    page = render_page(told)
    header = page[page.index("<header") : page.index("</header>")]
    assert "The source&#39;s contract is broken in its field of view, and params.yaml accepts this" in header
    assert "Each mismatch was adapted on purpose" not in page
    assert '<td class="num">4 mm</td><td class="num">2.00</td><td class="small">a factor of 4</td>' in page
    # what is not known is a dash, not a 0
    assert page.count('<td class="num">–</td><td class="small">not known</td>') == 1
    assert "a note" in page
    assert "<script" not in page
    summary = markdown_summary(told)
    assert "contract is broken in its field of view" in summary
    assert "<script" not in summary


@pytest.mark.parametrize("values", [(0.0, 0.0, 0.0), (math.nan, math.nan, math.nan), (1.0, 1.0, 1.0), (0.5,)])
def test_page_is_drawn_at_the_edges(values: tuple[float, ...]) -> None:
    page = render_page(make_findings((arm("transfer", *values), arm("scratch", *values))))
    assert page.count("<svg") >= 2
    assert "nan" not in re.sub(r"[a-z]*nan[a-z]+|[a-z]+nan", "", page.lower())


def test_many_classes_are_drawn() -> None:
    names = tuple(f"organ {index}" for index in range(12))
    page = render_page(
        make_findings((arm("transfer", 0.9, 0.8, 0.7, names=names), arm("scratch", 0.5, 0.6, 0.4, names=names)), names)
    )
    assert all(page.count(name) >= 5 for name in names)


def test_long_names_of_classes_have_room() -> None:
    """In lines where that is enough, else turned: no name lies over its neighbour."""

    def ticks(*names: str) -> tuple[int, set[str], bool]:
        arms = (arm("transfer", 0.9, 0.8, names=names), arm("scratch", 0.5, 0.6, names=names))
        plot = box_plots(arms, names, 2.0)
        height = float(re.search(r'viewBox="0 0 720 ([\d.]+)"', plot)[1])
        return round(height / (3.2 * 72)), set(re.findall(r">([^<>]*)</text>", plot)), "rotate(-30" in plot

    assert ticks("liver", "tumour")[0] == 1
    rows, texts, is_turned = ticks("left ventricle", "right kidney", "gall bladder", "inferior vena cava")
    assert (rows, is_turned) == (3, False)
    assert "inferior vena cava" in texts
    rows, texts, is_turned = ticks(*(f"left adrenal gland {k}" for k in range(10)))
    assert (rows, is_turned) == (3, False)
    assert "left adrenal gland 0" not in texts
    assert ticks(*(f"sternocleidomastoid {k}" for k in range(10)))[::2] == (3, True)


def test_numbers_as_text() -> None:
    assert number(0.12345) == "0.123"
    assert number(-1.26, 1) == "−1.3"
    assert number(None) == number(math.nan) == "–"
    assert signed(0.1) == "+0.100"
    assert signed(-0.1) == "−0.100"
    assert thousands(1234567) == "1\u2009234\u2009567"
    assert (percent(1.0), percent(0.99999), percent(0.5), percent(0.0)) == ("100 %", "99.9 %", "50.0 %", "0 %")


def test_headline_becomes_a_title() -> None:
    assert split_headline("Gain: the pretrained start raised the mean Dice by 0.108.") == (
        "The pretrained start raised the mean Dice by 0.108.", [],
    )  # fmt: skip
    assert split_headline("Null, but undecided: by 0.5. Too small.") == ("Null, but undecided: by 0.5.", ["Too small."])


def test_refusals_are_grouped_and_a_flood_is_cut() -> None:
    many = [
        Rejection(item=f"series-{n:02d}", kind="series", code="gap", reason=f"slice {n} is missing", n_files=2)
        for n in range(9)
    ]
    rows = rejection_rows([Rejection(item="file-1", kind="file", code="not_dicom", reason="no"), *many])
    assert [(row.code, row.n_items, row.n_files) for row in rows] == [("gap", 9, 18), ("not_dicom", 1, 1)]
    assert rows[0].reasons[-1] == "and 6 more"
    assert len(rows[0].items) == 9


def test_layer_groups_keep_the_order_of_the_network(tmp_path: Path) -> None:
    def tensor(name: str, group: str, n: int, status: str) -> TensorAudit:
        return TensorAudit.model_validate({"name": name, "group": group, "n_parameters": n, "status": status})

    audit = Audit(
        source="s", source_sha256=None, share_body=0.75, share_all=0.6, groups={"z": 1.0, "a": 0.75, "head": 0.25},
        tensors=(tensor("1", "z", 30, "matched"), tensor("2", "a", 10, "fresh"), tensor("3", "a", 30, "adapted"),
                 tensor("4", "head", 50, "adapted"), tensor("5", "", 99, "unused")),
    )  # fmt: skip
    rows = group_rows(audit)
    shown = [(row.name, row.matched, row.adapted, row.fresh, row.counts) for row in rows]
    assert shown == [
        ("z", 100, 0, 0, "1 matched"),
        ("a", 0, 75, 25, "1 adapted, 1 fresh"),
        # of the head only some rows are the source's
        ("head", 0, 25, 75, "1 adapted"),
        ("all", 25, 35, 40, "1 matched, 2 adapted, 1 fresh"),
    ]
    # files are written with sorted keys; the order, and which group is the head, must outlive that
    audit.write(tmp_path / "audit.json")
    again = Audit.read(tmp_path / "audit.json")
    assert list(again.groups) == ["z", "a", "head"]
    assert group_rows(again) == rows
    assert describe_audit(again) == describe_audit(audit)
    assert describe_audit(again).startswith("75.0 % of the body's 70 parameters")


def test_sizes_in_words() -> None:
    sizes = [size_in_words(n) for n in (0, 999, 1000, 1_996_000, 3_000_000_000, 5_000_000_000_000)]
    assert sizes == ["0 B", "999 B", "1.0 kB", "2.0 MB", "3.0 GB", "5000.0 GB"]


def test_worst_median_and_best() -> None:
    cases = [result("a", 0.5), result("b", 0.9), result("c", 0.7), result("d", 0.2), result("e", 0.0, failed=True)]
    cases.append(result("f", math.nan))
    chosen = choose_cases(summarise_arm("transfer", {0: cases}, ("liver",), RULE))
    assert chosen == [("Worst case", "d"), ("Median case", "a"), ("Best case", "b")]
    assert choose_cases(summarise_arm("transfer", {0: cases[:2]}, ("liver",), RULE)) == [
        ("Worst case", "a"),
        ("Best case", "b"),
    ]
    assert choose_cases(summarise_arm("transfer", {0: cases[:1]}, ("liver",), RULE)) == [("The only case", "a")]
    assert choose_cases(summarise_arm("transfer", {0: cases[4:]}, ("liver",), RULE)) == []


def test_window_is_the_plans_or_the_cases() -> None:
    image = np.arange(1001, dtype=np.int16).reshape(7, 11, 13)
    assert display_window(image, IntensityConfig(rule="window", low=-160, high=240)) == (-160, 240)
    assert display_window(image, IntensityConfig(rule="zscore")) == pytest.approx((10.0, 995.0))
    low, high = display_window(np.zeros((3, 3, 3)), IntensityConfig(rule="minmax"))
    assert high > low


def test_planes_are_radiological_and_in_millimetres() -> None:
    """A block at the patient's right, front and top lies left and up in the axial picture, and has its size in mm."""
    shape, spacing = (40, 40, 20), (2.0, 2.0, 5.0)
    reference = np.zeros(shape, dtype=np.uint8)
    reference[10:30, 10:30, 6:14] = 1
    mark = np.zeros(shape, dtype=np.uint8)
    mark[24:29, 26:29, 10:13] = 1
    image = np.zeros(shape, dtype=np.int16)
    axial, coronal, sagittal = draw_planes(image, reference, {"transfer": mark}, spacing, (0.0, 1.0))
    assert [picture.plane for picture in (axial, coronal, sagittal)] == ["axial", "coronal", "sagittal"]
    assert axial.edges == ("R", "L", "A", "P")
    first = points(axial.outlines[0].path)
    assert np.ptp(first[:, 0]) == pytest.approx(40.0, abs=0.1)
    assert np.ptp(first[:, 1]) == pytest.approx(40.0, abs=0.1)
    tall = points(coronal.outlines[0].path)
    assert np.ptp(tall[:, 1]) == pytest.approx(40.0, abs=0.1)
    side = axial.side_mm
    assert first.mean(axis=0) == pytest.approx([side / 2, side / 2], abs=1.5)
    assert axial.outlines[1].role == "transfer"


def test_mark_at_the_right_front_is_drawn_left_and_up() -> None:
    shape, spacing = (40, 40, 20), (2.0, 2.0, 5.0)
    reference = np.zeros(shape, dtype=np.uint8)
    reference[10:30, 10:30, 6:14] = 1
    mark = np.zeros(shape, dtype=np.uint8)
    mark[24:29, 26:29, 6:9] = 1
    pictures = draw_planes(np.zeros(shape), reference, {"transfer": mark}, spacing, (0.0, 1.0))
    where = points(pictures[0].outlines[1].path).mean(axis=0)
    assert (where < pictures[0].side_mm / 2).all()


def test_empty_reference_is_drawn_around_the_prediction() -> None:
    shape = (20, 20, 20)
    prediction = np.zeros(shape, dtype=np.uint8)
    prediction[2:6, 3:8, 4:9] = 1
    empty = np.zeros(shape, dtype=np.uint8)
    pictures = draw_planes(np.zeros(shape), empty, {"transfer": prediction}, (1.0, 1.0, 1.0), (0.0, 1.0))
    assert pictures[0].outlines[0].path == ""
    assert pictures[0].outlines[1].path.startswith("M")
    assert (
        draw_planes(np.zeros(shape), empty, {"transfer": empty}, (1.0, 1.0, 1.0), (0.0, 1.0))[0].outlines[1].path == ""
    )


def points(path: str) -> np.ndarray:
    return np.array([[float(part) for part in pair.split()] for pair in re.split("[MLZ]", path) if pair])


def test_what_auto_decided_from_is_told() -> None:
    findings = make_findings((arm("transfer", 0.9, 0.8, 0.7), arm("scratch", 0.5, 0.6, 0.4)))
    (model,) = findings.models
    lines = (Adaptation(item="field of view", source="a", target="b", status="broken", reason="c"),)
    decision = recommend(3, lines, 1_234_567, 200, None, fresh_groups=("up1", "up2"))
    assert set(decision.inputs) == set(DECIDED_FROM)
    told = replace(model, training={**model.training, "decision": decision.model_dump(mode="json")})
    (choice,) = choices(replace(findings, models=(told,)))
    assert dict(choice.inputs) == {
        "labelled training cases": "3",
        "parameters of the network": "1\u2009234\u2009567",
        "steps of the budget": "200",
        "shift from the source, 0 is the same": "not known",
        "broken lines of the contract": "field of view",
        "adapted lines of the contract": "–",
        "layer groups that the source lacks": "up1, up2",
        "a part of the head is fresh": "yes",
    }


def test_what_auto_chose_and_why_is_told_once() -> None:
    findings = make_findings((arm("transfer", 0.9, 0.8, 0.7), arm("scratch", 0.5, 0.6, 0.4)))
    assert "chosen by rule" not in render_page(findings)
    (model,) = findings.models
    decision = {"strategy": "lora", "reason": f"few labels {HOSTILE}", "inputs": {}, "settings": {}}
    decided = replace(model, training={**model.training, "decision": decision})
    told = replace(findings, models=(decided, replace(decided, fold=1), replace(model, arm="scratch")))
    page, summary = render_page(told), markdown_summary(told)
    assert page.count("Strategy chosen by rule: lora, because few labels") == 1
    assert summary.count("Strategy chosen by rule: lora, because few labels") == 1
    assert "<script" not in page


def test_what_auto_decided_from_stands_in_a_table_and_is_no_warning() -> None:
    findings = make_findings((arm("transfer", 0.9, 0.8, 0.7), arm("scratch", 0.5, 0.6, 0.4)))
    assert "Why this strategy" not in render_page(findings)
    (model,) = findings.models
    inputs = {
        "n_labels": 12, "n_parameters": 31_000_000, "max_steps": 200, "shift_score": None,
        "contract_broken": [], "contract_adapted": ["spacing", HOSTILE],
    }  # fmt: skip
    decision = {"strategy": "lora", "reason": "few labels", "inputs": inputs, "settings": {"head_steps": 60}}
    other = decision | {"inputs": inputs | {"n_labels": 13}}
    models = tuple(
        replace(model, fold=fold, seed=seed, training={**model.training, "decision": made})
        for fold, made in ((0, decision), (1, other))
        for seed in (3, 4)
    )
    page = render_page(replace(findings, models=models))
    rows = dict(re.findall(r'<th scope="row">([^<]*)</th><td class="num">([^<]*)</td></tr>', page))
    assert rows["parameters of the network"] == "31\u2009000\u2009000"
    assert rows["shift from the source, 0 is the same"] == "not known"
    assert rows["broken lines of the contract"] == "–"
    assert page.count("labelled training cases") == 2
    assert "Fold 0, seeds 3, 4: " in page
    assert "Fold 1, seeds 3, 4: " in page
    assert "<code>finetune.head_steps</code> to 60" in page
    assert "<script" not in page
    # the choice is no fault
    assert '<p class="warn">Strategy chosen' not in page
    assert "<p>Strategy chosen by rule: lora" in page
