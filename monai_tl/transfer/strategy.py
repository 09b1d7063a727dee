"""The ladder of strategies: which layer groups train when, and how fast."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from monai_tl.config import FinetuneConfig, StrategyName
from monai_tl.errors import ConfigError


@dataclass(frozen=True)
class Phase:
    """Steps during which the same groups train.

    Attributes:
        first_step: Optimiser step it begins at, from 0.
        n_steps: How many steps it lasts.
        trainable: Names of the layer groups that train; all others are frozen, normalisation statistics included.
        learning_rate: Peak rate; the schedule starts anew in each phase.
        warmup_steps: Steps from near 0 to the peak, counted from the phase's first.
    """

    name: str
    first_step: int
    n_steps: int
    trainable: tuple[str, ...]
    learning_rate: float
    warmup_steps: int

    @property
    def end_step(self) -> int:
        """The first step after it."""
        return self.first_step + self.n_steps


@dataclass(frozen=True)
class Strategy:
    """A strategy's phases, one after another without gaps, over the whole budget."""

    name: str
    phases: tuple[Phase, ...]

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


def make_strategy(name: StrategyName, config: FinetuneConfig, groups: Sequence[str], head: str) -> Strategy:
    """Plan the phases of a strategy.

    ``scratch`` and ``full`` train everything (they differ in what the network starts from); ``feature_extraction``
    trains the head on a frozen body; ``lp_ft`` trains the head first and then everything, so that a fresh head's
    gradients do not distort the body.

    Args:
        name: Of the strategy.
        config: Budget, rates and warm-up.
        groups: Names of all layer groups from input to output.
        head: The one that is the head.

    Raises:
        ConfigError: The head is no group, or the strategy is unknown.

    References:
        Kumar et al. 2022, arXiv:2202.10054 (LP-FT).
    """
    everything = tuple(groups)
    if head not in everything:
        raise ConfigError(
            f"strategy: the head {head!r} is not among the layer groups {', '.join(everything)}", "network"
        )

    def phase(label: str, first: int, last: int, trainable: tuple[str, ...], rate: float) -> Phase:
        return Phase(label, first, last - first, trainable, rate, min(config.warmup_steps, last - first))

    budget = config.max_steps
    if name in ("scratch", "full"):
        return Strategy(name, (phase("all", 0, budget, everything, config.learning_rate),))
    if name == "feature_extraction":
        return Strategy(name, (phase("head", 0, budget, (head,), config.head_learning_rate),))
    if name == "lp_ft":
        first = min(config.head_steps, budget)
        both = (
            phase("head", 0, first, (head,), config.head_learning_rate),
            phase("all", first, budget, everything, config.learning_rate),
        )
        return Strategy(name, tuple(item for item in both if item.n_steps))
    raise ConfigError(f"finetune.strategy: no strategy is called {name!r}")
