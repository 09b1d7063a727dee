"""Layer groups and freezing: what is frozen does not move, by gradient, statistics or dropout."""

from __future__ import annotations

import copy

import pytest
import torch
from monai.networks.utils import freeze_layers
from torch import Tensor, nn

from monai_tl.config import NetworkConfig
from monai_tl.errors import SourceError
from monai_tl.networks.builders import build_network, groups_of
from monai_tl.networks.groups import LayerGroup, aliases, assign_groups, freeze, named_tensors, set_trainable, thaw

BATCH_NORM = NetworkConfig(
    name="unet",
    arguments={"channels": [4, 8, 16], "strides": [2, 2], "num_res_units": 1, "norm": "batch", "dropout": 0.3},
)
DYNUNET = NetworkConfig(
    name="dynunet",
    arguments={"kernel_size": [3, 3, 3], "strides": [1, 2, 2], "upsample_kernel_size": [2, 2], "filters": [4, 8, 8]},
)


def _snapshot(module: nn.Module) -> dict[str, Tensor]:
    return {name: tensor.detach().clone() for name, tensor in named_tensors(module).items()}


def _train(module: nn.Module, optimiser: torch.optim.Optimizer, n_steps: int = 3) -> None:
    """Real steps, with ``train()`` called before each as a training loop does."""
    generator = torch.Generator().manual_seed(1)
    for _ in range(n_steps):
        module.train()
        optimiser.zero_grad(set_to_none=True)
        module(torch.randn(2, 1, 16, 16, 16, generator=generator) * 5 + 3).square().mean().backward()
        optimiser.step()


def _changed(before: dict[str, Tensor], module: nn.Module) -> set[str]:
    return {name for name, tensor in named_tensors(module).items() if not torch.equal(tensor, before[name])}


def test_freezing_by_gradient_alone_lets_batch_statistics_drift() -> None:
    """The trap: MONAI's freeze_layers leaves a body that changes."""
    module = build_network(BATCH_NORM, 1, 3, seed=0)
    before = _snapshot(module)
    freeze_layers(module, freeze_vars="model.0")
    _train(module, torch.optim.SGD([p for p in module.parameters() if p.requires_grad], lr=0.1))
    assert "model.0.conv.unit0.adn.N.running_mean" in _changed(before, module)


def test_a_frozen_body_does_not_change_in_any_tensor() -> None:
    module = build_network(BATCH_NORM, 1, 3, seed=0)
    groups = groups_of(BATCH_NORM, module)
    assigned, before = assign_groups(module, groups), _snapshot(module)
    set_trainable(module, groups, ["head"])
    _train(module, torch.optim.AdamW(module.parameters(), lr=0.1, weight_decay=0.1))
    changed = _changed(before, module)
    assert {assigned[name] for name in changed} == {"head"}
    assert {name for name in changed if "running_mean" in name} == {"model.2.0.adn.N.running_mean"}


def test_a_frozen_body_is_a_fixed_function_in_train_mode() -> None:
    module = build_network(BATCH_NORM, 1, 3, seed=0)
    set_trainable(module, groups_of(BATCH_NORM, module), [])
    module.train()
    image = torch.randn(1, 1, 16, 16, 16)
    assert torch.equal(module(image), module(image))


def test_thawed_layers_train_again_and_take_the_mode_of_the_network() -> None:
    module = build_network(BATCH_NORM, 1, 3, seed=0)
    groups = groups_of(BATCH_NORM, module)
    set_trainable(module, groups, ["head"])
    module.train()
    set_trainable(module, groups, [group.name for group in groups])
    assert all(part.training for part in module.modules())
    before = _snapshot(module)
    _train(module, torch.optim.SGD(module.parameters(), lr=0.1), n_steps=1)
    still = set(before) - _changed(before, module)
    # a convolution's bias before batch normalisation has no gradient; all else moves
    assert all(name.endswith("conv.bias") for name in still)
    module.eval()
    thaw(module, ["model"])
    assert not any(part.training for part in module.modules())


def test_a_stale_gradient_is_dropped() -> None:
    """An optimiser that was fed before freezing would go on moving the body."""
    module = build_network(BATCH_NORM, 1, 3, seed=0)
    module(torch.randn(2, 1, 16, 16, 16)).mean().backward()
    freeze(module, ["model"])
    before = _snapshot(module)
    torch.optim.SGD(module.parameters(), lr=1.0).step()
    assert not _changed(before, module)


def test_freezing_survives_copying() -> None:
    module = build_network(BATCH_NORM, 1, 3, seed=0)
    freeze(module, ["model.0"])
    other = copy.deepcopy(module).train()
    frozen = {id(part) for part in other.model[0].modules()}
    assert all(part.training != (id(part) in frozen) for part in other.modules())
    assert module.model[0].training is False


def test_blocks_registered_twice_are_counted_and_frozen_once() -> None:
    module = build_network(DYNUNET, 1, 2, seed=0)
    tensors, second = named_tensors(module), aliases(module)
    assert sum(tensor.numel() for tensor in tensors.values()) == sum(p.numel() for p in module.parameters())
    assert set(tensors) | set(second) == set(module.state_dict())
    assert not set(tensors) & set(second)
    assert second["skip_layers.downsample.conv1.conv.weight"] == "input_block.conv1.conv.weight"
    freeze(module, ["input_block"])
    module.train()
    assert not module.skip_layers.downsample.conv1.conv.weight.requires_grad
    assert not module.skip_layers.downsample.training


@pytest.mark.parametrize(
    ("groups", "fault"),
    [
        ([LayerGroup("body", ("0",))], "1.weight is in no group"),
        ([LayerGroup("body", ("0", "1")), LayerGroup("head", ("1",))], "1.weight is in body and head"),
        ([LayerGroup("body", ("0", "1")), LayerGroup("head", ("2",))], "group 'head' holds no tensor"),
        ([LayerGroup("head", ("0",)), LayerGroup("head", ("1",))], "group 'head' is given twice"),
        ([LayerGroup("body", ("0",)), LayerGroup("head", ("1.weight",))], "1.bias is in no group"),
    ],
)
def test_groups_that_do_not_cover_exactly_are_refused(groups: list[LayerGroup], fault: str) -> None:
    module = nn.Sequential(nn.BatchNorm3d(1), nn.Conv3d(1, 1, 1))
    with pytest.raises(SourceError) as caught:
        assign_groups(module, groups)
    assert fault in str(caught.value)


def test_a_prefix_ends_at_a_dot() -> None:
    module = nn.ModuleDict({"up1": nn.Linear(1, 1), "up10": nn.Linear(1, 1)})
    freeze(module, ["up1"])
    assert not module["up1"].weight.requires_grad
    assert module["up10"].weight.requires_grad


def test_an_unknown_group_is_refused() -> None:
    module = build_network(DYNUNET, 1, 2, seed=0)
    with pytest.raises(SourceError, match="no such layer group: neck"):
        set_trainable(module, groups_of(DYNUNET, module), ["neck"])
