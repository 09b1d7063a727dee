"""The hippodeep network as a plug-in: the entry point ``monai_tl.networks`` names SPEC."""

from torch import nn

from monai_tl.networks.groups import LayerGroup
from monai_tl.networks.spec import NetworkSpec
from monai_tl.records import SizeRule
from monai_tl_hippodeep.network import HippoDeep

GROUPS = (
    LayerGroup("stem", ("conv0a_0", "conv0a_1", "conv0a", "convf1")),
    LayerGroup("down1", ("bn1", "convout0", "convout1")),
    LayerGroup("down2", ("bn2", "convout2p", "convout2")),
    LayerGroup("up", ("convlx3", "convlx5", "convlx7", "convlx8")),
    LayerGroup("refine", ("blur", "conv_extract", "convmix")),
    LayerGroup("side", ("convside",)),
    LayerGroup("head", ("convout1x",)),
)
"""From input to output; ``side`` only with ``side_path``."""


def _groups(module: nn.Module) -> tuple[LayerGroup, ...]:
    has_side = getattr(module, "convside", None) is not None
    return tuple(group for group in GROUPS if has_side or group.name != "side")


SPEC = NetworkSpec(
    factory=HippoDeep,
    groups=_groups,
    size_rule=lambda _: SizeRule(divisor=4, min_vox=(4, 4, 4), padding="edge"),
    idle=("convside.weight",),
)

__all__ = ["GROUPS", "SPEC", "HippoDeep"]
