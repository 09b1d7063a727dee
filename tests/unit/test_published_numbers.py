"""metrics.json keeps to its schema, and the model card says the same."""

from __future__ import annotations

import json
from dataclasses import replace
from importlib.resources import files

import jsonschema
import pytest
from test_certainty import known
from test_lesion_summary import of_one_lesion
from test_report import RULE, arm, make_findings
from test_report_tables import _grouped

from monai_tl.config import EvaluateConfig
from monai_tl.looks import Look
from monai_tl.metrics.lesion_summary import summarise_lesions
from monai_tl.report.more_tables import markdown_more
from monai_tl.report.numbers import metrics_record
from monai_tl.report.page import render_page
from monai_tl.sources.evaluation_text import describe_evaluation
from monai_tl.verdict_words import say_verdict

SCHEMA = json.loads(files("monai_tl.report").joinpath("metrics.schema.json").read_text(encoding="utf-8"))
LOOK = Look(number=3, test_set="0" * 64, models={}, models_sha256="1" * 64, by="evaluate")


def _record(**changes):
    return json.loads(json.dumps(metrics_record(replace(_grouped("b"), look=LOOK, **changes))))


def test_the_schema_is_one_and_what_is_written_keeps_to_it() -> None:
    jsonschema.Draft202012Validator.check_schema(SCHEMA)
    jsonschema.validate(_record(), SCHEMA)
    alone = make_findings((arm("transfer", 0.9, 0.8),))
    jsonschema.validate(json.loads(json.dumps(metrics_record(replace(alone, verdict=None, on_test=False)))), SCHEMA)


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("evaluated_on",), "training"),
        (("arms", "transfer", "dice", "mean"), "0.9"),
        (("arms", "transfer", "classes", "liver", "dice", "n"), -1),
        (("verdict", "verdict"), "maybe"),
        (("models", "transfer-0-0"), "abc"),
        (("new",), 1),
    ],
)
def test_the_schema_refuses_what_is_not_written(path: tuple[str, ...], value: object) -> None:
    record = _record()
    at = record
    for key in path[:-1]:
        at = at[key]
    at[path[-1]] = value
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(record, SCHEMA)


def _full():
    """With calibration, uncertainty, lesions and licences."""
    calibration, uncertainty = known()
    settings = EvaluateConfig(lesions=("liver",), data_licence="CC BY 4.0", data_citation="A | B, 2026")
    found = {name: {"liver": summarise_lesions(of_one_lesion(), 0, RULE)} for name in ("transfer", "scratch")}
    return replace(
        _grouped("b"),
        calibration={"transfer": calibration},
        uncertainty={"transfer": uncertainty},
        lesions=found,
        settings=settings,
    )


def test_page_record_and_card_tell_the_same_of_certainty_lesions_and_licences() -> None:
    findings = _full()
    record = json.loads(json.dumps(metrics_record(findings)))
    jsonschema.validate(record, SCHEMA)
    page, card = render_page(findings), describe_evaluation(record, "transfer")
    ece = f"{record['calibration']['transfer']['before']['ece']:.3f}"
    area = f"{record['uncertainty']['transfer']['area']:.3f}"
    for words in (ece, area, "1.70", "CC BY 4.0", record["provenance"]["data"]["sha256"]):
        assert words in page, words
        assert words in card, words
    assert "Lesion by lesion" in page
    summary = markdown_more(findings)
    rows = [line for line in summary.splitlines() if line.startswith("| transfer |")]
    assert [row.count("|") for row in rows] == [9, 6, 7]
    assert ece in rows[1]
    assert area in rows[2]
    assert markdown_more(_grouped("b")) == ""
    assert "liver, lesion by lesion (1 of them): sensitivity 1.00" in card
    assert "A \\| B, 2026" in card
    assert [row["n_voxels"] for row in record["calibration"]["transfer"]["before"]["bins"]] == [400]
    assert "set evaluate.data_licence" in render_page(_grouped("b"))


