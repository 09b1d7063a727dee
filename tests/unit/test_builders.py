"""Networks by name: what they promise holds for each in the table."""

from __future__ import annotations

import resource
from importlib.metadata import EntryPoint
from typing import Any

import psutil
import pytest
import torch
from nnunet_reference import PLANS
from small_networks import SMALL
from torch import nn

from monai_tl.config import NetworkConfig
from monai_tl.errors import ConfigError, SourceError
from monai_tl.networks import builders
from monai_tl.networks.builders import (
    build_network,
    differences,
    find_network,
    groups_of,
    network_names,
    size_rule_of,
)
from monai_tl.networks.groups import LayerGroup, assign_groups, named_tensors
from monai_tl.networks.shape_check import check_pass
from monai_tl.networks.spec import NetworkSpec
from monai_tl.records import SizeRule

WITHOUT_GRADIENT = {
    # MONAI builds its normalisation, but calls it only with an attention across inputs
    "unetr": "norm_cross_attn",
    # and the classifier behind EfficientNet's features
    "flexible_unet": "encoder._conv_head encoder._bn1 encoder._fc",
    # heads of lower levels, which checkpoints hold
    "nnunet_plain": "decoder.seg_layers.0 decoder.seg_layers.1 decoder.seg_layers.2",
    "nnunet_residual": "decoder.seg_layers.0 decoder.seg_layers.1 decoder.seg_layers.2",
}
"""Parts that take no part in the output, so that training leaves them as they are."""
SEES_THE_IMAGE = {"swin_unetr": {"stem", "skips"}, "unetr": {"stem", "skips"}}
"""Groups with the image as input, where it is not the first alone."""
UNET = NetworkConfig(name="unet", arguments=SMALL[0][1])
DYNUNET = NetworkConfig(name="dynunet", arguments=SMALL[4][1])
PLAIN = PLANS["plain"][1]


@pytest.fixture(params=SMALL, ids=lambda item: item[0])
def config(request: pytest.FixtureRequest) -> NetworkConfig:
    return NetworkConfig(name=request.param[0], arguments=request.param[1])


def test_all_that_the_table_holds_is_tested_here() -> None:
    assert {name for name, _ in SMALL} == set(builders.BUILT_IN)


def test_logits_have_the_size_of_the_input_and_train_at_the_smallest(config: NetworkConfig) -> None:
    rule = size_rule_of(config)
    assert rule.accepts(rule.min_vox)
    module = build_network(config, 2, 3, seed=0)
    # the anisotropic plans have a fifth level
    n_heads = len(module.decoder.seg_layers) if config.name.startswith("nnunet") else 0
    output = module(torch.randn(1, 2, *rule.min_vox))
    assert output.shape == (1, 3, *rule.min_vox)
    output.square().mean().backward()
    still = {name for name, parameter in module.named_parameters() if parameter.grad is None}
    allowed = tuple(WITHOUT_GRADIENT.get(config.name, "nothing").split()[: max(n_heads - 1, 0) or None])
    assert all(any(part in name for part in allowed) for name in still), sorted(still)
    assert not any(f"seg_layers.{n_heads - 1}" in name for name in still)


def test_logits_have_the_size_of_the_input_one_step_above(config: NetworkConfig) -> None:
    rule = size_rule_of(config)
    i, j, k = rule.min_vox
    larger = rule.min_vox if rule.fixed else (i + rule.divisors[0], j, k)
    assert rule.accepts(larger)
    module = build_network(config, 1, 4, seed=0).eval()
    with torch.inference_mode():
        assert module(torch.randn(1, 1, *larger)).shape == (1, 4, *larger)


