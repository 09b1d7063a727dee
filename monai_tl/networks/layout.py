"""What surgery must know of a network beyond names and shapes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import nn

from monai_tl.networks.groups import named_tensors
from monai_tl.networks.inflation import Convolution
from monai_tl.networks.normalisation import Normalisation, normalisations_of
from monai_tl.networks.positions import INDEX, Grid, pixel_axes_of, token_grids_of, windows_of


@dataclass(frozen=True)
class Layout:
    """Parts of a network that are more than a tensor of some shape; names are those of tensors.

    Attributes:
        convolutions: Weight → its 3-D convolution.
        output_axes: Tensor → the axis that counts a layer's outputs; other axes are inputs or space.
        windows: Window table → its window.
        token_grids: Position embeddings → grid of the tokens.
        patches: Linear patch embedding → pixels of a patch, channels fastest.
        normalisations: Layer (not tensor) → what it is.
        computed: Tensors that follow from the arguments alone and are not trained.
    """

    convolutions: Mapping[str, Convolution] = field(default_factory=dict)
    output_axes: Mapping[str, int] = field(default_factory=dict)
    windows: Mapping[str, Grid] = field(default_factory=dict)
    token_grids: Mapping[str, Grid] = field(default_factory=dict)
    patches: Mapping[str, Grid] = field(default_factory=dict)
    normalisations: Mapping[str, Normalisation] = field(default_factory=dict)
    computed: frozenset[str] = frozenset()


def layout_of(module: nn.Module, arguments: Mapping[str, Any]) -> Layout:
    """Look a network over.

    Args:
        module: Freshly built; it may be on the meta device.
        arguments: Those it was built with.
    """
    layers = {f"{name}.weight" if name else "weight": part for name, part in module.named_modules()}
    output_axes = {}
    for name, tensor in named_tensors(module).items():
        if isinstance(layers.get(name), nn.ConvTranspose1d | nn.ConvTranspose2d | nn.ConvTranspose3d):
            output_axes[name] = 1
        elif tensor.ndim == 1 or isinstance(layers.get(name), nn.Conv1d | nn.Conv2d | nn.Conv3d | nn.Linear):
            output_axes[name] = 0
    # sine and cosine embeddings are parameters that ask for no gradient
    fixed = {name for name, tensor in module.named_parameters() if not tensor.requires_grad}
    grids = token_grids_of(module, arguments)
    indices = {name for name, _ in module.named_buffers() if name.rpartition(".")[2] == INDEX}
    return Layout(
        convolutions={name: part for name, part in layers.items() if isinstance(part, nn.Conv3d | nn.ConvTranspose3d)},
        output_axes=output_axes,
        windows=windows_of(module),
        token_grids={name: grid for name, grid in grids.items() if name not in fixed},
        patches=pixel_axes_of(module),
        normalisations=normalisations_of(module),
        computed=frozenset(indices | (fixed & grids.keys())),
    )
