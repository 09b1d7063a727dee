"""Which goals the benchmarks call met, from times, memory and Dice that are given here."""

from __future__ import annotations

import importlib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from benchmarks import __main__ as command
from benchmarks import common, harm, ladder, predict, scale_tables, transfer
from benchmarks.common import Contestant
from benchmarks.hippocampus import TIMED, Point


@dataclass
class Seen:
    """A contestant's columns, without its turns."""

    facts: dict[str, str]
    remark: str = ""
    times: list[float] = field(default_factory=list)

    def turn(self) -> float:
        return 0.0

    def close(self) -> None:
        """Nothing waits."""


def entrants(mib: dict[str, float]) -> list[Contestant]:
    return [Contestant(name, "peer", worker.turn, worker=worker)
            for name, size in mib.items() for worker in (Seen({predict.MEMORY: f"{size:.0f}"}),)]  # fmt: skip


def test_inference_is_judged_against_the_faster_of_the_same_network() -> None:
    times = {
        predict.EXACT: [1.6, 1.6], predict.FAST["patch"]: [0.5, 0.5], predict.FAST_BATCH: [0.3, 0.3],
        predict.MONAI: [1.8, 1.8], predict.MONAI_4: [1.4, 1.4], predict.MONAI_BATCH: [1.2, 1.2],
    }  # fmt: skip
    memory = {predict.EXACT: 50.0, predict.FAST["patch"]: 10.0, predict.MONAI: 200.0, predict.MONAI_4: 250.0}
    fast, batch, exact, peak = predict.goals(entrants(memory), times).splitlines()
    # 1.4 / 0.5, not 1.8 / 0.5
    assert fast.startswith(
        "- **Not met**: monai_tl, fast, less overlap: 2.80 times the speed of MONAI SlidingWindowInferer, 4 a pass"
    )
    assert batch.startswith("- Met: monai_tl, fast, batch normalisation: 4.00 times the speed of")
    assert exact.startswith("- **Not met**: monai_tl, exact: 1.14 of the time of MONAI SlidingWindowInferer, 4 a pass")
    assert peak.startswith("- Met: monai_tl, exact: 0.25 of the peak memory")


def test_goals_of_inference_without_one_of_the_peers() -> None:
    times = {predict.EXACT: [1.0], predict.FAST["patch"]: [0.2], predict.MONAI: [1.0]}
    lines = predict.goals(entrants({predict.EXACT: 120.0, predict.MONAI: 200.0}), times).splitlines()
    assert [line.split(":")[0] for line in lines] == ["- Met", "- Met", "- **Not met**"]


def cohorts(peaks: tuple[float, float, float]) -> dict[int, dict[str, dict[str, float]]]:
    seconds = (2.0, 11.0, 101.0)
    return {
        count: {"evaluate": {"processor": s, "wall": s, "peak": peak, "worker": 100.0}}
        for count, s, peak in zip((100, 1000, 10000), seconds, peaks, strict=True)
    }


@pytest.mark.parametrize(
    ("peaks", "word"),
    [
        # 0.01 MiB a case all along; nothing a case, but for what runs differ by; ten times as much a case later on
        ((101.0, 110.0, 200.0), "memory flat"),
        ((104.0, 101.0, 108.0), "memory flat"),
        ((101.0, 110.0, 1010.0), "memory **not flat**"),
    ],
)
def test_memory_of_a_case_is_judged_as_its_time_is(peaks: tuple[float, float, float], word: str) -> None:
    said = scale_tables.flatness(cohorts(peaks))
    assert said.startswith(f"- evaluate: time flat, {word};")


def test_a_worker_that_grows_is_not_flat() -> None:
    found = cohorts((101.0, 110.0, 200.0))
    found[10000]["evaluate"]["worker"] = 900.0
    assert "memory **not flat**" in scale_tables.flatness(found)


def tuned(mean: float, seconds: float) -> dict[str, Any]:
    return {"mean": mean, "training_s": seconds}


def test_a_goal_of_dice_within_minutes_is_one_of_both() -> None:
    results = {("hippodeep tuned", n): one for n, one in {
        "4": tuned(0.85, 999.0), "16": tuned(0.88, 181.0), "all": tuned(0.89, 1799.0)}.items()}  # fmt: skip
    four, few, every = transfer._judge(results, list(results)[1:])
    assert four == "- 4 labels: 0.8500, goal 0.84: reached."
    assert few == "- 16 labels: 0.8800, goal 0.87; 181 s of training, at most 180: **not reached**."
    assert every == "- all labels: 0.8900, goal 0.885; 1799 s of training, at most 1800: reached."
    assert "is not measured here" in transfer._judge(results, [])[2]


