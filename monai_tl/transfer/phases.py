"""Phases of training: what trains when, and how fast. What every strategy of the ladder yields."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Literal

Part = Literal["all", "norm", "low_rank"]
"""What of a layer group trains: all of it; the scale and shift of its normalisation; its low-rank updates."""


@dataclass(frozen=True)
class Trained:
    """A layer group that trains during a phase.

    Attributes:
        group: Its name.
        part: Of all but ``all`` the rest stays frozen, normalisation statistics and dropout included.
        factor: Its rate is the phase's times this.
        since: Optimiser step that its warm-up is counted from: when it thawed.
    """

    group: str
    part: Part = "all"
    factor: float = 1.0
    since: int = 0


@dataclass(frozen=True)
class Schedule:
    """Warm-up and decay of the rate over a stretch of steps; may go on over several phases.

    Attributes:
        first_step: Optimiser step it begins at.
        n_steps: How long it lasts.
        peak: Rate after warm-up.
        warmup_steps: Steps from near 0 to the peak.
    """

    first_step: int
    n_steps: int
    peak: float
    warmup_steps: int


@dataclass(frozen=True)
class Phase:
    """Steps during which the same parameters train.

    Attributes:
        name: Unique within the strategy.
        first_step: Optimiser step it begins at, from 0.
        n_steps: How many steps it lasts.
        trained: What trains; all else is frozen, normalisation statistics included.
        schedule: Of the rate; begins with this phase, or with an earlier one and goes on.
    """

    name: str
    first_step: int
    n_steps: int
    trained: tuple[Trained, ...]
    schedule: Schedule

    @property
    def end_step(self) -> int:
        """The first step after it."""
        return self.first_step + self.n_steps

    @property
    def trainable(self) -> tuple[str, ...]:
        """Names of the layer groups of which something trains."""
        return tuple(item.group for item in self.trained)

    @property
    def learning_rate(self) -> float:
        """Peak rate of its schedule."""
        return self.schedule.peak

    @property
    def warmup_steps(self) -> int:
        """Of its schedule."""
        return self.schedule.warmup_steps

    @property
    def begins_schedule(self) -> bool:
        """Whether the rate starts anew with this phase."""
        return self.schedule.first_step == self.first_step


@dataclass(frozen=True)
class LowRank:
    """Low-rank updates of the body's convolutions and linear layers, in place of training them."""

    rank: int
    alpha: float


@dataclass(frozen=True)
class Pull:
    """A pull towards the starting values, in place of weight decay.

    Attributes:
        weight: Share of the distance that a step of rate 1 takes back.
        tensors: Names of the tensors that are pulled; None: all of the body.
    """

    weight: float
    tensors: tuple[str, ...] | None = None


HEAD_PHASE = "head"
"""Name of a phase in which the head trains alone."""


@dataclass(frozen=True)
class Strategy:
    """A strategy's phases, one after another without gaps, over the whole budget.

    Attributes:
        low_rank: Given: the body gets low-rank updates before training, merged in what is kept.
        pull: Given: towards the starting values.
        from_features: The body never trains, so what it makes of a sample may be kept.
        held: Layers whose running statistics stay the source's while they train.
        settings: The parameters of its own that it used, for the record.
    """

    name: str
    phases: tuple[Phase, ...]
    low_rank: LowRank | None = None
    pull: Pull | None = None
    from_features: bool = False
    held: tuple[str, ...] = ()
    settings: Mapping[str, float] = field(default_factory=dict)

    @property
    def n_steps(self) -> int:
        """The budget, optimiser steps."""
        return self.phases[-1].end_step

    def phase_at(self, step: int) -> Phase:
        """The phase of a step, from 0.

        Raises:
            ValueError: The step is outside the budget.
        """
        for phase in self.phases:
            if phase.first_step <= step < phase.end_step:
                return phase
        raise ValueError(f"step {step} is outside the budget of {self.n_steps} steps")

    def thawed_at(self, step: int) -> tuple[str, ...]:
        """Groups that begin to train at this step after having been frozen; empty at step 0 and within a phase."""
        phase = self.phase_at(step)
        if step == 0 or step != phase.first_step:
            return ()
        before = set(self.phase_at(step - 1).trainable)
        return tuple(name for name in phase.trainable if name not in before)

    def with_rate(self, rate: float) -> Strategy:
        """The same strategy with another peak rate; a head-first phase before others keeps its own."""
        last = self.phases[-1]
        phases = (
            phase
            if phase.name == HEAD_PHASE and phase is not last
            else replace(phase, schedule=replace(phase.schedule, peak=rate))
            for phase in self.phases
        )
        return replace(self, phases=tuple(phases))
