"""The contract's line about intensities: the rule, and what it makes of the target's values."""

from __future__ import annotations

from monai_tl.config import IntensityConfig
from monai_tl.records import Adaptation, Fingerprint, Plan
from monai_tl.sources.card import Card
from monai_tl.transfer.contract_geometry import BROKEN_EXTENT, extent_share
from monai_tl.transfer.contract_lines import Judged, make_line

FEW_INSIDE = 0.5
"""Share of the foreground's range that must lie in the window."""
OTHER_VALUES = 0.5
"""Share of the source's range by which a rule of one's own may move the foreground."""
FLAT = 0.02
"""Share of the window that the foreground must fill, or all of it looks the same to the network."""
_OTHER_RULE = "remove plan.intensity, so that the source's rule is used"
_OTHER_SOURCE = "choose a source that was trained on such images"


def compare_intensity(card: Card, found: Fingerprint, plan: Plan) -> Adaptation:
    """The source's rule against the plan's, and what the rule makes of the target's values."""
    rule = card.input.intensity
    low, high = found.intensity["p00_5"], found.intensity["p99_5"]
    if high <= low:
        reason = f"the foreground has one value, {low:g}, so nothing in it can be told apart"
        judged = Judged("broken", reason, "look at the images and labels of the training cases")
    elif plan.intensity != rule:
        judged = _other_rule(rule, plan.intensity, low, high)
    elif rule.rule == "window":
        judged = _no_hounsfield(rule, found) or _in_window(rule, low, high)
    else:
        judged = _case_by_case(rule, found, extent_share(card, found, plan))
    return make_line("intensity", write_rule(rule), f"foreground {low:g} to {high:g}", judged)


def _other_rule(source: IntensityConfig, plan: IntensityConfig, low: float, high: float) -> Judged:
    reason = f"params.yaml asks for {write_rule(plan)} where the source learned on {write_rule(source)}"
    if plan.rule != source.rule:
        return Judged("broken", f"{reason}: it never saw values on this scale", _OTHER_RULE)
    if plan.nonzero != source.nonzero:
        return Judged("broken", f"{reason}: the statistics are of other voxels, so all values differ", _OTHER_RULE)
    if plan.rule == "zscore":
        return Judged("adapted", reason)
    if plan.rule == "minmax":
        moved = max(abs(a - b) for a, b in zip(plan.output, source.output, strict=True))
    else:
        moved = max(abs(window_value(plan, value) - window_value(source, value)) for value in (low, high))
    share = moved / (source.output[1] - source.output[0])
    reason += f": the foreground's values move by up to {share:.0%} of the source's range"
    if share > OTHER_VALUES:
        return Judged("broken", f"{reason}, more than {OTHER_VALUES:.0%}", _OTHER_RULE)
    return Judged("adapted", reason)


def window_value(window: IntensityConfig, value: float) -> float:
    """What a stored value becomes under a window."""
    low, high = window.low or 0.0, window.high or 0.0
    share = (min(max(value, low), high) - low) / (high - low)
    return window.output[0] + share * (window.output[1] - window.output[0])


def share_inside(window: IntensityConfig, low: float, high: float) -> float:
    """Share of the range low to high that lies inside a window, 0 to 1."""
    bottom, top = window.low or 0.0, window.high or 0.0
    return max(0.0, min(high, top) - max(low, bottom)) / max(high - low, 1e-9)


def _in_window(window: IntensityConfig, low: float, high: float) -> Judged:
    inside = share_inside(window, low, high)
    filled = (high - low) * inside / ((window.high or 0.0) - (window.low or 0.0))
    covered = f"{inside:.0%} of the foreground's range lies inside the source's window"
    if inside < FEW_INSIDE:
        advice = f"look whether the stored values are on the source's scale (CT: HU), or {_OTHER_SOURCE}"
        return Judged("broken", f"only {covered}; the rest is clipped to one value", advice)
    if filled < FLAT:
        reason = f"the foreground fills {filled:.1%} of the source's window, so all of it looks the same to the network"
        return Judged("broken", reason, _OTHER_SOURCE)
    if inside >= 1.0 - 1e-9:
        return Judged("equal", f"the foreground lies inside the source's window and fills {filled:.0%} of it")
    return Judged("adapted", f"{covered}; the rest is clipped")


def _no_hounsfield(window: IntensityConfig, found: Fingerprint) -> Judged | None:
    """CT without a value below 0 is not in HU, where air is -1000 and fat -100; a wide window hides the offset."""
    lowest = found.intensity.get("body_min")
    if found.modality != "CT" or lowest is None or lowest < 0.0 or (window.low or 0.0) >= 0.0:
        return None
    reason = (
        f"the lowest value of all training cases is {lowest:g}, while air is -1000 HU and fat -100: the values are on "
        "another scale than the source's (stored without the rescale intercept, or scaled already)"
    )
    return Judged("broken", reason, "bring the images to HU before they are ingested")


def _case_by_case(rule: IntensityConfig, found: Fingerprint, extent: float) -> Judged:
    same = "each case is scaled by itself, as the source's were"
    n_squashed = int(found.scaled.get("n_squashed", 0))
    if extent < BROKEN_EXTENT:
        same = (
            f"{same}, but a case has only {extent:.0%} of the source's field of view along an axis: other tissue is in "
            "it, and the same tissue gets other values than the source saw"
        )
    if rule.nonzero and found.intensity.get("body_min", 0.0) > 0.0:
        reason = (
            f"{same}, but no voxel of the target is 0, so the statistics are of the whole image, its background too; "
            "the source's are of what is not 0"
        )
        return Judged("adapted", reason)
    # percentiles cut the bright voxels off before the statistics are taken
    if (rule.high is not None and rule.high < 100.0) or not n_squashed:
        return Judged("adapted" if extent < BROKEN_EXTENT else "equal", same)
    reason = (
        f"{same}, but in {n_squashed} of {found.n_cases} cases a few bright voxels take the range: 99.5 % of all "
        "voxels lie in its lowest tenth"
    )
    if 2 * n_squashed < found.n_cases:
        return Judged("adapted", reason)
    return Judged("broken", reason, "clip the bright outliers of the images before they are ingested")


def write_rule(rule: IntensityConfig) -> str:
    """E.g. ``window, -160 to 240``."""
    parts: list[str] = [rule.rule]
    if rule.low is not None and rule.high is not None:
        parts.append(f"{'' if rule.rule == 'window' else 'percentiles '}{rule.low:g} to {rule.high:g}")
    if rule.output != (0.0, 1.0):
        parts.append(f"to {rule.output[0]:g} to {rule.output[1]:g}")
    return ", ".join(parts + (["of voxels that are not 0"] if rule.nonzero else []))