def test_the_card_tells_verdict_means_and_limits() -> None:
    record = _record()
    text = describe_evaluation(record, "transfer")
    assert say_verdict(record["verdict"]) in text
    (row,) = [line for line in text.splitlines() if line.startswith("| all |")]
    cells = [cell.strip() for cell in row.strip("|").split("|")]
    dice = record["arms"]["transfer"]["dice"]
    assert float(cells[1].split()[0]) == pytest.approx(dice["mean"], abs=5e-4)
    assert cells[-3:] == ["3", "0", "0"]
    header = next(line for line in text.splitlines() if line.startswith("| class"))
    assert header.count("|") == row.count("|")
    assert "look 3 at this test set" in text
    assert "not a medical device" in text
    assert "Groups of too few patients for an interval: site a; site b." in text
    assert "intervals are rough" not in text
    rows = [row | {"low": 0.1, "high": 0.9} for row in record["subgroups"]["transfer"][:1]]
    rough = describe_evaluation(record | {"subgroups": {"transfer": rows}}, "transfer")
    assert "Groups of few patients, whose intervals are rough: site a." in rough
    assert "too few patients for an interval" not in rough
    assert "validation cases" not in text
    assert "validation cases" in describe_evaluation(record | {"evaluated_on": "validation"}, "transfer")


def test_the_rules_stand_beside_the_numbers_and_in_the_card() -> None:
    settings = EvaluateConfig(surface_tolerance_mm=3.5, n_bootstrap=250, confidence=0.9, null_margin=0.04, seed=7)
    record = _record(settings=settings)
    rules = {"surface_tolerance_mm": 3.5, "n_bootstrap": 250, "confidence": 0.9, "null_margin": 0.04}
    rules |= {"bootstrap_seed": 7, "lesion_connectivity": 26, "lesion_detection_iou": 0.1, "lesion_panoptic_iou": 0.5}
    assert record["rules"] | rules == record["rules"]
    assert "| Surface Dice at 3.5 mm |" in describe_evaluation(record, "transfer")


def test_what_the_page_tells_beside_the_numbers_is_in_the_record_and_the_card() -> None:
    findings = replace(_grouped("b"), look=LOOK)
    record, page = _record(), render_page(findings)
    card = describe_evaluation(record, "transfer")
    counts = ("n_cases", "n_patients", "n_sites", "n_labelled", "n_test_cases", "n_refused")
    assert [record["intake"][name] for name in counts] == [0, 0, 0, 0, 1, 1]
    assert [line["item"] for line in record["contract"]] == [line.item for line in findings.plan.adaptations]
    assert record["audit"]["tensors"] == {"matched": 0, "adapted": 0, "fresh": 1, "unused": 0}
    assert record["limits"]
    for text in record["limits"]:
        assert text.replace("'", "&#39;") in page, text
        assert text in card, text
    assert "| text | text | text | adapted | text |" in card
    assert "refused: text 1" in card
    # the twin has nothing of the source
    assert "The source's contract" not in describe_evaluation(record, "scratch")
    alone = make_findings((arm("scratch", 0.9, 0.8),))
    alone = replace(alone, verdict=None, models=(), plan=alone.plan.model_copy(update={"adaptations": ()}))
    empty = json.loads(json.dumps(metrics_record(alone)))
    jsonschema.validate(empty, SCHEMA)
    assert (empty["audit"], empty["shift"], empty["contract"]) == (None, None, [])


def test_the_schema_names_itself_and_explains_every_field() -> None:
    assert SCHEMA["$id"] == "urn:monai-tl:metrics:1"

    def fields(node: object, path: str) -> list[tuple[str, dict]]:
        if not isinstance(node, dict):
            return []
        own = [(f"{path}.{name}", one) for name, one in node.get("properties", {}).items()]
        return own + [pair for key, part in node.items() for pair in fields(part, f"{path}.{key}")]

    found = fields(SCHEMA, "")
    assert len(found) > 100
    assert [path for path, one in found if len(one.get("description", "")) < 2] == []
