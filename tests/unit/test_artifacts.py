"""What the flow makes of a run's reports for the dashboard."""

from __future__ import annotations

import base64
import json
import re
import xml.etree.ElementTree as ElementTree
from pathlib import Path
from typing import Any

import pytest

from flows import artifacts
from flows.artifacts import (
    learning_curves,
    metric_rows,
    model_place,
    refused_rows,
    refused_table,
    report_address,
    version_place,
)
from monai_tl.records import Rejection, RejectionList


def test_metric_rows_hold_each_arm_and_class():
    summary = {"mean": 0.5, "low": 0.4, "high": 0.6, "n": 3, "n_empty": 1, "n_failed": 2}
    undefined = {**summary, "mean": None, "low": None, "high": None}
    record = {"dice": summary, "surface_dice": summary, "hd95_mm": undefined}
    rows = metric_rows({"arms": {"transfer": {**record, "classes": {"liver": record}}}})
    assert [(row["arm"], row["class"]) for row in rows] == [("transfer", "all"), ("transfer", "liver")]
    assert (rows[0]["dice"], rows[0]["dice low"], rows[0]["dice high"], rows[0]["hd95_mm"]) == (0.5, 0.4, 0.6, None)
    assert (rows[0]["cases"], rows[0]["failed"]) == (3, 2)


def test_the_table_of_refused_studies_does_not_grow_without_end():
    rows = [{"study": f"study-{number}"} for number in range(10_000)]
    shown, words = refused_table(rows, "Studies")
    assert shown == rows[-50:]
    assert words == "Studies (the last 50 of 10000)"
    assert refused_table(rows[:3], "Studies") == (rows[:3], "Studies")


def rejection(item: str, kind: Any, code: str, n_files: int = 1) -> Rejection:
    return Rejection(item=item, kind=kind, code=code, reason="its reason stays where it is", n_files=n_files)


def write_list(path: Path, *listed: Rejection) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    RejectionList(rejected=listed).write(path)


def test_refused_studies_are_told_by_pseudonym_and_code_with_cases_that_could_not_be_prepared(tmp_path: Path):
    assert refused_rows(tmp_path) == []
    write_list(tmp_path / "artifacts/cases/rejected.json", rejection("series-0", "series", "missing_slice", 40))
    write_list(tmp_path / "artifacts/prepared/failed.json", rejection("case-1", "case", "too_large"))
    rows = refused_rows(tmp_path)
    assert rows == [
        {"stage": "ingest", "item": "series-0", "kind": "series", "code": "missing_slice", "n_files": 40},
        {"stage": "preprocess", "item": "case-1", "kind": "case", "code": "too_large", "n_files": 1},
    ]
    # preprocess failed by what it could not prepare: what it had made before is of another run
    write_list(tmp_path / ".monai_tl/preprocess_failed.json", rejection("case-2", "case", "no_foreground"))
    assert [row["item"] for row in refused_rows(tmp_path, "preprocess")] == ["series-0", "case-2"]
    # and so did ingest, after which nothing else ran
    write_list(tmp_path / ".monai_tl/rejected.json", rejection("series-3", "series", "mixed"))
    assert [row["item"] for row in refused_rows(tmp_path, "ingest")] == ["series-3"]
    # that night is over: DVC has brought back outputs of an earlier one, and no stage's code has run
    assert refused_rows(tmp_path) == rows
    assert refused_rows(tmp_path, "evaluate") == rows
    (tmp_path / ".monai_tl/rejected.json").write_text('{"rejected": 1')
    assert refused_rows(tmp_path, "ingest") == []


def test_the_published_table_is_cut_and_holds_no_reason(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    listed = [rejection(f"series-{number:012x}", "series", "damaged") for number in range(70)]
    write_list(tmp_path / "artifacts/cases/rejected.json", *listed)
    published: list[tuple[list[dict[str, Any]], dict[str, str]]] = []
    monkeypatch.setattr(artifacts, "create_table_artifact", lambda rows, **more: published.append((rows, more)))
    artifacts.publish_refused(tmp_path)
    ((rows, more),) = published
    assert [row["item"] for row in rows] == [one.item for one in listed[-50:]]
    assert more["key"] == "refused"
    assert more["description"].endswith("(the last 50 of 70)")
    assert "stays where it is" not in json.dumps(rows)


def test_the_report_is_where_the_environment_says_or_serve_does(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("MONAI_TL_REPORT_URL", "")
    assert report_address(tmp_path) is None
    (tmp_path / ".monai_tl").mkdir()
    (tmp_path / ".monai_tl/server.json").write_text('{"report_url": "http://127.0.0.1:4201/report.html"}')
    # as compose.yaml hands on what nobody has set
    assert report_address(tmp_path) == "http://127.0.0.1:4201/report.html"
    monkeypatch.setenv("MONAI_TL_REPORT_URL", "https://reports.example/liver")
    assert report_address(tmp_path) == "https://reports.example/liver"


def test_the_model_is_told_relative_to_the_workspace_and_a_version_with_its_command(tmp_path: Path):
    workspace = tmp_path / "KANARI/ws"
    assert "`artifacts/export/model`" in model_place(workspace)
    clone = workspace / ".monai_tl/clone"
    assert "`.monai_tl/clone/artifacts/export/model`" in model_place(clone)
    assert "KANARI" not in model_place(workspace) + model_place(clone)
    text = version_place("runs/20260101-0123abcd", "v0.1.2 is the candidate. Look at it.")
    assert "Version `v0.1.2`, branch `runs/20260101-0123abcd`" in text
    assert "`dvc artifacts get . model --rev v0.1.2`" in text
    # without a version there is the branch
    text = version_place("runs/20260101-0123abcd", "")
    assert "no version" in text
    assert "git checkout runs/20260101-0123abcd" in text


def test_the_plot_has_a_line_a_training_and_its_points_are_where_they_belong(tmp_path: Path):
    history = tmp_path / "history.csv"
    assert learning_curves(history) == ""
    history.write_text(
        "arm,fold,seed,step,val_dice,train_loss\n"
        "transfer,0,3,0,,1.0\ntransfer,0,3,50,0.25,\ntransfer,0,3,100,1.0,\nscratch,0,3,50,0.0,\n"
    )
    text = learning_curves(history)
    picture = re.search(r"base64,([A-Za-z0-9+/=]+)\)", text)
    assert picture
    root = ElementTree.fromstring(base64.b64decode(picture[1]))
    lines = [item.get("points") for item in root.iter("{http://www.w3.org/2000/svg}polyline")]
    names = [item.text for item in root.iter("{http://www.w3.org/2000/svg}text")]
    assert {"transfer fold 0 seed 3", "scratch fold 0 seed 3", "Dice", "optimiser steps", "0", "100"} <= set(names)
    # left 50, width 560, top 20, height 240; step 100 is the right edge, Dice 1 the upper one; transfer first
    assert lines == ["330.0,200.0 610.0,20.0", "330.0,260.0"]


def test_arms_have_the_colours_of_the_report(tmp_path: Path) -> None:
    """Blue is the pretrained arm, orange its twin, in whatever order they stand in the file."""
    history = tmp_path / "history.csv"
    history.write_text("arm,fold,seed,step,val_dice\nscratch,0,0,10,0.2\ntransfer,0,0,10,0.5\n")
    picture = base64.b64decode(learning_curves(history).partition("base64,")[2].rstrip(")\n")).decode()
    assert re.findall(r'fill="(#\w+)">(\w+) fold', picture) == [("#0072b2", "transfer"), ("#d55e00", "scratch")]
