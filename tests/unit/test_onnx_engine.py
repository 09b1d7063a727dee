"""Networks exported and run by ONNX Runtime give what PyTorch gives."""

from __future__ import annotations

import importlib
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from monai_tl.config import NetworkConfig
from monai_tl.errors import ConfigError, ContractError
from monai_tl.networks.builders import build_network
from monai_tl.networks.device import place_network
from monai_tl.networks.onnx_engine import OnnxNetwork

NETWORKS: dict[str, dict[str, Any]] = {
    "instance": {"channels": [4, 8, 8], "strides": [2, 2], "norm": "instance"},
    "batch": {"channels": [4, 8, 8], "strides": [2, 2], "norm": "batch", "num_res_units": 1},
}


@pytest.mark.parametrize("norm", sorted(NETWORKS))
def test_output_is_equal_at_every_size_and_batch(norm: str) -> None:
    network = build_network(NetworkConfig(name="unet", arguments=NETWORKS[norm]), 1, 3, 0).eval()
    place_network(network, torch.device("cpu"))
    onnx = OnnxNetwork(network, 1)
    torch.manual_seed(0)
    for shape in ((1, 1, 16, 16, 8), (3, 1, 16, 16, 8), (1, 1, 24, 8, 16), (1, 1, 8, 8, 8), (1, 1, 16, 16, 8)):
        windows = torch.randn(shape)
        with torch.inference_mode():
            expected = network(windows)
        found = onnx(windows)
        assert found.shape == expected.shape
        assert (found - expected).abs().max() < 1e-4
        assert np.array_equal(onnx(windows).numpy(), found.numpy())


class _Odd(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return torch.linalg.svd(x)[1]


def test_a_network_that_onnx_cannot_say_is_refused() -> None:
    with pytest.raises(ContractError, match=r"cannot be written as ONNX.*use the engine torch"):
        OnnxNetwork(_Odd(), 1)(torch.rand(1, 1, 4, 4, 4))


def test_a_missing_package_is_told_with_the_way_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    real = importlib.import_module

    def without(name: str, package: str | None = None) -> Any:
        if name == "onnxruntime":
            raise ImportError(name)
        return real(name, package)

    monkeypatch.setattr(importlib, "import_module", without)
    with pytest.raises(ConfigError, match=r"needs the package onnxruntime; install it with .*monai_tl\[onnx\]"):
        OnnxNetwork(nn.Conv3d(1, 1, 1), 1)
