"""Networks by name: what they promise holds for each in the table."""

from __future__ import annotations

from importlib.metadata import EntryPoint
from typing import Any

import pytest
import torch
from torch import nn

from monai_tl.config import NetworkConfig
from monai_tl.errors import ConfigError, SourceError
from monai_tl.networks import builders
from monai_tl.networks.builders import build_network, find_network, groups_of, network_names, size_rule_of
from monai_tl.networks.groups import LayerGroup, assign_groups, named_tensors
from monai_tl.networks.spec import NetworkSpec
from monai_tl.records import SizeRule

SMALL: list[tuple[str, dict[str, Any]]] = [
    ("unet", {"channels": [4, 8], "strides": [2]}),
    ("unet", {"channels": [4, 8, 16], "strides": [2, 2], "num_res_units": 2, "norm": "batch"}),
    ("basic_unet", {"features": [4, 4, 4, 8, 8, 4]}),
    ("segresnet", {"blocks_down": [1, 1], "blocks_up": [1]}),
    ("dynunet", {"kernel_size": [3, 3, 3], "strides": [1, 2, 2], "upsample_kernel_size": [2, 2], "filters": [4, 8, 8]}),
    (
        "dynunet",
        {
            "kernel_size": [[3, 3, 1], 3, 3],
            "strides": [1, [2, 2, 1], 2],
            "upsample_kernel_size": [[2, 2, 1], 2],
            "filters": [4, 8, 8],
            "res_block": True,
        },
    ),
]
UNET = NetworkConfig(name="unet", arguments=SMALL[0][1])
DYNUNET = NetworkConfig(name="dynunet", arguments=SMALL[4][1])


@pytest.fixture(params=SMALL, ids=lambda item: item[0])
def config(request: pytest.FixtureRequest) -> NetworkConfig:
    return NetworkConfig(name=request.param[0], arguments=request.param[1])


def test_output_has_the_size_of_the_smallest_input_and_trains_there(config: NetworkConfig) -> None:
    rule = size_rule_of(config)
    module = build_network(config, 2, 3, seed=0)
    output = module(torch.randn(1, 2, *rule.min_vox))
    assert output.shape == (1, 3, *rule.min_vox)
    output.square().mean().backward()
    assert all(parameter.grad is not None for parameter in module.parameters())


def test_groups_hold_each_tensor_once_and_end_with_the_head(config: NetworkConfig) -> None:
    module = build_network(config, 1, 3, seed=0)
    groups = groups_of(config, module)
    assigned = assign_groups(module, groups)
    assert set(assigned) == set(named_tensors(module))
    # the head is what changes with the number of outputs, and nothing else does
    wider = named_tensors(build_network(config, 1, 5, seed=0))
    changed = {assigned[name] for name, tensor in named_tensors(module).items() if wider[name].shape != tensor.shape}
    assert changed == {groups[-1].name} == {"head"}
    deeper = named_tensors(build_network(config, 2, 3, seed=0))
    changed = {assigned[name] for name, tensor in named_tensors(module).items() if deeper[name].shape != tensor.shape}
    assert changed == {groups[0].name}


def test_groups_run_from_input_to_output(config: NetworkConfig) -> None:
    """A forward hook on one convolution of each group sees them in the order stated, but for shortcuts of up paths."""
    module = build_network(config, 1, 2, seed=0)
    assigned = assign_groups(module, groups_of(config, module))
    seen: list[str] = []
    for name, part in module.named_modules():
        own = [f"{name}.{key}" for key, _ in part.named_parameters(recurse=False)]
        if own and own[0] in assigned:
            part.register_forward_hook(lambda *_, group=assigned[own[0]]: seen.append(group))
    module(torch.zeros(1, 1, *size_rule_of(config).min_vox))
    first = list(dict.fromkeys(seen))
    assert first == [group.name for group in groups_of(config, module)]


def test_weights_follow_the_seed_and_the_global_state_stays(config: NetworkConfig) -> None:
    before = torch.random.get_rng_state()
    first, again, other = (build_network(config, 1, 2, seed=seed) for seed in (5, 5, 6))
    assert torch.equal(before, torch.random.get_rng_state())
    pairs = list(zip(named_tensors(first).values(), named_tensors(again).values(), strict=True))
    assert all(torch.equal(one, two) for one, two in pairs)
    assert any(
        not torch.equal(one, two)
        for one, two in zip(named_tensors(first).values(), named_tensors(other).values(), strict=True)
    )


