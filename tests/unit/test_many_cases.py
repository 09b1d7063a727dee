"""Many cases: what is written once for all of them stays small, and what is done for one costs as among ten."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from test_report import make_findings

from monai_tl.cache import CaseCache
from monai_tl.files import write_text
from monai_tl.inbox.drift import Drift
from monai_tl.inbox.entries import Entry
from monai_tl.inbox.ledger import Ledger
from monai_tl.inbox.report import LISTED, describe, summarise
from monai_tl.metrics.case import ClassScore
from monai_tl.metrics.cohort import ArmResult, BootstrapRule, CaseResult, summarise_arm
from monai_tl.records import Rejection
from monai_tl.report.findings import Failure, Findings
from monai_tl.report.page import render_page
from monai_tl.report.shown import MOST_POINTS, MOST_ROWS, evenly, lowest, points_of

N = 3_000
NAMES = ("liver", "tumour")


def _arm(name: str, n: int, seed: int) -> ArmResult:
    dice = np.random.default_rng(seed).uniform(0.3, 0.95, n)
    # the worst and the best lie somewhere in between
    dice[n // 3], dice[n // 2] = 0.01, 0.999
    cases = [
        CaseResult(f"case-{k:012d}", f"p{k}", tuple(ClassScore(float(one), 0.5, 5.0, 10.0 + k, 9.0) for _ in NAMES))
        for k, one in enumerate(dice)
    ]
    return summarise_arm(name, {0: cases}, NAMES, BootstrapRule(20, 0.95, 0))


@pytest.fixture(scope="module")
def many() -> Findings:
    found = make_findings((_arm("transfer", N, 1), _arm("scratch", N, 2)), NAMES)
    refused = tuple(Rejection(item=f"series-{k:012x}", kind="series", code="gap", reason="gap") for k in range(N))
    failed = tuple(Failure("transfer", 0, f"case-{k:012d}", "missing") for k in range(N))
    return replace(found, rejections=refused, failures=failed)


def test_a_report_of_many_cases_opens(many: Findings) -> None:
    page = render_page(many)
    # of ten thousand it is no larger: all that grows is cut
    assert len(page) < 3_000_000
    assert f"The {MOST_ROWS} test cases of lowest Dice in numbers" in page
    assert "reports/plots/cases.csv" in page
    assert f"Of 3\u2009000 cases {MOST_POINTS} are points" in page
    assert "and 2\u2009700 more" in page
    # the worst case is in the table, the best is not
    table = page[page.index("cases of lowest Dice in numbers") :]
    assert f"<code>case-{N // 3:012d}</code>" in table
    assert f"<code>case-{N // 2:012d}</code>" not in table


def test_all_cases_are_shown_where_they_are_few() -> None:
    arms = (_arm("transfer", MOST_ROWS, 1), _arm("scratch", MOST_ROWS, 2))
    assert lowest(arms) == arms
    assert list(points_of(arms)) == list(range(MOST_ROWS))
    page = render_page(make_findings((_arm("transfer", 12, 1),), NAMES))
    assert "All test cases in numbers" in page
    assert " are points" not in page
    assert "cases.csv" not in page


def test_points_are_evenly_many_with_both_ends(many: Findings) -> None:
    shown = points_of(many.arms)
    assert len(shown) == len(set(shown)) == MOST_POINTS
    assert {N // 3, N // 2} <= set(shown)
    dice = np.array([case.mean("dice") for case in many.arms[0].cases])
    # as many in each tenth of the order, to within one
    ranks = np.argsort(np.argsort(dice, kind="stable"))[shown]
    assert set(np.bincount(ranks // (N // 10))) <= {MOST_POINTS // 10 - 1, MOST_POINTS // 10, MOST_POINTS // 10 + 1}
    assert list(evenly(0)) == []
    assert list(evenly(1)) == [0]
    assert list(evenly(5, 3)) == [0, 2, 4]


def _steps(ledger: Ledger, number: int) -> int:
    """Instructions of SQLite's machine for one study to come, to be taken and to be finished."""
    counted = [0]

    def count() -> int:
        counted[0] += 1
        return 0

    ledger._base.set_progress_handler(count, 1)
    assert ledger.see(f"content-{number}", f"study-{number}", 5, float(number))
    entry = ledger.claim("owner", {f"content-{number}"} | {f"content-{k}" for k in range(10)})
    assert entry is not None
    ledger.finish(entry, n_segmented=1, n_refused=0, model="m", measures="")
    ledger._base.set_progress_handler(None, 1)
    return counted[0]


def test_a_study_costs_the_ledger_the_same_among_many(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "ledger.sqlite", "00112233")
    ledger._base.execute("PRAGMA synchronous = OFF")
    for number in range(50):
        ledger.see(f"content-{number}", f"study-{number}", 5, float(number))
    among_few = _steps(ledger, 50)
    for number in range(51, 1000):
        ledger.see(f"content-{number}", f"study-{number}", 5, float(number))
    assert _steps(ledger, 1000) < 1.2 * among_few


def test_given_up_studies_are_told_up_to_a_number() -> None:
    entries = [
        Entry(
            content=f"{k:04d}", study=f"study-{k}", n_instances=1, arrived=float(k), state="quarantined", attempts=1,
            owner="", not_before=0.0, code="gap", reason=f"no {k}", started=0.0, finished=1.0, n_segmented=0,
            n_refused=1, model="", measures="", sent="",
        )
        for k in range(1000)
    ]  # fmt: skip
    found = summarise(entries, Drift(None, 0, {}, 0.0, is_alarm=False))
    assert len(found["refused"]) == 1000
    lines = [line for line in describe(found).splitlines() if " quarantined after " in line]
    assert len(lines) == LISTED
    assert lines[-1].endswith("no 999")
    assert f"{1000 - LISTED} more before these" in describe(found)


def test_nobody_waits_for_the_disk_for_what_is_checked_when_it_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    waited: list[int] = []
    sync = os.fsync
    monkeypatch.setattr(os, "fsync", lambda handle: (waited.append(handle), sync(handle))[1])
    cache, built = CaseCache(tmp_path / "cache"), []

    def build(folder: Path) -> None:
        built.append(folder)
        write_text(folder / "case.json", "whole")

    assert not cache.fetch("0" * 64, tmp_path / "out/first", build)
    assert waited == []
    # as a power cut would leave it
    (cache.entry("0" * 64) / "case.json").write_text("")
    assert not cache.fetch("0" * 64, tmp_path / "out/second", build)
    assert (tmp_path / "out/second/case.json").read_text() == "whole"
    assert len(built) == 2
    write_text(tmp_path / "elsewhere.json", "whole")
    assert len(waited) == 2
