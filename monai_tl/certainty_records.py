"""What predict keeps of the probabilities beside its label maps: a few numbers a case, from which evaluate judges."""

from __future__ import annotations

from collections.abc import Iterable
from statistics import fmean, stdev
from typing import Literal

from monai_tl.records import Record

CERTAINTY_FILE = "certainty.json"
"""In ``artifacts/predictions``."""


class Reliability(Record):
    """Voxels of a case by the confidence of the class they were given; see ``metrics.calibration``.

    Attributes:
        n, confidence, n_right: Of each bin: voxels, the sum of their confidences, those whose class is right.
    """

    n: tuple[int, ...]
    confidence: tuple[float, ...]
    n_right: tuple[int, ...]


class CaseCertainty(Record):
    """How sure the network is of a case.

    Attributes:
        reliability: None where it was not asked for, or the case has no label.
        scaled: The same after the temperature; None without one.
        entropy, disagreement, volume_variation: See ``metrics.uncertainty``; None with fewer than two members.
    """

    reliability: Reliability | None = None
    scaled: Reliability | None = None
    entropy: float
    disagreement: float | None = None
    volume_variation: float | None = None


class RunCertainty(Record):
    """Of one arm and seed.

    Attributes:
        temperature: Fitted on validation cases, each predicted by its own fold's model, which has not trained on it.
            None where there are none besides the cases that are predicted, or it was not asked for.
        n_validation_cases: It was fitted on.
        members: What disagreed: the models of several folds, or mirrored passes of one; None with one prediction.
        cases: Those that were predicted, by id.
    """

    arm: str
    seed: int
    temperature: float | None
    n_validation_cases: int
    members: Literal["models", "mirrored passes"] | None
    n_members: int
    cases: dict[str, CaseCertainty]


class Certainty(Record):
    """``certainty.json``."""

    schema_version: Literal[1] = 1
    runs: tuple[RunCertainty, ...] = ()


class ModelCertainty(Record):
    """How sure a model was of its run's test cases; goes along with it as ``certainty.json``.

    Attributes:
        n_cases: Test cases.
        entropy_mean, entropy_std: Over them, see ``metrics.uncertainty``; a sample's deviation.
    """

    n_cases: int
    entropy_mean: float
    entropy_std: float


def sum_up(cases: Iterable[CaseCertainty]) -> ModelCertainty | None:
    """Of a run's cases; None of fewer than two, which have no deviation."""
    found = [case.entropy for case in cases]
    if len(found) < 2:
        return None
    return ModelCertainty(n_cases=len(found), entropy_mean=fmean(found), entropy_std=stdev(found))
