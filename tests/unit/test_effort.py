"""Time and energy of stages, kept where nothing is tracked."""

from __future__ import annotations

import html
from pathlib import Path

import pytest
from test_report import arm, make_findings

from monai_tl.effort import EFFORT_FILE, Effort, StageEffort, describe_effort, measured, read_effort
from monai_tl.report.page import render_page
from monai_tl.report.provenance import EFFORT
from monai_tl.report.whole_page import add_effort, write_whole_page


def counter(folder: Path, zone: str, name: str, energy: int, most: int = 10**12) -> None:
    place = folder / zone
    place.mkdir(parents=True, exist_ok=True)
    for file, content in (("name", name), ("energy_uj", str(energy)), ("max_energy_range_uj", str(most))):
        (place / file).write_text(f"{content}\n")


def test_packages_are_summed_and_a_counter_that_began_anew_is_mended(tmp_path: Path) -> None:
    counters, state = tmp_path / "counters", tmp_path / "state"
    counter(counters, "intel-rapl:0", "package-0", 5 * 10**9)
    counter(counters, "intel-rapl:1", "package-1", 90 * 10**9, most=100 * 10**9)
    # a part of a package, which must not count twice
    counter(counters, "intel-rapl:0:0", "core", 0)
    with measured(state, "finetune", {"arm": "transfer", "fold": "0", "seed": "1"}, counters):
        counter(counters, "intel-rapl:0", "package-0", 8 * 10**9)
        counter(counters, "intel-rapl:1", "package-1", 20 * 10**9, most=100 * 10**9)
        counter(counters, "intel-rapl:0:0", "core", 7 * 10**12)
    assert read_effort(state).stages["finetune-transfer-0-1"].energy_kj == pytest.approx(3 + 30)


def test_the_last_run_counts_and_others_stay(tmp_path: Path) -> None:
    for stage in ("ingest", "split", "ingest"):
        with measured(tmp_path, stage, {}, tmp_path / "none"):
            pass
    found = read_effort(tmp_path).stages
    assert set(found) == {"ingest", "split"}
    assert all(0.0 <= one.seconds < 5.0 and one.energy_kj is None for one in found.values())


def test_a_stage_that_fails_is_not_counted_and_damage_is_no_error(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no"), measured(tmp_path, "predict", {}):
        raise ValueError("no")
    assert read_effort(tmp_path).stages == {}
    (tmp_path / EFFORT_FILE).write_text("{")
    assert read_effort(tmp_path).stages == {}


def test_it_is_told_in_plain_words() -> None:
    assert describe_effort(Effort()) == ""
    stages = {
        "finetune": StageEffort(seconds=5400.0, energy_kj=3000.0),
        "predict": StageEffort(seconds=90.0, energy_kj=600.0),
        "split": StageEffort(seconds=2.0, energy_kj=0.0),
        "plan": StageEffort(seconds=1.0, energy_kj=0.0),
    }
    text = describe_effort(Effort(stages=stages))
    assert text.startswith("1 h 32 min in all (finetune 1 h 30 min, predict 2 min, split 2 s)")
    assert text.endswith("energy of the machine's processors 1 kWh")
    assert describe_effort(Effort(stages={"plan": StageEffort(seconds=1.0)})).endswith("energy not known")


def test_the_whole_page_has_the_times_and_the_kept_one_stays(tmp_path: Path) -> None:
    bare = tmp_path / "reports/html/report.html"
    assert not write_whole_page(tmp_path, tmp_path / "state")
    bare.parent.mkdir(parents=True)
    page = f"<dl><dt>Duration, energy</dt><dd>{html.escape(EFFORT)}</dd></dl>"
    bare.write_text(page)
    assert write_whole_page(tmp_path, tmp_path / "state")
    assert (tmp_path / "reports/report.html").read_text() == page
    with measured(tmp_path / "state", "ingest", {}, tmp_path / "none"):
        pass
    write_whole_page(tmp_path, tmp_path / "state")
    assert "ingest 0.0 s" in (tmp_path / "reports/report.html").read_text()
    assert "energy not known" in (tmp_path / "reports/report.html").read_text()
    assert bare.read_text() == page


def test_a_real_report_has_one_place_for_them() -> None:
    effort = Effort(stages={"finetune-transfer-0-0": StageEffort(seconds=83.0)})
    page = render_page(make_findings((arm("transfer", 0.9), arm("scratch", 0.5))))
    whole = add_effort(page, effort)
    assert "finetune-transfer-0-0 83.0 s" in whole
    assert "the same bytes" not in whole
    assert len(whole) - len(page) < 200
