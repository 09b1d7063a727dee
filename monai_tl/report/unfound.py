"""Trainings that never find a class: a mean over seeds or classes would hide them."""

from __future__ import annotations

from monai_tl.metrics.cohort import ArmResult
from monai_tl.report.findings import Findings

_NEXT = (
    "A training that was too short, or fell into a state without it, is more likely than a class that cannot be "
    "learnt: look at its curve, raise finetune.max_steps, and train more seeds."
)


def unfound_lines(findings: Findings) -> list[str]:
    """One line for each class that a training found in no case that has it, and what to do next; else nothing."""
    lines = []
    for arm in findings.arms:
        for place, name in enumerate(findings.class_names):
            seeds, n_cases = _unfound(arm, place)
            if seeds:
                cases = f"{n_cases} {findings.set_name} cases that have it"
                lines.append(f"{arm.arm}: {name} is found in none of the {cases}{_of(arm, seeds)}.")
    return [*lines, _NEXT] if lines else []


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


def _of(arm: ArmResult, seeds: list[int]) -> str:
    if len(arm.by_seed) == 1:
        return ""
    if len(seeds) == len(arm.by_seed):
        return ", with any seed"
    return f", with seed{'s' if len(seeds) > 1 else ''} {', '.join(map(str, seeds))}"
