"""What all benchmarks rely on: a peer that fails leaves a remark, a part of a section never replaces the whole."""

from __future__ import annotations

import os
import subprocess
import sys
from functools import partial
from operator import truediv
from pathlib import Path

import pytest

from benchmarks import __main__ as command
from benchmarks import common, engine
from benchmarks.common import Contestant, contestant, goals, table, take_turns, verdict

ROOT = Path(__file__).parents[2]


def test_a_contestant_that_fails_is_a_remark_in_its_row_and_the_others_go_on() -> None:
    # each prepares, in a process of its own, what a turn does: the first gives 0.5, as seconds
    contestants = [
        contestant("ours", "ours", partial, float, "0.5"),
        contestant("never ready", "peer", truediv, 1, 0),
        contestant("fails at work", "other", partial, truediv, 1, 0),
        contestant("is ended", "peer", partial, os._exit, 3),
        contestant("twice as long", "peer", partial, float, "1.0"),
    ]
    times = take_turns(contestants, 2)
    assert times == {"ours": [0.5, 0.5], "twice as long": [1.0, 1.0]}
    rows = {line.split(" | ")[0].strip("| *"): line for line in table(contestants, times).splitlines()}
    assert "failed: ZeroDivisionError: division by zero" in rows["never ready"]
    assert "failed: ZeroDivisionError: division by zero" in rows["fails at work"]
    assert "failed: EOFError" in rows["is ended"]
    assert verdict(contestants, times) == "- Faster than twice as long: 0.50 of its time."
    said = goals(contestants, times, {"twice as long": 3.0, "never ready": 2.0}).splitlines()
    assert said[0] == "- **Not met**: 2.00 times twice as long (goal: 3)."
    assert said[1].startswith("- never ready: failed: ZeroDivisionError")


@pytest.mark.parametrize("role", ["ours", "limit"])
def test_without_what_all_are_compared_with_nothing_is_measured(role: common.Role) -> None:
    with pytest.raises(RuntimeError, match="division by zero"):
        contestant("needed", role, truediv, 1, 0)


def test_each_absent_peer_is_told_how_it_is_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(common, "find_spec", lambda _: None)
    monkeypatch.setattr(engine, "find_spec", lambda _: None)
    assert "'.[bench]'" in contestant("DeepMind", "peer", float, needs="surface_distance").remark
    # the extra does not bring it
    assert "docs/decisions/0002-dependencies.md" in contestant("nnU-Net", "peer", float, needs="nnunetv2").remark
    assert "pip install --no-deps" in (ROOT / "docs/decisions/0002-dependencies.md").read_text()


@pytest.mark.parametrize("parts", ["samples", ""])
def test_a_part_of_the_engine_is_printed_and_results_keep_the_whole(
    parts: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    results = tmp_path / "RESULTS.md"
    whole = "# Benchmarks\n\n<!-- engine -->\nall parts\n<!-- /engine -->\n\nafter\n"
    results.write_text(whole)
    monkeypatch.setattr(common, "RESULTS", results)
    monkeypatch.setattr(engine, "run", lambda _: ["what was measured"])
    monkeypatch.setattr(sys, "argv", ["benchmarks", "engine"])
    monkeypatch.setenv("MONAI_TL_BENCH_PARTS", parts)
    command.main()
    assert "what was measured" in capsys.readouterr().out
    if parts:
        assert results.read_text() == whole
    else:
        assert "all parts" not in results.read_text()
        assert "what was measured" in results.read_text()
        assert results.read_text().endswith("<!-- /engine -->\n\nafter\n")


def test_a_part_that_does_not_exist_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MONAI_TL_BENCH_PARTS", "samples,sample")
    with pytest.raises(SystemExit, match="no part is called sample; there are samples, presets, features, preparing"):
        engine.run(quick=True)


def test_without_a_gpu_its_benchmark_says_so_and_does_nothing() -> None:
    environment = {**os.environ, "CUDA_VISIBLE_DEVICES": "", "PYTHON": sys.executable}
    done = subprocess.run(["bash", ROOT / "benchmarks/gpu.sh"], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "no GPU here" in done.stdout
    for line in done.stdout.splitlines():
        assert "Traceback" not in line


def test_a_section_of_the_gpu_is_not_that_of_the_processor(monkeypatch: pytest.MonkeyPatch) -> None:
    assert "engine_gpu" in command.HOURS
    said = common.section("engine_gpu", "The engine", [], ["torch"])
    assert "python -m benchmarks engine_gpu`" in said
    torch = pytest.importorskip("torch")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "A GPU of some name")
    assert "A GPU of some name" in common.section("engine_gpu", "The engine", [], ["torch"])


def test_turns_that_are_absent_have_no_seconds() -> None:
    absent = Contestant("absent", "peer", None)
    ours = Contestant("ours", "ours", lambda: 2.0)
    assert take_turns([ours, absent], 2) == {"ours": [2.0, 2.0]}
