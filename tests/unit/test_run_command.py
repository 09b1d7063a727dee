"""What ``monai-tl run`` shows of a flow's output, and what it keeps for its log."""

from __future__ import annotations

import io
import json
import re
from pathlib import Path

import pytest
from rich.console import Console

from monai_tl.commands.run import failure, follow
from monai_tl.commands.run_views import EventView, LiveView, PlainView
from monai_tl.files import write_json
from monai_tl.json_lines import begin_events, end_events
from monai_tl.report.terminal import show_results

OUTPUT = b"""04:05:54 | INFO | Beginning flow run
@outcome {"stage": "ingest", "outcome": "unchanged"}
@outcome {"stage": "finetune@transfer-0-0", "outcome": "running"}
@progress {"stage": "finetune transfer-0-0", "done": 1, "total": 4, "note": "loss 1.0"}
@progress {"stage": "finetune transfer-0-0", "done": 4, "total": 4, "note": "[case] \xc3\xa9"}
@progress broken
@outcome {"stage": "finetune@transfer-0-0", "outcome": "ran"}
monai-tl: predict: no
  second line
"""


def test_plain_lines():
    text, record = io.StringIO(), io.StringIO()
    last = follow(io.BytesIO(OUTPUT), PlainView(Console(file=text, width=80)), record)
    assert text.getvalue().splitlines() == [
        "ingest: unchanged",
        "finetune@transfer-0-0: running",
        "finetune@transfer-0-0: 1/4 loss 1.0",
        "finetune@transfer-0-0: 4/4 [case] é",
        "finetune@transfer-0-0: ran",
    ]
    assert "Beginning flow run" in record.getvalue()
    assert "@outcome" not in record.getvalue()
    assert failure(last) == "monai-tl: predict: no\n  second line"
    assert failure(["a", "b"]) == "a\nb"


def test_live_bars_take_any_note():
    text = io.StringIO()
    with LiveView(Console(file=text, force_terminal=True, width=120)) as view:
        follow(io.BytesIO(OUTPUT), view, io.StringIO())
    assert "finetune@transfer-0-0" in text.getvalue()
    assert "4/4" in text.getvalue()


WATCHED = b"""@outcome {"n_steps": 2}
@outcome {"stage": "ingest", "outcome": "running"}
@progress {"stage": "ingest", "done": 1, "total": 2, "note": "refused: localizer", "warning": true}
@progress {"stage": "ingest", "done": 1, "total": 2, "note": "two studies are the same", "message": true}
@outcome {"stage": "ingest", "outcome": "ran"}
@outcome {"stage": "finetune", "outcome": "running"}
@progress {"stage": "finetune", "done": 7, "total": 40, "note": "", "epoch": [1, 4, 7, 10]}
@progress {"stage": "finetune", "done": 10, "total": 40, "note": "x", "loss": 0.5, "dice": 0.25, "best_dice": 0.5}
@progress {"stage": "finetune", "done": 11, "total": 40, "note": "", "loss": 0.5, "dice": 0.25, "best_dice": 0.5}
"""


def test_bars_of_the_run_the_step_and_the_epoch_with_the_validation_dice():
    text = io.StringIO()
    with LiveView(Console(file=text, force_terminal=True, width=140, color_system=None)) as view:
        follow(io.BytesIO(WATCHED), view, io.StringIO())
    shown = text.getvalue()
    assert re.search(r"stages +\S+ +1/2", shown)
    assert re.search(r"finetune .* 11/40 .*loss 0\.500  Dice 0\.250  best 0\.500", shown)
    assert re.search(r"epoch 1/4 .* 7/10", shown)
    assert "ingest: refused: localizer" in shown


def test_a_log_of_a_run_has_warnings_remarks_and_scores():
    text = io.StringIO()
    follow(io.BytesIO(WATCHED), PlainView(Console(file=text, width=80)), io.StringIO())
    # the seventh of forty steps is a further tenth; the eleventh is none, and its score was told before
    assert text.getvalue().splitlines() == [
        "ingest: running",
        "warning: ingest: 1/2 refused: localizer",
        "ingest: two studies are the same",
        "ingest: ran",
        "finetune: running",
        "finetune: 7/40",
        "finetune: 10/40 x",
    ]


