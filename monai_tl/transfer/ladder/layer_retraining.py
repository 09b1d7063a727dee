"""The last groups train, the others never do."""

from __future__ import annotations

from monai_tl.errors import ConfigError
from monai_tl.transfer.ladder.ground import Ground
from monai_tl.transfer.phases import Strategy, Trained


def layer_retraining(ground: Ground) -> Strategy:
    """Train the last ``n_groups`` groups, the head included; a fresh head first.

    Raises:
        ConfigError: The network has fewer groups, or a group that is fresh would stay frozen.

    References:
        Yosinski et al. 2014, arXiv:1411.1792.
    """
    n_groups = ground.config.n_groups
    if n_groups > len(ground.groups):
        raise ConfigError(
            f"finetune.n_groups: is {n_groups}, but the network has {len(ground.groups)} layer groups "
            f"({', '.join(ground.groups)})"
        )
    frozen = [group for group in ground.fresh if group not in ground.groups[-n_groups:]]
    if frozen:
        raise ConfigError(
            f"finetune.n_groups: is {n_groups}, so {', '.join(frozen)} would never train, which the source lacks "
            f"and which start from random values; {len(ground.groups) - ground.groups.index(frozen[0])} or more are "
            "needed, or another strategy"
        )
    settings = {"n_groups": n_groups}
    if n_groups == 1:
        return Strategy("layer_retraining", ground.head_alone(ground.config.max_steps), settings=settings)
    phases = ground.head_first("last", [Trained(group) for group in ground.groups[-n_groups:]])
    return Strategy("layer_retraining", phases, settings=settings)
