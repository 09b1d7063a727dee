"""Low-rank updates: where they go, what they cost, and that merging them changes no result."""

from __future__ import annotations

import copy
import math

import pytest
import torch
from ladder_runs import make_unet
from monai.networks.blocks.selfattention import SABlock
from torch import nn

from monai_tl.config import NetworkConfig, PrecisionName
from monai_tl.networks.builders import build_network, groups_of
from monai_tl.networks.groups import aliases, assign_groups
from monai_tl.networks.lora import LowRankUpdate, add_low_rank, is_update, matrix_shape, n_plain_parameters, plain_state
from monai_tl.networks.precision import computing_in

DYNUNET = NetworkConfig(
    name="dynunet",
    arguments={
        "kernel_size": [3, 3, 3],
        "strides": [1, 2, 2],
        "upsample_kernel_size": [2, 2],
        "filters": [8, 12, 16],
        "norm_name": "batch",
    },
)
IMAGE = torch.randn(2, 1, 16, 16, 16, generator=torch.Generator().manual_seed(0))


def _adapt(config: NetworkConfig, rank: int = 2) -> tuple[nn.Module, tuple[str, ...]]:
    module = build_network(config, 1, 2, seed=0)
    body = [prefix for group in groups_of(config, module)[:-1] for prefix in group.prefixes]
    return module, add_low_rank(module, body, rank, 8.0, seed=1)


def _disturb(module: nn.Module, names: tuple[str, ...]) -> None:
    generator = torch.Generator().manual_seed(2)
    with torch.no_grad():
        for name, parameter in module.named_parameters():
            if name in names:
                parameter.add_(0.1 * torch.randn(parameter.shape, generator=generator))


@pytest.mark.parametrize("config", [make_unet(dropout=0.0), DYNUNET], ids=["unet", "dynunet"])
def test_training_begins_at_the_unchanged_network(config: NetworkConfig) -> None:
    plain = build_network(config, 1, 2, seed=0).eval()
    module, names = _adapt(config)
    assert names
    with torch.no_grad():
        assert torch.equal(module.eval()(IMAGE), plain(IMAGE))
    assert n_plain_parameters(module) == sum(p.numel() for p in plain.parameters())


@pytest.mark.parametrize("config", [make_unet(dropout=0.0), DYNUNET], ids=["unet", "dynunet"])
def test_merged_weights_are_a_plain_network_with_the_same_logits(config: NetworkConfig) -> None:
    module, names = _adapt(config)
    _disturb(module, names)
    merged, plain = plain_state(module), build_network(config, 1, 2, seed=0).eval()
    before = {name: tensor.clone() for name, tensor in plain.state_dict().items()}
    assert {name: tensor.shape for name, tensor in merged.items()} == {n: t.shape for n, t in before.items()}
    plain.load_state_dict(merged)
    with torch.no_grad():
        logits, expected = plain(IMAGE), module.eval()(IMAGE)
        unchanged = build_network(config, 1, 2, seed=0).eval()(IMAGE)
    assert float((logits - expected).abs().max()) <= 1e-6
    assert float((expected - unchanged).abs().max()) > 1e-3
    # a layer that is registered twice is updated once, and both names tell of it
    for second, first in aliases(plain).items():
        assert torch.equal(merged[second], merged[first])


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_merging_changes_nothing_in_either_number_format(precision: PrecisionName) -> None:
    """The sum of weight and update is float32 whatever format the network's products take."""
    config = make_unet(dropout=0.0)
    module, names = _adapt(config)
    _disturb(module, names)
    plain = build_network(config, 1, 2, seed=0).eval()
    plain.load_state_dict(plain_state(module))
    with torch.no_grad(), computing_in(torch.device("cpu"), precision):
        assert torch.equal(plain(IMAGE), module.eval()(IMAGE))


def test_the_head_and_small_layers_have_no_update() -> None:
    config = make_unet()
    _, names = _adapt(config)
    plain = build_network(config, 1, 2, seed=0)
    assigned = assign_groups(plain, groups_of(config, plain))
    adapted = {name.split(".parametrizations.")[0] + ".weight" for name in names}
    assert "head" not in {assigned[name] for name in adapted}
    for name, layer in plain.named_modules():
        if isinstance(layer, nn.Conv3d | nn.ConvTranspose3d) and assigned[f"{name}.weight"] != "head":
            m, n, k, *rest = layer.weight.shape
            gains = 2 * (m * k + n * math.prod(rest)) < layer.weight.numel()
            assert gains == (f"{name}.weight" in adapted)
    assert all(is_update(name) for name in names)


