"""The ladder: one small module a strategy, each a function from its ground to phases."""

from __future__ import annotations

from collections.abc import Callable

from monai_tl.transfer.ladder.discriminative import discriminative
from monai_tl.transfer.ladder.feature_extraction import feature_extraction
from monai_tl.transfer.ladder.gradual import gradual
from monai_tl.transfer.ladder.ground import Ground
from monai_tl.transfer.ladder.l2_sp import l2_sp
from monai_tl.transfer.ladder.layer_retraining import layer_retraining
from monai_tl.transfer.ladder.lora import lora
from monai_tl.transfer.ladder.lp_ft import lp_ft
from monai_tl.transfer.ladder.norm_only import norm_only
from monai_tl.transfer.ladder.whole import full, scratch
from monai_tl.transfer.phases import Strategy

LADDER: dict[str, Callable[[Ground], Strategy]] = {
    "scratch": scratch,
    "feature_extraction": feature_extraction,
    "layer_retraining": layer_retraining,
    "lp_ft": lp_ft,
    "gradual": gradual,
    "discriminative": discriminative,
    "lora": lora,
    "norm_only": norm_only,
    "full": full,
    "l2_sp": l2_sp,
}
"""Name → strategy, from nothing of the source, over more and more of the body, to all of it."""
