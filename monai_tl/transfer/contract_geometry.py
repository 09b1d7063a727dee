"""Lines of the contract about geometry: orientation, spacing, window, field of view."""

from __future__ import annotations

import math

from monai_tl.dataset.orientation import axes_and_flips
from monai_tl.records import Adaptation, Fingerprint, IntTriple, Plan, Triple
from monai_tl.sources.card import Card
from monai_tl.transfer.contract_lines import (
    Judged,
    axes_of,
    extent_vox,
    in_mm,
    in_voxels,
    make_line,
    smallest_extent_vox,
)
from monai_tl.transfer.orientation_trial import Trial, judge_trial

SAME_SPACING = 0.05
"""Relative; hippocampus networks lose nothing measurable up to 15 %."""
OBJECTS_TOO_DIFFERENT = 2.0
"""A grid so many times finer or coarser shows objects at sizes that the source never saw."""
COARSE, TOO_COARSE = 3.0, 5.0
"""Voxels so many times longer than the source's: worth saying; four of five values are interpolated."""
BROKEN_EXTENT = 0.5
"""Share of the source's smallest size that must be there; below it most of what the source sees is padding."""


def compare_orientation(card: Card, plan: Plan) -> Adaptation:
    """Cases are stored as RAS+, so any other orientation is reached by turning, which loses nothing."""
    wanted = card.input.orientation
    if plan.orientation != wanted:
        reason = f"the source learned on arrays that lie as {wanted}, the plan makes {plan.orientation}"
        return make_line("orientation", wanted, plan.orientation, Judged("broken", reason, "make the plan anew"))
    if wanted == "RAS":
        return make_line("orientation", wanted, "RAS", Judged("equal", "cases are stored in this orientation"))
    axes, flips = axes_and_flips("RAS", wanted)
    backwards = [letter for letter, flip in zip(wanted, flips, strict=True) if flip]
    done = ["axes are exchanged"] if axes != [0, 1, 2] else []
    done += [f"reversed towards {' and '.join(backwards)}"] if backwards else []
    reason = f"each case is turned from RAS to {wanted} ({', '.join(done)}); nothing is interpolated"
    if _is_mirrored(axes, flips):
        reason += (
            "; as arrays, though not in the patient, these are mirror images of RAS, so a wrong letter on the card "
            "would exchange left and right"
        )
    return make_line("orientation", wanted, "RAS", Judged("adapted", reason))


def check_letters(line: Adaptation, trial: Trial | None, why_not: str) -> Adaptation:
    """The line of the orientation after the source was tried: broken where it finds more in mirror images.

    Args:
        line: Of ``compare_orientation``.
        trial: Before any training; None where there was none.
        why_not: Why there was none.
    """
    if trial is None:
        return line.model_copy(update={"reason": f"{line.reason}; the letters could not be checked: {why_not}"})
    answer = judge_trial(trial)
    if answer.status != "mirrored":
        return line.model_copy(update={"reason": f"{line.reason}; {answer.reason}"})
    given = next(letter for letter in line.source if letter in answer.direction)
    right = line.source.replace(given, answer.direction.replace(given, ""))
    return line.model_copy(
        update={
            "status": "broken",
            "reason": f"{line.source} seems wrong: {answer.reason}",
            "advice": f"ask who made the source; if it is so, write input.orientation: {right} on its card",
        }
    )


def _is_mirrored(axes: list[int], flips: list[bool]) -> bool:
    n_exchanges = sum(axes[i] > axes[k] for i in range(3) for k in range(i + 1, 3))
    return (n_exchanges + sum(flips)) % 2 == 1


