"""The ledger's states against a plain model of them, and what survives another process, another key and damage."""

from __future__ import annotations

import multiprocessing
import os
import resource
import signal
import tempfile
from pathlib import Path

import pytest
from hypothesis import settings
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule
from hypothesis.strategies import integers, sampled_from

from monai_tl.errors import MonaiTLError
from monai_tl.inbox.entries import Known
from monai_tl.inbox.ledger import Ledger, ledger_at, ledger_faults
from monai_tl.inbox.owners import is_alive, owner_in, sweep


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def ledger(tmp_path: Path, clock: Clock) -> Ledger:
    return Ledger(tmp_path / "ledger.sqlite", "00112233", clock)


def states(ledger: Ledger) -> dict[str, str]:
    return {entry.content: entry.state for entry in ledger.entries()}


def finish(ledger: Ledger, entry) -> None:
    ledger.finish(entry, n_segmented=1, n_refused=0, model="m", measures="")


def test_a_second_delivery_is_the_first(ledger):
    assert ledger.see("a", "study-1", 5, 10.0)
    assert not ledger.see("a", "study-1", 5, 99.0)
    finish(ledger, ledger.claim("me", {"a"}))
    assert not ledger.see("a", "study-1", 5, 200.0)
    assert ledger.claim("me", {"a"}) is None
    assert states(ledger) == {"a": "done"}


def test_the_oldest_comes_first_and_the_least_tried_before_it(ledger):
    for content, arrived in (("b", 20.0), ("a", 30.0), ("c", 10.0)):
        ledger.see(content, f"study-{content}", 1, arrived)
    first = ledger.claim("me", {"a", "b", "c"})
    assert first.content == "c"
    ledger.fail(first, "unreadable", "gone for a while", 5, 0.0)
    order = [ledger.claim("me", {"a", "b", "c"}).content for _ in range(3)]
    assert order == ["b", "a", "c"]


def test_what_is_not_in_the_inbox_is_not_claimed(ledger):
    ledger.see("a", "study-1", 1, 1.0)
    assert ledger.claim("me", set()) is None


def test_a_failure_waits_twice_as_long_each_time_and_ends_in_quarantine(ledger, clock):
    ledger.see("a", "study-1", 1, 1.0)
    waits = []
    for _ in range(3):
        entry = ledger.claim("me", {"a"})
        ledger.fail(entry, "machine", "the disk is full", 4, 60.0)
        begun = clock.now
        while ledger.claim("probe", {"a"}) is None:
            clock.now += 1.0
        waits.append(clock.now - begun)
        # the probe's claim is an attempt that it gives back
        ledger.give_back(ledger.entries()[0])
    assert waits == [60.0, 120.0, 240.0]
    entry = ledger.claim("me", {"a"})
    assert ledger.fail(entry, "machine", "the disk is full", 4, 60.0) == "quarantined"
    assert "after 4 attempts" in ledger.entries()[0].reason
    assert ledger.claim("me", {"a"}) is None
    assert ledger.release("study-1") == 1
    assert ledger.claim("me", {"a"}).attempts == 1


def test_a_clock_that_is_set_back_lets_nothing_wait_for_ever(ledger, clock):
    ledger.see("a", "study-1", 1, 1.0)
    ledger.fail(ledger.claim("me", {"a"}), "machine", "the disk is full", 9, 60.0)
    clock.now -= 500_000.0
    assert ledger.claim("me", {"a"}) is not None


def test_more_of_a_study_takes_the_place_of_what_waits(ledger):
    ledger.see("half", "study-1", 5, 1.0)
    ledger.see("whole", "study-1", 9, 1.0)
    assert states(ledger) == {"half": "superseded", "whole": "seen"}
    # and back, when the rest is taken away again
    ledger.see("half", "study-1", 5, 1.0)
    assert states(ledger)["half"] == "seen"


def test_two_contents_of_one_study_are_never_worked_on_at_once(ledger):
    ledger.see("half", "study-1", 5, 1.0)
    first = ledger.claim("me", {"half"})
    ledger.see("whole", "study-1", 9, 1.0)
    assert ledger.claim("other", {"half", "whole"}) is None
    finish(ledger, first)
    assert ledger.claim("other", {"half", "whole"}).content == "whole"


def test_who_lost_a_study_cannot_finish_it(ledger):
    ledger.see("a", "study-1", 1, 1.0)
    entry = ledger.claim("me", {"a"})
    assert ledger.take_over(lambda owner: False, 5) == 1
    ledger.claim("other", {"a"})
    with pytest.raises(MonaiTLError, match="taken by another process"):
        finish(ledger, entry)
    assert states(ledger) == {"a": "working"}


def test_what_ends_process_after_process_is_quarantined(ledger):
    ledger.see("a", "study-1", 1, 1.0)
    ledger.see("b", "study-2", 1, 2.0)
    for _ in range(3):
        while ledger.claim("dead", {"a"}) is not None:
            pass
        ledger.take_over(lambda owner: False, 3)
    assert states(ledger) == {"a": "quarantined", "b": "seen"}
    assert ledger.entries("quarantined")[0].code == "crashed"


def test_files_are_remembered_and_forgotten(ledger):
    one = Known("place", "stamp", "study-1", True, "digest")
    ledger.remember([one], [])
    assert ledger.known_files() == {"place": one}
    ledger.remember([], ["place"])
    assert ledger.known_files() == {}


