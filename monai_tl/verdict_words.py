"""The verdict as a reader gets it: in words, with its interval. Records keep their short terms, such as ``null``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

WORDS = {"gain": "gain", "null": "no difference shown", "harm": "harm"}
"""Term of the records → what a reader is told."""


def say_verdict(verdict: Mapping[str, Any]) -> str:
    """The verdict's sentences, the first with its interval.

    Args:
        verdict: As in ``metrics.json``.
    """
    sentence = str(verdict["sentence"])
    if sentence.startswith("Null"):
        sentence = "No difference shown" + sentence.removeprefix("Null")
    interval = say_interval(verdict)
    if not interval:
        return sentence
    first, _, rest = sentence.partition(". ")
    return f"{first.rstrip('.')} ({interval}).{' ' if rest else ''}{rest}"


def say_interval(verdict: Mapping[str, Any]) -> str:
    """E.g. ``95 % interval +0.026 to +0.340, 9 patients, 3 seeds``; empty where there is none.

    Args:
        verdict: As in ``metrics.json``.
    """
    if verdict.get("low") is None or verdict.get("high") is None:
        return ""
    bounds = f"{verdict['low']:+.3f} to {verdict['high']:+.3f}".replace("-", "−")
    seeds = f"{verdict['n_seeds']} seeds" if verdict["n_seeds"] > 1 else "one seed"
    return f"{verdict['confidence'] * 100:g} % interval {bounds}, {verdict['n_patients']} patients, {seeds}"


def verdict_mark(verdict: Mapping[str, Any]) -> tuple[str, str]:
    """What stands beside the verdict: its tone (``gain``, ``harm`` or ``null``) and its word with a sign.

    What is not decided has no tone of its own: a green word would be read and the sentence beside it would not.

    Args:
        verdict: As in ``metrics.json``.
    """
    if verdict.get("low") is None:
        return "null", "○ no verdict"
    if not verdict["decided"]:
        return "null", "○ undecided"
    word = str(verdict["verdict"])
    sign = {"gain": "▲", "null": "●", "harm": "▼"}[word]
    return word, f"{sign} {WORDS[word]}"
