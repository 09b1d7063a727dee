"""Which parameters of a network scale and shift its normalised features."""

from __future__ import annotations

from torch import nn

_KINDS = (nn.modules.batchnorm._NormBase, nn.GroupNorm, nn.LayerNorm, nn.RMSNorm)


def is_normalisation(layer: nn.Module) -> bool:
    """Whether a layer normalises: torch's kinds, and a network's own by the name of its class."""
    return isinstance(layer, _KINDS) or (type(layer).__name__.endswith("Norm") and not any(layer.children()))


def normalisation_parameters(module: nn.Module) -> tuple[str, ...]:
    """Names of the affine parameters of all normalisation layers, as in ``named_parameters()``."""
    owned = {
        id(parameter)
        for layer in module.modules()
        if is_normalisation(layer)
        for parameter in layer.parameters(recurse=False)
    }
    return tuple(name for name, parameter in module.named_parameters() if id(parameter) in owned)
