"""The head alone, on a body that never changes."""

from __future__ import annotations

from monai_tl.transfer.ladder.ground import Ground
from monai_tl.transfer.phases import Strategy


def feature_extraction(ground: Ground) -> Strategy:
    """Train the head; what the body makes of a sample is computed once and kept."""
    settings = {"feature_variants": ground.config.feature_variants}
    phases = ground.head_alone(ground.config.max_steps)
    return Strategy("feature_extraction", phases, from_features=True, settings=settings)
