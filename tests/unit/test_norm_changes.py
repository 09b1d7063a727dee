"""Another normalisation: nearly the same is said, what would alter features without a word is refused."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from monai_tl.config import NetworkConfig
from monai_tl.errors import WeightsError
from monai_tl.networks.heads import sketch_network
from monai_tl.networks.layout import Layout, layout_of
from monai_tl.records import Audit
from tests.support.loading import OTHER, SAME, as_state, image, load, trained, unet

BATCH: Any = "batch"
PLAIN: Any = ["instance", {"affine": False}]
INSTANCE: Any = ["instance", {"affine": True}]
GROUP_2: Any = ["group", {"num_groups": 2}]
GROUP_1: Any = ["group", {"num_groups": 1}]


def _layout(config: NetworkConfig) -> Layout:
    return layout_of(sketch_network(config, 1, 2), config.arguments)


def _change(source: Any, target: Any, known: bool) -> tuple[nn.Module, nn.Module, Audit]:
    config, other = unet(norm=source), unet(norm=target)
    before = trained(config)
    after, audit = load(as_state(before.state_dict()), other, source_layout=_layout(config) if known else None)
    return before, after, audit


@pytest.mark.parametrize(
    ("source", "target", "known", "words"),
    [
        (BATCH, INSTANCE, False, "batch normalisation to instance normalisation"),
        (BATCH, GROUP_2, True, "batch normalisation to group normalisation of 2 groups"),
        (INSTANCE, GROUP_2, True, "instance normalisation to group normalisation of 2 groups"),
        (GROUP_1, GROUP_2, True, "group normalisation of 1 groups to group normalisation of 2 groups"),
    ],
)
def test_scale_and_shift_go_over_and_it_is_called_approximate(
    source: Any, target: Any, known: bool, words: str
) -> None:
    before, after, audit = _change(source, target, known)
    assert audit.share_all == 1.0
    assert f"approximate: {words} in 6 layers" in audit.notes
    lines = [item for item in audit.tensors if ".adn.N." in item.name and item.status != "unused"]
    assert len(lines) == 12
    assert {(item.status, item.detail) for item in lines} == {("adapted", f"{words}: approximate")}
    for item in lines:
        assert torch.equal(after.state_dict()[item.name], before.state_dict()[item.name])
    unused = {item.name.rpartition(".")[2] for item in audit.tensors if item.status == "unused"}
    assert unused == ({"running_mean", "running_var", "num_batches_tracked"} if source is BATCH else set())


@pytest.mark.parametrize(
    ("source", "target", "known", "fault"),
    [
        (INSTANCE, BATCH, False, "batch normalisation needs running statistics, and the source has none for it"),
        (PLAIN, BATCH, False, "batch normalisation needs running statistics, and the source has none for it"),
        (GROUP_2, BATCH, True, "batch normalisation needs running statistics, and the source has none for it"),
        (BATCH, PLAIN, False, "instance normalisation without scale and shift, so the source's trained scale and"),
        (GROUP_2, PLAIN, False, "instance normalisation without scale and shift, so the source's trained scale and"),
        (BATCH, None, False, "normalises in the source, and nothing does here"),
        (PLAIN, None, True, "normalises in the source, and nothing does here"),
        (None, BATCH, True, "batch normalisation, where the source does not normalise"),
        (None, INSTANCE, True, "instance normalisation, where the source does not normalise"),
    ],
)
def test_what_would_alter_the_features_is_refused(source: Any, target: Any, known: bool, fault: str) -> None:
    """The convolutions all match: the floor alone would let each of these pass."""
    with pytest.raises(WeightsError, match="in 6 places") as caught:
        _change(source, target, known)
    assert f"model.0.conv.unit0.adn.N: {fault}" in str(caught.value)


def test_it_does_alter_them() -> None:
    """Why batch for instance is refused: all convolutions the same, and quite another answer."""
    config, other = unet(norm=PLAIN), unet(norm=BATCH)
    before, after = trained(config), trained(other)
    after.load_state_dict(before.state_dict(), strict=False)
    for name, module in after.named_modules():
        if isinstance(module, nn.BatchNorm3d):
            module.reset_parameters()
            assert name.endswith("adn.N")
    with torch.no_grad():
        first, second = before(image()), after(image())
    assert (first - second).abs().mean() > 0.1 * first.std()


def test_scale_and_shift_that_were_never_trained_need_no_place() -> None:
    """Ones and zeros do nothing, so leaving them out is exact."""
    config, other = unet(norm=INSTANCE), unet(norm=PLAIN)
    before = trained(config)
    for module in before.modules():
        if isinstance(module, nn.InstanceNorm3d):
            module.reset_parameters()
    after, audit = load(as_state(before.state_dict()), other, source_layout=_layout(config))
    assert torch.allclose(before(image()), after(image()), atol=1e-6)
    assert audit.share_all == 1.0
    assert not any("approximate" in note for note in audit.notes)


def test_scale_and_shift_that_the_source_lacks_start_as_ones_and_zeros() -> None:
    before, after, audit = _change(PLAIN, INSTANCE, True)
    assert torch.allclose(before(image()), after(image()), atol=1e-6), "exact: fresh scale and shift do nothing"
    assert not any("approximate" in note for note in audit.notes)
    assert {item.status for item in audit.tensors if ".adn.N." in item.name} == {"fresh"}


def test_a_fresh_head_may_normalise_as_it_likes() -> None:
    """Only what came across is compared."""
    state = {name: t for name, t in trained(unet()).state_dict().items() if not name.startswith("model.2")}
    _, audit = load(as_state(state), unet(), heads=OTHER)
    assert audit.share_body == 1.0
    _, audit = load(as_state(trained(unet()).state_dict()), unet(), heads=SAME)
    assert audit.notes == ()


def test_a_block_that_is_not_in_the_source_is_left_to_the_floor() -> None:
    state = {name: t for name, t in trained(unet()).state_dict().items() if not name.startswith("model.0")}
    _, audit = load(as_state(state), unet())
    assert audit.groups["down0"] == 0.0
    assert audit.share_body < 1.0
