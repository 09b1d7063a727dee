"""The hippodeep network: a small 3-D segmentation network for one hippocampus on T1 MR."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

PAD_VOX = 2
"""Four unpadded convolutions take two voxels off each side."""


class HippoDeep(nn.Module):
    """Finds the structure coarsely (O1), looks at the fine features around it, and decides again.

    Names of layers are those of the published weights. The network pads its own input by edge values, so the output has
    the input's size; that size must be a multiple of 4.

    Args:
        n_channels: Input channels; the published weights have 1.
        n_outputs: Output channels. The published head has 1, whose sigmoid is the probability of the hippocampus.
        side_path: Hand the coarse branch's 16 features to the fine branch. In the published network one number a
            voxel passes, O1, which can say where the hippocampus is but hardly which part of it a voxel belongs to. The
            path starts from zeros, so with the published weights the output is theirs until it is trained.

    References:
        Thyreau et al. 2018, doi:10.1016/j.media.2017.11.004.
    """

    def __init__(self, n_channels: int = 1, n_outputs: int = 1, side_path: bool = False) -> None:
        super().__init__()
        self.conv0a_0 = nn.Conv3d(n_channels, 16, (1, 1, 3))
        self.conv0a_1 = nn.Conv3d(16, 16, (1, 3, 1))
        self.conv0a = nn.Conv3d(16, 16, (3, 1, 1))
        self.convf1 = nn.Conv3d(16, 48, 3)
        self.maxpool1 = nn.MaxPool3d(2)
        self.bn1 = nn.BatchNorm3d(48)
        self.convout0 = nn.Conv3d(48, 48, 3, padding=1)
        self.convout1 = nn.Conv3d(48, 48, 3, padding=1)
        self.maxpool2 = nn.MaxPool3d(2)
        self.bn2 = nn.BatchNorm3d(48)
        self.convout2p = nn.Conv3d(48, 48, 3, padding=1)
        self.convout2 = nn.Conv3d(48, 48, 3, padding=1)
        self.convlx3 = nn.Conv3d(48, 48, 3, padding=1)
        self.convlx5 = nn.Conv3d(48, 48, 3, padding=1)
        self.convlx7 = nn.Conv3d(48, 16, 3, padding=1)
        self.convlx8 = nn.Conv3d(16, 1, 1)
        self.blur = nn.Conv3d(1, 1, 7, padding=3)
        self.conv_extract = nn.Conv3d(48, 47, 3, padding=1)
        self.convmix = nn.Conv3d(48, 16, 3, padding=1)
        self.convside: nn.Conv3d | None = None
        if side_path:
            self.convside = nn.Conv3d(16, 16, 1, bias=False)
            nn.init.zeros_(self.convside.weight)
        self.convout1x = nn.Conv3d(16, n_outputs, 1)

    def forward(self, image: Tensor) -> Tensor:
        """Logits.

        Args:
            image: (B, n_channels, I, J, K), I, J and K multiples of 4.

        Returns:
            (B, n_outputs, I, J, K).
        """
        # replicate padding has no repeatable backward pass on every device, but nothing before it has weights
        padded = F.pad(image, (PAD_VOX,) * 6, mode="replicate")
        fine = F.relu(self.conv0a_0(padded))
        fine = F.relu(self.conv0a_1(fine))
        fine = F.relu(self.conv0a(fine))
        fine = F.relu(self.convf1(fine))
        located = self._locate(fine)
        coarse = torch.sigmoid(self.convlx8(located))
        around = fine * torch.sigmoid(self.blur(coarse))
        features = F.leaky_relu(self.conv_extract(around), 0.01)
        mixed = self.convmix(torch.cat([coarse, features], dim=1))
        if self.convside is not None:
            mixed = mixed + self.convside(located)
        logits: Tensor = self.convout1x(F.relu(mixed))
        return logits

    def _locate(self, fine: Tensor) -> Tensor:
        """Where the structure is, (B, 16, I, J, K), from features at a half and a quarter of the resolution."""
        half = self.maxpool1(fine)
        x = F.relu(self.convout0(self.bn1(half)))
        half = F.relu(self.convout1(x) + half)
        quarter = self.maxpool2(half)
        x = F.relu(self.convout2p(self.bn2(quarter)))
        quarter = F.relu(self.convout2(x) + quarter)
        x = F.interpolate(F.relu(self.convlx3(quarter)), scale_factor=2, mode="nearest")
        x = F.interpolate(F.relu(self.convlx5(x)), scale_factor=2, mode="nearest")
        return F.relu(self.convlx7(x))
