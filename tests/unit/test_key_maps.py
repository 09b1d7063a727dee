"""Published weights under a network's names: the same image gives the same features on both sides.

The other side is MONAI's own class, and where MONAI has a loader for the weights, that loader.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from monai.networks.nets import resnet
from monai.networks.nets.dynunet import DynUNet
from monai.networks.nets.segresnet_ds import SegResNetDS
from monai.networks.nets.swin_unetr import SwinTransformer, SwinUNETR, filter_swinunetr
from monai.networks.nets.vitautoenc import ViTAutoEnc
from monai.networks.utils import copy_model_state
from nnunet_reference import PLANS, example, fill
from torch import Tensor, nn

from monai_tl.config import NetworkConfig
from monai_tl.errors import WeightsError
from monai_tl.networks.builders import build_network
from monai_tl.networks.key_maps import KEY_MAPS, apply_key_map
from monai_tl.sources.audit import load_audited
from monai_tl.sources.surgery import Heads
from monai_tl.sources.weights import State, load_state

_SWIN: dict[str, Any] = {"feature_size": 12, "depths": [2, 1, 1, 1], "num_heads": [1, 2, 2, 4], "window_size": 3}
SWIN = NetworkConfig(name="swin_unetr", arguments=_SWIN)
UNETR = NetworkConfig(
    name="unetr", arguments={"img_size": 32, "hidden_size": 24, "num_heads": 2, "mlp_dim": 32, "feature_size": 4}
)
THIN = [8, 8, 4, 4, 4]


def _randomise(module: nn.Module, seed: int) -> nn.Module:
    """No tensor at a constructor's value, normalisations neither."""
    generator = torch.Generator().manual_seed(seed)
    for tensor in module.state_dict(keep_vars=True).values():
        if tensor.is_floating_point():
            with torch.no_grad():
                noise = torch.rand(tensor.shape, generator=generator)
                # variances and scales stay positive, sums over channels about 1
                tensor.copy_((noise - 0.5) * 3 / tensor[0].numel() ** 0.5 if tensor.ndim > 1 else noise + 0.5)
    return module.eval()


def _image(size: int, n_channels: int = 1) -> Tensor:
    return torch.randn(1, n_channels, size, size, size, generator=torch.Generator().manual_seed(3))


def _load(config: NetworkConfig, state: Mapping[str, Tensor], n_channels: int = 1) -> tuple[nn.Module, Any]:
    """A network with weights that the audit mapped and loaded, and its record."""
    module = build_network(config, n_channels, 3, seed=9)
    heads = Heads(("background", "a"), ("background", "b", "c"))
    audit = load_audited(module, config, n_channels, heads, State(dict(state), "0" * 64), 0.0)
    return module.eval(), audit


def _assert_same(first: list[Tensor], second: list[Tensor]) -> None:
    assert len(first) == len(second)
    assert all(torch.equal(one, two) for one, two in zip(first, second, strict=True))
    assert all(torch.isfinite(one).all() and one.std() > 0 for one in first)


def _swin_transformer() -> SwinTransformer:
    return _randomise(
        SwinTransformer(
            in_chans=1,
            embed_dim=12,
            window_size=(3, 3, 3),
            patch_size=(2, 2, 2),
            depths=_SWIN["depths"],
            num_heads=_SWIN["num_heads"],
        ),
        seed=1,
    )


def _of_old(name: str) -> str:
    return name.replace("mlp.linear", "mlp.fc")


def _heads() -> dict[str, Tensor]:
    return {
        "rotation_head.weight": torch.ones(4, 192),
        "contrastive_head.bias": torch.ones(8),
        "conv.0.bias": torch.ones(4),
    }


