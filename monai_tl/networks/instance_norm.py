"""Instance normalisation of volumes whose channels lie last in memory, without copying them twice a layer."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional


class ChannelsLastInstanceNorm3d(nn.InstanceNorm3d):
    """The same function as torch's, while training on a CPU by another way.

    Torch lays the volume out channels first, normalises, and the next convolution lays it out channels last again, and
    both again on the way back. Batch normalisation reads the layout as it is, and of one sample it is instance
    normalisation; so each sample goes through it alone. On nnU-Net's network this takes a fifth off a step
    (docs/decisions/0012-engine.md). Values differ from torch's by rounding.
    """

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, I, J, K), each channel of each sample to mean 0 and variance 1, then scaled and shifted."""
        if not (self.training and x.device.type == "cpu" and x.dim() == 5 and _is_channels_last(x)):
            return super().forward(x)
        samples = [self._normalise(sample) for sample in x.split(1)]
        return samples[0] if len(samples) == 1 else torch.cat(samples)

    def _normalise(self, sample: Tensor) -> Tensor:
        return functional.batch_norm(sample, None, None, self.weight, self.bias, training=True, eps=self.eps)


def _is_channels_last(x: Tensor) -> bool:
    # one channel or one voxel is laid out both ways
    return x.is_contiguous(memory_format=torch.channels_last_3d) and not x.is_contiguous()


def keep_channels_last(network: nn.Module) -> None:
    """Let a network's instance normalisations work in the layout of its weights, in place.

    Those that keep running statistics stay as they are, and so do the names of all tensors.
    """
    for module in network.modules():
        if type(module) is nn.InstanceNorm3d and not module.track_running_stats:
            module.__class__ = ChannelsLastInstanceNorm3d
