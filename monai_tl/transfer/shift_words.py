"""The shift in plain words; apart from its measuring, so that a report needs no network."""

from __future__ import annotations

from monai_tl.records import Shift


def describe_shift(shift: Shift) -> str:
    """The shift in one plain sentence."""
    n_unknown = sum(feature.distance is None for feature in shift.features)
    known = [feature for feature in shift.features if feature.distance is not None]
    beside = f" {n_unknown} of {len(shift.features)} features could not be compared." if n_unknown else ""
    if shift.basis == "contract":
        beside += " The source's card does not say what it was trained on, so only its contract was compared."
    if not shift.largest or not shift.score:
        return f"In all {len(known)} features that could be compared the target is like the source.{beside}"
    worst = next(feature for feature in known if feature.name == shift.largest)
    return (
        f"The target lies farthest from the source in {worst.name}: {_value(worst.target, worst.unit)} against "
        f"{_value(worst.source, worst.unit)}, a distance of {shift.score:.2g} "
        f"({in_words(worst.measure, shift.score)}).{beside}"
    )


def _value(value: float | None, unit: str) -> str:
    return f"{value:.3g}{f' {unit}' if unit else ''}" if value is not None else "an unknown value"


def in_words(measure: str, distance: float) -> str:
    """A distance as one says it: ``a factor of 2``, ``0.5 standard deviations``."""
    if distance == 0.0:
        return "the same"
    if measure == "log2 ratio":
        # near 1 two digits would say "a factor of 1"
        return f"a factor of {2.0**distance:.{2 if distance >= 0.14 else 3}g}"
    return f"{distance:.2g} standard deviations" if measure == "standard deviations" else f"a share of {distance:.0%}"
