"""A strategy by its name: which parameters train when, and how fast."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from monai_tl.config import FinetuneConfig, StrategyName
from monai_tl.errors import ConfigError
from monai_tl.records import Audit
from monai_tl.transfer.ladder import LADDER
from monai_tl.transfer.ladder.ground import Ground
from monai_tl.transfer.phases import Phase, Strategy

__all__ = ["Phase", "Strategy", "make_strategy"]

_STATISTICS = ".running_mean"


def make_strategy(
    name: StrategyName,
    config: FinetuneConfig,
    groups: Sequence[str],
    head: str,
    audit: Audit | None = None,
    fresh: Sequence[str] = (),
) -> Strategy:
    """Plan the phases of a strategy.

    Args:
        name: Of the strategy; ``auto`` must have been decided before (``monai_tl.transfer.recommend``).
        config: Budget, rates, warm-up and the strategy's own parameters.
        groups: Names of all layer groups from input to output.
        head: The last of them.
        audit: Of loading the source: whether the head is fresh, and what of the body came across. Without one the head
            counts as fresh and the body as come across.
        fresh: Body groups that start from random values, as found by
            ``monai_tl.sources.accounting.fresh_groups``.

    Raises:
        ConfigError: The head is not the last group, or the strategy is unknown or does not fit the network.
    """
    if head not in groups:
        raise ConfigError(f"strategy: the head {head!r} is not among the layer groups {', '.join(groups)}", "network")
    if head != groups[-1]:
        raise ConfigError(f"strategy: the head {head!r} is not the last of the groups {', '.join(groups)}", "network")
    if name not in LADDER:
        raise ConfigError(f"finetune.strategy: no strategy is called {name!r}")
    if audit is None:
        return LADDER[name](Ground(config, tuple(groups)))
    given = [item for item in audit.tensors if item.status in ("matched", "adapted")]
    came_across = tuple(item.name for item in given if item.group != head)
    ground = Ground(config, tuple(groups), audit.groups.get(head, 0.0) < 1.0, came_across, tuple(fresh))
    strategy = LADDER[name](ground)
    if config.norm_statistics == "moving":
        return strategy
    held = (item.name.removesuffix(_STATISTICS) for item in given if item.name.endswith(_STATISTICS))
    return replace(strategy, held=tuple(held))
