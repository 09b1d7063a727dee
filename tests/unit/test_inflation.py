"""2-D kernels in 3-D: a volume that is constant along the new axis gets the 2-D answer."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from monai.networks.nets.unet import UNet
from torch import Tensor, nn

from monai_tl.errors import WeightsError
from monai_tl.networks.inflation import InflationMode, inflate_kernel, tap_weights
from tests.support.loading import as_state, image, load, shaken, unet


def _pair(sort: Any, flat_sort: Any, options: dict[str, int]) -> tuple[Any, Any, Tensor]:
    generator = torch.Generator().manual_seed(1)
    flat = flat_sort(2, 3, bias=False, dtype=torch.float64, **options)
    with torch.no_grad():
        flat.weight.copy_(torch.randn(flat.weight.shape, generator=generator, dtype=torch.float64))
    deep = sort(2, 3, bias=False, dtype=torch.float64, **options)
    return deep, flat, torch.randn(1, 2, 9, 9, generator=generator, dtype=torch.float64)


def _answers(deep: Any, flat: Any, plane: Tensor, mode: InflationMode) -> tuple[Tensor, Tensor]:
    with torch.no_grad():
        deep.weight.copy_(inflate_kernel(flat.weight, deep, mode))
        return deep(plane.unsqueeze(-1).expand(1, 2, 9, 9, 9)), flat(plane).unsqueeze(-1)


@settings(max_examples=60, deadline=None)
@given(kernel=st.integers(1, 5), stride=st.integers(1, 3), padding=st.integers(0, 2), dilation=st.integers(1, 2))
def test_a_convolution_answers_as_in_2d(kernel: int, stride: int, padding: int, dilation: int) -> None:
    assume(2 * padding <= dilation * (kernel - 1))
    options = {"kernel_size": kernel, "stride": stride, "padding": padding, "dilation": dilation}
    deep, flat, plane = _pair(nn.Conv3d, nn.Conv2d, options)
    reach = dilation * (kernel - 1)
    inside = any(padding <= tap * dilation <= reach - padding for tap in range(kernel))
    centre, expected = _answers(deep, flat, plane, "centre")
    average, _ = _answers(deep, flat, plane, "average")
    interior = slice(-(-padding // stride), (9 + padding - 1 - reach) // stride + 1)
    assert torch.allclose(centre[..., interior], expected.expand_as(centre)[..., interior])
    assert torch.allclose(average[..., interior], expected.expand_as(average)[..., interior])
    if inside:
        assert torch.allclose(centre, expected.expand_as(centre)), "also at the first and last slice"


@pytest.mark.parametrize(
    "options",
    [
        {"kernel_size": 2, "stride": 2},
        {"kernel_size": 3, "stride": 2, "padding": 1, "output_padding": 1},
        {"kernel_size": 4, "stride": 2, "padding": 1},
        {"kernel_size": 3, "stride": 3},
        {"kernel_size": 3, "stride": 1, "padding": 1},
    ],
    ids=str,
)
def test_a_transposed_convolution_answers_as_in_2d(options: dict[str, int]) -> None:
    deep, flat, plane = _pair(nn.ConvTranspose3d, nn.ConvTranspose2d, options)
    centre, expected = _answers(deep, flat, plane, "centre")
    assert torch.allclose(centre, expected.expand_as(centre))
    average, _ = _answers(deep, flat, plane, "average")
    assert torch.allclose(average[..., 2:-2], expected.expand_as(average)[..., 2:-2])


def test_taps_in_closed_form() -> None:
    conv = lambda **options: nn.Conv3d(1, 1, **options)  # noqa: E731
    up = lambda **options: nn.ConvTranspose3d(1, 1, **options)  # noqa: E731
    assert tap_weights(conv(kernel_size=3, padding=1)).tolist() == [0.0, 1.0, 0.0]
    assert tap_weights(conv(kernel_size=3, padding="same")).tolist() == [0.0, 1.0, 0.0]
    assert tap_weights(conv(kernel_size=3, padding=1), "average").tolist() == [1 / 3] * 3
    assert tap_weights(conv(kernel_size=4, stride=4)).tolist() == [0.25] * 4
    assert tap_weights(conv(kernel_size=5, padding=1)).tolist() == [0.0, 1 / 3, 1 / 3, 1 / 3, 0.0]
    assert tap_weights(conv(kernel_size=2, padding=1)).tolist() == [0.5, 0.5], "every tap may leave the volume"
    assert tap_weights(up(kernel_size=2, stride=2)).tolist() == [1.0, 1.0]
    assert tap_weights(up(kernel_size=3, stride=2, padding=1, output_padding=1)).tolist() == [0.0, 1.0, 1.0]
    assert tap_weights(up(kernel_size=3, stride=2, padding=1), "average").tolist() == [0.5, 1.0, 0.5]


@pytest.mark.parametrize(("n_source", "n_target"), [(1, 1), (3, 1)])
def test_a_whole_2d_network_answers_slice_by_slice(n_source: int, n_target: int) -> None:
    """Kernels, strides, transposed convolutions, batch normalisation and channels together."""
    config = unet()
    options = {"channels": (4, 8, 16), "strides": (2, 2), "num_res_units": 1, "norm": "batch"}
    flat = shaken(UNet(spatial_dims=2, in_channels=n_source, out_channels=2, **options))
    module, audit = load(as_state(flat.state_dict()), config, n_target)
    plane = image(1, (16, 16))
    with torch.no_grad():
        deep = module(plane.unsqueeze(-1).expand(1, n_target, 16, 16, 16))
        expected = flat(plane.expand(1, n_source, 16, 16)).unsqueeze(-1).expand_as(deep)
    assert torch.allclose(deep, expected, atol=1e-4)
    assert audit.share_all == 1.0
    kernels = [item for item in audit.tensors if item.status == "adapted"]
    assert all(item.detail.startswith("2-D kernel brought to 3-D along axis K") for item in kernels)
    assert {item.name for item in kernels} == {name for name, p in module.named_parameters() if p.ndim == 5}


def test_other_kernels_are_refused_with_the_reason() -> None:
    flat = shaken(UNet(2, 1, 2, channels=(4, 8, 16), strides=(2, 2), kernel_size=5, num_res_units=1, norm="batch"))
    with pytest.raises(WeightsError, match="kernel 5×5 in the source, 3×3×3 here: not adapted"):
        load(as_state(flat.state_dict()), unet())