def test_another_key_another_version_and_damage_are_told(tmp_path, ledger):
    path = tmp_path / "ledger.sqlite"
    with pytest.raises(MonaiTLError, match="another pseudonym key"), ledger_at(path, "other"):
        pass
    ledger._base.execute("UPDATE facts SET value = '99' WHERE name = 'version'")
    with pytest.raises(MonaiTLError, match="another version"), ledger_at(path, "00112233"):
        pass
    ledger.close()
    path.write_bytes(b"no database at all" * 100)
    with pytest.raises(MonaiTLError, match="damaged or no ledger"), ledger_at(path, "00112233"):
        pass


def test_only_its_owner_may_read_it(tmp_path, ledger):
    assert (tmp_path / "ledger.sqlite").stat().st_mode & 0o077 == 0


def _own_and_wait(folder: Path, pipe) -> None:
    with owner_in(folder) as name:
        pipe.send(name)
        signal.pause()


def test_a_killed_owner_is_dead_and_a_living_one_alive(tmp_path):
    context = multiprocessing.get_context("fork")
    here, there = context.Pipe()
    process = context.Process(target=_own_and_wait, args=(tmp_path, there))
    process.start()
    name = here.recv()
    assert is_alive(tmp_path, name)
    os.kill(process.pid, signal.SIGKILL)
    process.join()
    assert not is_alive(tmp_path, name)
    sweep(tmp_path)
    assert list(tmp_path.iterdir()) == []
    with owner_in(tmp_path) as mine:
        assert is_alive(tmp_path, mine)
    assert not is_alive(tmp_path, mine)


class Against(RuleBasedStateMachine):
    """Any order of arrivals, claims, ends and deaths: done stays done, one owner a study, nothing vanishes."""

    @initialize()
    def begin(self) -> None:
        self.folder = tempfile.TemporaryDirectory()
        self.clock = Clock()
        self.ledger = Ledger(Path(self.folder.name) / "l", "k", self.clock)
        self.ledger._base.executescript("PRAGMA synchronous = OFF; PRAGMA journal_mode = MEMORY")
        self.claimed: list = []
        self.arrived: dict[str, str] = {}
        self.n_done: dict[str, int] = {}

    def teardown(self) -> None:
        if hasattr(self, "folder"):
            self.ledger.close()
            self.folder.cleanup()

    @rule(study=integers(0, 2), part=integers(0, 2))
    def see(self, study: int, part: int) -> None:
        content = f"{study}.{part}"
        assert self.ledger.see(content, f"study-{study}", 1, float(study)) == (content not in self.arrived)
        self.arrived[content] = f"study-{study}"

    @rule(gone=sampled_from(["0.0", "1.1", "2.2", ""]))
    def claim(self, gone: str) -> None:
        self.clock.now += 5.0
        entry = self.ledger.claim(f"owner-{len(self.claimed)}", set(self.arrived) - {gone})
        if entry is not None:
            assert entry.content != gone
            assert entry.content not in self.n_done
            self.claimed.append(entry)

    @rule(how=sampled_from(["finish", "fail", "quarantine", "give_back", "die"]))
    def end(self, how: str) -> None:
        if not self.claimed:
            return
        entry = self.claimed.pop()
        if how == "finish":
            finish(self.ledger, entry)
            self.n_done[entry.content] = self.n_done.get(entry.content, 0) + 1
        elif how == "fail":
            self.ledger.fail(entry, "machine", "why", 3, 1.0)
        elif how == "quarantine":
            self.ledger.quarantine(entry, "bad", "why")
        elif how == "give_back":
            self.ledger.give_back(entry)
        else:
            living = {one.owner for one in self.claimed}
            self.ledger.take_over(living.__contains__, 3)

    @invariant()
    def holds(self) -> None:
        if not hasattr(self, "arrived"):
            return
        found = states(self.ledger)
        assert set(found) == set(self.arrived)
        assert {content for content, state in found.items() if state == "done"} == set(self.n_done)
        assert all(count == 1 for count in self.n_done.values())
        assert {content for content, state in found.items() if state == "working"} == {e.content for e in self.claimed}
        working = [self.arrived[one.content] for one in self.claimed]
        assert len(working) == len(set(working))


Against.TestCase.settings = settings(max_examples=15, stateful_step_count=25, deadline=None)
TestAnyOrderOfEvents = Against.TestCase


@pytest.mark.parametrize("room", [1, 8192, 1 << 16], ids=["of a journal", "of a statement", "of the end"])
def test_a_full_disk_is_told_as_one_and_over_once_there_is_room(tmp_path: Path, room: int) -> None:
    """SQLite ends the transaction by itself then; that there is none left to undo is not what is wrong."""
    path = tmp_path / "ledger.sqlite"
    ledger = Ledger(path, "key")
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    many = [(f"content {n}", f"study {n}", 1, 0.0) for n in range(40_000)]
    resource.setrlimit(resource.RLIMIT_FSIZE, (room, limits[1]))
    try:
        with pytest.raises(MonaiTLError, match=r"cannot be used: .*(disk|full)[^;]*;"), ledger_faults(path):
            ledger.see_all(many)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert ledger.entries() == []
    assert ledger.see_all(many[:1]) == 1
