"""A source's weights in the network that its own card states: whether the two belong together."""

from __future__ import annotations

from torch import nn

from monai_tl.errors import ConfigError, SourceError, WeightsError
from monai_tl.networks.builders import build_network, find_network
from monai_tl.networks.groups import named_tensors
from monai_tl.networks.heads import output_rows
from monai_tl.networks.shape_check import check_pass
from monai_tl.records import Audit, TensorAudit
from monai_tl.sources.audit import load_audited
from monai_tl.sources.card import Source
from monai_tl.sources.opening import open_weights
from monai_tl.sources.surgery import FLAT, Heads

_FLOOR = 0.5
_SHOWN = 12


def load_own(source: Source) -> Audit:
    """Audit of a source in its own network; see ``own_network``."""
    return own_network(source)[1]


def build_own(source: Source) -> nn.Module:
    """The network that a source states, with fresh weights.

    Raises:
        SourceError: It cannot be built, or takes no window; what is wrong lies in the source and not in params.yaml.
    """
    stated = source.card.network
    try:
        check_pass(stated.config, stated.n_channels, stated.n_outputs)
        return build_network(stated.config, stated.n_channels, stated.n_outputs, seed=0)
    except ConfigError as error:
        raise SourceError(f"{source.folder}: the network it states cannot be built; {error}") from None


def own_network(source: Source) -> tuple[nn.Module, Audit]:
    """Load a source into its own network.

    With classes every tensor of the network must be in the source as it is, but those that its builder knows to be idle
    until they are trained (``NetworkSpec.idle``); what the source has beside them (outputs of deep supervision, say) is
    told. 2-D weights may be brought to 3-D. Features bring no head, and may cover part of the body alone.

    Raises:
        SourceError: The network cannot be built.
        WeightsError: A tensor is missing or of another shape, or too few came across, or the network lacks a layer.
    """
    card = source.card
    network, n_outputs = card.network.config, card.network.n_outputs
    module = build_own(source)
    is_whole = card.output != "features" and not card.covers
    if card.output == "features":
        # names that no source has, so that its head stays fresh as it will for any target
        rows: tuple[str, ...] = ()
        own = tuple(f"output {index}" for index in range(n_outputs))
    else:
        own = rows = output_rows(card.classes, card.output)
    heads = Heads(rows, own)
    state = open_weights(source)
    audit = load_audited(
        module,
        network,
        card.network.n_channels,
        heads,
        state,
        _FLOOR,
        card.name,
        covers=card.covers or None,
        is_own=is_whole,
    )
    idle = _idle_tensors(source, module)
    wrong = [
        item
        for item in audit.tensors
        if (item.status == "fresh" or (item.status == "adapted" and not _is_only_flat(item))) and item.name not in idle
    ]
    if is_whole and wrong:
        listed = "\n".join(f"  {item.status:7} {item.name}: {item.detail}" for item in wrong[:_SHOWN])
        more = f"\n  and {len(wrong) - _SHOWN} more" if len(wrong) > _SHOWN else ""
        raise WeightsError(
            f"{source.folder}: {len(wrong)} tensors of its own network are not in its weights; its network is stated "
            f"wrongly, or the weights are of another one\n{listed}{more}"
        )
    return module.eval(), audit


def _is_only_flat(item: TensorAudit) -> bool:
    """Networks are built in 3-D, so the card of 2-D weights can state nothing nearer; its channels it can."""
    first, *rest = item.detail.split("; ")
    return first == FLAT and not any("channels" in part for part in rest)


def _idle_tensors(source: Source, module: nn.Module) -> set[str]:
    tensors = named_tensors(module)
    idle = find_network(source.card.network.config.name).idle
    return {name for name in idle if name in tensors and not tensors[name].any()}
