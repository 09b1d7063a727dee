"""The head alone, on a body that never changes."""

from __future__ import annotations

from monai_tl.errors import ConfigError
from monai_tl.transfer.ladder.ground import Ground
from monai_tl.transfer.phases import Strategy


def feature_extraction(ground: Ground) -> Strategy:
    """Train the head; what the body makes of a sample is computed once and kept.

    Raises:
        ConfigError: Part of the body is fresh: its features would be those of random weights.
    """
    if ground.fresh:
        raise ConfigError(
            f"finetune.strategy: feature_extraction would never train {', '.join(ground.fresh)}, which the source does "
            "not give and which start from random values; choose lp_ft, gradual, discriminative, lora, norm_only, "
            "l2_sp or full"
        )
    settings = {"feature_variants": ground.config.feature_variants}
    phases = ground.head_alone(ground.config.max_steps)
    return Strategy("feature_extraction", phases, from_features=True, settings=settings)