def test_of_several_draws_of_16_labels_the_mean_and_the_longest_count() -> None:
    """The seed that the table shows is one of them."""
    results = {("hippodeep tuned", "16"): tuned(0.86, 170.0)}
    draws = [tuned(dice, seconds) for dice, seconds in ((0.86, 170.0), (0.87, 178.0), (0.88, 160.0), (0.87, 150.0))]
    (line,) = transfer._judge(results, list(results), draws)
    # 0.0082 of standard deviation over four
    assert line == (
        "- 16 labels: 0.8700 (mean of draws by seeds 0 to 3: 0.8600, 0.8700, 0.8800, 0.8700; ± 0.0041), goal 0.87; "
        "178 s of training, at most 180: reached."
    )
    assert "**not reached**" in transfer._judge(results, list(results), [*draws, tuned(0.8, 100.0)])[0]
    assert "**not reached**" in transfer._judge(results, list(results), [*draws, tuned(0.9, 190.0)])[0]


def test_all_labels_are_timed_on_two_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Point] = []

    class AskedError(Exception):
        pass

    def note(_: Path, points: list[Point]) -> None:
        asked.extend(points)
        raise AskedError

    monkeypatch.setattr(transfer, "measure", note)
    monkeypatch.setattr(transfer, "hippodeep_source", lambda folder: folder)
    monkeypatch.setattr(transfer, "workspace", lambda root, name, _: root / name)
    with pytest.raises(AskedError):
        transfer.run(quick=False)
    of_tuned = [
        one for one in asked if one.strategy == "auto" and one.seconds in (transfer.SECONDS, transfer.SECONDS_ALL)
    ]
    assert {one.labels for one in of_tuned if one.changes == TIMED} == {"16", "all"}


def test_shuffled_weights_have_the_seeds_of_the_twins(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    asked: list[Point] = []

    def answer(_: Path, points: list[Point]) -> dict[Point, dict[str, Any]]:
        asked.extend(points)
        return {
            one: {"mean": dice, "cases": {f"case-{n}": dice + 0.001 * (n % 3 + one.seed % 2) for n in range(20)}}
            for one in points
            for dice in (0.3 if one.workspace.name == "shuffled" else 0.8,)
        }

    folders = {"as published": tmp_path / "good", harm.SHUFFLED: tmp_path / "shuffled"}
    monkeypatch.setattr(harm, "measure", answer)
    monkeypatch.setattr(harm, "_folders", lambda _: folders)
    monkeypatch.setattr(harm, "_broken_lines", lambda _: [])
    rows, twins = harm.run(quick=False)[1], harm.run(quick=False)[3]
    shuffled = {one.seed for one in asked if one.workspace.name == "shuffled"}
    assert shuffled == set(harm.TWIN_SEEDS) == set(range(8))
    # one training for each twin, as the comparisons of twins have them
    assert len({one for one in asked if one.strategy == "scratch"}) == 8
    assert len({one for one in asked if one.strategy == "lp_ft"}) == 3 + 8
    assert f"| {harm.SHUFFLED} | 8 | 0.300 | 0.800 | harm | -0.500" in rows
    assert "overlapping choices from the same 8 trainings" in twins
    assert "not independent" in twins


@pytest.mark.parametrize("name", [*command.NAMES, *command.HOURS])
def test_the_next_run_replaces_what_stands_in_results(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = common.RESULTS.read_text(encoding="utf-8")
    monkeypatch.setattr(common, "RESULTS", tmp_path / "RESULTS.md")
    common.RESULTS.write_text(before, encoding="utf-8")
    title = importlib.import_module(f"benchmarks.{name}").TITLE
    common.write_section(name, title, ["new"], [])
    after = common.RESULTS.read_text(encoding="utf-8")
    for mark in (f"<!-- {name} -->", f"<!-- /{name} -->", f"\n## {title}\n"):
        assert after.count(mark) == 1
    common.write_section(name, title, ["newer"], [])
    assert common.RESULTS.read_text(encoding="utf-8") == after.replace("new\n", "newer\n")


def test_the_ladder_stands_once_and_is_replaced_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = common.RESULTS.read_text(encoding="utf-8")
    assert before.count("| discriminative |") == 1
    monkeypatch.setattr(common, "RESULTS", tmp_path / "RESULTS.md")
    common.RESULTS.write_text(before, encoding="utf-8")
    common.write_section("ladder", ladder.TITLE, ["new"], [])
    assert "| discriminative |" not in common.RESULTS.read_text(encoding="utf-8")
