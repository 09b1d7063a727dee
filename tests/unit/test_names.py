"""Names of wrappers, copies and parts: found and said, or refused."""

from __future__ import annotations

from collections.abc import Mapping

import pytest
import torch
from torch import Tensor, nn

from monai_tl.config import NetworkConfig
from monai_tl.errors import WeightsError
from monai_tl.networks.groups import named_tensors
from tests.support.loading import as_state, image, load, trained, unet

UNET = unet()
SEGRESNET = NetworkConfig(name="segresnet", arguments={"blocks_down": [1, 1], "blocks_up": [1]})
DYNUNET = NetworkConfig(
    name="dynunet",
    arguments={"kernel_size": [3, 3, 3], "strides": [1, 2, 2], "upsample_kernel_size": [2, 2], "filters": [4, 8, 8]},
)


def _prefixed(prefix: str, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {prefix + name: tensor for name, tensor in state.items()}


def test_a_compiled_layer_inside() -> None:
    """torch.compile and DistributedDataParallel of parts put their names in the middle."""
    source = trained(UNET)
    plain = source.state_dict()
    source.model[1] = torch.compile(source.model[1])
    compiled = source.state_dict()
    inner = sum("._orig_mod." in name for name in compiled)
    assert 0 < inner < len(compiled)
    module, audit = load(as_state(compiled), UNET)
    assert audit.share_all == 1.0
    assert audit.notes == (f"'_orig_mod.' taken out of {inner} names",)
    assert all(torch.equal(tensor, plain[name]) for name, tensor in module.state_dict().items())


def test_inner_wrappers_below_an_outer_one() -> None:
    names = {
        name.replace("model.1.", "model.1._orig_mod.module."): tensor
        for name, tensor in trained(UNET).state_dict().items()
    }
    _, audit = load(as_state(_prefixed("net.", names)), UNET)
    assert audit.share_all == 1.0
    n = sum("_orig_mod" in name for name in names)
    assert audit.notes == (
        f"'_orig_mod.' taken out of {n} names",
        f"'module.' taken out of {n} names",
        "prefix 'net.' taken off the source's names",
    )


def test_a_layer_wrapped_and_not_wrapped_is_refused() -> None:
    state = dict(trained(UNET).state_dict())
    name = "model.0.conv.unit0.conv.weight"
    state[name.replace("model.0.", "model.0._orig_mod.")] = state[name] + 1
    with pytest.raises(WeightsError, match="one of a wrapped layer and one not"):
        load(as_state(state), UNET)


@pytest.mark.parametrize(
    ("one", "other"), [("student.", "teacher."), ("", "copy."), ("semantic.", "boundary."), ("schema.", "")]
)
def test_two_prefixes_that_fit_equally_well_are_refused(one: str, other: str) -> None:
    first, second = trained(UNET, seed=1).state_dict(), trained(UNET, seed=2).state_dict()
    with pytest.raises(WeightsError, match=r"fits the network in two ways.*save the weights that are meant alone"):
        load(as_state({**_prefixed(one, first), **_prefixed(other, second)}), UNET)


def test_two_prefixes_with_equal_values_are_one() -> None:
    state = trained(UNET).state_dict()
    module, audit = load(as_state({**_prefixed("a.", state), **_prefixed("b.", state)}), UNET)
    assert audit.share_all == 1.0
    assert torch.equal(module(image()), trained(UNET)(image()))


@pytest.mark.parametrize("prefix", ["ema.", "model_ema.", "ema_model."])
@pytest.mark.parametrize("raw", ["", "net."])
def test_averaged_copies_give_way_and_are_said(prefix: str, raw: str) -> None:
    source, averaged = trained(UNET, seed=1), trained(UNET, seed=2)
    state = {**_prefixed(prefix, averaged.state_dict()), **_prefixed(raw, source.state_dict())}
    module, audit = load(as_state(state), UNET)
    assert torch.equal(module(image()), source(image()))
    assert any("the averaged weights (EMA)" in note and repr(prefix) in note for note in audit.notes)
    assert sum(item.status == "unused" for item in audit.tensors) == len(averaged.state_dict())


def test_averaged_weights_alone_are_taken() -> None:
    averaged = trained(UNET, seed=2)
    module, audit = load(as_state(_prefixed("model_ema.", averaged.state_dict())), UNET)
    assert torch.equal(module(image()), averaged(image()))
    assert audit.notes == ("prefix 'model_ema.' taken off the source's names",)


def test_a_prefix_that_only_part_of_the_names_has() -> None:
    source = trained(SEGRESNET)
    state = {
        f"encoder.{name}" if name.startswith(("convInit", "down_layers")) else name: tensor
        for name, tensor in source.state_dict().items()
    }
    module, audit = load(as_state(state), SEGRESNET)
    assert audit.share_all == 1.0
    n = sum(name.startswith("encoder.") for name in state)
    assert audit.notes == (f"prefix 'encoder.' taken off {n} of the source's names",)
    assert torch.equal(module(image()), source(image()))


def test_a_second_copy_does_not_fill_gaps() -> None:
    """One tensor is lost; its averaged twin is not put in its place."""
    state = dict(trained(UNET, seed=1).state_dict())
    copy = _prefixed("ema.", trained(UNET, seed=2).state_dict())
    lost = "model.0.conv.unit0.conv.weight"
    del state[lost], copy["ema.model.0.residual.weight"], copy["ema.model.2.0.conv.weight"]
    _, audit = load(as_state({**state, **copy}), UNET)
    (line,) = [item for item in audit.tensors if item.status == "fresh"]
    assert (line.name, line.detail) == (lost, "not in the source")


def test_one_prefix_for_another() -> None:
    """``backbone.`` in the source is ``model.`` here."""
    source = trained(UNET)
    state = {"backbone." + name.removeprefix("model."): tensor for name, tensor in source.state_dict().items()}
    module, audit = load(as_state(state), UNET)
    assert audit.notes == ("prefix 'backbone.' of the source's names exchanged for 'model.'",)
    assert torch.equal(module(image()), source(image()))


def test_both_names_of_a_tensor_that_is_registered_twice() -> None:
    source = trained(DYNUNET)
    state = source.state_dict()
    assert len(state) > len(named_tensors(source)), "MONAI registers its blocks twice"
    _, audit = load(as_state(state), DYNUNET)
    assert audit.share_all == 1.0
    second = next(name for name in state if name not in named_tensors(source))
    with pytest.raises(WeightsError, match=r"with different values, which are one tensor in the\s+network"):
        load(as_state({**state, second: state[second] + 1}), DYNUNET)


def test_shapes_that_match_under_rolled_names_do_not_pass() -> None:
    """Each name holds its neighbour's tensor: names agree, shapes mostly not."""
    state = trained(UNET).state_dict()
    rolled = dict(zip(state, [*list(state.values())[1:], next(iter(state.values()))], strict=True))
    with pytest.raises(WeightsError, match="of the body's parameters came across"):
        load(as_state(rolled), UNET)


def test_numbered_names_do_not_pass() -> None:
    """All shapes in order, names of no meaning: shapes alone are no evidence."""
    state = {f"tensor.{k}": tensor for k, tensor in enumerate(trained(UNET).state_dict().values())}
    with pytest.raises(WeightsError, match=r"0\.0% of the body's parameters"):
        load(as_state(state), UNET, floor=0.0)


def test_tensors_that_share_memory() -> None:
    """Views of one buffer are read as the numbers that they show."""
    source = trained(UNET)
    names = {name: tensor for name, tensor in source.state_dict().items() if tensor.is_floating_point()}
    flat = torch.cat([tensor.flatten() for tensor in names.values()])
    parts = flat.split([tensor.numel() for tensor in names.values()])
    views = {name: part.view(tensor.shape) for (name, tensor), part in zip(names.items(), parts, strict=True)}
    state = as_state({})
    state.tensors.update(views)
    module, audit = load(state, UNET)
    assert audit.share_all == 1.0
    assert torch.equal(module(image()), source(image()))
    assert {p.untyped_storage().data_ptr() for p in module.parameters()}.isdisjoint({flat.untyped_storage().data_ptr()})


class _Depthwise(nn.Module):
    """A first layer that treats each channel by itself, and one that mixes them."""

    def __init__(self, n_channels: int, n_outputs: int) -> None:
        super().__init__()
        self.each = nn.Conv3d(n_channels, n_channels, 3, padding=1, groups=n_channels)
        self.norm = nn.BatchNorm3d(n_channels)
        self.mix = nn.Conv3d(n_channels, 4, 3, padding=1)
        self.head = nn.Conv3d(4, n_outputs, 1)

    def forward(self, x: Tensor) -> Tensor:
        """(B, n_channels, I, J, K) → (B, n_outputs, I, J, K)."""
        mixed: Tensor = self.head(self.mix(torch.relu(self.norm(self.each(x)))))
        return mixed


@pytest.fixture
def depthwise(monkeypatch: pytest.MonkeyPatch) -> NetworkConfig:
    from monai_tl.networks import builders
    from monai_tl.networks.groups import LayerGroup
    from monai_tl.networks.spec import NetworkSpec
    from monai_tl.records import SizeRule

    groups = [LayerGroup(name, (name,)) for name in ("each", "norm", "mix", "head")]
    spec = NetworkSpec(_Depthwise, lambda _: groups, lambda _: SizeRule())
    monkeypatch.setattr(builders, "_networks", {"depthwise": spec})
    return NetworkConfig(name="depthwise")


@pytest.mark.parametrize(("n_source", "n_target"), [(1, 3), (2, 3), (2, 4)])
def test_layers_of_single_channels_are_repeated(depthwise: NetworkConfig, n_source: int, n_target: int) -> None:
    source = trained(depthwise, n_source)
    module, audit = load(as_state(source.state_dict()), depthwise, n_target)
    grey = image()
    before, after = source(grey.expand(1, n_source, 16, 16, 16)), module(grey.expand(1, n_target, 16, 16, 16))
    assert torch.allclose(before, after, atol=1e-5)
    details = {item.name: item.detail for item in audit.tensors}
    assert details["each.weight"] == f"channels {n_source} to {n_target}, repeated"
    assert details["mix.weight"] == f"input channels {n_source} to {n_target}, sum kept"


def test_layers_of_single_channels_cannot_be_merged(depthwise: NetworkConfig) -> None:
    with pytest.raises(WeightsError, match="batch normalisation needs running statistics"):
        load(as_state(trained(depthwise, 3).state_dict()), depthwise, 1, floor=0.0)
    with pytest.raises(WeightsError, match="filters of single channels cannot be merged"):
        load(as_state(trained(depthwise, 3).state_dict()), depthwise, 1, floor=0.9)