def test_json_lines_of_a_run(capsys):
    begin_events()
    try:
        follow(io.BytesIO(WATCHED), EventView(), io.StringIO())
    finally:
        end_events()
    found = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [one["event"] for one in found] == [
        "plan", "step", "progress", "message", "step", "step", "progress", "progress", "progress",
    ]  # fmt: skip
    assert found[0] == {"event": "plan", "n_steps": 2}
    assert found[4] == {"event": "step", "step": "ingest", "outcome": "ran"}
    assert found[3] == {
        "event": "message", "step": "ingest", "stage": "ingest", "text": "two studies are the same", "warning": False,
    }  # fmt: skip
    assert found[7] | {"step": "finetune", "dice": 0.25, "best_dice": 0.5, "done": 10} == found[7]


@pytest.fixture
def finished(tmp_path: Path) -> Path:
    def record(*numbers: float) -> dict[str, object]:
        counts = {"n": 4, "n_empty": 0, "n_failed": 0}
        return {
            name: {"mean": mean, "low": mean - 0.1, "high": mean + 0.1, **counts}
            for name, mean in zip(("dice", "surface_dice", "hd95_mm"), numbers, strict=True)
        }

    classes = {"liver": record(0.9, 0.8, 4.0), "tumour": record(0.5, 0.4, 9.0)}
    metrics = {
        "evaluated_on": "test",
        "n_test_cases": 4,
        "n_test_patients": 3,
        "arms": {
            "transfer": {**record(0.7, 0.6, 6.5), "classes": classes},
            "scratch": {**record(0.6, 0.5, 7.5), "classes": classes},
        },
        "verdict": {
            "verdict": "gain",
            "n_seeds": 1,
            "sentence": "Pretraining helped.",
            "low": 0.05,
            "high": 0.15,
            "confidence": 0.95,
            "n_patients": 3,
        },
        "rejected": {"missing_slice": 2, "localizer": 1},
    }
    write_json(tmp_path / "reports/metrics.json", metrics)
    refused = [("missing_slice", "slice 5 is missing"), ("missing_slice", "slice 3 is missing"), ("localizer", "scout")]
    items = [
        {"item": f"series-{k:012x}", "kind": "series", "code": code, "reason": reason}
        for k, (code, reason) in enumerate(refused)
    ]
    write_json(tmp_path / "artifacts/cases/rejected.json", {"rejected": items})
    write_json(tmp_path / "artifacts/prepared/failed.json", {"rejected": []})
    return tmp_path


def test_results_show_arms_verdict_refusals_and_paths(finished):
    text = io.StringIO()
    show_results(finished, Console(file=text, width=140))
    shown = text.getvalue()
    metrics = json.loads((finished / "reports/metrics.json").read_text())
    dice = metrics["arms"]["transfer"]["dice"]
    assert f"{dice['mean']:.3f} ({dice['low']:.3f} to {dice['high']:.3f})" in shown
    assert "0.700 (0.600 to 0.800)" in shown
    assert "Verdict: Pretraining helped (95 % interval +0.050 to +0.150, 3 patients, one seed)." in shown
    for code, count in metrics["rejected"].items():
        assert any(code in line and str(count) in line for line in shown.splitlines())
    assert str(finished / "reports/report.html") in shown.replace("\n", "")
    assert str(finished / "artifacts/export/seg") in shown.replace("\n", "")


def test_what_was_forgotten_is_told_where_it_was_measured(finished):
    text = io.StringIO()
    show_results(finished, Console(file=text, width=140))
    assert "own task" not in text.getvalue()
    metrics = json.loads((finished / "reports/metrics.json").read_text())
    write_json(finished / "reports/metrics.json", metrics | {"forgetting": {"sentence": "Forgotten: half of it."}})
    show_results(finished, Console(file=text, width=140))
    assert "The source's own task: Forgotten: half of it." in text.getvalue()


def test_undefined_numbers_are_dashes(finished):
    metrics = json.loads((finished / "reports/metrics.json").read_text())
    metrics["arms"]["scratch"]["dice"] |= {"mean": None, "low": None, "high": None}
    metrics["verdict"] = None
    write_json(finished / "reports/metrics.json", metrics)
    write_json(finished / "artifacts/cases/rejected.json", {"rejected": []})
    text = io.StringIO()
    show_results(finished, Console(file=text, width=140))
    assert "–" in text.getvalue()
    assert "Nothing was refused." in text.getvalue()
    assert "Verdict" not in text.getvalue()
