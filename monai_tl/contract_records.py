"""What a plan says of its source: the contract line by line, and the shift."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict


class _Part(BaseModel):
    """Of a plan: frozen, nothing extra allowed, as all records are."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Adaptation(_Part):
    """One line of the contract: what the source expects against what the target has.

    Attributes:
        advice: Of a broken line: what mends it.
        accepted: Of a broken line: ``plan.accept_broken`` names it.
    """

    item: str
    source: str
    target: str
    status: Literal["equal", "adapted", "broken"]
    reason: str
    advice: str = ""
    accepted: bool = False


class ShiftFeature(_Part):
    """One number of the target against the source's.

    Attributes:
        source, target: In ``unit``; None where it is not known.
        measure: How the distance is taken. ``log2 ratio``: its absolute value, so 1 is a factor of two.
            ``standard deviations``: the difference by the root mean square of both sides' deviations.
            ``share``: the difference of two shares.
        distance: 0 for the same; None where a side is not known.
        note: What the numbers are, or why one is not known.
    """

    name: str
    source: float | None
    target: float | None
    unit: str
    measure: Literal["log2 ratio", "standard deviations", "share"]
    distance: float | None
    note: str = ""


class Shift(_Part):
    """How far the target lies from what the source was trained on.

    Attributes:
        score: The largest known distance; 0 for the same data, None where nothing is known.
        largest: The feature that it is of.
        basis: ``fingerprint`` of the source's training cases, or its ``contract`` alone.
    """

    score: float | None
    largest: str
    basis: Literal["fingerprint", "contract"]
    features: tuple[ShiftFeature, ...]
