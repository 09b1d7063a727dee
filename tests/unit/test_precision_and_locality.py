"""What fast mode asks of processor and network before it chooses."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from monai_tl.config import NetworkConfig
from monai_tl.networks.builders import build_network, size_rule_of
from monai_tl.networks.memory import is_local, measure_pass
from monai_tl.networks.precision import fastest_precision
from monai_tl.networks.windows import network_size

_UNET = {"channels": [4, 8, 8], "strides": [2, 2]}


@pytest.mark.parametrize(
    ("name", "arguments", "expected"),
    [
        ("unet", {**_UNET, "norm": "batch"}, True),
        ("unet", {**_UNET, "norm": "instance"}, False),
        (
            "swin_unetr",
            {"feature_size": 12, "depths": [1, 1, 1, 1], "num_heads": [1, 2, 2, 4], "window_size": 3},
            False,
        ),
    ],
)
def test_a_network_is_local_when_far_voxels_do_not_move_its_answer(
    name: str, arguments: dict[str, object], expected: bool
) -> None:
    config = NetworkConfig(name=name, arguments=arguments)
    network = build_network(config, 1, 2, 0).eval()
    assert is_local(network) is expected
    if name == "unet":
        torch.manual_seed(0)
        image = torch.randn(1, 1, 64, 16, 16)
        other = image.clone()
        other[:, :, 48:] += 5.0
        with torch.inference_mode():
            moved = float((network(image) - network(other)).abs()[:, :, :8].max())
        assert (moved == 0.0) is expected


class _Unknown(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(1))

    def forward(self, x: Tensor) -> Tensor:
        return x / x.std() * self.scale


def test_a_layer_that_is_not_known_is_not_taken_for_local() -> None:
    assert not is_local(nn.Sequential(nn.Conv3d(1, 2, 3), _Unknown()))


def test_the_cost_of_a_pass_covers_the_largest_layers() -> None:
    config = NetworkConfig(name="unet", arguments={**_UNET, "norm": "batch"})
    network = build_network(config, 1, 5, 0).eval()
    cost = measure_pass(network, 1, network_size((16, 16, 16), size_rule_of(config)))
    assert cost.n_outputs == 5
    # the output itself has five numbers a voxel and its softmax five more
    assert cost.voxel_bytes >= 4 * 2 * 5


@pytest.mark.parametrize("has_it", [True, False])
def test_the_processor_decides_the_number_format(monkeypatch: pytest.MonkeyPatch, has_it: bool) -> None:
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: has_it)
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: False)
    precision, reason = fastest_precision(torch.device("cpu"))
    assert precision == ("bfloat16" if has_it else "float32")
    assert ("does not" in reason) is not has_it
