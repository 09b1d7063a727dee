"""The optimiser of a phase: what trains at which rate, over what it has learned of each parameter."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from monai_tl.config import FinetuneConfig
from monai_tl.errors import ConfigError
from monai_tl.networks.groups import LayerGroup, hold_statistics, is_below, set_trainable
from monai_tl.networks.lora import add_low_rank, is_update, n_plain_parameters
from monai_tl.networks.scale_and_shift import normalisation_parameters
from monai_tl.training.schedule import learning_rate, warm_up
from monai_tl.transfer.phases import Phase, Strategy, Trained


class Tuning:
    """Freezes and thaws, steps, and carries the optimiser from phase to phase.

    Within a schedule a parameter that goes on training keeps its moments over a thaw: they are averages of its own
    gradients, and without them its first steps would have full length whatever the gradient. One that thaws begins
    with none. Where a schedule begins anew, all begin with none: the moments of a head that settled on a frozen body
    are those of small gradients, and make too long steps of the larger ones that come with a moving body.

    Args:
        network: With the weights that training starts from; gets low-rank updates where the strategy has them.
        groups: Layer groups of the network from input to output.
        strategy: Its phases.
        config: Weight decay, clipping, schedule, seed.
    """

    def __init__(
        self, network: nn.Module, groups: Sequence[LayerGroup], strategy: Strategy, config: FinetuneConfig
    ) -> None:
        self.network = network
        self.groups = {group.name: group for group in groups}
        self.strategy = strategy
        self.config = config
        body = [prefix for group in groups[:-1] for prefix in group.prefixes]
        trained = {(item.group, item.part) for phase in strategy.phases for item in phase.trained}
        in_part = {part: [prefix for group in groups if (group.name, part) in trained for prefix in group.prefixes]
                   for part in ("norm", "low_rank")}  # fmt: skip
        if strategy.low_rank is not None:
            added = add_low_rank(
                network, in_part["low_rank"], strategy.low_rank.rank, strategy.low_rank.alpha, config.seed
            )
            if not added:
                raise ConfigError(
                    f"finetune.lora_rank: is {strategy.low_rank.rank}, but no layer of the body is large enough to "
                    "gain by it; lower it, or choose another strategy"
                )
        self.norms = set(normalisation_parameters(network))
        if in_part["norm"] and not any(is_below(name, in_part["norm"]) for name in self.norms):
            raise ConfigError(
                "finetune.strategy: norm_only, but the body has no normalisation with scale and shift; choose another"
            )
        self.starts: dict[str, Tensor] = {}
        if strategy.pull is not None:
            wanted = strategy.pull.tensors
            self.starts = {
                name: tensor.detach().clone()
                for name, tensor in network.named_parameters()
                if is_below(name, body) and (wanted is None or name in wanted)
            }
        self.enter(strategy.phases[0])

    def enter(self, phase: Phase) -> None:
        """Freeze and thaw, and go on with an optimiser over what trains."""
        goes_on = hasattr(self, "optimiser") and not phase.begins_schedule
        learned = self._state_by_name() if goes_on else {}
        self.phase = phase
        self.network.train()
        chosen = {item: self.names_of(item) for item in phase.trained}
        parts = [name for item, names in chosen.items() if item.part != "all" for name in names]
        set_trainable(
            self.network,
            list(self.groups.values()),
            [item.group for item in phase.trained if item.part == "all"],
            parts,
        )
        hold_statistics(self.network, self.strategy.held)
        parameters = dict(self.network.named_parameters())
        self.names: list[str] = []
        self.rules: list[Trained] = []
        settings: list[dict[str, Any]] = []
        for rule, is_pulled, names in self._alike(chosen):
            self.names += names
            self.rules.append(rule)
            decay = 0.0 if is_pulled else self.config.weight_decay
            settings.append({"params": [parameters[name] for name in names], "weight_decay": decay})
        self.trained = [parameters[name] for name in self.names]
        self.optimiser = torch.optim.AdamW(settings, lr=phase.learning_rate, fused=True)
        for name in self.names:
            if name in learned:
                self.optimiser.state[parameters[name]] = learned[name]

    def restart(self, strategy: Strategy) -> None:
        """Stand at the first phase with nothing learned.

        Args:
            strategy: The same phases; rates may be others.
        """
        self.strategy = strategy
        self.optimiser.state.clear()
        self.enter(strategy.phases[0])

    def _alike(self, chosen: dict[Trained, list[str]]) -> list[tuple[Trained, bool, list[str]]]:
        """Parameters that are stepped alike: the same rate, warm-up and decay."""
        alike: dict[tuple[float, int, bool], tuple[Trained, bool, list[str]]] = {}
        for item, names in chosen.items():
            for name in names:
                is_pulled = name in self.starts
                found = alike.setdefault((item.factor, item.since, is_pulled), (item, is_pulled, []))
                found[2].append(name)
        return list(alike.values())

    def names_of(self, item: Trained) -> list[str]:
        """Names of the parameters that train, in the network's order."""
        prefixes = self.groups[item.group].prefixes if item.group in self.groups else ()
        below = [name for name, _ in self.network.named_parameters() if is_below(name, prefixes)]
        if item.part == "low_rank":
            return [name for name in below if is_update(name)]
        return [name for name in below if name in self.norms] if item.part == "norm" else below

    def _state_by_name(self) -> dict[str, Any]:
        state = self.optimiser.state
        return {name: state[p] for name, p in zip(self.names, self.trained, strict=True) if p in state}

    def rate(self, step: int, rule: Trained | None = None) -> float:
        """Rate of a step of this phase; of one rule, or the phase's own."""
        schedule = self.phase.schedule
        rate = learning_rate(
            step - schedule.first_step, schedule.n_steps, schedule.peak, schedule.warmup_steps, self.config.schedule
        )
        if rule is None:
            return rate
        late = warm_up(step - rule.since, schedule.warmup_steps) if rule.since > schedule.first_step else 1.0
        return rate * rule.factor * late

    def clip(self) -> float:
        """Scale the gradient to at most ``gradient_clip``.

        Returns:
            Its norm before.
        """
        return float(nn.utils.clip_grad_norm_(self.trained, self.config.gradient_clip))

    def step(self, step: int, rate: float | None = None) -> None:
        """One optimiser step with the gradients that are there.

        Args:
            step: From 0.
            rate: In place of the phase's own.
        """
        for group, rule in zip(self.optimiser.param_groups, self.rules, strict=True):
            group["lr"] = self.rate(step, rule) if rate is None else rate * rule.factor
        if self.strategy.pull is not None:
            self._pull(self.strategy.pull.weight)
        self.optimiser.step()

    def _pull(self, weight: float) -> None:
        starts = {id(tensor): self.starts.get(name) for name, tensor in zip(self.names, self.trained, strict=True)}
        with torch.no_grad():
            for group in self.optimiser.param_groups:
                for parameter in group["params"]:
                    start = starts[id(parameter)]
                    if start is not None:
                        parameter.lerp_(start, min(1.0, group["lr"] * weight))

    def count(self) -> dict[str, float | int]:
        """How many parameters the strategy trains at any time, out of how many the plain network has."""
        names = {name for phase in self.strategy.phases for item in phase.trained for name in self.names_of(item)}
        n_trained = sum(tensor.numel() for name, tensor in self.network.named_parameters() if name in names)
        n_all = n_plain_parameters(self.network)
        return {"n_parameters": n_all, "n_trained_parameters": n_trained, "share_trained": n_trained / n_all}
