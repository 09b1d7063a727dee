"""The source's input contract against the target: each line equal, adapted on purpose, or broken; none passed over."""

from __future__ import annotations

from collections.abc import Sequence

from monai_tl.config import IntensityConfig
from monai_tl.dataset.orientation import axes_and_flips
from monai_tl.errors import ContractError
from monai_tl.records import Adaptation, Fingerprint, Plan, Triple
from monai_tl.sources.card import Card

_SAME_SPACING = 0.05
"""Relative; hippocampus networks lose nothing measurable up to 15 %."""
_OBJECTS_TOO_DIFFERENT = 2.0
_COARSE = 3.0
_BROKEN_EXTENT = 0.5


def compare_contract(card: Card, found: Fingerprint, plan: Plan) -> tuple[Adaptation, ...]:
    """Hold the source's contract against what the target has and what the plan makes of it.

    Args:
        card: Of the source.
        found: The target's training cases.
        plan: How they will be prepared.

    Returns:
        One line each for modality, channels, orientation, spacing, intensity, window, field of view and classes. A
        broken line means that the source meets what it never saw; only a broken modality forbids the plan
        (:func:`check_contract`).
    """
    return (
        _compare_modality(card, found),
        _compare_channels(card, found),
        _compare_orientation(card, plan),
        _compare_spacing(card, found, plan),
        _compare_intensity(card.input.intensity, found, plan),
        _compare_window(card, plan),
        _compare_extent(card, found, plan),
        _compare_classes(card, plan),
    )


def check_contract(adaptations: Sequence[Adaptation], source: str) -> None:
    """Refuse a plan whose contract is broken beyond adapting.

    Raises:
        ContractError: The modality differs: intensities, contrast and anatomy mean other things. Nothing in params.yaml
            overrides this.
    """
    broken = [line for line in adaptations if line.status == "broken"]
    if not any(line.item == "modality" for line in broken):
        return
    lines = "\n".join(f"  {line.item}: {line.reason}" for line in broken)
    raise ContractError(
        f"{source} does not fit the target:\n{lines}\n"
        "choose a source of the target's modality, or train from scratch (plan.source: null, finetune.arms: [scratch])"
    )


def axes_of(orientation: str) -> list[int]:
    """For each axis of an orientation, the axis of a RAS+ array that it is."""
    return axes_and_flips("RAS", orientation)[0]


def extent_vox(found: Fingerprint, plan: Plan) -> Triple:
    """Median size of the target's cases on the plan's grid (after the crop, where there is one), voxels."""
    extent = found.extent_mm_median
    if plan.foreground == "none":
        i, j, k = (size * step for size, step in zip(found.shape_median, found.spacing_mm_median, strict=True))
        extent = i, j, k
    i, j, k = (extent[axis] / step for axis, step in zip(axes_of(plan.orientation), plan.spacing_mm, strict=True))
    return i, j, k


def _compare_modality(card: Card, found: Fingerprint) -> Adaptation:
    source, target = card.input.modality, found.modality
    if source.casefold() == target.casefold():
        return _line("modality", source, target, "equal", "same modality")
    if source.split()[:1] == target.split()[:1]:
        reason = "same modality, but one side names a sequence; make sure that the contrast is the same"
        return _line("modality", source, target, "adapted", reason)
    return _line("modality", source, target, "broken", f"the source learned on {source}, the target is {target}")


def _compare_channels(card: Card, found: Fingerprint) -> Adaptation:
    n_source, n_target = card.network.n_channels, found.n_channels
    source = f"{n_source} ({', '.join(card.input.channels)})"
    if n_source == n_target:
        return _line("channels", source, str(n_target), "equal", "same number of channels")
    reason = f"the first layer's weights are remade from {n_source} to {n_target} input channels"
    return _line("channels", source, str(n_target), "adapted", reason)


def _compare_orientation(card: Card, plan: Plan) -> Adaptation:
    wanted = card.input.orientation
    if wanted == "RAS":
        return _line("orientation", wanted, "RAS", "equal", "cases are stored in this orientation")
    reason = f"axes of RAS+ cases are permuted and flipped to {plan.orientation}"
    return _line("orientation", wanted, "RAS", "adapted" if plan.orientation == wanted else "broken", reason)


