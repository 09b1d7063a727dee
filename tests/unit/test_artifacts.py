"""What the flow makes of a run's reports for the dashboard."""

from __future__ import annotations

import base64
import re
import xml.etree.ElementTree as ElementTree
from pathlib import Path

from flows.artifacts import learning_curves, metric_rows, parse_progress, refused_table


def test_progress_lines_and_others():
    assert parse_progress('@progress {"stage": "ingest", "done": 1, "total": 2, "note": ""}')["done"] == 1
    assert parse_progress("@progress nonsense") is None
    assert parse_progress("@progress [1]") is None
    assert parse_progress("ingest: 1/2") is None


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
    shown, words = refused_table(rows)
    assert shown == rows[-50:]
    assert "the latest 50 of 10000" in words
    assert refused_table(rows[:3]) == (rows[:3], "Studies that were given up, and why")


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
    # left 50, width 560, top 20, height 240; step 100 is the right edge, Dice 1 the upper one
    assert lines == ["330.0,260.0", "330.0,200.0 610.0,20.0"]
