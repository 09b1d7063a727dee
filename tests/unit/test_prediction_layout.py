"""The layout in which a network predicts: by its normalisation and width, and the same function either way."""

from __future__ import annotations

import copy

import pytest
import torch
from monai.networks.nets.unet import UNet

from monai_tl.networks.device import place_to_predict


@pytest.mark.parametrize(
    ("norm", "width", "is_as_built"),
    [
        ("instance", 128, True),
        ("instance", 192, False),
        ("batch", 128, False),
        (("group", {"num_groups": 2}), 16, False),
    ],
)
def test_narrow_networks_with_instance_normalisation_stay_as_built(norm: object, width: int, is_as_built: bool) -> None:
    torch.manual_seed(0)
    network = UNet(3, 1, 2, (8, width), (2,), num_res_units=1, norm=norm).eval()  # type: ignore[arg-type]
    placed = place_to_predict(copy.deepcopy(network), torch.device("cpu"))
    weights = [layer.weight for layer in placed.modules() if isinstance(layer, torch.nn.Conv3d)]
    assert all(weight.is_contiguous() for weight in weights) == is_as_built
    image = torch.rand(2, 1, 16, 16, 16)
    with torch.inference_mode():
        assert torch.allclose(placed(image), network(image), atol=1e-4)
