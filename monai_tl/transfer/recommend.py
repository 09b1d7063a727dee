"""``strategy: auto``: a strategy by rule, with what it was decided from and why."""

from __future__ import annotations

from collections.abc import Sequence

from monai_tl.config import StrategyName
from monai_tl.records import Adaptation, Record

FEW_LABELS = 16
"""Up to here low-rank updates can beat full tuning of a large network: gains are reported at 1 to 10 labelled cases
(arXiv:2603.05822; the SwinUNETR comparison at 10 cases), none beyond a few tens."""
MANY_LABELS = 100
"""From here on labels outweigh the start: on WORD scratch and tuned networks meet at 100 (.874 and .875), differ at 40
(.831 and .869), by the table of VISTA3D."""
LARGE_NETWORK = 20_000_000
"""Parameters; the networks that the gains of low-rank updates are reported for have 60 million and more."""
FAR_SHIFT = 2.0
"""Of the shift score: a factor of four, or two standard deviations. Beyond it the source's features do not describe
the target, and keeping near them costs more than it saves (Kumar et al. 2022 gain by good features alone)."""
FEW_STEPS = 30
"""Fewer steps than this move a body by little more than its warm-up."""
HEAD_SHARE, HEAD_STEPS = 0.3, 60
"""Of the steps, for the head alone in lp_ft, and at most so many: it need not converge, only stop sending random
gradients, and every further step is one less for the body."""


class Decision(Record):
    """What ``auto`` decided.

    Attributes:
        strategy: Chosen.
        settings: Parameters of ``finetune`` that it fixes.
        inputs: What it was decided from.
        reason: One sentence.
    """

    strategy: StrategyName
    settings: dict[str, int | float]
    inputs: dict[str, bool | int | float | tuple[str, ...] | None]
    reason: str


def recommend(
    n_labels: int,
    contract: Sequence[Adaptation],
    n_parameters: int,
    max_steps: int,
    shift_score: float | None = None,
    fresh_groups: Sequence[str] = (),
    head_is_fresh: bool = True,
) -> Decision:
    """Choose a strategy.

    Args:
        n_labels: Labelled training cases.
        contract: Lines of the plan.
        n_parameters: Of the network.
        max_steps: Budget, optimiser steps.
        shift_score: Of the plan, where there is one.
        fresh_groups: Body groups that the source does not give; no strategy that freezes them is chosen.
        head_is_fresh: Whether any part of the head starts from random values.

    Returns:
        The first rule that holds: too few steps for a body → head only; a source that is far → everything moves; few
        labels for a large network → low-rank updates; labels that do not outweigh the start → head first, then all;
        else everything.

    References:
        Kumar et al. 2022, arXiv:2202.10054: tuning everything from a random head distorts good features, and loses most
        away from the training distribution; head first mends it.
    """
    broken = tuple(line.item for line in contract if line.status == "broken")
    adapted = tuple(line.item for line in contract if line.status == "adapted")
    inputs: dict[str, bool | int | float | tuple[str, ...] | None] = {
        "n_labels": n_labels,
        "contract_broken": broken,
        "contract_adapted": adapted,
        "n_parameters": n_parameters,
        "max_steps": max_steps,
        "shift_score": shift_score,
        "fresh_groups": tuple(fresh_groups),
        "head_is_fresh": head_is_fresh,
    }

    def decide(strategy: StrategyName, reason: str, **settings: int | float) -> Decision:
        return Decision(strategy=strategy, settings=settings, inputs=inputs, reason=reason)

    head_steps = max(1, min(round(HEAD_SHARE * max_steps), HEAD_STEPS))

    def move_everything(reason: str) -> Decision:
        # random gradients distort the body whatever the labels or the distance: the head goes first, then all moves
        if head_is_fresh or fresh_groups:
            return decide("lp_ft", f"{reason}; a part of it is fresh and trains first", head_steps=head_steps)
        return decide("full", reason)

    if max_steps < FEW_STEPS and fresh_groups:
        reason = f"{max_steps} steps are few, but {', '.join(fresh_groups)} start from random values and must train"
        return decide("lp_ft", reason, head_steps=head_steps)
    if max_steps < FEW_STEPS:
        return decide("feature_extraction", f"{max_steps} steps are too few to move the body")
    if broken:
        return move_everything(f"the source's contract is broken ({', '.join(broken)}), so its features must move")
    if shift_score is not None and shift_score > FAR_SHIFT:
        return move_everything(f"the source is far (shift {shift_score:.2g}), so its features must move")
    cases = f"{n_labels} labelled case{'' if n_labels == 1 else 's'}"
    if n_labels <= FEW_LABELS and n_parameters >= LARGE_NETWORK:
        reason = f"{cases} are few for {n_parameters / 1e6:.0f} million parameters"
        return decide("lora", reason, head_steps=head_steps)
    if n_labels < MANY_LABELS:
        reason = f"with {cases} a fresh head would distort features that came across, so it trains first"
        return decide("lp_ft", reason, head_steps=head_steps)
    return move_everything(f"{cases} are enough to tune everything at once")
