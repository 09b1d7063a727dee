"""What goes wrong without a word elsewhere, shown first, and then loaded here: it works, or it fails loudly.

The numbers are those of the list of defects that the design was made against (D1 to D6).
"""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import pytest
import torch
from monai.networks.utils import copy_model_state, freeze_layers
from torch import Tensor, nn

from monai_tl.errors import WeightsError
from monai_tl.networks.builders import build_network, groups_of
from monai_tl.networks.groups import set_trainable
from monai_tl.sources.weights import load_state
from tests.support.loading import as_state, image, load, trained, unet

UNET = unet()
STEM = "model.0.conv.unit0.conv.weight"


def _fresh(n_channels: int = 1) -> nn.Module:
    return build_network(UNET, n_channels, 2, seed=0)


def _is(module: nn.Module, other: nn.Module) -> bool:
    mine, theirs = module.state_dict(), other.state_dict()
    return all(torch.equal(tensor, theirs[name]) for name, tensor in mine.items())


def _file(folder: Path, content: Any) -> Path:
    torch.save(content, folder / "weights.pt")
    return folder / "weights.pt"


@pytest.mark.parametrize("wrapped", [True, False], ids=["wrapped", "plain"])
def test_d1_monai_restores_nothing_and_says_all(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, wrapped: bool
) -> None:
    """MONAI's documented transfer option: no variable is loaded, and the log says "Restored all variables"."""
    engine = pytest.importorskip("ignite.engine", reason="the demonstration needs pytorch-ignite")
    from monai.handlers import CheckpointLoader

    source, module = trained(UNET), _fresh()
    path = _file(tmp_path, {"net": source.state_dict()} if wrapped else source.state_dict())
    trainer = engine.Engine(lambda *_: None)
    CheckpointLoader(load_path=str(path), load_dict={"net": module}, strict=False, strict_shape=False).attach(trainer)
    with caplog.at_level(logging.INFO):
        trainer.run([0], max_epochs=1)
    assert _is(module, _fresh()), "if MONAI has mended this, the defect is gone"
    assert any("Restored all variables" in record.getMessage() for record in caplog.records)


@pytest.mark.parametrize("wrapped", [True, False], ids=["wrapped", "plain"])
def test_d1_wrapped_or_plain_comes_whole(tmp_path: Path, wrapped: bool) -> None:
    source = trained(UNET)
    content = {"net": source.state_dict()} if wrapped else source.state_dict()
    # what MONAI's loader hands on: the whole dictionary, in which no name is a tensor's
    _, updated, _ = copy_model_state(_fresh(), {"net": source.state_dict()}, inplace=False)
    assert not updated
    module, audit = load(load_state(_file(tmp_path, content), None), UNET)
    assert _is(module, source)
    assert audit.share_all == 1.0
    assert audit.notes == (("the weights were found under 'net'",) if wrapped else ())


def test_d2_a_wrong_prefix() -> None:
    source = trained(UNET)
    state = {name.replace("model.", "module.model.", 1): tensor for name, tensor in source.state_dict().items()}
    module = _fresh()
    _, updated, unchanged = copy_model_state(module, state)
    assert (len(updated), len(unchanged)) == (0, len(source.state_dict())), "and nothing is raised"
    assert _is(module, _fresh())
    module, audit = load(as_state(state), UNET)
    assert _is(module, source)
    assert audit.notes == ("prefix 'module.' taken off the source's names",)


def test_d2_a_prefix_that_is_put_on_by_hand() -> None:
    """MONAI's own remedy, given wrongly, updates nothing either."""
    _, updated, _ = copy_model_state(_fresh(), trained(UNET).state_dict(), dst_prefix="module.model.", inplace=False)
    assert not updated


def test_d3_one_channel_into_four() -> None:
    source = trained(UNET)
    module = _fresh(4)
    _, updated, unchanged = copy_model_state(module, source.state_dict())
    assert STEM in unchanged, "the first convolution stays random, and no warning names it"
    assert len(updated) > 0
    stem = module.state_dict()[STEM]
    assert torch.equal(stem, _fresh(4).state_dict()[STEM])
    module, audit = load(as_state(source.state_dict()), UNET, 4)
    (first, second) = [item for item in audit.tensors if item.status == "adapted"]
    assert {first.name, second.name} == {STEM, "model.0.residual.weight"}
    grey = image()
    assert torch.allclose(source(grey), module(grey.expand(1, 4, 16, 16, 16)), atol=1e-5)


