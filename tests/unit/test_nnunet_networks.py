"""nnU-Net's networks: the names, shapes and outputs of the package that nnU-Net takes them from."""

from __future__ import annotations

import json
from typing import Any

import pytest
import torch
from nnunet_reference import PLANS, RECORD, SIZE, build_original, describe, example, fill
from torch import nn

from monai_tl.config import NetworkConfig
from monai_tl.networks.builders import build_network, groups_of, size_rule_of
from monai_tl.networks.groups import aliases, named_tensors, set_trainable
from monai_tl.networks.lora import add_low_rank, plain_state
from monai_tl.networks.nnunet_blocks import ConvBlock, ResidualBlock
from monai_tl.training.head_input import find_head


def _build(name: str, seed: int = 0) -> nn.Module:
    network, arguments = PLANS[name]
    return build_network(NetworkConfig(name=network, arguments=arguments), 2, 3, seed)


@pytest.mark.parametrize("name", PLANS)
def test_is_what_the_package_s_network_was(name: str) -> None:
    """Against a record that the package itself wrote; see tests/support/nnunet_reference.py."""
    expected, found = json.loads(RECORD.read_text())[name], describe(_build(name))
    assert (found["n_names"], found["names_sha256"]) == (expected["n_names"], expected["names_sha256"])
    assert found["logits"] == pytest.approx(expected["logits"], abs=1e-5)
    assert max(map(abs, expected["logits"])) > 0.5


@pytest.mark.parametrize("deep_supervision", [False, True])
@pytest.mark.parametrize("name", PLANS)
def test_is_the_package_s_network(name: str, deep_supervision: bool) -> None:
    pytest.importorskip("dynamic_network_architectures")
    original, own = build_original(*PLANS[name], deep_supervision=deep_supervision), _build(name)
    for module in (original, own):
        for part in module.modules():
            if isinstance(part, nn.Dropout3d):
                part.p = 0.0
    theirs = original.state_dict()
    assert {key: tensor.shape for key, tensor in theirs.items()} == {
        key: tensor.shape for key, tensor in own.state_dict().items()
    }
    for mode in (False, True):
        torch.manual_seed(1)
        for parameter in original.parameters():
            nn.init.normal_(parameter, 0.1, 0.2)
        own.load_state_dict(original.state_dict(), strict=True)
        expected = original.train(mode)(example())
        top = expected[0] if deep_supervision else expected
        assert torch.allclose(own.train(mode)(example()), top, rtol=0, atol=1e-6)


@pytest.mark.parametrize("name", ["plain", "residual_anisotropic"])
def test_a_replaced_convolution_is_used(name: str) -> None:
    """Each is registered twice: who swaps it under its first name must not be ignored."""
    module = _build(name).eval()
    fill(module)
    before = module(example())
    block = next(part for part in module.modules() if isinstance(part, ConvBlock))
    block.conv = nn.Sequential(block.conv, nn.Dropout3d(1.0)).train()
    assert not torch.equal(module(example()), before)


def test_second_names_are_known_as_such() -> None:
    module = _build("plain")
    second = aliases(module)
    first = "encoder.stages.1.0.convs.0.conv.weight"
    assert second["encoder.stages.1.0.convs.0.all_modules.0.weight"] == first
    assert second["decoder.encoder.stages.1.0.convs.0.conv.weight"] == first
    assert sum(tensor.numel() for tensor in named_tensors(module).values()) == sum(
        parameter.numel() for parameter in module.parameters()
    )


def test_only_the_last_head_is_used_and_the_others_stay() -> None:
    module = _build("plain")
    config = NetworkConfig(name="nnunet_plain", arguments=PLANS["plain"][1])
    set_trainable(module, groups_of(config, module), ["head"])
    before = {name: tensor.detach().clone() for name, tensor in named_tensors(module).items()}
    optimiser = torch.optim.AdamW([p for p in module.parameters() if p.requires_grad], lr=0.1, weight_decay=0.1)
    module.train()(example()).square().mean().backward()
    optimiser.step()
    changed = {name for name, tensor in named_tensors(module).items() if not torch.equal(tensor, before[name])}
    assert changed == {"decoder.seg_layers.2.weight", "decoder.seg_layers.2.bias"}


def test_fresh_weights_are_drawn_as_nnunet_draws_them() -> None:
    module = _build("residual")
    convs = [part for part in module.modules() if isinstance(part, nn.Conv3d | nn.ConvTranspose3d)]
    assert all(not part.bias.any() for part in convs if part.bias is not None)
    wide = max(convs, key=lambda part: part.weight.numel()).weight
    he = (2 / (1 + 0.01**2) / (wide[0].numel())) ** 0.5
    assert float(wide.detach().std()) == pytest.approx(he, rel=0.05)
    blocks = [part for part in module.modules() if isinstance(part, ResidualBlock)]
    assert blocks
    assert all(not part.conv2.norm.weight.any() for part in blocks)
    assert all(part.conv1.norm.weight.eq(1).all() for part in blocks)


@pytest.mark.parametrize(("name", "divisors"), [("plain", (8, 8, 8)), ("plain_anisotropic", (2, 16, 16))])
def test_an_anisotropic_plan_keeps_its_thin_axis(name: str, divisors: tuple[int, int, int]) -> None:
    network, arguments = PLANS[name]
    rule = size_rule_of(NetworkConfig(name=network, arguments=arguments))
    assert rule.divisors == divisors
    assert rule.accepts(SIZE)


@pytest.mark.parametrize("once", [True, False])
def test_an_argument_given_once_holds_for_each_level(once: bool) -> None:
    arguments: dict[str, Any] = {**PLANS["plain"][1]}
    arguments |= {"kernel_sizes": 3 if once else [3] * 4, "n_conv_per_stage": 2 if once else [2] * 4}
    module = build_network(NetworkConfig(name="nnunet_plain", arguments=arguments), 2, 3, seed=0)
    assert {key: value.shape for key, value in module.state_dict().items()} == {
        key: value.shape for key, value in _build("plain").state_dict().items()
    }


@pytest.mark.parametrize("name", ["plain_anisotropic", "residual"])
def test_the_head_alone_gives_the_output(name: str) -> None:
    """So features of a frozen body can be kept, although the head holds those of lower levels too."""
    module = _build(name).eval()
    config = NetworkConfig(name=PLANS[name][0], arguments=PLANS[name][1])
    assert find_head(module, groups_of(config, module), example()) is module.decoder.seg_layers


@pytest.mark.parametrize("name", ["plain_anisotropic", "residual"])
def test_low_rank_updates_merge_under_both_names(name: str) -> None:
    module = _build(name).eval()
    new = add_low_rank(module, ["encoder", "decoder"], rank=2, alpha=4.0, seed=0)
    before = module(example())
    with torch.no_grad():
        for key, parameter in module.named_parameters():
            if key in new:
                nn.init.normal_(parameter, 0.0, 0.1)
    assert not torch.allclose(module(example()), before, atol=1e-3)
    merged = _build(name, seed=7)
    merged.load_state_dict(plain_state(module), strict=True)
    assert torch.allclose(merged.eval()(example()), module(example()), atol=1e-6)