def compare_spacing(card: Card, found: Fingerprint, plan: Plan) -> Adaptation:
    """The plan's grid against the source's, and the voxels that the cases were measured with."""
    axes = axes_of(plan.orientation)
    source, plan_mm = card.input.spacing_mm, plan.spacing_mm
    low, high = (tuple(side[axis] for axis in axes) for side in (found.spacing_mm_min, found.spacing_mm_max))
    median = tuple(found.spacing_mm_median[axis] for axis in axes)
    target = f"median {in_mm(median)}, {in_mm(low)} to {in_mm(high)}"
    factor = max(max(a / b, b / a) for a, b in zip(plan_mm, source, strict=True))
    if factor > 1.0 + SAME_SPACING:
        reason = f"params.yaml asks for {in_mm(plan_mm)} where the source learned on {in_mm(source)}: {factor:.3g} "
        reason += "times off along an axis"
        if factor <= OBJECTS_TOO_DIFFERENT:
            return make_line("spacing", in_mm(source), target, Judged("adapted", reason))
        reason += f", more than {OBJECTS_TOO_DIFFERENT:g}, so objects have sizes in voxels that the source never saw"
        advice = "remove plan.spacing_mm, so that the source's spacing is used"
        return make_line("spacing", in_mm(source), target, Judged("broken", reason, advice))
    if all(abs(side[axis] / source[axis] - 1.0) <= SAME_SPACING for side in (low, high) for axis in range(3)):
        reason = f"every case is within {SAME_SPACING:.0%} of the source's voxels; all are put on {in_mm(plan_mm)}"
        return make_line("spacing", in_mm(source), target, Judged("equal", reason))
    reason = f"all cases are resampled to {in_mm(plan_mm)}"
    typical = max(step / wanted for step, wanted in zip(median, source, strict=True))
    coarsest = max(step / wanted for step, wanted in zip(high, source, strict=True))
    if typical > TOO_COARSE:
        reason += (
            f"; a typical case's voxels are {typical:.3g} times longer along an axis than the source's, more than "
            f"{TOO_COARSE:g}, and interpolation adds no detail: the source sees blurred structures that it never saw"
        )
        advice = "choose a source that was trained on voxels of this size, or ingest series of thinner slices"
        return make_line("spacing", in_mm(source), target, Judged("broken", reason, advice))
    if coarsest > COARSE:
        reason += (
            f"; the coarsest case's voxels are {coarsest:.3g} times longer along an axis, and interpolation adds no "
            "detail"
        )
    return make_line("spacing", in_mm(source), target, Judged("adapted", reason))


def least_of(card: Card) -> IntTriple:
    """The source's smallest size, at least a voxel along each axis."""
    i, j, k = (max(1, size) for size in card.input.size_rule.min_vox)
    return i, j, k


def seen_by(card: Card) -> IntTriple:
    """What the source is known to look at: its smallest size, and what it was trained on where that is larger."""
    i, j, k = map(max, least_of(card), card.input.trained_window_vox or (1, 1, 1))
    return i, j, k


def _state_sizes(card: Card, how: str) -> str:
    """What ``seen_by`` is made of, in words."""
    least, trained = least_of(card), card.input.trained_window_vox
    parts = [f"{how} {in_voxels(least)}"] if trained is None or max(least) > 1 else []
    return ", ".join(parts + ([f"trained on {in_voxels(trained)}"] if trained is not None else []))


def compare_window(card: Card, plan: Plan, max_voxels: int) -> Adaptation:
    """The window of training and prediction against those that the source takes and was trained on."""
    wanted, patch = seen_by(card), plan.patch_size_vox
    source = _state_sizes(card, "exactly" if card.input.size_rule.fixed else "at least")
    target = in_voxels(patch)
    if card.input.size_rule.fixed and patch != least_of(card):
        reason = "plan.network, which is trained in place of the source's own network, takes other windows"
        return make_line("window", source, target, Judged("adapted", reason))
    if all(size >= minimum for size, minimum in zip(patch, wanted, strict=True)):
        reason = "training and prediction use windows that the source takes"
        n_voxels = math.prod(patch)
        if n_voxels > max_voxels:
            reason += (
                f"; the source's smallest is {n_voxels / 1e6:.3g} million voxels, more than plan.max_patch_voxels "
                f"({max_voxels / 1e6:.3g} million), so a step takes much memory and time: plan.patch_size_vox makes "
                "it smaller"
            )
        return make_line("window", source, target, Judged("equal", reason))
    share = math.prod(map(min, patch, wanted)) / math.prod(wanted)
    window = "smallest window has" if card.input.trained_window_vox is None else "window had in its training"
    reason = (
        f"training and prediction see {share:.1%} of the volume that the source's {window}; the source has to get used "
        "to it"
    )
    return make_line("window", source, target, Judged("adapted", reason))