@pytest.mark.parametrize("index", [0, 6, 10, 11, 12, 14, 16, 19, 22])
def test_sizes_that_the_rule_refuses_do_not_work(index: int) -> None:
    """The rule is no stricter than it must be: a voxel more, or half the minimum, and the network fails."""
    config = NetworkConfig(name=SMALL[index][0], arguments=SMALL[index][1])
    rule, module = size_rule_of(config), build_network(config, 1, 2, seed=0)
    i, j, k = rule.min_vox
    odd, small = (i + 1, j, k), (i // 2, j // 2, k // 2)
    assert not rule.accepts(odd)
    assert not rule.accepts(small)
    try:
        output = module.eval()(torch.zeros(1, 1, *odd))
    except (RuntimeError, ValueError):
        pass
    else:
        assert output.shape[2:] != odd
    with pytest.raises((RuntimeError, ValueError)):
        module.train()(torch.zeros(1, 1, *small))


BACKBONES = [f"resnet{depth}" for depth in (10, 18, 34, 50, 101, 152, 200)]
BACKBONES += ["efficientnet-b4", "efficientnet-b8"]
EVERY_BACKBONE = [("flexible_unet", {"backbone": name}) for name in BACKBONES]


def _build_shapes(config: NetworkConfig, n_channels: int, n_outputs: int) -> nn.Module:
    """Without memory where the constructor looks at no value."""
    try:
        with torch.device("meta"):
            return build_network(config, n_channels, n_outputs, seed=0)
    except ConfigError:
        return build_network(config, n_channels, n_outputs, seed=0)


@pytest.mark.parametrize(("name", "arguments"), SMALL + EVERY_BACKBONE)
def test_groups_hold_each_tensor_once_and_end_with_the_head(name: str, arguments: dict[str, Any]) -> None:
    config = NetworkConfig(name=name, arguments=arguments)
    module = _build_shapes(config, 1, 3)
    groups = groups_of(config, module)
    assigned, shapes = assign_groups(module, groups), named_tensors(module)
    assert set(assigned) == set(shapes)
    # the head is what changes with the number of outputs, and nothing else does
    wider = named_tensors(_build_shapes(config, 1, 5))
    changed = {assigned[name] for name, tensor in shapes.items() if wider[name].shape != tensor.shape}
    assert changed == {groups[-1].name} == {"head"}
    deeper = named_tensors(_build_shapes(config, 2, 3))
    changed = {assigned[name] for name, tensor in shapes.items() if deeper[name].shape != tensor.shape}
    assert changed == SEES_THE_IMAGE.get(config.name, {groups[0].name})


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


@pytest.mark.parametrize(("name", "arguments"), list(dict(SMALL).items()))
def test_weights_follow_the_seed_and_the_global_state_stays(name: str, arguments: dict[str, Any]) -> None:
    config = NetworkConfig(name=name, arguments=arguments)
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
        ("segresnet_ds", {"dsdepth": 2}, "arguments.dsdepth: cannot be chosen"),
        ("segresnet_ds", {"blocks_down": [1, 1], "blocks_up": [1, 1]}, "arguments.blocks_up: has 2 entries, needs 1"),
        ("segresnet_ds", {"blocks_down": [1]}, "arguments.blocks_down: needs at least two levels"),
        ("attention_unet", {"channels": [4, 8], "strides": [2, 2]}, "arguments.strides: has 2 entries, needs 1"),
        ("attention_unet", {"channels": [1, 8], "strides": [2]}, "arguments.channels: needs at least two levels"),
        (
            "attention_unet",
            {"channels": [4, 8], "strides": [2], "kernel_size": [3, 4, 3]},
            "arguments.kernel_size: has 4, only odd sizes",
        ),
        ("swin_unetr", {"patch_size": 4}, "arguments.patch_size: cannot be chosen"),
        ("swin_unetr", {"use_hyena": True}, "arguments.use_hyena: cannot be chosen"),
        ("swin_unetr", {"depths": [2, 2, 2]}, "arguments.depths: has 3 entries, needs 4"),
        ("swin_unetr", {"num_heads": [5, 6, 12, 24]}, "arguments.feature_size: 24 cannot be shared out among 5"),
        ("swin_unetr", {"feature_size": 30, "num_heads": [3, 6, 12, 24]}, "feature_size should be divisible by 12"),
        ("unetr", {"img_size": [96, 90, 96]}, "arguments.img_size: has 90, needs multiples of 16"),
        ("unetr", {"img_size": [96, 96]}, "arguments.img_size: have values that make no network"),
        ("unetr", {"img_size": 96, "num_heads": 11}, "arguments.hidden_size: 768 cannot be shared out among 11"),
        ("flexible_unet", {"backbone": "resnet10", "pretrained": True}, "arguments.pretrained: cannot be chosen"),
        ("flexible_unet", {"backbone": "resnet11"}, "arguments.backbone: 'resnet11' is none of"),
        (
            "flexible_unet",
            {"backbone": "resnet10", "decoder_channels": [8, 4]},
            "arguments.decoder_channels: has 2 entries, needs 5",
        ),
        (
            "nnunet_plain",
            {**PLAIN, "conv_op": "torch.nn.modules.conv.Conv2d", "norm_op": "torch.nn.InstanceNorm2d"},
            "arguments.conv_op: 'torch.nn.modules.conv.Conv2d' is of a 2-D configuration; only 3d_fullres",
        ),
        ("nnunet_plain", {**PLAIN, "strides": [[1, 1]] * 4}, "need three numbers a level; a 2-D configuration"),
        ("nnunet_plain", {**PLAIN, "strides": [2, 2, 2, 2]}, "arguments.strides: the first must be 1"),
        ("nnunet_plain", {**PLAIN, "kernel_sizes": [3, 3, 2, 3]}, "arguments.kernel_sizes: has 2, only odd"),
        ("nnunet_plain", {**PLAIN, "n_conv_per_stage": [2]}, "arguments.n_conv_per_stage: has 1 entries, needs 4"),
        ("nnunet_plain", {**PLAIN, "n_stages": 1}, "arguments.n_stages: is 1, needs at least 2"),
        ("nnunet_plain", {**PLAIN, "norm_op": "os.system"}, "arguments.norm_op: 'os.system' is no layer known"),
        ("nnunet_plain", {**PLAIN, "nonlin": "evil.LeakyReLU"}, "arguments.nonlin: 'evil.LeakyReLU' is no layer"),
        ("nnunet_plain", {**PLAIN, "deep_supervision": True}, "arguments.deep_supervision: no such argument"),
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
    with pytest.raises(SourceError, match=r"'wnet'.*attention_unet, basic_unet, dynunet.*unetr, vnet"):
        find_network("wnet")


@pytest.mark.parametrize(
    ("strides", "divisor"), [([1, 2, 2], 4), ([1, [2, 2, 1], [2, 2, 2]], (4, 4, 2)), ([1, [3, 2, 1], 2], (6, 4, 2))]
)
def test_size_rule_follows_the_strides_of_each_axis(strides: list[Any], divisor: Any) -> None:
    arguments = {**DYNUNET.arguments, "strides": strides}
    assert size_rule_of(NetworkConfig(name="dynunet", arguments=arguments)).divisor == divisor


def test_a_flexible_unet_fetches_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """MONAI's own default for an encoder is pretrained; a second network must not find it turned on by a first."""

    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("the network was asked")

    monkeypatch.setattr("socket.socket.connect", refuse)
    monkeypatch.setattr("socket.getaddrinfo", refuse)
    for _ in range(2):
        build_network(NetworkConfig(name="flexible_unet", arguments={"backbone": "resnet10"}), 1, 2, seed=0)


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


def test_a_text_in_place_of_a_kernel_is_a_fault() -> None:
    arguments = {"channels": [4, 8], "strides": [2], "kernel_size": ["a", 3, 3]}
    with pytest.raises(ConfigError, match="no number"):
        build_network(NetworkConfig(name="attention_unet", arguments=arguments), 1, 2, seed=0)


HUGE: dict[str, tuple[str, dict[str, Any], str]] = {
    "a kernel": ("unet", {"channels": [4, 8], "strides": [2], "kernel_size": 1001}, "numbers"),
    "channels": ("unet", {"channels": [9000, 9000], "strides": [2]}, "numbers"),
    "units": ("unet", {"channels": [4, 8], "strides": [2], "num_res_units": 10**7}, "tensors"),
    "depths": ("swin_unetr", {"feature_size": 12, "depths": [10**10, 2, 2, 2]}, "numbers"),
    "a window": ("swin_unetr", {"feature_size": 12, "window_size": 60}, "numbers"),
    "a grid": ("swin_unetr", {"feature_size": 12, "window_size": 3000}, "numbers"),
    "positions": ("unetr", {"img_size": 4096}, "numbers"),
}


@pytest.mark.parametrize("name", sorted(HUGE))
def test_what_no_machine_holds_is_refused_before_it_is_built(name: str) -> None:
    """Each would ask for 4 GiB and more at once, or go on for hours."""
    network, arguments, what = HUGE[name]
    limits = resource.getrlimit(resource.RLIMIT_AS)
    there = psutil.Process().memory_info().vms
    resource.setrlimit(resource.RLIMIT_AS, (there + (1 << 30), limits[1]))
    try:
        with pytest.raises(ConfigError, match=f"ask for more than [0-9,]+ {what}"):
            build_network(NetworkConfig(name=network, arguments=arguments), 1, 2, seed=0)
    finally:
        resource.setrlimit(resource.RLIMIT_AS, limits)


@pytest.mark.parametrize("strides", [[0], [-2], [[2, 0, 2]]])
@pytest.mark.parametrize("name", ["unet", "attention_unet"])
def test_strides_below_one_are_refused(name: str, strides: list[Any]) -> None:
    config = NetworkConfig(name=name, arguments={"channels": [4, 8], "strides": strides})
    for ask in (size_rule_of, lambda one: build_network(one, 1, 2, seed=0)):
        with pytest.raises(ConfigError, match=r"strides hold (0|-2), and 1 is the least"):
            ask(config)


@pytest.mark.parametrize(("name", "arguments"), [("segresnet", {"blocks_down": [1], "blocks_up": []}),
                                                 ("segresnet_ds", {"blocks_down": [1]}),
                                                 ("segresnet_ds", {"blocks_down": [1, 0]})])  # fmt: skip
def test_levels_that_are_not_there_are_named(name: str, arguments: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=r"arguments.blocks_down: needs at least"):
        build_network(NetworkConfig(name=name, arguments=arguments), 1, 2, seed=0)


@pytest.mark.parametrize(("name", "arguments"), SMALL)
def test_the_check_by_shapes_takes_what_works(name: str, arguments: dict[str, Any]) -> None:
    check_pass(NetworkConfig(name=name, arguments=arguments), 2, 3)


class _LooksAtValues(nn.Module):
    """Torch cannot follow it by shapes alone; it works all the same, or gives too little."""

    def __init__(self, n_channels: int, n_outputs: int, lost: int = 0, most: int = 0) -> None:
        super().__init__()
        self.head = nn.Conv3d(n_channels, n_outputs, 1)
        self.lost, self.most = lost, most

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        if self.most and image.shape[-1] > self.most:
            raise ValueError("too large")
        found: torch.Tensor = self.head(image if self.most or float(image.sum()) >= 0.0 else -image)
        return found[:, :, self.lost :]


@pytest.fixture
def _values(monkeypatch: pytest.MonkeyPatch) -> None:
    spec = NetworkSpec(
        factory=_LooksAtValues,
        groups=lambda _: (LayerGroup("head", ("head",)),),
        size_rule=lambda _: SizeRule(divisor=1, min_vox=(4, 4, 4)),
    )
    monkeypatch.setattr(builders, "_networks", {**builders._networks, "values": spec})


@pytest.mark.usefixtures("_values")
def test_a_network_that_looks_at_values_is_passed_numbers() -> None:
    check_pass(NetworkConfig(name="values"), 1, 2, (300, 300, 300))
    short = NetworkConfig(name="values", arguments={"lost": 1})
    with pytest.raises(ConfigError, match="gives 1 x 2 x 3 x 4 x 4 for a window of 1 x 1 x 4 x 4 x 4"):
        check_pass(short, 1, 2)


@pytest.mark.usefixtures("_values")
def test_a_window_that_fails_where_a_smaller_one_works_is_refused() -> None:
    config = NetworkConfig(name="values", arguments={"most": 16})
    check_pass(config, 1, 2, (16, 16, 16))
    with pytest.raises(ConfigError, match="fails on a window of 64 x 64 x 64 voxels"):
        check_pass(config, 1, 2, (64, 64, 64))


def test_the_same_network_in_other_words_differs_in_nothing() -> None:
    plain = {"channels": [4, 8], "strides": [2]}
    one = NetworkConfig(name="unet", arguments=plain)
    assert differences(one, NetworkConfig(name="unet", arguments={**plain, "dropout": 0.0, "kernel_size": 3})) == ()
    assert differences(one, NetworkConfig(name="unet", arguments={**plain, "norm": "batch"})) == ("norm",)
    assert differences(one, NetworkConfig(name="vnet")) == ("name",)
