"""Row 10: whatever bytes a file has, its reader gives a value or one of our errors, in bounded time and memory.

Here a few inputs for each reader; ``-m long`` takes a minute each, and ``tests/support/fuzz_targets.py`` as long as one
likes. What was found once is kept in ``corpus``.
"""

from __future__ import annotations

import random
import time
import warnings
from pathlib import Path

import pytest
from fuzz_targets import CORPUS, TARGETS, Session, changed, kept, outcome, run_random
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

N_HERE = 40
# pydicom warns of values, as it should
pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.fixture(scope="module", autouse=True)
def sequential() -> object:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MONAI_TL_EXECUTOR", "sequential")
        yield


@pytest.mark.parametrize("name", TARGETS)
def test_the_seeds_are_read(name: str, tmp_path: Path) -> None:
    """Else what is made of them would be refused at the door. Weights of a card are not its own here."""
    expected = {"bundle": "WeightsError"}.get(name, "read")
    assert {outcome(name, seed, tmp_path) for seed in TARGETS[name].seeds()} <= {"read", expected}


@pytest.mark.parametrize("name", TARGETS)
def test_what_is_kept_ends_in_a_value_or_an_error_of_ours(name: str, tmp_path: Path) -> None:
    assert kept(name), f"no input is kept in {CORPUS / name}"
    for content in kept(name):
        outcome(name, content, tmp_path)


@pytest.mark.parametrize("name", TARGETS)
@settings(
    max_examples=N_HERE, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(source=st.randoms(use_true_random=False), number=st.integers(0, 7))
def test_a_changed_file_ends_in_a_value_or_an_error_of_ours(
    name: str, source: random.Random, number: int, tmp_path: Path
) -> None:
    seeds = _seeds(name)
    outcome(name, changed(seeds[number % len(seeds)], source), tmp_path)


_SEEDS: dict[str, list[bytes]] = {}


def _seeds(name: str) -> list[bytes]:
    if name not in _SEEDS:
        _SEEDS[name] = TARGETS[name].seeds()
    return _SEEDS[name]


@pytest.mark.long
@pytest.mark.parametrize("name", TARGETS)
def test_a_minute_of_changes(name: str, tmp_path: Path) -> None:
    session = Session(name, tmp_path / "findings", tmp_path)
    warnings.simplefilter("ignore")
    run_random(session, 60.0, int(time.time()))
    print("\n" + session.told(60.0, "random"))
    assert session.places == {}


def test_a_finding_is_kept_with_its_traceback(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The harness itself: an error that is not ours is a finding, once for its place."""

    def broken(content: bytes, folder: Path) -> object:
        return content.decode("ascii")

    monkeypatch.setitem(TARGETS, "card", type(TARGETS["card"])(list, broken))
    session = Session("card", tmp_path / "findings", tmp_path)
    for content in (b"fine", b"\xff", b"\xfe\xff"):
        session(content)
    assert session.n_inputs == 3
    assert list(session.places.values()) == [2]
    assert len(list((tmp_path / "findings").glob("*.txt"))) == 1
