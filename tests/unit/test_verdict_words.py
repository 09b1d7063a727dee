"""The verdict as readers get it: one sentence with its interval on the page, in the card and in the terminal."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from test_report import arm, make_findings

from monai_tl.report.numbers import metrics_record
from monai_tl.report.page import render_page
from monai_tl.report.tables import markdown_summary
from monai_tl.sources.evaluation_text import describe_evaluation
from monai_tl.transfer.verdict import Verdict, judge
from monai_tl.verdict_words import say_verdict, verdict_mark

SEEDS = np.array([[0.0, 0.001, -0.001]])


def judged(mean: float, spread: float = 0.01, n_patients: int = 12, n_seeds: int = 3) -> Verdict:
    values = mean + spread * np.linspace(-1.0, 1.0, n_patients)[:, None] + SEEDS[:, :n_seeds]
    return judge(values, [f"p{k}" for k in range(n_patients)], 300, 0.95, 0.02, 0)


KINDS = {
    "gain": judged(0.2),
    "harm": judged(-0.2),
    "null": judged(0.0),
    "undecided null": judged(0.05, spread=0.3),
    "gain of one seed": judged(0.2, n_seeds=1),
    "harm of one seed": judged(-0.2, n_seeds=1),
    "null of one seed": judged(0.0, n_seeds=1),
    "too few": judged(0.2, n_patients=3),
}


@pytest.mark.parametrize("kind", KINDS)
def test_the_first_sentence_has_the_interval_and_no_jargon(kind: str) -> None:
    verdict = KINDS[kind]
    words = say_verdict(verdict.model_dump())
    assert "null" not in words.lower()
    first = re.split(r"(?<=\.) (?=[A-Z])", words)[0]
    if verdict.low is None:
        assert words == verdict.sentence
        return
    numbers = [float(text.replace("−", "-")) for text in re.findall(r"[+−]\d\.\d{3}(?= to| *,)", first)]
    assert numbers == pytest.approx([verdict.low, verdict.high], abs=5e-4)
    assert "95 % interval" in first
    assert "12 patients" in first
    assert ("one seed)." in first) == (verdict.n_seeds == 1)
    assert ("3 seeds)." in first) == (verdict.n_seeds == 3)


@pytest.mark.parametrize("kind", KINDS)
def test_only_what_is_decided_has_a_colour(kind: str) -> None:
    tone, word = verdict_mark(KINDS[kind].model_dump())
    colours = {"gain": ("gain", "▲ gain"), "harm": ("harm", "▼ harm"), "null": ("null", "● no difference shown")}
    assert (tone, word) == colours.get(kind, ("null", "○ no verdict" if kind == "too few" else "○ undecided"))


def _everywhere(n_seeds: int) -> tuple[str, str, str, dict[str, Any]]:
    arms = (arm("transfer", *[0.9] * 8), arm("scratch", *np.linspace(0.5, 0.6, 8)))
    found = make_findings(arms)
    assert found.verdict is not None
    verdict = found.verdict.model_copy(update={"n_seeds": n_seeds, "decided": n_seeds > 1})
    found = replace(found, verdict=verdict)
    record = json.loads(json.dumps(metrics_record(found)))
    return render_page(found), markdown_summary(found), describe_evaluation(record, "transfer"), record["verdict"]


@pytest.mark.parametrize("n_seeds", [1, 3])
def test_title_summary_and_card_have_one_sentence(n_seeds: int) -> None:
    page, summary, card, record = _everywhere(n_seeds)
    words = say_verdict(record)
    assert "interval" in words
    assert words in card
    assert f"**{words}**" in summary
    (title,) = re.findall(r"<h1>(.*?)</h1>", page, re.DOTALL)
    # an interval is not torn in two where the title wraps
    assert re.search(r"[+−][\d.]+\N{NO-BREAK SPACE}to\N{NO-BREAK SPACE}[+−][\d.]+", title)
    title = title.replace("\N{NO-BREAK SPACE}", " ")
    assert title.rstrip(".").lower() in words.lower()
    assert "95 % interval" in title
    (header,) = re.findall(r'<header class="verdict (\w+)">', page)
    assert header == ("null" if n_seeds == 1 else "gain")
    assert ("○ undecided" in page) == (n_seeds == 1)


def test_what_the_set_can_show_is_in_words() -> None:
    page = _everywhere(3)[0]
    assert re.search(r"A true difference of 0\.\d{3} would be shown in 8 of 10 such trials", page)
