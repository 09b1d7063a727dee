"""Surgery on weights: other channels keep the response to a grey image, class rows travel by name."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from small_networks import SMALL
from torch import nn

from monai_tl.config import NetworkConfig
from monai_tl.networks import builders
from monai_tl.networks.builders import build_network
from monai_tl.networks.groups import LayerGroup, named_tensors
from monai_tl.networks.heads import adapt_channels, find_axes, output_rows, reuse_rows
from monai_tl.networks.spec import NetworkSpec
from monai_tl.records import SizeRule


@settings(max_examples=60, deadline=None)
@given(n_source=st.integers(1, 7), n_target=st.integers(1, 7), seed=st.integers(0, 99))
def test_response_to_a_grey_image_is_kept(n_source: int, n_target: int, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    weight = torch.randn(3, n_source, 2, 2, 2, generator=generator, dtype=torch.float64)
    grey = torch.randn(1, 1, 4, 4, 4, generator=generator, dtype=torch.float64)
    adapted = adapt_channels(weight, 1, n_target)
    before = torch.conv3d(grey.expand(1, n_source, 4, 4, 4), weight)
    after = torch.conv3d(grey.expand(1, n_target, 4, 4, 4), adapted)
    assert torch.allclose(before, after, atol=1e-12)


def test_channels_in_closed_form() -> None:
    one = torch.tensor([6.0]).reshape(1, 1, 1, 1, 1)
    assert adapt_channels(one, 1, 3).flatten().tolist() == [2.0, 2.0, 2.0]
    three = torch.tensor([1.0, 10.0, 100.0]).reshape(1, 3, 1, 1, 1)
    assert adapt_channels(three, 1, 1).flatten().tolist() == [111.0]
    assert adapt_channels(three, 1, 2).flatten().tolist() == [101.0, 10.0]
    assert adapt_channels(three, 1, 4).flatten().tolist() == [0.5, 10.0, 100.0, 0.5]
    assert torch.equal(adapt_channels(three, 1, 3), three)


def test_the_channel_axis_may_be_any() -> None:
    weight = torch.randn(2, 5, 3, 3, 3)
    assert torch.equal(adapt_channels(weight, 0, 4), adapt_channels(weight.transpose(0, 1), 1, 4).transpose(0, 1))


@pytest.mark.parametrize(("name", "arguments"), SMALL)
def test_axes_are_where_the_numbers_are(name: str, arguments: dict[str, Any]) -> None:
    """Against a second way: sizes chosen so that they occur nowhere else."""
    config = NetworkConfig(name=name, arguments=arguments)
    # VNet takes divisors of 16 only, which occur elsewhere too
    n_channels = 1 if name == "vnet" else 11
    channel_axes, class_axes = find_axes(config, n_channels, 13)
    module = build_network(config, n_channels, 13, seed=0)
    shapes = {key: tuple(tensor.shape) for key, tensor in named_tensors(module).items()}

    def where(sizes: set[int]) -> dict[str, tuple[int, ...]]:
        found = {key: tuple(axis for axis, n in enumerate(shape) if n in sizes) for key, shape in shapes.items()}
        return {key: axes for key, axes in found.items() if axes}

    # a perceptron's patches of 16 x 16 x 16 voxels lie in one row
    assert channel_axes == ({"in_tr.conv_block.conv.weight": (1,)} if name == "vnet" else where({11, 11 * 16**3}))
    assert class_axes == where({13})


def test_looking_for_axes_leaves_the_random_state() -> None:
    before = torch.random.get_rng_state()
    find_axes(NetworkConfig(name="unet", arguments=SMALL[0][1]), 1, 2)
    assert torch.equal(before, torch.random.get_rng_state())


def test_rows_travel_by_name() -> None:
    source, target = torch.arange(6.0).reshape(3, 2), torch.full((4, 2), -1.0)
    rows = reuse_rows(
        source, target, (0,), ("background", "Liver", "spleen"), ("background", "tumour", "liver", "kidney")
    )
    assert rows is not None
    assert rows.tensor.tolist() == [[0.0, 1.0], [-1.0, -1.0], [2.0, 3.0], [-1.0, -1.0]]
    assert rows.n_reused == 4
    assert target.eq(-1).all()


def test_rows_and_columns_of_a_mixing_layer_travel_together() -> None:
    source, target = torch.arange(9.0).reshape(3, 3), torch.full((2, 2), -1.0)
    rows = reuse_rows(source, target, (0, 1), ("background", "a", "b"), ("b", "background"))
    assert rows is not None
    assert rows.tensor.tolist() == [[8.0, 6.0], [2.0, 0.0]]
    second = reuse_rows(source.T, target, (1,), ("background", "a", "b"), ("b", "x"))
    assert second is None, "the first axis has another size"


def test_the_background_alone_is_not_reused() -> None:
    target = torch.zeros(2, 1)
    assert reuse_rows(torch.ones(2, 1), target, (0,), ("background", "a"), ("background", "b")) is None


def test_softmax_has_a_background_row_and_sigmoid_has_none() -> None:
    assert output_rows(("a", "b"), "softmax") == ("background", "a", "b")
    assert output_rows(("a", "b"), "sigmoid") == ("a", "b")


class OneChannel(nn.Conv3d):
    """A plug-in that takes one channel only and looks at its own weights while it is built."""

    def __init__(self, n_channels: int, n_outputs: int) -> None:
        if n_channels != 1:
            raise ValueError("one channel only")
        super().__init__(n_channels, n_outputs, 1)
        self.scale = float(self.weight.abs().max())


def test_a_plug_in_that_cannot_grow_has_its_class_axes_all_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    spec = NetworkSpec(OneChannel, lambda _: (LayerGroup("head", ("weight", "bias")),), lambda _: SizeRule())
    monkeypatch.setattr(builders, "_networks", {"one_channel": spec})
    channel_axes, class_axes = find_axes(NetworkConfig(name="one_channel"), 1, 3)
    assert channel_axes == {}
    assert class_axes == {"weight": (0,), "bias": (0,)}
