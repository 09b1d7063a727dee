"""Nested subsets of the labelled cases, so that a smaller label budget is a part of each larger one."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Literal

from monai_tl.errors import DataError
from monai_tl.files import sha256_of
from monai_tl.records import Fold


def nested_subset(
    patient_of: Mapping[str, str], n_labels: int | Literal["all"], val_fraction: float, seed: int
) -> Fold:
    """The first ``n_labels`` cases of an order of patients that depends on the seed alone, divided for one training.

    Patients come in the order of a hash of the seed and their key, each with all its cases one after another, so the
    subset of a smaller number lies in that of a larger one, in its training and in its validation part alike, and one
    more case changes the place of no other. Only the last patient may be cut. A patient is for validation where that
    keeps the validation cases of all patients so far at or below the share: with one case each and a share of 1/4 these
    are the 4th, the 8th, the 12th …

    Args:
        patient_of: Case id → patient, of all cases that may be drawn.
        n_labels: Cases in all, at least 1; ``all`` takes every one.
        val_fraction: Largest share of validation cases, 0 or more and below 1.
        seed: Of the order.

    Returns:
        Sorted ids; no patient on both sides; ``val`` may be empty.

    Raises:
        DataError: There are fewer cases.
    """
    wanted = len(patient_of) if n_labels == "all" else n_labels
    if not patient_of or wanted > len(patient_of):
        raise DataError(
            f"{wanted} labels were asked for, but {len(patient_of)} labelled cases outside the test set could be "
            "prepared; lower curve.labels, or add cases"
        )
    sides: dict[str, list[str]] = {"train": [], "val": []}
    n_before = n_val = 0
    for case_ids in _ordered(patient_of, seed):
        n_before += len(case_ids)
        side = "val" if n_val + len(case_ids) <= val_fraction * n_before else "train"
        n_val += len(case_ids) if side == "val" else 0
        n_chosen = len(sides["train"]) + len(sides["val"])
        sides[side] += case_ids[: wanted - n_chosen]
    return Fold(train=tuple(sorted(sides["train"])), val=tuple(sorted(sides["val"])))


def _ordered(patient_of: Mapping[str, str], seed: int) -> Sequence[Sequence[str]]:
    cases: dict[str, list[str]] = defaultdict(list)
    for case_id in sorted(patient_of):
        cases[patient_of[case_id]].append(case_id)
    patients = sorted(cases, key=lambda patient: (sha256_of("curve", str(seed), patient), patient))
    return [cases[patient] for patient in patients]
