"""Groups thaw one after another, from the output to the input."""

from __future__ import annotations

from monai_tl.transfer.ladder.ground import Ground
from monai_tl.transfer.phases import Phase, Strategy, Trained


def gradual(ground: Ground) -> Strategy:
    """Train the head for ``head_steps``, then thaw one more group every ``group_steps``.

    One schedule lasts from the first thaw to the end, so the rate is not thrown up again at each; a group that thaws
    is warmed up by itself. Groups that the budget does not reach stay frozen; those that are fresh train with the head.

    References:
        Howard and Ruder 2018, arXiv:1801.06146 (ULMFiT).
    """
    config = ground.config
    n_head = min(config.head_steps, config.max_steps - 1)
    schedule = ground.schedule(n_head, config.learning_rate)
    trained = [Trained(group, since=n_head) for group in (*ground.fresh, ground.head)]
    phases: list[Phase] = []
    starts = range(n_head, config.max_steps, config.group_steps)
    known = [group for group in ground.body if group not in ground.fresh]
    reached = list(zip(starts, reversed(known), strict=False))
    for k, (first, group) in enumerate(reached):
        trained.insert(0, Trained(group, since=first))
        end = reached[k + 1][0] if k + 1 < len(reached) else config.max_steps
        phases.append(Phase(f"thaw {group}", first, end - first, tuple(trained), schedule))
    settings = {"head_steps": n_head, "group_steps": config.group_steps}
    if not phases:
        phases = [ground.rest("all", n_head, trained)]
    return Strategy("gradual", (*ground.head_alone(n_head), *phases), settings=settings)
