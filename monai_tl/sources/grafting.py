"""A source's network with its own head, on its own body or on one that was tuned from it."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn

from monai_tl.errors import ContractError
from monai_tl.networks.builders import differences, groups_of
from monai_tl.networks.groups import assign_groups, named_tensors
from monai_tl.sources.audit import load_trained
from monai_tl.sources.card import Source
from monai_tl.sources.own_load import own_network


class WithBackground(nn.Module):
    """A sigmoid network as a softmax one: a background of logit 0 before its classes.

    Softmax of (0, z) is sigmoid of z, so with one class every probability is the network's own. With several, a voxel
    goes to its likeliest class where that is likelier than not.
    """

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, image: Tensor) -> Tensor:
        """Logits (B, n + 1, I, J, K) of an image (B, C, I, J, K)."""
        logits: Tensor = self.network(image)
        return torch.cat([torch.zeros_like(logits[:, :1]), logits], dim=1)


def source_network(source: Source) -> nn.Module:
    """The source's network as it is, background first, in eval mode.

    Raises:
        ContractError: The source has no task of its own: it gives features, or its weights cover a part only.
        SourceError: The source has faults.
    """
    return _background_first(_own_network(source), source)


def _own_network(source: Source) -> nn.Module:
    if source.card.output == "features" or source.card.covers:
        raise ContractError(
            f"{source.card.name} was trained for no classes that could be forgotten; leave evaluate.source_set out"
        )
    return own_network(source)[0]


def grafted_network(source: Source, tuned: Path) -> nn.Module:
    """The source's network with the body of a model that was tuned from it, background first, in eval mode.

    Every tensor outside the head's layer group is the tuned model's, running statistics too; the head is the source's.

    Args:
        source: Gives the head.
        tuned: Model folder of the finetune stage.

    Raises:
        ContractError: The tuned body is not the source's: another network, or other input channels. Or the source has
            no task of its own.
        SourceError: A folder has faults.
    """
    network = _own_network(source)
    trained, read = load_trained(tuned)
    other = differences(read.card.network.config, source.card.network.config)
    if other:
        # names and shapes may agree all the same (norm, act), and the source's layers would compute something else
        raise ContractError(
            f"{read.card.name} was tuned in another network than {source.card.name} states ({', '.join(other)}; "
            "plan.network), so the source's head does not fit on it, and what was forgotten cannot be measured"
        )
    tuned_tensors = named_tensors(trained)
    groups = groups_of(source.card.network.config, network)
    assigned = assign_groups(network, groups)
    body = {name: tensor for name, tensor in named_tensors(network).items() if assigned[name] != groups[-1].name}
    odd = [name for name, one in body.items() if name not in tuned_tensors or tuned_tensors[name].shape != one.shape]
    if odd:
        raise ContractError(
            f"the body of {read.card.name} is not that of {source.card.name}: {len(odd)} tensors differ "
            f"in name or shape, the first is {odd[0]}; so the source's head does not fit on it"
        )
    with torch.no_grad():
        for name, tensor in body.items():
            tensor.copy_(tuned_tensors[name])
    return _background_first(network, source)


def _background_first(network: nn.Module, source: Source) -> nn.Module:
    return network if source.card.output == "softmax" else WithBackground(network).eval()
