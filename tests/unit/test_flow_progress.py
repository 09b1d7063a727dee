"""The bars of a run's stages: what they show, and how often the server is asked to write them."""

from __future__ import annotations

from dataclasses import dataclass, field

import httpx
import pytest

from flows import progress
from flows.progress import ProgressBoard, boards_of
from flows.versioning import Step
from monai_tl.json_lines import MARK, mark_line, parse_marked


@dataclass
class Written:
    """What the server was asked to write, and a clock."""

    now: float = 1000.0
    made: list[tuple[str, float, str]] = field(default_factory=list)
    updates: list[tuple[str, float, str]] = field(default_factory=list)
    is_away: bool = False

    def create(self, percent: float, *, key: str, description: str) -> str:
        if self.is_away:
            raise httpx.ConnectError("away")
        self.made.append((key, percent, description))
        return key

    def update(self, identifier: str, percent: float, *, description: str) -> None:
        self.updates.append((identifier, percent, description))


@pytest.fixture
def written(monkeypatch: pytest.MonkeyPatch) -> Written:
    found = Written()
    monkeypatch.setattr(progress, "create_progress_artifact", found.create)
    monkeypatch.setattr(progress, "update_progress_artifact", found.update)
    monkeypatch.setattr(progress.time, "monotonic", lambda: found.now)
    return found


def line(done: int, total: int, stage: str = "ingest") -> str:
    return mark_line(MARK, {"stage": stage, "done": done, "total": total, "note": ""})


def test_progress_lines_and_others():
    assert parse_marked('@progress {"stage": "ingest", "done": 1, "total": 2, "note": ""}', MARK)["done"] == 1
    assert parse_marked("@progress nonsense", MARK) is None
    assert parse_marked("@progress [1]", MARK) is None
    assert parse_marked("ingest: 1/2", MARK) is None


def test_each_stage_has_a_bar_of_its_own_and_trainings_share_one(written: Written):
    steps = [Step("ingest", "ingest"), *(Step("finetune", f"finetune@transfer-{n}-0") for n in range(4))]
    boards = boards_of(steps)
    assert {stage: board.key for stage, board in boards.items()} == {
        "ingest": "progress-ingest", "finetune": "progress-finetune",
    }  # fmt: skip
    # Prefect takes no underscore in a key
    assert ProgressBoard("curve_label", 2).key == "progress-curve-label"
    boards["ingest"].take(line(1, 4))
    boards["ingest"].take("reading")
    boards["ingest"].finish("ingest", "ran")
    for number in range(4):
        written.now += 10
        boards["finetune"].take(line(5, 10, f"finetune transfer-{number}-0"))
        written.now += 10
        boards["finetune"].finish(f"finetune@transfer-{number}-0", "ran")
    assert written.made == [
        ("progress-ingest", 25.0, "ingest 1/4"),
        ("progress-finetune", 12.5, "finetune transfer-0-0 5/10 (0 of 4 done)"),
    ]
    percents: dict[str, list[float]] = {}
    for key, percent, _ in written.updates:
        percents.setdefault(key, []).append(percent)
    assert percents == {
        "progress-ingest": [100.0], "progress-finetune": [25.0, 37.5, 50.0, 62.5, 75.0, 87.5, 100.0],
    }  # fmt: skip


def test_a_bar_is_written_every_two_seconds_at_most_and_at_its_end(written: Written):
    board = ProgressBoard("ingest", 1)
    for done in range(1, 1001):
        board.take(line(done, 1000))
        # a hundred lines a second
        written.now += 0.01
    board.finish("ingest", "ran")
    assert [percent for _, percent, _ in written.made] == [0.1]
    # ten seconds hold four more, and the end
    assert len(written.updates) in (5, 6)
    assert written.updates[-1] == ("progress-ingest", 100.0, "ingest: ran")


def test_what_is_up_to_date_costs_the_server_nothing(written: Written):
    board = ProgressBoard("finetune", 3)
    board.finish("finetune@a-0-0", "unchanged")
    board.finish("finetune@b-0-0", "unchanged")
    assert written.made == []
    # the third is new
    board.take(line(1, 2, "finetune c-0-0"))
    assert written.made == [("progress-finetune", pytest.approx(100 * 2.5 / 3), "finetune c-0-0 1/2 (2 of 3 done)")]
    board.finish("finetune@c-0-0", "restored")
    assert written.updates == [("progress-finetune", 100.0, "finetune@c-0-0: restored (3 of 3 done)")]


def test_a_bar_ends_with_a_step_that_was_up_to_date(written: Written):
    board = ProgressBoard("finetune", 2)
    board.finish("finetune@a-0-0", "ran")
    board.finish("finetune@b-0-0", "unchanged")
    assert written.updates[-1][1] == 100.0


def test_a_server_that_is_away_ends_no_stage_and_is_not_pestered(written: Written):
    board = ProgressBoard("ingest", 1)
    written.is_away = True
    board.take(line(1, 4))
    written.is_away = False
    board.take(line(2, 4))
    assert written.made == []
    written.now += 2.0
    board.take(line(3, 4))
    assert [percent for _, percent, _ in written.made] == [75.0]


def test_work_of_unknown_size_is_at_its_beginning(written: Written):
    board = ProgressBoard("ingest", 1)
    board.take(line(3, 0))
    assert written.made[0][1] == 0.0