def test_the_self_supervised_swin_encoder() -> None:
    """model_swinvit.pt, read by MONAI's own load_from and by the map."""
    encoder = _swin_transformer()
    published = {f"module.{_of_old(name)}": tensor for name, tensor in encoder.state_dict().items()}
    published |= {f"module.{name}": tensor for name, tensor in _heads().items()}
    published |= {"module.norm.weight": torch.ones(192)}
    theirs = SwinUNETR(1, 3, **_SWIN).eval()
    theirs.load_from({"state_dict": published})
    ours, audit = _load(SWIN, published)
    image = _image(64)
    with torch.inference_mode():
        _assert_same(ours.swinViT(image), theirs.swinViT(image))
        _assert_same(ours.swinViT(image), encoder(image))
    assert {name for name, share in audit.groups.items() if share == 1.0} == {"stem", *(f"stage{i}" for i in "1234")}
    assert {name for name, share in audit.groups.items() if share == 0.0} == {
        "skips",
        *(f"up{i}" for i in "54321"),
        "head",
    }
    assert not [item for item in audit.tensors if item.status == "unused"]
    assert any("model_swinvit.pt" in note for note in audit.notes)
    assert any("3 tensors left out on purpose: head of the pretraining task" in note for note in audit.notes)


class SSLHead(nn.Module):
    """As MONAI's research contributions train it: the encoder, and a head for each pretext task."""

    def __init__(self, attribute: str) -> None:
        super().__init__()
        setattr(self, attribute, _swin_transformer())
        self.rotation_pre, self.rotation_head = nn.Identity(), nn.Linear(192, 4)
        self.contrastive_pre, self.contrastive_head = nn.Identity(), nn.Linear(192, 8)
        self.conv = nn.Sequential(nn.Conv3d(192, 4, 3), nn.InstanceNorm3d(4, affine=True), nn.Conv3d(4, 1, 1))


@pytest.mark.parametrize(("attribute", "wrapper"), [("swinViT", "module._orig_mod."), ("swin_vit", "")])
def test_a_checkpoint_of_swin_pretraining(attribute: str, wrapper: str) -> None:
    head = SSLHead(attribute).eval()
    published = {wrapper + name: tensor for name, tensor in head.state_dict().items()}
    ours, audit = _load(SWIN, published)
    with torch.inference_mode():
        _assert_same(ours.swinViT(_image(64)), getattr(head, attribute)(_image(64)))
    assert not [item for item in audit.tensors if item.status == "unused"]
    assert any("SSLHead" in note for note in audit.notes)


def test_the_swin_encoder_of_disruptive_autoencoders() -> None:
    """Against MONAI's filter for these weights."""
    encoder = _swin_transformer().state_dict()
    published = {
        "encoder." + (name[:10] + "0." + name[10:] if name.startswith("layers") else name): tensor
        for name, tensor in encoder.items()
    }
    published |= {"encoder.mask_token": torch.ones(12), "encoder.norm.weight": torch.ones(192)}
    published |= {"out.conv.conv.weight": torch.ones(1, 12, 1, 1, 1), "out.conv.conv.bias": torch.ones(1)}
    theirs = SwinUNETR(1, 3, **_SWIN).eval()
    copied, changed, _ = copy_model_state(theirs, published, filter_func=filter_swinunetr)
    theirs.load_state_dict(copied)
    ours, audit = _load(SWIN, published)
    assert set(changed) == {item.name for item in audit.tensors if item.status == "matched"}
    with torch.inference_mode():
        _assert_same(ours.swinViT(_image(64)), theirs.swinViT(_image(64)))
    assert not [item for item in audit.tensors if item.status == "unused"]


def test_a_vit_autoencoder_for_unetr() -> None:
    arguments = {"img_size": (32, 32, 32), "hidden_size": 24, "mlp_dim": 32, "num_heads": 2}
    autoencoder = _randomise(ViTAutoEnc(1, patch_size=(16, 16, 16), **arguments), seed=2)
    published = dict(autoencoder.state_dict())
    # an earlier MONAI built an attention across inputs into each block and never called it
    published["blocks.3.cross_attn.to_q.weight"] = torch.ones(24, 24)
    ours, audit = _load(UNETR, published)
    with torch.inference_mode():
        _assert_same(ours.vit(_image(32))[1], autoencoder(_image(32))[1])
    assert audit.groups["stem"] == audit.groups["stage4"] == 1.0
    assert audit.groups["skips"] == 0.0
    assert not [item for item in audit.tensors if item.status == "unused"]
    assert any("cross" in note or "across inputs" in note for note in audit.notes)


