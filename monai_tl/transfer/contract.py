"""The source's input contract against the target: each line equal, adapted on purpose, or broken; none passed over."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from monai_tl.errors import ContractError
from monai_tl.records import Adaptation, Fingerprint, Plan
from monai_tl.sources.card import Card
from monai_tl.transfer.contract_content import compare_channels, compare_classes, compare_modality
from monai_tl.transfer.contract_geometry import (
    check_letters,
    compare_extent,
    compare_orientation,
    compare_spacing,
    compare_window,
)
from monai_tl.transfer.contract_intensity import compare_intensity
from monai_tl.transfer.orientation_trial import Trial

TryOut = Callable[[Plan], tuple[Trial | None, str]]
"""Tries the source on training cases that a plan prepares; the trial, or None and why there is none."""
_EYES = ("modality", "field of view")
"""Lines without which a source cannot find anything. Other channels may do: the trial tells."""


def compare_contract(
    card: Card, found: Fingerprint, plan: Plan, max_voxels: int, try_out: TryOut | None = None
) -> tuple[Adaptation, ...]:
    """Hold the source's contract against what the target has and what the plan makes of it.

    Args:
        card: Of the source.
        found: The target's training cases.
        plan: How they will be prepared.
        max_voxels: What a window may have at most, where the source does not ask for more.
        try_out: Tries the source, which alone can tell whether the card's orientation is true; None takes the card's
            word.

    Returns:
        One line each in the order of ``CONTRACT_ITEMS``. A broken line means that the source meets what it never
        saw: ``accept_lines`` refuses it unless it is accepted.
    """
    lines = (
        compare_modality(card, found),
        compare_channels(card, found),
        compare_orientation(card, plan),
        compare_spacing(card, found, plan),
        compare_intensity(card, found, plan),
        compare_window(card, plan, max_voxels),
        compare_extent(card, found, plan),
        compare_classes(card, plan),
    )
    if try_out is None:
        return lines
    # what a network finds that lacks its modality or the extent it must see tells nothing, and may take many minutes
    blind = [line.item for line in lines if line.status == "broken" and line.item in _EYES]
    tried = (
        (None, f"the source was not tried, as {' and '.join(blind)} {'is' if len(blind) == 1 else 'are'} broken")
        if blind
        else try_out(plan)
    )
    return tuple(check_letters(line, *tried) if line.item == "orientation" else line for line in lines)


def accept_lines(
    lines: Sequence[Adaptation], accept_broken: Sequence[str], source: str
) -> tuple[tuple[Adaptation, ...], tuple[str, ...]]:
    """Refuse a broken contract, unless each broken line is accepted by name.

    A broken modality is never accepted: intensities, contrast and anatomy mean other things, and there is no
    preprocessing to adopt. A source that knows several says so on its card (``modality: CT/MR``).

    Args:
        lines: Of ``compare_contract``.
        accept_broken: ``plan.accept_broken``.
        source: Name of the source, for the message.

    Returns:
        The lines, accepted ones marked, and notes on acceptances that no line needs.

    Raises:
        ContractError: Lines are broken and not accepted; all broken ones are listed with their numbers and what to do.
    """
    marked = tuple(
        line.model_copy(update={"accepted": True})
        if line.status == "broken" and line.item in accept_broken and line.item != "modality"
        else line
        for line in lines
    )
    broken = [line for line in marked if line.status == "broken"]
    open_lines = [line for line in broken if not line.accepted]
    if open_lines:
        raise ContractError(_refusal(broken, open_lines, source))
    idle = [item for item in accept_broken if item not in {line.item for line in broken}]
    return marked, tuple(f"plan.accept_broken names {item}, which is not broken; it can be removed" for item in idle)


def _refusal(broken: Sequence[Adaptation], open_lines: Sequence[Adaptation], source: str) -> str:
    lines = []
    for line in broken:
        lines.append(f"  {line.item}{' (accepted)' if line.accepted else ''}: {line.reason}")
        lines.append(f"    source: {line.source}; target: {line.target}")
        lines += [f"    to mend it: {line.advice}"] if line.advice and not line.accepted else []
    scratch = "train from scratch (plan.source: null, finetune.arms: [scratch])"
    if any(line.item == "modality" for line in open_lines):
        ending = f"another modality cannot be accepted; choose another source, or {scratch}"
    else:
        items = ", ".join(line.item for line in broken)
        ending = (
            f"mend each, or choose another source, or {scratch}. To go on all the same, write "
            f"plan.accept_broken: [{items}] into params.yaml; the report and the model's card will say so"
        )
    count = "one line is" if len(broken) == 1 else f"{len(broken)} lines are"
    return f"the contract of source {source} does not fit the target, {count} broken:\n" + "\n".join([*lines, ending])
