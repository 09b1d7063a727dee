"""Row 10: whatever bytes a file has, its reader gives a value or one of our errors, in bounded time and memory.

Here a few inputs for each reader; ``make fuzz``, part of the gate, takes a minute each, and
``tests/support/fuzz_targets.py`` as long as one likes. What was found once is kept in ``corpus``.
"""

from __future__ import annotations

import json
import random
import time
from pathlib import Path

import fuzz_targets
import pytest
import yaml
from fuzz_targets import CORPUS, TARGETS, Session, changed_for, kept, outcome, run_random, with_other_values
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

N_HERE = 40
# pydicom warns of values, as it should
pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.fixture(scope="module", autouse=True)
def sequential() -> object:
    # imported here, else the first card would be charged with the time and memory of it
    import monai_tl.networks.builders  # noqa: F401

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
    outcome(name, changed_for(name, seeds[number % len(seeds)], source), tmp_path)


_SEEDS: dict[str, list[bytes]] = {}


def _seeds(name: str) -> list[bytes]:
    if name not in _SEEDS:
        _SEEDS[name] = TARGETS[name].seeds()
    return _SEEDS[name]


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


def test_an_endless_reader_is_a_finding_and_a_busy_machine_is_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def read(content: bytes, folder: Path) -> object:
        if content == b"slow machine":
            time.sleep(0.5)
        while content == b"endless":
            try:
                # readers take what any library raises for a fault of the file
                sum(range(1000))
            except Exception:
                continue
        return content

    monkeypatch.setattr(fuzz_targets, "MAX_SECONDS", 0.2)
    monkeypatch.setitem(TARGETS, "card", type(TARGETS["card"])(list, read))
    session = Session("card", tmp_path / "findings", tmp_path)
    for content in (b"slow machine", b"endless", b"fine"):
        session(content)
    assert session.outcomes == {"read": 2}
    assert [place.split()[0] for place in session.places] == ["TookTooLongError"]


def test_a_minute_of_changes_ends_and_counts(tmp_path: Path) -> None:
    session = Session("params", tmp_path / "findings", tmp_path)
    run_random(session, 0.5, 1)
    assert session.n_inputs == sum(session.outcomes.values()) > 0
    assert session.places == {}


@pytest.mark.parametrize("name", [name for name, target in TARGETS.items() if target.is_text])
def test_values_are_changed_and_the_text_still_parses(name: str) -> None:
    """Else everything would end at the parser."""
    seed = _seeds(name)[0]
    made = {with_other_values(seed, random.Random(number)) for number in range(60)} - {seed}
    assert len(made) > 40
    parts = [part for content in made for part in content.split(b"\n=====\n")]
    n_parsed = sum(_parses(part, json.loads if name == "bundle" else yaml.safe_load) for part in parts)
    assert n_parsed > 0.9 * len(parts)


def test_aliases_are_made_that_unfold_without_end(tmp_path: Path) -> None:
    """And refused before anything unfolds them."""
    made = [with_other_values(_seeds("card")[0], random.Random(number)) for number in range(200)]
    grown = [content for content in made if content.count(b"*id0") > 80]
    assert len(grown) > 2
    assert {outcome("card", content, tmp_path) for content in grown[:3]} == {"SourceError"}


def _parses(content: bytes, parse: object) -> bool:
    try:
        parse(content)
    except (ValueError, yaml.YAMLError):
        return False
    return True