def extent_share(card: Card, found: Fingerprint, plan: Plan) -> float:
    """Smallest share, over the axes, of what the source asks for that a typical case fills; may exceed 1."""
    return min(_shares(extent_vox(found, plan), _asked_of_case(card, found, plan)))


def _shares(sizes: Triple, wanted: IntTriple) -> list[float]:
    # extents in mm make sizes that are whole numbers but for the last digit
    return [round(size, 3) / one for size, one in zip(sizes, wanted, strict=True)]


def _asked_of_case(card: Card, found: Fingerprint, plan: Plan) -> IntTriple:
    """``seen_by`` without windows that the network itself makes of such a case by padding.

    There the source may have been trained on cases of this size: a plan's patch is the case, rounded up.
    """
    least, trained = least_of(card), card.input.trained_window_vox
    if trained is None:
        return least
    # here, because the report takes words from this module and needs no torch
    from monai_tl.networks.windows import network_size

    whole = [math.ceil(round(size, 3)) for size in extent_vox(found, plan)]
    # one fixed size is no rounding: whoever built the network chose it
    padded = whole if plan.size_rule.fixed else network_size(whole, plan.size_rule)
    i, j, k = (low if own >= wide else max(low, wide) for low, wide, own in zip(least, trained, padded, strict=True))
    return i, j, k


def compare_extent(card: Card, found: Fingerprint, plan: Plan) -> Adaptation:
    """How much of what the source expects to see at once is there."""
    sizes, seen = extent_vox(found, plan), seen_by(card)
    smallest = smallest_extent_vox(found, plan)
    target = f"median {in_voxels(sizes)}"
    if max(seen) == 1:
        reason = (
            "the source does not state on what window it was trained; make sure that its images showed no more of the "
            "surroundings than these"
        )
        return make_line("field of view", "not stated", target, Judged("adapted", reason))
    source = f"{_state_sizes(card, 'at least')} of {in_mm(card.input.spacing_mm)}"
    asked = _asked_of_case(card, found, plan)
    shares = _shares(sizes, asked)
    how = "their edge values" if plan.size_rule.padding == "edge" else "zeros"
    if min(shares) < BROKEN_EXTENT:
        axis = shares.index(min(shares))
        reason = (
            f"the source looks at {asked[axis]} voxels along axis {plan.orientation[axis]}, a typical case has "
            f"{sizes[axis]:.0f} ({shares[axis]:.0%}, less than {BROKEN_EXTENT:.0%}): the surroundings by which the "
            "source finds its structures are not in the image, and padding does not bring them"
        )
        advice = "ingest images as large as those of the source, or choose a source that was trained on crops"
        return make_line("field of view", source, target, Judged("broken", reason, advice))
    share = min(_shares(sizes, seen))
    if share < 1.0:
        reason = f"smaller cases are padded with {how}; a typical one fills {share:.0%} along its shortest axis"
        reason += ", and the network itself takes no less" if share < BROKEN_EXTENT else ""
        return make_line("field of view", source, target, Judged("adapted", reason))
    if smallest is not None and (lacking := min(_shares(smallest, seen))) < 1.0:
        reason = f"a typical case is large enough; smaller ones are padded with {how}, the smallest fills {lacking:.0%}"
        return make_line("field of view", source, target, Judged("adapted", reason + " along an axis"))
    return make_line("field of view", source, target, Judged("equal", "the cases are large enough"))
