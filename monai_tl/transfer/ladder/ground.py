"""What a strategy is made from: the budget, the rates, the layer groups, and what of them came from the source."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from monai_tl.config import FinetuneConfig
from monai_tl.transfer.phases import HEAD_PHASE, Part, Phase, Schedule, Trained


@dataclass(frozen=True)
class Ground:
    """What a strategy is made from.

    Attributes:
        groups: Names of all layer groups from input to output; the last one is the head.
        head_is_fresh: Whether any part of the head starts from random values.
        came_across: Names of the body's tensors that the source gave; None: all of them.
        fresh: Body groups with kernels that start from random values: the source has none for them. Frozen, they would
            be a random function for good, so they train whole whenever the head does.
    """

    config: FinetuneConfig
    groups: tuple[str, ...]
    head_is_fresh: bool = True
    came_across: tuple[str, ...] | None = None
    fresh: tuple[str, ...] = ()

    @property
    def head(self) -> str:
        """Name of the head."""
        return self.groups[-1]

    @property
    def body(self) -> tuple[str, ...]:
        """Names of all other groups."""
        return self.groups[:-1]

    def schedule(self, first: int, peak: float) -> Schedule:
        """From ``first`` to the end of the budget."""
        n_steps = self.config.max_steps - first
        return Schedule(first, n_steps, peak, min(self.config.warmup_steps, n_steps))

    def head_alone(self, n_steps: int) -> tuple[Phase, ...]:
        """A phase of the head, and what else is fresh, at the head's rate and with a schedule of its own.

        Returns:
            Nothing without steps.
        """
        if not n_steps:
            return ()
        rate, warmup = self.config.head_learning_rate, min(self.config.warmup_steps, n_steps)
        trained = tuple(Trained(group) for group in (*self.fresh, self.head))
        return (Phase(HEAD_PHASE, 0, n_steps, trained, Schedule(0, n_steps, rate, warmup)),)

    def head_first(self, name: str, trained: Sequence[Trained]) -> tuple[Phase, ...]:
        """The head alone where part of it, or of the body, is fresh, then the given to the end.

        A fresh head sends random gradients into the body, which distort what the source knows; a head that came across
        whole does not.
        """
        n_head = min(self.config.head_steps, self.config.max_steps - 1) if self.head_is_fresh or self.fresh else 0
        return (*self.head_alone(n_head), self.rest(name, n_head, trained))

    def in_part(self, part: Part) -> list[Trained]:
        """A part of each group of the body; the head and what else is fresh whole."""
        return [*(Trained(group, "all" if group in self.fresh else part) for group in self.body), Trained(self.head)]

    def rest(self, name: str, first: int, trained: Sequence[Trained]) -> Phase:
        """One phase from ``first`` to the end of the budget, with a schedule of its own."""
        schedule = self.schedule(first, self.config.learning_rate)
        return Phase(name, first, schedule.n_steps, tuple(trained), schedule)
