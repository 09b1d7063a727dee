"""Features at sampled voxels against whole feature maps."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from balls import NETWORK
from torch import nn
from torch.nn import functional

from monai_tl.config import NetworkConfig
from monai_tl.networks.builders import build_network, groups_of
from monai_tl.networks.features import HEAD_INPUT, decoder_layers, sample_features
from monai_tl.networks.groups import LayerGroup
from monai_tl.records import SizeRule

UNET = NetworkConfig(name="unet", arguments={"channels": [4, 8, 16], "strides": [2, 2], "norm": "instance"})
RULE = SizeRule(divisor=4, min_vox=(8, 8, 8))


def positions_in(shape: tuple[int, int, int], n: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, shape, size=(n, 3))


def test_they_are_those_of_the_upsampled_feature_maps():
    network = build_network(UNET, 1, 2, seed=0).eval()
    image = np.random.default_rng(1).normal(size=(1, 16, 12, 20)).astype(np.float32)
    positions = positions_in((16, 12, 20), 50)
    found = sample_features(network, groups_of(UNET, network), image, positions, (16, 12, 20), RULE)
    assert list(found.values) == ["down0", "down1", "bottom", "up1", HEAD_INPUT]
    assert decoder_layers(found.n_voxels) == (HEAD_INPUT,)
    batch = torch.from_numpy(image)[None]
    with torch.inference_mode():
        first = network.model[0](batch)
        second = network.model[1].submodule[0](first)
        bottom = network.model[1].submodule[1].submodule(second)
        up = network.model[1].submodule[2](torch.cat([second, bottom], 1))
        expected = {"down0": first, "down1": second, "bottom": bottom, "up1": up, HEAD_INPUT: torch.cat([first, up], 1)}
        for layer, volume in expected.items():
            full = functional.interpolate(volume, size=image.shape[1:], mode="trilinear", align_corners=False)
            wanted = full[0][(slice(None), *positions.T)].T.numpy()
            assert found.values[layer] == pytest.approx(wanted, abs=1e-5)
    # nothing stays hooked
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in network.modules())


class _Pointwise(nn.Module):
    """Knows nothing of neighbours, so windows must not matter; works in place after its body."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.ModuleList([nn.Conv3d(2, 3, 1), nn.Conv3d(3, 5, 1)])
        self.head = nn.Conv3d(5, 2, 1)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        for layer in self.body:
            image = layer(image)
        return self.head(image.relu_())


POINTWISE = (LayerGroup("body", ("body.0", "body.1")), LayerGroup("head", ("head",)))


@pytest.mark.parametrize("shape", [(40, 33, 9), (5, 6, 7), (64, 4, 30)])
def test_windows_and_padding_change_nothing_for_a_network_without_neighbours(shape):
    torch.manual_seed(0)
    network = _Pointwise().eval()
    image = np.random.default_rng(2).normal(size=(2, *shape)).astype(np.float32)
    positions = positions_in(shape, 60)
    found = sample_features(network, POINTWISE, image, positions, (8, 8, 8), SizeRule(padding="edge"))
    with torch.inference_mode():
        whole = network.body[1](network.body[0](torch.from_numpy(image)[None]))[0]
    before = whole[(slice(None), *positions.T)].T.numpy()
    # the body's output is what it was before the rectifier changed it in place
    assert found.values["body"] == pytest.approx(before, abs=1e-5)
    assert found.values[HEAD_INPUT] == pytest.approx(np.maximum(before, 0), abs=1e-5)
    assert decoder_layers(found.n_voxels) == (HEAD_INPUT,)


def test_a_voxel_of_a_large_case_has_context_on_all_sides():
    """A box filter over 3 voxels: away from the image's edge each window must see all of it."""
    network = _Pointwise().eval()
    box = nn.Conv3d(2, 3, 3, padding=1, bias=False)
    nn.init.ones_(box.weight)
    network.body[0] = box
    image = np.random.default_rng(3).normal(size=(2, 30, 30, 30)).astype(np.float32)
    positions = positions_in((30, 30, 30), 200)
    with torch.inference_mode():
        whole = network.body[1](box(torch.from_numpy(image)[None]))[0]
    found = sample_features(network, POINTWISE, image, positions, (12, 12, 12), SizeRule())
    assert found.values["body"] == pytest.approx(whole[(slice(None), *positions.T)].T.numpy(), abs=1e-4)


@pytest.mark.parametrize(
    ("name", "arguments", "layers"),
    [
        ("basic_unet", {"features": [4, 4, 8, 8, 16, 4]}, ("upcat_4", "upcat_3", "upcat_2", HEAD_INPUT)),
        ("segresnet", {"init_filters": 8, "blocks_down": [1, 1, 1], "blocks_up": [1, 1]}, ("up0", HEAD_INPUT)),
        (
            "dynunet",
            {"kernel_size": [3, 3, 3], "strides": [1, 2, 2], "upsample_kernel_size": [2, 2], "filters": [4, 8, 8]},
            ("up0", HEAD_INPUT),
        ),
        ("unet", dict(NETWORK.arguments), (HEAD_INPUT,)),
    ],
)
def test_decoders_of_the_table(name, arguments, layers):
    config = NetworkConfig(name=name, arguments=arguments)
    network = build_network(config, 1, 3, seed=0).eval()
    image = np.random.default_rng(0).normal(size=(1, 32, 32, 32)).astype(np.float32)
    found = sample_features(network, groups_of(config, network), image, positions_in((32,) * 3, 5), (32,) * 3, RULE)
    assert decoder_layers(found.n_voxels) == layers
    assert all(np.isfinite(values).all() and len(values) == 5 for values in found.values.values())
