"""Published weights whose tensors have other names than the network here: how they are recognised and renamed.

A map is data: regular expressions that must all be found among the names, and rules that rename or drop. Wrappers'
prefixes (``module.``, ``_orig_mod.``) are taken off first. What no rule names keeps its name, and the audit lists it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from monai_tl.config import NetworkConfig
from monai_tl.errors import WeightsError
from monai_tl.networks.heads import sketch_network

_WRAPPERS = ("module.", "_orig_mod.")


class Rule(NamedTuple):
    """What becomes of the names that a pattern matches whole.

    Attributes:
        pattern: Regular expression.
        new: Template of the new name; None drops the tensor.
        reason: Why it is dropped.
    """

    pattern: str
    new: str | None
    reason: str = ""


@dataclass(frozen=True)
class KeyMap:
    """Names of published weights → names of a network of the table.

    Attributes:
        name: What the weights are called.
        networks: Networks of the table whose names the rules lead to.
        marks: Patterns of which each must match a name whole, or these are other weights.
        rules: The first that matches a name decides about it. A function makes them where they follow from the names.
    """

    name: str
    networks: tuple[str, ...]
    marks: tuple[str, ...]
    rules: tuple[Rule, ...] | Callable[[Collection[str]], tuple[Rule, ...]]

    def recognises(self, names: Collection[str]) -> bool:
        """Whether these are the weights meant; names without wrappers' prefixes."""
        return all(any(re.fullmatch(mark, name) for name in names) for mark in self.marks)

    def rules_for(self, names: Collection[str]) -> tuple[Rule, ...]:
        """The rules for weights of these names."""
        return self.rules(names) if callable(self.rules) else self.rules


def rename(name: str, rules: Iterable[Rule]) -> tuple[str | None, Rule | None]:
    """New name (None: dropped), and the rule that says so (None: no rule knows the name, it stays)."""
    for rule in rules:
        found = re.fullmatch(rule.pattern, name)
        if found:
            return (None if rule.new is None else found.expand(rule.new)), rule
    return name, None


class MappedState(NamedTuple):
    """Weights under the network's names.

    Attributes:
        tensors: Name → tensor.
        notes: What was renamed and dropped; empty where nothing was recognised.
    """

    tensors: dict[str, Tensor]
    notes: tuple[str, ...]


_PRETEXT = "head of the pretraining task"
_DEEP = "head of deep supervision, which is used in training alone"


def _coarse_heads(names: Collection[str]) -> tuple[Rule, ...]:
    """All heads of SegResNetDS but the one of the finest level, which is the last."""
    found = (re.fullmatch(r"up_layers\.(\d+)\.head\.weight", name) for name in names)
    finest = max(int(one[1]) for one in found if one)
    return (Rule(rf"up_layers\.(?!{finest}\.)\d+\.head\..*", None, _DEEP),)


_SWIN = (
    Rule(r"(layers\dc?\..*)\.mlp\.fc([12])\.(.*)", r"swinViT.\1.mlp.linear\2.\3"),
    Rule(r"((?:patch_embed|layers\dc?)\..*)", r"swinViT.\1"),
    Rule(r"norm\..*", None, "normalisation of the features, which SwinUNETR makes without parameters"),
    Rule(r"(rotation|contrastive)_(pre|head)\..*|conv\..*|head\..*", None, _PRETEXT),
    Rule(r"mask_token", None, _PRETEXT),
)
_NNUNET_DOUBLES = (
    Rule(r"(?:decoder\.)?(encoder\..*)\.all_modules\.0\.(weight|bias)", r"\1.conv.\2"),
    Rule(r"(?:decoder\.)?(encoder\..*)\.all_modules\.\d\.(.*)", r"\1.norm.\2"),
    Rule(r"decoder\.(encoder\..*)", r"\1"),
    Rule(r"(decoder\..*)\.all_modules\.0\.(weight|bias)", r"\1.conv.\2"),
    Rule(r"(decoder\..*)\.all_modules\.\d\.(.*)", r"\1.norm.\2"),
)

