"""What a person sees of a command on a terminal, what a log gets, what a program reads, and how Ctrl-C ends it."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import psutil
import pytest
from terminal import CTRL_C, ROOT, TerminalRun, monai_tl

from monai_tl.json_lines import EVENTS

CASES = """
import sys, time
from monai_tl.progress import Progress
import monai_tl.cli as cli
from monai_tl.cli.options import app

@app.command()
def work(seconds: float = 0.0) -> None:
    progress = Progress("work", total=40)
    for number in range(40):
        time.sleep(seconds)
        progress.advance(f"case-{number:02d}" + (" refused: slices" if number == 6 else ""), is_warning=number == 6)
    training = Progress("finetune", total=20)
    training.show("a remark on the weights")
    for step in range(1, 16):
        time.sleep(seconds)
        training.tick(step, (1 + (step - 1) // 5, 4, step - (step - 1) // 5 * 5, 5))
        if step % 5 == 0:
            training.measure(step, f"validation Dice {step / 20:.3f}", loss=1 / step, dice=step / 20, best_dice=0.75)
    training.end()
    print("the result")

@app.command()
def chatter() -> None:
    import logging, warnings
    warnings.warn("a library warns")
    logging.getLogger("library").warning("a library logs")
    print("said")

cli.main()
"""


@pytest.fixture
def program(tmp_path: Path) -> list[str]:
    """The command line with verbs that do nothing but tell of progress, all through the real thing."""
    file = tmp_path / "program.py"
    file.write_text(CASES)
    return [sys.executable, str(file)]


def call(command: list[str], **environment: str) -> subprocess.CompletedProcess[str]:
    base = {key: value for key, value in os.environ.items() if key != "MONAI_TL_PROGRESS"}
    return subprocess.run(
        command, env={**base, "PYTHONPATH": str(ROOT), **environment}, capture_output=True, text=True, check=False
    )


def objects(text: str) -> list[dict[str, Any]]:
    """Each line by itself, with numbers that JSON knows alone."""

    def refuse(word: str) -> None:
        raise AssertionError(word)

    return [json.loads(line, parse_constant=refuse) for line in text.splitlines()]


def test_a_terminal_shows_bars_with_rate_and_remaining_time_and_scores(program: list[str], tmp_path: Path) -> None:
    run = TerminalRun([*program, "work", "--seconds", "0.03"], tmp_path)
    assert run.read_to_end() == 0
    assert "━" in run.text
    assert re.search(r"work +\S+ +\d+/40 +[\d.]+/s +00:0\d", run.text)
    assert re.search(r"finetune .* 15/20 .*loss 0\.067  Dice 0\.750  best 0\.750", run.text)
    assert re.search(r"epoch 2/4 .* \d/5", run.text)
    # above the bars, in full
    assert "work: case-06 refused: slices" in run.text
    assert "finetune: a remark on the weights" in run.text
    # the last bar stands complete, the result is below it, and the cursor is there again
    assert run.text.rstrip().endswith("the result")
    assert re.search(r"✓ work +━+ 40/40", run.text)
    assert run.painted.rfind(b"\x1b[?25h") > run.painted.rfind(b"\x1b[?25l")


def test_results_go_where_they_are_sent_while_the_terminal_shows_bars(program: list[str], tmp_path: Path) -> None:
    run = TerminalRun([*program, "work"], tmp_path, stdout=tmp_path / "results")
    assert run.read_to_end() == 0
    assert (tmp_path / "results").read_text() == "the result\n"
    assert "40/40" in run.text


def test_a_narrow_terminal_takes_no_line_twice(program: list[str], tmp_path: Path) -> None:
    run = TerminalRun([*program, "work"], tmp_path, columns=60)
    assert run.read_to_end() == 0
    frames = run.painted.decode().replace("\r", "\n").split("\n")
    lines = [re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", line) for line in frames]
    assert max(map(len, lines)) <= 60


def test_a_log_gets_few_lines_on_standard_error(program: list[str]) -> None:
    done = call([*program, "work"])
    assert done.stdout == "the result\n"
    lines = done.stderr.splitlines()
    assert lines[0] == "work: 40 to do"
    assert [line for line in lines if line.startswith("work: ")][1:] == [
        f"work: {number}/40 case-{number - 1:02d}" for number in range(4, 41, 4)
    ]
    assert "warning: work: 7/40 case-06 refused: slices" in lines
    assert [line for line in lines if "Dice" in line] == [
        f"finetune: {step}/20 validation Dice {step / 20:.3f}" for step in (5, 10, 15)
    ]
    assert "\x1b" not in done.stderr


def test_slow_work_tells_each_minute_that_it_lives(monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    from monai_tl import progress, progress_views

    progress.use_view(progress_views.FewLines())
    try:
        clock = [1000.0]
        monkeypatch.setattr(progress_views.time, "monotonic", lambda: clock[0])
        work = progress.Progress("slow", total=1000)
        for _ in range(9):
            clock[0] += 25.0
            work.advance()
    finally:
        progress.use_view(None)
    # 25 s a case: told at 75, 150 and 225 s, when 997, 994 and 991 cases are left
    assert capsys.readouterr().err.splitlines() == [
        "slow: 1000 to do",
        "slow: 3/1000 (6.9 h left)",
        "slow: 6/1000 (6.9 h left)",
        "slow: 9/1000 (6.9 h left)",
    ]


def test_json_gives_one_object_a_line_and_nothing_else(program: list[str]) -> None:
    done = call([*program, "work", "--json"])
    found = objects(done.stdout)
    assert {one["event"] for one in found} == {"progress", "message", "text", "end"}
    cases = [one for one in found if one["event"] == "progress" and one["stage"] == "work"]
    assert [one["done"] for one in cases] == list(range(41))
    assert all(one["total"] == 40 for one in cases)
    assert cases[0]["rate_per_s"] is None
    assert cases[20]["rate_per_s"] > 0
    assert cases[-1]["remaining_s"] == 0
    assert [one["note"] for one in cases if one["warning"]] == ["case-06 refused: slices"]
    scores = [one for one in found if one["event"] == "progress" and one.get("dice") is not None]
    assert scores[-1] | {"dice": 0.75, "best_dice": 0.75, "epoch": [3, 4, 5, 5], "done": 15} == scores[-1]
    assert [one["text"] for one in found if one["event"] == "text"] == ["the result"]
    assert found[-1] == {"event": "end", "exit_code": 0}
    assert done.stderr == ""


def test_json_tells_of_an_error_and_its_exit_status(tmp_path: Path) -> None:
    done = call(monai_tl("convert", str(tmp_path / "none"), str(tmp_path / "out"), "--json"))
    error, end = objects(done.stdout)
    assert error["event"] == "error"
    assert "SRC: there is no such folder" in error["text"]
    assert error["exit_code"] == end["exit_code"] == done.returncode == 2


def test_every_field_of_the_json_lines_is_described(program: list[str]) -> None:
    page = (ROOT / "docs/json-output.md").read_text(encoding="utf-8")
    fields = {key for one in objects(call([*program, "work", "--json"]).stdout) for key in one}
    fields |= {"step", "outcome", "n_steps", "exit_code"}
    assert sorted(field for field in fields | set(EVENTS) if f"`{field}`" not in page) == []


def test_every_verb_takes_json_and_verbose() -> None:
    from typer.main import get_command

    from monai_tl.cli import app

    def verbs(group: Any) -> list[Any]:
        return [leaf for one in group.commands.values() for leaf in (verbs(one) if hasattr(one, "commands") else [one])]

    found = verbs(get_command(app))
    assert len(found) > 15
    for verb in found:
        options = [option for parameter in verb.params for option in parameter.opts]
        assert options.count("--json") == 1
        assert options.count("-v") == 1


def test_other_libraries_are_quiet_unless_asked(program: list[str]) -> None:
    quiet, loud = call([*program, "chatter"]), call([*program, "chatter", "-v"])
    assert (quiet.stdout, quiet.stderr) == ("said\n", "")
    assert loud.stdout == "said\n"
    assert "a library warns" in loud.stderr
    assert "a library logs" in loud.stderr


@pytest.fixture(scope="module")
def cohort(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("progress")
    for arguments in (("phantom", "data", "--n-a", "1", "--n-b", "16"), ("key", "key", "--demo-seed", "0")):
        subprocess.run(monai_tl(*arguments), cwd=folder, env={**os.environ, "PYTHONPATH": str(ROOT)}, check=True)
    return folder


@pytest.mark.slow
def test_ctrl_c_ends_work_over_cases_at_once_and_says_how_to_go_on(tmp_path: Path) -> None:
    out = tmp_path / "out"
    run = TerminalRun(monai_tl("phantom", str(out), "--n-a", "1", "--n-b", "60"), tmp_path, {"MONAI_TL_JOBS": "2"})
    run.read_until("2/62")
    below = psutil.Process(run.pid).children(recursive=True)
    began = time.monotonic()
    run.press(CTRL_C)
    assert run.read_to_end(20) == 130
    # a second on an idle machine; tests run beside each other
    assert time.monotonic() - began < 5.0
    assert "Traceback" not in run.text
    assert run.text.rstrip().endswith("the same command begins again.")
    # the tracker of shared files ends when it sees that its parent has
    assert psutil.wait_procs(below, timeout=5)[1] == []
    assert [path for path in out.rglob("*") if path.name.endswith(".part")] == []


@pytest.mark.slow
def test_after_ctrl_c_ingest_goes_on_with_the_cases_that_are_left(cohort: Path, tmp_path: Path) -> None:
    import yaml

    shutil.copytree(cohort / "data/hospital_b", tmp_path / "data")
    classes = [{"name": "liver", "structures": ["Liver"]}]
    ingest = {"source": "data", "key_file": str(cohort / "key"), "classes": classes}
    (tmp_path / "params.yaml").write_text(yaml.safe_dump({"ingest": ingest, "plan": {"source": "any"}}))
    run = TerminalRun(monai_tl("stage", "ingest"), tmp_path, {"MONAI_TL_JOBS": "1"})
    # bars are painted a few times a second, by when all may be done: what is on disk tells at once
    deadline = time.monotonic() + 60
    # not below what is being made, which goes while one looks
    while len(list((tmp_path / ".monai_tl/cache").glob("[0-9a-f][0-9a-f]/*/.manifest.json"))) < 3:
        assert time.monotonic() < deadline
        time.sleep(0.002)
    run.press(CTRL_C)
    assert run.read_to_end(20) == 130
    assert "run again to go on" in run.text
    assert not (tmp_path / "artifacts/cases").exists()
    done = call(monai_tl("stage", "ingest", "-w", str(tmp_path)), MONAI_TL_JOBS="1")
    assert done.returncode == 0, done.stderr
    from_cache = re.search(r"(\d+) from cache", done.stderr)
    assert from_cache is not None
    assert int(from_cache[1]) >= 2
