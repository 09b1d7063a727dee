"""MeshNet as a plug-in: the entry point ``monai_tl.networks`` names SPEC."""

from torch import nn

from monai_tl.networks.groups import LayerGroup
from monai_tl.networks.spec import NetworkSpec
from monai_tl.records import SizeRule
from monai_tl_meshnet.network import MeshNet


def groups_of(module: nn.Module) -> tuple[LayerGroup, ...]:
    """One group a convolution, from input to output; the last one is the head."""
    *body, head = (str(index) for index, layer in enumerate(module.children()) if isinstance(layer, nn.Conv3d))
    return (*(LayerGroup(f"dilated{k}", (name,)) for k, name in enumerate(body, start=1)), LayerGroup("head", (head,)))


# it only convolves, so any size will do; what its weights need to see is another matter, and stands on the card
SPEC = NetworkSpec(factory=MeshNet, groups=groups_of, size_rule=lambda _: SizeRule())

__all__ = ["SPEC", "MeshNet", "groups_of"]