@pytest.mark.parametrize(
    ("name", "arguments", "named"),
    [
        ("unet", {"channels": [4, 8]}, "arguments.strides: is missing"),
        ("unet", {"channels": [4, 8], "strides": [2], "chanels": 1}, "arguments.chanels: no such argument"),
        ("unet", {"channels": [4, 8], "strides": [2], "spatial_dims": 2}, "arguments.spatial_dims: cannot be chosen"),
        ("unet", {"channels": [4, 8], "strides": [2], "out_channels": 2}, "arguments.out_channels: cannot be chosen"),
        ("unet", {"channels": [4, 8], "strides": [2, 2]}, "arguments.strides: has 2 entries, needs 1"),
        ("unet", {"channels": [4, 8], "strides": 2}, "arguments.channels, strides: have values that make no network"),
        ("unet", {"channels": [4, 8], "strides": [2], "norm": "nonsense"}, "monai.networks.nets.unet.UNet refuses"),
        ("segresnet", {"blocks_down": [1, 1]}, "arguments.blocks_up: has 3 entries, needs 1"),
        ("dynunet", {**DYNUNET.arguments, "deep_supervision": True}, "arguments.deep_supervision: cannot be chosen"),
        ("dynunet", {**DYNUNET.arguments, "strides": [2, 2, 2]}, "arguments.strides: the first must be 1"),
    ],
)
def test_faults_name_the_argument(name: str, arguments: dict[str, Any], named: str) -> None:
    with pytest.raises(ConfigError) as caught:
        build_network(NetworkConfig(name=name, arguments=arguments), 1, 2, seed=0)
    assert named in str(caught.value)


def test_all_argument_faults_come_at_once() -> None:
    with pytest.raises(ConfigError) as caught:
        size_rule_of(NetworkConfig(name="unet", arguments={"chanels": [4], "stride": [2]}))
    assert len(caught.value.faults) == 4


def test_an_unknown_name_lists_the_known() -> None:
    with pytest.raises(SourceError, match=r"'vnet'.*basic_unet, dynunet.*segresnet, unet"):
        find_network("vnet")


@pytest.mark.parametrize(
    ("strides", "divisor"), [([1, 2, 2], 4), ([1, [2, 2, 1], [2, 2, 2]], 4), ([1, [3, 2, 1], 2], 12)]
)
def test_size_rule_is_a_multiple_of_each_axis(strides: list[Any], divisor: int) -> None:
    arguments = {**DYNUNET.arguments, "strides": strides}
    assert size_rule_of(NetworkConfig(name="dynunet", arguments=arguments)).divisor == divisor


class OneLayer(nn.Conv3d):
    """A plug-in of one convolution, which is head and body in one."""

    def __init__(self, n_channels: int, n_outputs: int) -> None:
        super().__init__(n_channels, n_outputs, 1)


SPEC = NetworkSpec(OneLayer, lambda _: (LayerGroup("head", ("weight", "bias")),), lambda _: SizeRule())
NOT_A_SPEC = OneLayer


@pytest.fixture
def points(monkeypatch: pytest.MonkeyPatch) -> list[EntryPoint]:
    """Entry points as an installed package would give them; the table of networks is put back afterwards."""
    found: list[EntryPoint] = []
    monkeypatch.setattr(builders, "entry_points", lambda group: [point for point in found if point.group == group])
    monkeypatch.setattr(builders, "_networks", dict(builders._networks))
    return found


def _point(name: str, value: str) -> EntryPoint:
    return EntryPoint(name, f"{__name__}:{value}", builders.ENTRY_POINT_GROUP)


def test_a_plug_in_is_found_by_its_entry_point(points: list[EntryPoint]) -> None:
    points.append(_point("one_layer", "SPEC"))
    assert "one_layer" in network_names()
    module = build_network(NetworkConfig(name="one_layer"), 2, 3, seed=0)
    assert module(torch.zeros(1, 2, 4, 4, 4)).shape == (1, 3, 4, 4, 4)


@pytest.mark.parametrize(
    ("point", "message"),
    [
        (("unet", "SPEC"), "name 'unet' is taken"),
        (("one_layer", "NOT_A_SPEC"), "is no NetworkSpec"),
        (("one_layer", "ABSENT"), "cannot be imported"),
    ],
)
def test_a_plug_in_that_clashes_or_is_broken_is_refused(
    points: list[EntryPoint], point: tuple[str, str], message: str
) -> None:
    points.append(_point(*point))
    with pytest.raises(SourceError, match=message):
        find_network(point[0])


def test_registering_the_same_network_twice_changes_nothing(points: list[EntryPoint]) -> None:
    builders.register_network("one_layer", SPEC)
    builders.register_network("one_layer", SPEC)
    points.append(_point("one_layer", "SPEC"))
    assert find_network("one_layer") is SPEC