def test_an_update_has_the_rank_it_is_given_and_the_factor_of_its_paper() -> None:
    weight = torch.randn(6, 5, 3, 3, 3)
    update = LowRankUpdate(weight, rank=2, alpha=8.0, generator=torch.Generator().manual_seed(0))
    assert torch.equal(update(weight), weight)
    nn.init.normal_(update.up)
    difference = (update(weight) - weight).detach().double()
    matrix = difference.transpose(1, 2).reshape(matrix_shape(weight))
    assert int(torch.linalg.matrix_rank(matrix, atol=1e-4)) == 2
    # the definition, element by element
    value = sum(update.up[1 * 3 + 2, r] * update.down[r, 4 * 9 + 1 * 3 + 2] for r in range(2)) * 8.0 / 2
    assert float(difference[1, 4, 2, 1, 2]) == pytest.approx(float(value.detach()), abs=1e-5)


def test_linear_layers_of_attention_are_updated_with_their_gradients() -> None:
    torch.manual_seed(0)
    block = nn.ModuleDict({"attention": SABlock(hidden_size=16, num_heads=2)})
    names = add_low_rank(block, ["attention"], 2, 4.0, seed=0)
    layers = {name.split(".parametrizations.")[0] for name in names}
    assert layers == {"attention.qkv", "attention.out_proj"}
    for name, parameter in block.named_parameters():
        parameter.requires_grad_(is_update(name))
    block["attention"](torch.randn(1, 5, 16)).square().sum().backward()
    parameters = dict(block.named_parameters())
    assert all(parameters[name].grad is not None for name in names)
    assert all(p.grad is None for name, p in parameters.items() if not is_update(name))


def test_state_copies_and_layout_survive() -> None:
    module = build_network(make_unet(dropout=0.0), 1, 2, seed=0).to(memory_format=torch.channels_last_3d)
    body = ["model.0", "model.1"]
    names = add_low_rank(module, body, 2, 8.0, seed=1)
    _disturb(module, names)
    other, _ = _adapt(make_unet(dropout=0.0))
    other.load_state_dict(module.state_dict())
    copied = copy.deepcopy(module)
    with torch.no_grad():
        expected = module.eval()(IMAGE)
        assert torch.allclose(other.eval()(IMAGE), expected, atol=1e-6)
        assert torch.equal(copied.eval()(IMAGE), expected)
    weight = module.get_submodule("model.1.submodule.1.submodule.conv.unit0.conv").weight
    assert weight.is_contiguous(memory_format=torch.channels_last_3d)


class _Odd(nn.Module):
    """Layers as a plug-in may have them: with weights of one another, and with a rule of their own for one."""

    def __init__(self) -> None:
        super().__init__()
        make_rule = nn.utils.parametrizations
        self.plain = nn.Conv3d(1, 6, 3, padding=1)
        self.first = nn.Conv3d(6, 6, 3, padding=1)
        self.second = nn.Conv3d(6, 6, 3, padding=1)
        self.second.weight = self.first.weight
        self.ruled = make_rule.weight_norm(nn.Conv3d(6, 6, 3, padding=1))
        self.turned = make_rule.orthogonal(nn.Linear(6, 6))
        self.old = nn.utils.spectral_norm(nn.Conv3d(6, 6, 3, padding=1))
        self.head = nn.Conv3d(6, 2, 1)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        features = self.ruled(self.second(self.first(self.plain(image))))
        output: torch.Tensor = self.head(self.old(self.turned(features.movedim(1, -1)).movedim(-1, 1)))
        return output


def test_weights_that_are_shared_or_made_by_a_rule_are_kept_as_they_are() -> None:
    torch.manual_seed(0)
    module = _Odd().eval()
    plain = copy.deepcopy(module)
    # a network without updates is its own plain state, whatever its parameters are called
    assert {name: tensor.tolist() for name, tensor in plain_state(module).items()} == {
        name: tensor.tolist() for name, tensor in plain.state_dict().items()
    }
    assert n_plain_parameters(module) == sum(parameter.numel() for parameter in plain.parameters())
    names = add_low_rank(module, ["plain", "first", "second", "ruled", "turned", "old"], 1, 8.0, seed=0)
    assert {name.partition(".parametrizations.")[0] for name in names} == {"plain"}
    _disturb(module, names)
    plain.load_state_dict(plain_state(module), strict=True)
    with torch.no_grad():
        assert float((plain(IMAGE) - module.eval()(IMAGE)).abs().max()) <= 1e-6
