"""How far the target lies from what the source was trained on, feature by feature, and one number for all of it."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Literal

from monai_tl.config import IntensityConfig
from monai_tl.records import Fingerprint, Plan, Shift, ShiftFeature
from monai_tl.sources.card import Card
from monai_tl.transfer.contract_geometry import extent_share, seen_by
from monai_tl.transfer.contract_intensity import share_inside
from monai_tl.transfer.contract_lines import axes_of

AXES = ("R-L", "A-P", "S-I")
"""Of cases as they are stored (RAS+)."""
NO_FINGERPRINT = "the source's card does not say what it was trained on"


def measure_shift(card: Card, found: Fingerprint, plan: Plan) -> Shift:
    """Compare the fingerprint of the target with the source's, or with the source's contract where it has none.

    Args:
        card: Of the source.
        found: The target's training cases.
        plan: Its intensity rule is the scale on which intensities are compared.

    Returns:
        The features in a fixed order. ``score`` is the largest known distance: it is 0 only where every known feature
        is the same, a further feature never lowers it, and it is read in the unit of the feature that it is of (1 is a
        factor of two, or one standard deviation). With a fingerprint on both sides it is symmetric. What cannot be
        compared has no distance; it does not count as 0.
    """
    features = [_ratio("input channels", card.network.n_channels, found.n_channels, "")]
    if card.fingerprint is None:
        features += _from_contract(card, found, plan)
    else:
        features += _from_fingerprint(card.fingerprint, found, plan)
    return sum_up(features, "contract" if card.fingerprint is None else "fingerprint")


def compare_fingerprints(training: Fingerprint, found: Fingerprint, plan: Plan) -> Shift:
    """The same between the cases that a model was trained on and others, whatever the model came from.

    Args:
        training: Stands for the source.
        found: The others.
        plan: The model's.
    """
    channels = _ratio("input channels", training.n_channels, found.n_channels, "")
    return sum_up([channels, *_from_fingerprint(training, found, plan)], "fingerprint")


def sum_up(features: Sequence[ShiftFeature], basis: Literal["contract", "fingerprint"]) -> Shift:
    """The shift of these features, of which one distance at least is known."""
    known = [feature for feature in features if feature.distance is not None]
    largest = max(known, key=lambda feature: feature.distance or 0.0)
    return Shift(
        score=largest.distance,
        largest=largest.name if largest.distance else "",
        basis=basis,
        features=tuple(features),
    )


def _from_fingerprint(source: Fingerprint, target: Fingerprint, plan: Plan) -> Iterator[ShiftFeature]:
    for axis, name in enumerate(AXES):
        yield _ratio(f"voxel size {name}", source.spacing_mm_median[axis], target.spacing_mm_median[axis], "mm")
    for axis, name in enumerate(AXES):
        yield _ratio(f"field of view {name}", source.extent_mm_median[axis], target.extent_mm_median[axis], "mm")
    yield _ratio("share of the image that the body fills", source.foreground_share, target.foreground_share, "")
    yield from _intensities(source, target, plan.intensity)
    shared = {name.casefold(): name for name in source.class_volumes_ml}
    names = [name for name in target.class_volumes_ml if name.casefold() in shared]
    for name in names:
        volume = source.class_volumes_ml[shared[name.casefold()]]
        yield _ratio(f"volume of {name}", volume, target.class_volumes_ml[name], "ml")
    if not names:
        yield _unknown("volume of classes", "ml", "log2 ratio", "source and target share no class name")


def _intensities(source: Fingerprint, target: Fingerprint, rule: IntensityConfig) -> Iterator[ShiftFeature]:
    """Mean and deviation of the foreground as the network is given it, before any clipping by a window."""
    one, two = _on_scale(source, rule), _on_scale(target, rule)
    note = f"on the network's input scale ({rule.rule})"
    location, spread = "foreground intensity, mean", "foreground intensity, deviation"
    if one is None or two is None:
        lacking = f"one side's fingerprint has no intensities {note}"
        yield _unknown(location, "", "standard deviations", lacking)
        yield _unknown(spread, "", "log2 ratio", lacking)
        return
    both = math.sqrt((one[1] ** 2 + two[1] ** 2) / 2.0)
    distance = abs(one[0] - two[0]) / both if both > 0.0 else None
    yield ShiftFeature(
        name=location, source=_rounded(one[0]), target=_rounded(two[0]), unit="", measure="standard deviations",
        distance=None if distance is None else _rounded(distance),
        note=note if both > 0.0 else "neither foreground varies",
    )  # fmt: skip
    yield _ratio(spread, one[1], two[1], "", note)


def _on_scale(found: Fingerprint, rule: IntensityConfig) -> tuple[float, float] | None:
    if rule.rule == "window" and rule.low is not None and rule.high is not None:
        mean, std = found.intensity.get("mean"), found.intensity.get("std")
        low, width = rule.low, rule.high - rule.low
    else:
        mean, std = found.scaled.get(f"{rule.rule}_mean"), found.scaled.get(f"{rule.rule}_std")
        low, width = 0.0, 1.0
    if mean is None or std is None:
        return None
    first, last = rule.output
    return first + (mean - low) / width * (last - first), std / width * (last - first)


def _from_contract(card: Card, found: Fingerprint, plan: Plan) -> Iterator[ShiftFeature]:
    """What the contract alone tells: the grid, the window's cover, and the size; the rest is not known."""
    axes = axes_of(plan.orientation)
    for axis, name in enumerate(AXES):
        spacing = card.input.spacing_mm[axes.index(axis)]
        yield _ratio(f"voxel size {name}", spacing, found.spacing_mm_median[axis], "mm", "the source's grid")
    yield _size(card, found, plan)
    yield _unknown("share of the image that the body fills", "", "log2 ratio", NO_FINGERPRINT)
    yield _cover(card.input.intensity, found)
    yield _unknown("foreground intensity, mean", "", "standard deviations", NO_FINGERPRINT)
    yield _unknown("foreground intensity, deviation", "", "log2 ratio", NO_FINGERPRINT)
    yield _unknown("volume of classes", "ml", "log2 ratio", NO_FINGERPRINT)