KEY_MAPS: tuple[KeyMap, ...] = (
    KeyMap(
        "MONAI's self-supervised Swin encoder (model_swinvit.pt)",
        ("swin_unetr",),
        (r"patch_embed\.proj\.weight", r"layers1\.0\.blocks\.0\.mlp\.(fc|linear)1\.weight"),
        _SWIN,
    ),
    KeyMap(
        "a checkpoint of MONAI's Swin pretraining (SSLHead)",
        ("swin_unetr",),
        (r"swin(_vit|ViT)\.patch_embed\.proj\.weight", r"(rotation|contrastive)_head\.weight"),
        tuple(Rule(rf"swin(?:_vit|ViT)\.{rule.pattern}", rule.new, rule.reason) for rule in _SWIN[:3]) + _SWIN[3:],
    ),
    KeyMap(
        "disruptive autoencoders' Swin encoder (ssl_pretrained_weights.pth)",
        ("swin_unetr",),
        (r"encoder\.patch_embed\.proj\.weight", r"encoder\.layers1\.0\.0\..*"),
        (
            Rule(r"encoder\.(layers\d\.0)\.\d+\.(.*)\.mlp\.fc([12])\.(.*)", r"swinViT.\1.\2.mlp.linear\3.\4"),
            Rule(r"encoder\.(layers\d\.0)\.\d+\.(.*)", r"swinViT.\1.\2"),
            Rule(r"encoder\.(patch_embed\..*)", r"swinViT.\1"),
            Rule(r"encoder\.(mask_token|norm\..*)", None, "belongs to the pretraining alone"),
            Rule(r"(out|decoder\w*)\..*", None, "decoder of the pretraining task"),
        ),
    ),
    KeyMap(
        "MONAI's ViT autoencoder (ViTAutoEnc)",
        ("unetr",),
        (r"patch_embedding\.position_embeddings", r"blocks\.0\.mlp\.linear1\.weight"),
        (
            Rule(r"blocks\.\d+\.cross_attn\..*", None, "attention across inputs, which a ViT never calls"),
            Rule(r"((?:patch_embedding|blocks|norm)\..*)", r"vit.\1"),
            Rule(r"conv3d_transpose(_1)?\..*", None, _PRETEXT),
            Rule(r"(cls_token|classification_head\..*)", None, "classifier, which UNETR has not"),
        ),
    ),
    KeyMap(
        "UNETR of an earlier MONAI",
        ("unetr",),
        (r"vit\.blocks\.0\.cross_attn\..*",),
        (Rule(r"vit\.blocks\.\d+\.cross_attn\..*", None, "attention across inputs, which a ViT never calls"),),
    ),
    KeyMap(
        "MedicalNet's 3-D ResNet",
        ("flexible_unet",),
        (r"conv1\.weight", r"layer1\.0\.conv1\.weight", r"layer4\.0\.conv1\.weight"),
        (
            Rule(r"((?:conv1|bn1|layer[1-4])\..*)", r"encoder.\1"),
            Rule(r"conv_seg\..*", None, "segmentation head of MedicalNet"),
            Rule(r"fc\..*", None, "classifier, which an encoder has not"),
        ),
    ),
    KeyMap(
        "DynUNet trained with deep supervision",
        ("dynunet",),
        (r"deep_supervision_heads\.0\..*",),
        (Rule(r"deep_supervision_heads\..*|skip_layers\.(next_layer\.)*super_head\..*", None, _DEEP),),
    ),
    KeyMap(
        "SegResNetDS trained with deep supervision",
        ("segresnet_ds",),
        (r"up_layers\.\d+\.head\.weight",),
        _coarse_heads,
    ),
    KeyMap(
        "nnU-Net v2",
        ("nnunet_plain", "nnunet_residual"),
        (r"encoder\.stages\.0\..*|decoder\.encoder\.stages\.0\..*", r"decoder\.seg_layers\.0\.weight"),
        _NNUNET_DOUBLES,
    ),
)
"""In the order in which they are tried."""


def apply_key_map(state: Mapping[str, Tensor], network: NetworkConfig) -> MappedState:
    """Bring published weights under the names of a network, where they are recognised.

    Args:
        state: Name in the file → tensor.
        network: What they are to go into.

    Returns:
        The state as it is and no notes, where no map fits or a fitting one changes nothing.

    Raises:
        WeightsError: The weights have layers that the network lacks, so it would compute something else; or a tensor is
            held twice with different values.
    """
    bare = {name: _without_wrappers(name) for name in state}
    if len(set(bare.values())) < len(bare):
        bare = {name: name for name in state}
    fitting = (one for one in KEY_MAPS if network.name in one.networks and one.recognises(bare.values()))
    key_map = next(fitting, None)
    if key_map is None:
        return MappedState(dict(state), ())
    rules = key_map.rules_for(bare.values())
    tensors: dict[str, Tensor] = {}
    placed: dict[str, str] = {}
    dropped: dict[str, int] = {}
    n_doubles = 0
    for name, tensor in state.items():
        new, rule = rename(bare[name], rules)
        if new is None:
            reason = rule.reason if rule else ""
            dropped[reason] = dropped.get(reason, 0) + 1
            continue
        if rule:
            placed[new] = name
        if new in tensors:
            _check_double(tensors[new], tensor, new, name)
            n_doubles += 1
        else:
            tensors[new] = tensor
    if not placed and not dropped:
        return MappedState(dict(state), ())
    _check_places(placed, key_map, network)
    notes = [f"recognised as {key_map.name}: {len(placed)} tensors go to {network.name} by rule"]
    notes += [f"{n_doubles} tensors were there twice, with equal values"] if n_doubles else []
    notes += [f"{count} tensors left out on purpose: {reason}" for reason, count in dropped.items()]
    return MappedState(tensors, tuple(notes))


def _without_wrappers(name: str) -> str:
    while name.startswith(_WRAPPERS):
        name = name.partition(".")[2]
    return name


def _check_double(first: Tensor, second: Tensor, new: str, name: str) -> None:
    if first.shape != second.shape or not torch.equal(first, second):
        raise WeightsError(
            f"{name} is a second name of {new}, but holds other values; the file is damaged, fetch it again"
        )


def _check_places(placed: Mapping[str, str], key_map: KeyMap, network: NetworkConfig) -> None:
    """A layer of the source that has no place is a layer that the network would compute without."""
    known = sketch_network(network, 1, 2).state_dict()
    homeless = [name for new, name in placed.items() if new not in known]
    if homeless:
        raise WeightsError(
            f"these weights are {key_map.name}, but {len(homeless)} tensors have no place in {network.name} with "
            f"its arguments: {', '.join(homeless[:6])}; give it the arguments (depths, backbone) of the weights"
        )
