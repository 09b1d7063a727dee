"""MeshNet: dilated convolutions at full resolution, with few weights and a large field of view."""

from collections.abc import Sequence

from torch import nn

DILATIONS = (1, 2, 4, 8, 16, 8, 4, 2, 1)
"""Of the published weights: a voxel sees 46 voxels to each side, so its surroundings have 93 x 93 x 93."""


class MeshNet(nn.Sequential):
    """Convolutions of kernel 3 whose dilation grows and shrinks again, each followed by ELU; then one of kernel 1.

    Names of layers are those of the published weights: a sequence that counts convolutions and activations.

    Args:
        n_channels: Input channels; the published weights have 1.
        n_outputs: Output channels, background first; the published head has 18.
        n_features: Channels between the layers.
        dilations: One a convolution; padded by the same number of zeros, so the size stays.

    References:
        Fedorov et al. 2017, arXiv:1612.00940; weights: Masoud et al. 2023, doi:10.21105/joss.05098.
    """

    def __init__(
        self, n_channels: int = 1, n_outputs: int = 18, n_features: int = 21, dilations: Sequence[int] = DILATIONS
    ) -> None:
        layers: list[nn.Module] = []
        for n_in, dilation in zip([n_channels, *[n_features] * (len(dilations) - 1)], dilations, strict=True):
            layers += [nn.Conv3d(n_in, n_features, 3, padding=dilation, dilation=dilation), nn.ELU()]
        super().__init__(*layers, nn.Conv3d(n_features, n_outputs, 1))