def _size(card: Card, found: Fingerprint, plan: Plan) -> ShiftFeature:
    stated = "smallest" if card.input.trained_window_vox is None else "window"
    name = f"field of view, share of the source's {stated}"
    # here, because the report takes words from this module and needs no torch
    from monai_tl.networks.builders import size_rule_of

    if all(given <= own for given, own in zip(seen_by(card), size_rule_of(plan.network).min_vox, strict=True)):
        return _unknown(name, "", "log2 ratio", "the card asks for no larger size than the network itself does")
    share = min(1.0, extent_share(card, found, plan))
    return _ratio(name, 1.0, share, "", "of the axis where least of it is there; a larger case counts as the same")


def _cover(rule: IntensityConfig, found: Fingerprint) -> ShiftFeature:
    name = "foreground inside the source's window"
    if rule.rule != "window":
        return _unknown(name, "", "share", f"the rule {rule.rule} has no window")
    inside = _rounded(share_inside(rule, found.intensity["p00_5"], found.intensity["p99_5"]))
    return ShiftFeature(
        name=name, source=1.0, target=inside, unit="", measure="share", distance=_rounded(1.0 - inside),
        note="of the range from percentile 0.5 to 99.5; the source's own is taken to lie inside",
    )  # fmt: skip


def _ratio(name: str, source: float, target: float, unit: str, note: str = "") -> ShiftFeature:
    if source <= 0.0 or target <= 0.0:
        return _unknown(name, unit, "log2 ratio", "one side is 0, so no ratio can be taken", source, target)
    # a ratio, not a difference of logarithms, so that equal sides give exactly 0 either way round
    distance = math.log2(max(source, target) / min(source, target))
    return ShiftFeature(
        name=name, source=_rounded(source), target=_rounded(target), unit=unit, measure="log2 ratio",
        distance=_rounded(distance), note=note,
    )  # fmt: skip


def _unknown(
    name: str,
    unit: str,
    measure: Literal["log2 ratio", "standard deviations", "share"],
    note: str,
    source: float | None = None,
    target: float | None = None,
) -> ShiftFeature:
    return ShiftFeature(name=name, source=source, target=target, unit=unit, measure=measure, distance=None, note=note)


def _rounded(value: float) -> float:
    return float(f"{value:.6g}")
