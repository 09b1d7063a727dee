"""Features at sampled voxels against whole feature maps."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from small_networks import SMALL
from torch import nn
from torch.nn import functional

from monai_tl.config import NetworkConfig
from monai_tl.networks.builders import build_network, groups_of, size_rule_of
from monai_tl.networks.features import HEAD_INPUT, decoder_layers, sample_features
from monai_tl.networks.groups import LayerGroup
from monai_tl.networks.windows import network_size
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


DECODERS = {
    "unet": (HEAD_INPUT,),
    "basic_unet": ("upcat_4", "upcat_3", "upcat_2", HEAD_INPUT),
    "segresnet": (HEAD_INPUT,),
    "dynunet": ("up0", HEAD_INPUT),
    "vnet": ("up_tr256", "up_tr128", "up_tr64", HEAD_INPUT),
    "swin_unetr": ("up5", "up4", "up3", "up2", HEAD_INPUT),
}
"""Of the first of each name in small_networks.py."""


@pytest.mark.parametrize(("name", "arguments"), SMALL, ids=[f"{index}-{item[0]}" for index, item in enumerate(SMALL)])
def test_every_network_of_the_table_has_features_where_its_head_looks(name, arguments):
    config = NetworkConfig(name=name, arguments=arguments)
    network = build_network(config, 1, 3, seed=0).eval()
    rule = size_rule_of(config)
    shape = network_size((16, 16, 16), rule)
    image = np.random.default_rng(0).normal(size=(1, *shape)).astype(np.float32)
    found = sample_features(network, groups_of(config, network), image, positions_in(shape, 5), shape, rule)
    layers = decoder_layers(found.n_voxels)
    assert layers[-1] == HEAD_INPUT
    assert all(found.n_voxels[layer] >= min(found.n_voxels.values()) for layer in layers)
    assert all(np.isfinite(values).all() and len(values) == 5 for values in found.values.values())
    if arguments is next(given for other, given in SMALL if other == name):
        assert layers == DECODERS.get(name, layers)
