"""Instance normalisation in channels-last memory is torch's function: values, gradients, and each sample for itself."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from monai_tl.networks.instance_norm import ChannelsLastInstanceNorm3d, keep_channels_last

LAST = torch.channels_last_3d


def _norm(affine: bool = True) -> tuple[nn.InstanceNorm3d, nn.Module]:
    plain = nn.InstanceNorm3d(5, affine=affine)
    if affine:
        nn.init.normal_(plain.weight)
        nn.init.normal_(plain.bias)
    ours = nn.Sequential(copy.deepcopy(plain))
    keep_channels_last(ours)
    assert type(ours[0]) is ChannelsLastInstanceNorm3d
    assert ours.state_dict().keys() == nn.Sequential(plain).state_dict().keys()
    return plain, ours


@pytest.mark.parametrize("affine", [True, False])
@pytest.mark.parametrize("n_samples", [1, 3])
def test_values_and_gradients_are_those_of_the_formula(affine: bool, n_samples: int) -> None:
    torch.manual_seed(0)
    plain, ours = _norm(affine)
    x = (torch.randn(n_samples, 5, 6, 7, 4) * 3 + 2).contiguous(memory_format=LAST).requires_grad_()
    slope = torch.randn(n_samples, 5, 6, 7, 4)
    result = ours(x)
    assert result.is_contiguous(memory_format=LAST)
    (result * slope).sum().backward()
    # in double precision, written out
    wide = x.detach().double().requires_grad_()
    weight, bias = (
        None if tensor is None else tensor.detach().double().requires_grad_() for tensor in (plain.weight, plain.bias)
    )
    axes = (2, 3, 4)
    centred = wide - wide.mean(axes, keepdim=True)
    expected = centred / (centred.square().mean(axes, keepdim=True) + plain.eps).sqrt()
    if weight is not None and bias is not None:
        expected = expected * weight.view(1, -1, 1, 1, 1) + bias.view(1, -1, 1, 1, 1)
    (expected * slope.double()).sum().backward()
    assert torch.allclose(result.double(), expected, atol=1e-5)
    assert x.grad is not None
    assert wide.grad is not None
    assert torch.allclose(x.grad.double(), wide.grad, atol=1e-5)
    if weight is not None and bias is not None:
        assert torch.allclose(ours[0].weight.grad.double(), weight.grad, atol=1e-3)  # type: ignore[index,union-attr]
        assert torch.allclose(ours[0].bias.grad.double(), bias.grad, atol=1e-3)  # type: ignore[index,union-attr]


def test_a_sample_does_not_depend_on_its_neighbours_to_the_bit() -> None:
    _, ours = _norm()
    x = torch.randn(3, 5, 6, 7, 4).contiguous(memory_format=LAST)
    whole = ours(x)
    for k in range(3):
        assert torch.equal(ours(x[k : k + 1]), whole[k : k + 1])


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_what_it_does_not_handle_is_torch_s_own_to_the_bit(dtype: torch.dtype) -> None:
    plain, ours = _norm()
    x = torch.randn(2, 5, 6, 7, 4).to(dtype)
    assert torch.equal(ours(x), plain(x))
    ours.eval()
    last = x.contiguous(memory_format=LAST)
    assert torch.equal(ours(last), plain(last))


def test_bfloat16_is_as_close_to_the_truth_as_torch_s() -> None:
    torch.manual_seed(1)
    plain, ours = _norm()
    x = torch.randn(2, 5, 8, 8, 8)
    truth = plain(x)
    last = x.bfloat16().contiguous(memory_format=LAST)
    errors = [(norm(values) - truth).abs().max() for norm, values in ((ours, last), (plain, x.bfloat16()))]
    assert ours(last).dtype == torch.bfloat16
    assert errors[0] <= 1.5 * errors[1]


def test_others_stay_as_they_are() -> None:
    network = nn.Sequential(nn.InstanceNorm3d(3, track_running_stats=True), nn.InstanceNorm2d(3), nn.BatchNorm3d(3))
    kinds = [type(module) for module in network]
    keep_channels_last(network)
    assert [type(module) for module in network] == kinds
