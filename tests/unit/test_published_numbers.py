"""metrics.json keeps to its schema, and the model card says the same."""

from __future__ import annotations

import json
from dataclasses import replace
from importlib.resources import files

import jsonschema
import pytest
from test_report import arm, make_findings
from test_report_tables import _grouped

from monai_tl.looks import Look
from monai_tl.report.numbers import metrics_record
from monai_tl.sources.evaluation_text import describe_evaluation

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


def test_the_card_tells_verdict_means_and_limits() -> None:
    record = _record()
    text = describe_evaluation(record, "transfer")
    assert record["verdict"]["sentence"] in text
    (row,) = [line for line in text.splitlines() if line.startswith("| all |")]
    cells = [cell.strip() for cell in row.strip("|").split("|")]
    dice = record["arms"]["transfer"]["dice"]
    assert float(cells[1].split()[0]) == pytest.approx(dice["mean"], abs=5e-4)
    assert cells[-3:] == ["3", "0", "0"]
    header = next(line for line in text.splitlines() if line.startswith("| class"))
    assert header.count("|") == row.count("|")
    assert "look 3 at this test set" in text
    assert "not a medical device" in text
    assert "Groups of too few patients to judge: site a; site b." in text
    assert "validation cases" not in text
    assert "validation cases" in describe_evaluation(record | {"evaluated_on": "validation"}, "transfer")
