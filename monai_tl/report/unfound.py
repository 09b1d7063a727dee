"""Trainings that never find a class: a mean over seeds or classes would hide them."""

from __future__ import annotations

from typing import Any

from monai_tl.metrics.cohort import ArmResult
from monai_tl.report.findings import Findings
from monai_tl.unfound_words import say_unfound


def unfound_lines(findings: Findings) -> list[str]:
    """One line for each class that a training found in no case that has it, and what to do next; else nothing."""
    return say_unfound(unfound_record(findings), findings.set_name)


def unfound_record(findings: Findings) -> list[dict[str, Any]]:
    """For ``metrics.json``: arm and class, the seeds whose training never found it, and in how many cases it is."""
    found = []
    for arm in findings.arms:
        for place, name in enumerate(findings.class_names):
            seeds, n_cases = _unfound(arm, place)
            if seeds:
                one = {"arm": arm.arm, "class": name, "seeds": seeds, "n_seeds": len(arm.by_seed), "n_cases": n_cases}
                found.append(one)
    return found


def _unfound(arm: ArmResult, place: int) -> tuple[list[int], int]:
    """Seeds whose every prediction of a class is empty where the reference is not, and how many cases that are.

    A case without a prediction is counted elsewhere; it says nothing of what the network finds.
    """
    seeds, n_cases = [], 0
    for seed, cases in arm.by_seed.items():
        scores = [case.scores[place] for case in cases if not case.failed and case.scores[place].reference_ml > 0]
        if scores and all(score.prediction_ml == 0 for score in scores):
            seeds.append(seed)
            n_cases = max(n_cases, len(scores))
    return seeds, n_cases