def test_d4_a_frozen_body_moves() -> None:
    """With MONAI's freezing all parameters stand still and the running statistics do not."""
    module = trained(UNET).train()
    freeze_layers(module, freeze_vars=".*")
    before = {name: tensor.clone() for name, tensor in module.state_dict().items()}
    module(image())
    moved = {name for name, tensor in module.state_dict().items() if not torch.equal(tensor, before[name])}
    assert moved
    assert {name.rpartition(".")[2] for name in moved} == {"running_mean", "running_var", "num_batches_tracked"}


def test_d4_a_frozen_body_stands_still() -> None:
    module, _ = load(as_state(trained(UNET).state_dict()), UNET)
    groups = groups_of(UNET, module)
    set_trainable(module, groups, [groups[-1].name])
    before = {name: tensor.clone() for name, tensor in module.state_dict().items()}
    optimiser = torch.optim.SGD([p for p in module.parameters() if p.requires_grad], lr=0.1)
    for _ in range(3):
        module.train()
        module(image()).square().mean().backward()
        optimiser.step()
    after = module.state_dict()
    moved = {name for name in before if not torch.equal(after[name], before[name])}
    assert moved
    assert all(name.startswith(groups[-1].prefixes) for name in moved)


def test_d5_repeating_the_stem() -> None:
    """nnU-Net repeats a stem by four numbers, which a 3-D kernel's five axes refuse; fewer channels it cannot do."""
    stem = torch.ones(4, 1, 3, 3, 3)
    with pytest.raises(RuntimeError, match="Number of dimensions of repeat dims"):
        stem.repeat(1, 4, 1, 1)


@pytest.mark.parametrize(("n_source", "n_target"), [(1, 4), (4, 1), (4, 3), (3, 4), (7, 2)])
def test_d5_more_channels_and_fewer(n_source: int, n_target: int) -> None:
    source = trained(UNET, n_source)
    module, audit = load(as_state(source.state_dict()), UNET, n_target)
    old, new = source.state_dict()[STEM], module.state_dict()[STEM]
    assert new.shape == (4, n_target, 3, 3, 3)
    assert torch.allclose(old.sum(1), new.sum(1), atol=1e-5), "the response to equal channels"
    assert audit.share_all == 1.0


def test_d6_misses_are_listed() -> None:
    """``strict=False`` gives the misses back, and its callers throw them away: half the network is random."""
    state = {name: tensor for name, tensor in trained(UNET).state_dict().items() if "submodule.1" not in name}
    state["model.extra.weight"] = torch.ones(3)
    module = _fresh()
    misses = module.load_state_dict(state, strict=False)
    assert misses.missing_keys
    assert misses.unexpected_keys == ["model.extra.weight"]
    with pytest.raises(WeightsError) as caught:
        load(as_state(state), UNET, floor=0.9)
    for missing in (name for name, _ in _fresh().named_parameters() if "submodule.1" in name and "conv.weight" in name):
        assert f"{missing}: not in the source" in str(caught.value)
    assert "unused in the source: model.extra.weight" in str(caught.value)
    _, audit = load(as_state(state), UNET, floor=0.1)
    # torch itself makes up a missing counter of batches
    fresh = {item.name for item in audit.tensors if item.status == "fresh" and "num_batches" not in item.name}
    assert fresh == set(misses.missing_keys)
    assert {item.name for item in audit.tensors if item.status == "unused"} == set(misses.unexpected_keys)


@pytest.mark.parametrize(
    "state",
    [{}, {"a": torch.ones(3)}, {f"layer{k}.weight": torch.ones(8, 4, 3, 3, 3) for k in range(5)}],
    ids=["nothing", "one vector", "another network"],
)
def test_a_load_that_brings_nothing_always_fails(state: dict[str, Tensor]) -> None:
    with pytest.raises(WeightsError, match=r"0\.0% of the body's parameters came across"):
        load(as_state(state), UNET, floor=0.0)
