"""How often the test set was looked at: every set of models that was scored on it, counted once.

A test set judges honestly once. Each further model that is tried on it, and kept or dropped by what was seen, fits the
choice to these cases a little more; so the count stands beside the numbers.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal

from monai_tl.files import held, sha256_of
from monai_tl.records import CaseRecord, Record

LOOKS_FILE = "test_looks.json"
"""In the workspace, for git to track: entries are added and never changed."""


class Look(Record):
    """One set of models scored on a test set.

    Attributes:
        number: From 1, of this test set. The same models again are the same look: nothing new is learnt from them.
        test_set: Hash over the cases and the bytes of their images and labels.
        models: Name → sha256 of the weights.
        models_sha256: Over these hashes, whatever the names are.
        by: ``evaluate``, or ``curve`` for a point of the curve.
    """

    number: int
    test_set: str
    models: dict[str, str]
    models_sha256: str
    by: Literal["evaluate", "curve"]


class Looks(Record):
    """``test_looks.json``."""

    schema_version: Literal[1] = 1
    looks: tuple[Look, ...] = ()


def read_looks(workspace: Path) -> Looks:
    """All that were recorded; none without the file.

    Raises:
        DataError: The file is damaged.
    """
    path = workspace / LOOKS_FILE
    return Looks.read(path) if path.is_file() else Looks()


def record_look(
    workspace: Path, cases: Sequence[CaseRecord], models: Mapping[str, str], by: Literal["evaluate", "curve"]
) -> Look:
    """Record that models were scored on the test cases, before their numbers are shown to anybody.

    Args:
        workspace: Gets ``test_looks.json``.
        cases: The test set.
        models: Name → sha256 of the weights.
        by: Who looks.

    Returns:
        The look: a new one, or that of the first time the same models met the same cases.

    Raises:
        DataError: The file is damaged: to begin anew would forget what was seen.
    """
    test_set = hash_of_test_set(cases)
    digest = sha256_of(*sorted(models.values()))
    with held(workspace):
        looks = read_looks(workspace).looks
        same_set = [look for look in looks if look.test_set == test_set]
        for look in same_set:
            if look.models_sha256 == digest:
                return look
        new = Look(number=len(same_set) + 1, test_set=test_set, models=dict(models), models_sha256=digest, by=by)
        Looks(looks=(*looks, new)).write(workspace / LOOKS_FILE)
    return new


def hash_of_test_set(cases: Sequence[CaseRecord]) -> str:
    """Hex sha256 over ids and input bytes: a case more, or a label redrawn, is another test set."""
    ordered = sorted(cases, key=lambda case: case.case_id)
    return sha256_of(*(part for case in ordered for part in (case.case_id, case.provenance.input_sha256)))
