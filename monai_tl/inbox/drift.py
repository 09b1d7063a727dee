"""Drift: how far the latest studies lie from the cases the model was trained on, by the features of the shift."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import ValidationError

from monai_tl.certainty_records import ModelCertainty
from monai_tl.dataset.fingerprint import fingerprint_of_volume
from monai_tl.geometry import Affine
from monai_tl.inbox.entries import Entry
from monai_tl.records import Fingerprint, Plan, Shift, ShiftFeature, Triple
from monai_tl.transfer.shift import compare_fingerprints, sum_up
from monai_tl.transfer.shift_words import describe_shift

_ENTROPY = "entropy"
"""Beside the fields of a fingerprint, in the ledger."""


@dataclass(frozen=True)
class Drift:
    """The latest studies together.

    Attributes:
        shift: Training cases against them; None where nothing can be compared.
        n_studies: Looked at.
        scores: Study → its own score, for those looked at; one study may lie far off without any drift.
        bound: Of the settings.
        is_alarm: Past the bound, of enough studies.
    """

    shift: Shift | None
    n_studies: int
    scores: Mapping[str, float]
    bound: float
    is_alarm: bool

    def describe(self) -> str:
        """One or two plain sentences."""
        if self.shift is None:
            return "Drift: nothing to compare yet."
        words = describe_shift(self.shift).replace("The target lies", "They lie").replace("the source", "the training")
        word = "ALARM" if self.is_alarm else "no alarm"
        return f"Drift ({word}, bound {self.bound:g}), the latest {self.n_studies} studies: {words}"


def measure(image: NDArray[Any], affine: Affine, label: NDArray[np.uint8], plan: Plan) -> Fingerprint:
    """A study's series in numbers, its predicted label in place of a reference.

    Args:
        image: (I, J, K), stored values.
        affine: RAS+.
        label: (I, J, K) uint8, what the model says of it.
        plan: The model's.

    Returns:
        Without the intensities of the foreground where nothing was found: those of the air would be compared.
    """
    found = fingerprint_of_volume(image, affine, label, plan.modality, plan.scheme)
    if label.any():
        return found
    body = {name: value for name, value in found.intensity.items() if name.startswith("body_")}
    return found.model_copy(update={"intensity": body})


@dataclass(frozen=True)
class Measured:
    """A series in numbers, and how unsure the model was of it (``metrics.uncertainty``); None where that is unknown."""

    fingerprint: Fingerprint
    entropy: float | None = None


def measures_to_text(found: Sequence[Measured]) -> str:
    """For the ledger."""
    rows = [one.fingerprint.model_dump(mode="json", exclude_defaults=True) | {_ENTROPY: one.entropy} for one in found]
    return json.dumps(rows, sort_keys=True)


def _read(entry: Entry) -> list[Measured]:
    try:
        rows = json.loads(entry.measures or "[]")
        return [Measured(Fingerprint.model_validate(_without_entropy(one)), one.get(_ENTROPY)) for one in rows]
    except (ValueError, ValidationError, TypeError, AttributeError):
        return []


def _without_entropy(row: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in row.items() if key != _ENTROPY}


def drift_of(
    done: Sequence[Entry],
    training: Fingerprint | None,
    plan: Plan,
    *,
    window: int,
    bound: float,
    certainty: ModelCertainty | None = None,
) -> Drift:
    """Compare the latest studies with the training cases.

    Args:
        done: Rows with measures, in any order.
        training: Of the model's card; None where that has none.
        plan: The model's; its intensity rule is the scale.
        window: So many of the latest.
        bound: Of the score.
        certainty: Of the cases that the model was judged with; None compares no uncertainty.
    """
    latest = sorted(done, key=lambda entry: (entry.arrived, entry.content))[-window:]
    by_study = {entry.study: found for entry in latest if (found := _read(entry))}
    if training is None or not by_study:
        return Drift(None, 0, {}, bound, is_alarm=False)
    scores = {study: _shift(found, training, plan, certainty).score for study, found in by_study.items()}
    shift = _shift([one for found in by_study.values() for one in found], training, plan, certainty)
    is_enough = 2 * len(by_study) >= window
    return Drift(
        shift,
        len(by_study),
        {study: score for study, score in scores.items() if score is not None},
        bound,
        is_alarm=is_enough and (shift.score or 0.0) > bound,
    )


def _shift(found: Sequence[Measured], training: Fingerprint, plan: Plan, certainty: ModelCertainty | None) -> Shift:
    """By the features of the shift, and by the model's uncertainty."""
    base = compare_fingerprints(training, pool([one.fingerprint for one in found]), plan)
    entropies = [one.entropy for one in found if one.entropy is not None]
    if certainty is None or not entropies:
        return base
    return sum_up([*base.features, _unsure(entropies, certainty)], base.basis)


def _unsure(entropies: Sequence[float], certainty: ModelCertainty) -> ShiftFeature:
    """Mean uncertainty now against that of the test cases, in deviations of these."""
    now, spread = math.fsum(entropies) / len(entropies), certainty.entropy_std
    return ShiftFeature(
        name="uncertainty of the prediction, entropy",
        source=float(f"{certainty.entropy_mean:.6g}"),
        target=float(f"{now:.6g}"),
        unit="nats",
        measure="standard deviations",
        distance=float(f"{abs(now - certainty.entropy_mean) / spread:.6g}") if spread > 0.0 else None,
        note=f"against {certainty.n_cases} test cases" if spread > 0.0 else "the test cases do not differ in it",
    )


def pool(found: Sequence[Fingerprint]) -> Fingerprint:
    """Fingerprints of single cases as one of all of them; each case counts the same.

    Medians are over the cases. The mean of the foreground is the mean of their means, its deviation that of all of
    them mixed: mean square minus square of the mean.

    Args:
        found: At least one, of one model.
    """
    names = list(dict.fromkeys(name for one in found for name in one.class_volumes_ml))

    def middle(of: Callable[[Fingerprint], Triple]) -> Triple:
        i, j, k = (float(value) for value in np.median([of(one) for one in found], axis=0))
        return i, j, k

    def volume(name: str) -> float:
        present = [one.class_volumes_ml[name] for one in found if one.class_volumes_ml.get(name, 0.0) > 0.0]
        return float(np.median(present)) if present else 0.0

    keys = {key for one in found for key in one.scaled}
    return found[0].model_copy(
        update={
            "n_cases": sum(one.n_cases for one in found),
            "spacing_mm_median": middle(lambda one: one.spacing_mm_median),
            "extent_mm_median": middle(lambda one: one.extent_mm_median),
            "foreground_share": float(np.median([one.foreground_share for one in found])),
            "intensity": _mixed([one.intensity for one in found if "mean" in one.intensity]),
            "scaled": {key: float(np.median([one.scaled[key] for one in found if key in one.scaled])) for key in keys},
            "class_volumes_ml": {name: volume(name) for name in names},
        }
    )


def _mixed(parts: Sequence[Mapping[str, float]]) -> dict[str, float]:
    if not parts:
        return {}
    mean = math.fsum(part["mean"] for part in parts) / len(parts)
    square = math.fsum(part["mean"] ** 2 + part["std"] ** 2 for part in parts) / len(parts)
    return {"mean": mean, "std": math.sqrt(max(square - mean * mean, 0.0))}