def _compare_spacing(card: Card, found: Fingerprint, plan: Plan) -> Adaptation:
    axes = axes_of(plan.orientation)
    source = card.input.spacing_mm
    bounds = [tuple(side[axis] for axis in axes) for side in (found.spacing_mm_min, found.spacing_mm_max)]
    median = tuple(found.spacing_mm_median[axis] for axis in axes)
    target = f"median {_mm(median)}, {_mm(bounds[0])} to {_mm(bounds[1])}"
    factor = max(max(a / b, b / a) for a, b in zip(plan.spacing_mm, source, strict=True))
    if factor > 1.0 + _SAME_SPACING:
        reason = f"params.yaml asks for {_mm(plan.spacing_mm)}, {factor:.2g} times off along an axis"
        if factor > _OBJECTS_TOO_DIFFERENT:
            reason += "; objects have sizes that the source never saw"
        status = "broken" if factor > _OBJECTS_TOO_DIFFERENT else "adapted"
        return _line("spacing", _mm(source), target, status, reason)
    if all(abs(side[axis] / source[axis] - 1.0) <= _SAME_SPACING for side in bounds for axis in range(3)):
        return _line("spacing", _mm(source), target, "equal", "within 5 %; resampled to the source's exactly")
    reason = f"all cases are resampled to {_mm(plan.spacing_mm)}"
    coarse = max(high / step for high, step in zip(bounds[1], source, strict=True))
    if coarse > _COARSE:
        reason += f"; the coarsest is {coarse:.2g} times coarser along an axis, and interpolation adds no detail"
    return _line("spacing", _mm(source), target, "adapted", reason)


def _compare_intensity(source: IntensityConfig, found: Fingerprint, plan: Plan) -> Adaptation:
    low, high = found.intensity["p00_5"], found.intensity["p99_5"]
    target = f"foreground {low:g} to {high:g}"
    if plan.intensity != source:
        same = plan.intensity.rule == source.rule
        reason = f"params.yaml asks for {_rule(plan.intensity)}"
        reason += "" if same else "; the source never saw values on this scale"
        return _line("intensity", _rule(source), target, "adapted" if same else "broken", reason)
    if source.rule != "window" or source.low is None or source.high is None:
        return _line("intensity", _rule(source), target, "equal", "each case is scaled by itself, as the source's were")
    inside = max(0.0, min(high, source.high) - max(low, source.low)) / max(high - low, 1e-9)
    if inside >= 1.0 - 1e-9:
        return _line("intensity", _rule(source), target, "equal", "the foreground lies inside the source's window")
    reason = f"{inside:.0%} of the foreground's range lies inside the source's window; the rest is clipped"
    return _line("intensity", _rule(source), target, "adapted" if inside >= 0.5 else "broken", reason)


def _compare_window(card: Card, plan: Plan) -> Adaptation:
    least = card.input.size_rule.min_vox
    source, target = f"at least {' x '.join(map(str, least))} voxels", " x ".join(map(str, plan.patch_size_vox))
    if all(size >= minimum for size, minimum in zip(plan.patch_size_vox, least, strict=True)):
        return _line("window", source, target, "equal", "training and prediction use windows that the source takes")
    reason = "params.yaml asks for a smaller one, in training and in prediction; the source has to get used to it"
    return _line("window", source, target, "adapted", reason)


def _compare_extent(card: Card, found: Fingerprint, plan: Plan) -> Adaptation:
    sizes, least = extent_vox(found, plan), card.input.size_rule.min_vox
    source = str(plan.size_rule.model_copy(update={"min_vox": least}))
    target = f"median {' x '.join(f'{size:.0f}' for size in sizes)} voxels"
    share = min(size / minimum for size, minimum in zip(sizes, least, strict=True))
    if share >= 1.0:
        return _line("field of view", source, target, "equal", "the cases are large enough")
    how = "their edge values" if plan.size_rule.padding == "edge" else "zeros"
    reason = f"smaller cases are padded with {how}"
    if share < _BROKEN_EXTENT:
        reason += f"; along an axis only {share:.0%} of what the source expects is there, so it lacks its context"
    return _line("field of view", source, target, "broken" if share < _BROKEN_EXTENT else "adapted", reason)


def _compare_classes(card: Card, plan: Plan) -> Adaptation:
    source, target = ", ".join(card.classes), ", ".join(plan.scheme.names)
    known = {name.casefold() for name in card.classes}
    shared = [name for name in plan.scheme.names if name.casefold() in known]
    if card.classes == plan.scheme.names and card.output == "softmax":
        return _line("classes", source, target, "equal", "same classes in the same order")
    reason = f"the head is remade; rows reused for {', '.join(shared)}" if shared else "the head is made anew"
    return _line("classes", source, target, "adapted", reason)


def _line(item: str, source: str, target: str, status: str, reason: str) -> Adaptation:
    return Adaptation.model_validate(
        {"item": item, "source": source, "target": target, "status": status, "reason": reason}
    )


def _mm(spacing: Sequence[float]) -> str:
    return " x ".join(f"{step:.3g}" for step in spacing) + " mm"


def _rule(rule: IntensityConfig) -> str:
    if rule.low is None or rule.high is None:
        return rule.rule
    unit = "" if rule.rule == "window" else "percentiles "
    return f"{rule.rule}, {unit}{rule.low:g} to {rule.high:g}"