@pytest.mark.parametrize("backbone", ["resnet10", "resnet18"])
def test_medicalnet(backbone: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Against MONAI's loader of these weights, which is given a state in place of its download."""
    published = {
        f"module.{name}": tensor
        for name, tensor in _randomise(resnet.ResNetFeatures(backbone, pretrained=False), 4).state_dict().items()
    }
    monkeypatch.setattr(resnet, "get_pretrained_resnet_medicalnet", lambda *_, **__: published)
    theirs = resnet.ResNetFeatures(backbone, pretrained=True).eval()
    extra = {"module.conv_seg.0.weight": torch.ones(2, 2, 1, 1, 1)}
    config = NetworkConfig(name="flexible_unet", arguments={"backbone": backbone, "decoder_channels": THIN})
    ours, audit = _load(config, published | extra)
    with torch.inference_mode():
        _assert_same(ours.encoder(_image(32)), theirs(_image(32)))
    assert all(audit.groups[name] == 1.0 for name in ("stem", "stage1", "stage2", "stage3", "stage4"))
    assert audit.groups["up0"] == audit.groups["head"] == 0.0
    assert not [item for item in audit.tensors if item.status == "unused"]


@pytest.mark.parametrize(
    ("source", "shortcut", "backbone"), [("resnet18", "A", "resnet10"), ("resnet18", "B", "resnet18")]
)
def test_weights_of_another_resnet_are_refused(source: str, shortcut: str, backbone: str) -> None:
    """More blocks, or convolutions in shortcuts where the network has none: it would compute something else."""
    with torch.device("meta"):
        other = resnet.resnet18(n_input_channels=1, shortcut_type=shortcut, bias_downsample=False, feed_forward=False)
    config = NetworkConfig(name="flexible_unet", arguments={"backbone": backbone, "decoder_channels": THIN})
    with pytest.raises(WeightsError, match=r"MedicalNet.*no place in flexible_unet.*module.layer"):
        apply_key_map({f"module.{name}": tensor for name, tensor in other.state_dict().items()}, config)


def test_a_swin_of_other_depths_is_refused() -> None:
    published = {f"module.{_of_old(name)}": tensor for name, tensor in _swin_transformer().state_dict().items()}
    config = NetworkConfig(name="swin_unetr", arguments={**_SWIN, "depths": [1, 1, 1, 1]})
    with pytest.raises(WeightsError, match=r"module.layers1.0.blocks.1"):
        apply_key_map(published, config)


@pytest.mark.parametrize(
    ("plan", "wrapper"), [("plain", "_orig_mod."), ("plain_odd_layers", ""), ("residual_anisotropic", "module.")]
)
def test_an_nnunet_checkpoint_comes_across_whole(plan: str, wrapper: str, tmp_path: Path) -> None:
    config = NetworkConfig(name=PLANS[plan][0], arguments=PLANS[plan][1])
    theirs = build_network(config, 2, 3, seed=1).eval()
    fill(theirs)
    state = {wrapper + name: tensor for name, tensor in theirs.state_dict().items()}
    torch.save({"network_weights": state, "current_epoch": 3, "init_args": {}}, tmp_path / "checkpoint_final.pth")
    read = load_state(tmp_path / "checkpoint_final.pth", None)
    ours = build_network(config, 2, 3, seed=2)
    rows = Heads(("background", "a", "b"), ("background", "a", "b"))
    audit = load_audited(ours, config, 2, rows, read, 1.0)
    assert {item.status for item in audit.tensors} == {"matched"}
    assert torch.equal(ours.eval()(example()), theirs(example()))
    n_first = len({id(tensor) for tensor in theirs.state_dict(keep_vars=True).values()})
    assert any(f"{len(state) - n_first} tensors were there twice" in note for note in audit.notes)


@pytest.mark.parametrize("plan", ["plain", "plain_odd_layers", "residual"])
def test_an_nnunet_checkpoint_with_second_names_alone(plan: str) -> None:
    """A tool that drops doubles may keep either name."""
    config = NetworkConfig(name=PLANS[plan][0], arguments=PLANS[plan][1])
    theirs = build_network(config, 2, 3, seed=1)
    fill(theirs)
    last = {id(tensor): name for name, tensor in theirs.state_dict(keep_vars=True).items()}
    state = {name: tensor for name, tensor in theirs.state_dict().items() if name in set(last.values())}
    assert any(name.startswith("decoder.encoder.") and ".all_modules." in name for name in state)
    assert not any(name.startswith("encoder.") for name in state)
    ours = build_network(config, 2, 3, seed=2)
    assert ours.load_state_dict(apply_key_map(state, config).tensors, strict=False).unexpected_keys == []
    assert torch.equal(ours.eval()(example()), theirs.eval()(example()))


def test_doubles_that_disagree_are_refused() -> None:
    config = NetworkConfig(name="nnunet_plain", arguments=PLANS["plain"][1])
    state = dict(build_network(config, 2, 3, seed=1).state_dict())
    double = "decoder.encoder.stages.0.0.convs.0.all_modules.0.weight"
    state[double] = state[double] + 1
    with pytest.raises(WeightsError, match=r"is a second name of encoder.stages.0.0.convs.0.conv.weight, but holds"):
        apply_key_map(state, config)


_DYNUNET: dict[str, Any] = {
    "kernel_size": [3, 3, 3, 3],
    "strides": [1, 2, 2, 2],
    "upsample_kernel_size": [2, 2, 2],
    "filters": [4, 8, 8, 8],
}
_SEGRESNET: dict[str, Any] = {"init_filters": 4, "blocks_down": [1, 1, 1, 1]}


@pytest.mark.parametrize(
    ("name", "arguments", "theirs"),
    [
        ("dynunet", _DYNUNET, lambda: DynUNet(3, 1, 3, **_DYNUNET, deep_supervision=True, deep_supr_num=2)),
        ("segresnet_ds", _SEGRESNET, lambda: SegResNetDS(3, in_channels=1, out_channels=3, **_SEGRESNET, dsdepth=3)),
        ("segresnet_ds", _SEGRESNET, lambda: SegResNetDS(3, in_channels=1, out_channels=3, **_SEGRESNET, dsdepth=1)),
    ],
)
def test_heads_of_deep_supervision_are_left_out(
    name: str, arguments: dict[str, Any], theirs: Callable[[], nn.Module]
) -> None:
    trained = _randomise(theirs(), 5)
    config = NetworkConfig(name=name, arguments=arguments)
    ours = build_network(config, 1, 3, seed=0)
    rows = Heads(("background", "a", "b"), ("background", "a", "b"))
    audit = load_audited(ours, config, 1, rows, State(dict(trained.state_dict()), "0" * 64), 1.0)
    assert {item.status for item in audit.tensors} == {"matched"}
    with torch.inference_mode():
        assert torch.equal(ours.eval()(_image(16)), trained(_image(16)))
    n_more = len(trained.state_dict()) - len(ours.state_dict())
    assert any(f"{n_more} tensors left out on purpose: head of deep" in note for note in audit.notes) == (n_more > 0)


@pytest.mark.parametrize(
    "config",
    [
        SWIN,
        UNETR,
        NetworkConfig(name="flexible_unet", arguments={"backbone": "resnet10", "decoder_channels": THIN}),
        NetworkConfig(name="unet", arguments={"channels": [4, 8], "strides": [2]}),
    ],
    ids=lambda config: config.name,
)
def test_weights_with_the_network_s_own_names_stay(config: NetworkConfig) -> None:
    state = build_network(config, 1, 2, seed=0).state_dict()
    for wrapper in ("", "module."):
        wrapped = {wrapper + name: tensor for name, tensor in state.items()}
        mapped = apply_key_map(wrapped, config)
        assert mapped.notes == ()
        assert list(mapped.tensors.items()) == list(wrapped.items())


def test_weights_for_another_network_stay() -> None:
    published = {f"module.{_of_old(name)}": tensor for name, tensor in _swin_transformer().state_dict().items()}
    assert apply_key_map(published, UNETR).notes == ()


def test_each_map_belongs_to_a_network_of_the_table() -> None:
    from monai_tl.networks.builders import network_names

    assert {name for one in KEY_MAPS for name in one.networks} <= set(network_names())
    assert len({one.name for one in KEY_MAPS}) == len(KEY_MAPS)
    rules = [rule for one in KEY_MAPS for rule in one.rules_for(["up_layers.0.head.weight"])]
    assert all(rule.reason for rule in rules if rule.new is None)
