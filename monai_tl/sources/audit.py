"""Weight loading that says what came across, and fails when too little did."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor, nn

from monai_tl.config import NetworkConfig
from monai_tl.errors import SourceError, WeightsError
from monai_tl.networks.builders import build_network, differences, groups_of
from monai_tl.networks.groups import aliases, assign_groups, named_tensors
from monai_tl.networks.heads import find_axes, output_rows, sketch_network
from monai_tl.networks.key_maps import apply_key_map
from monai_tl.networks.layout import Layout, layout_of
from monai_tl.networks.positions import INDEX
from monai_tl.records import Audit
from monai_tl.sources.accounting import account
from monai_tl.sources.card import Source, read_source
from monai_tl.sources.names import match_names
from monai_tl.sources.norm_changes import ancestors, find_norm_changes
from monai_tl.sources.opening import open_weights
from monai_tl.sources.surgery import Heads, Line, Surgery
from monai_tl.sources.weights import State

_SHOWN = 12


def load_audited(
    module: nn.Module,
    network: NetworkConfig,
    n_channels: int,
    heads: Heads,
    state: State,
    floor: float,
    source_name: str | None = None,
    *,
    covers: Sequence[str] | None = None,
    source_layout: Layout | None = None,
    is_own: bool = False,
) -> Audit:
    """Bring weights into a network, tensor by tensor, and account for each.

    Nothing is written unless the floor is reached; what was written is read back and compared.

    Args:
        module: Built by ``build_network`` with this configuration; fresh values stay where nothing comes across.
        network: Its configuration.
        n_channels: Its input channels.
        heads: Classes of both; where they differ, rows with the same name are reused and the rest of the head is fresh.
        state: The source's weights.
        floor: Smallest share of the body's parameters, 0 to 1, counted over the groups that the source covers. A load
            that brings nothing fails in any case.
        source_name: For the record.
        covers: Layer groups that the source holds; None for all. The others stay fresh on purpose.
        source_layout: Of the network the weights were trained in, where it is known and another one.
        is_own: The network is said to be the one the weights were trained in; then it must not lack a layer of theirs.

    Returns:
        The audit: tensors of the network in order, then those of the source that found no place.

    Raises:
        SourceError: ``covers`` names a group that the network does not have.
        WeightsError: Less than the floor came across (the message lists the largest tensors that did not), the names
            fit in two ways, published weights have layers that this network lacks, or a change of normalisation would
            alter the features.
    """
    mapped = apply_key_map(state.tensors, network)
    state = replace(state, tensors=mapped.tensors, notes=(*state.notes, *mapped.notes))
    groups = groups_of(network, module)
    names = [group.name for group in groups]
    held = _held(names, covers)
    assigned = assign_groups(module, groups)
    tensors = named_tensors(module)
    match = match_names(state.tensors, {name: tuple(tensor.shape) for name, tensor in tensors.items()}, aliases(module))
    parameters = {name for name, _ in module.named_parameters()}
    channel_axes, class_axes = find_axes(network, n_channels, len(heads.target))
    surgery = Surgery(
        state=state.tensors,
        n_channels=n_channels,
        channel_axes=channel_axes,
        class_axes=class_axes,
        head=names[-1],
        heads=heads,
        layout=layout_of(module, network.arguments),
        source_layout=source_layout,
        is_flat=any(state.tensors[there].ndim == 4 and tensors[here].ndim == 5 for here, there in match.found.items()),
    )
    lines = []
    for name, tensor in tensors.items():
        line = Line(name, assigned[name], tensor.numel() if name in parameters else 0)
        line.n_bytes = tensor.numel() * tensor.element_size()
        if line.group not in held:
            line.detail = "its group is not covered by the source, fresh on purpose"
        elif name in match.found:
            line.source_name = match.found[name]
            surgery.decide(line, tensor.detach().cpu())
        lines.append(line)
    fresh_groups = set(names) - held
    if not heads.agree and not surgery.reused:
        _leave_head_fresh(lines, surgery.head)
        fresh_groups.add(surgery.head)
    changes = find_norm_changes(
        lines, match.renamed, state.tensors, surgery.layout, source_layout, frozenset(fresh_groups)
    )
    left = [*match.unused, *(there for here, there in match.found.items() if assigned[here] not in held)]
    audit = account(lines, names, {name: state.tensors[name] for name in left}, covers, source_name, state.sha256)
    layers_lost = _lost_layers(lines, {here for here, there in match.renamed.items() if there in match.unused})
    notes = (*state.notes, *match.notes, *changes.notes, *_warnings(lines, parameters), *layers_lost)
    audit = audit.model_copy(update={"notes": notes})
    _check_floor(audit, [line for line in lines if line.group in held], surgery.head, floor)
    _check_changes(audit, changes.faults)
    if is_own and layers_lost:
        raise WeightsError(
            f"the network that {audit.source or 'the source'} states lacks layers of its weights, so it computes "
            "something else; correct its arguments (act, norm, units)\n"
            + "\n".join(f"  {line}" for line in layers_lost[:_SHOWN])
        )
    _write(lines, tensors)
    _verify(module, lines)
    return audit


def _held(groups: Sequence[str], covers: Sequence[str] | None) -> set[str]:
    if covers is None:
        return set(groups)
    unknown = [name for name in covers if name not in groups]
    if unknown or not set(covers) & set(groups[:-1]):
        raise SourceError(
            f"covers: {', '.join(unknown) or 'no group of the body'} is no part of the network to start from; there "
            f"are {', '.join(groups)}; correct the card, or plan.network where it is given"
        )
    return set(covers)


def _leave_head_fresh(lines: Iterable[Line], head: str) -> None:
    for line in lines:
        if line.group == head and line.value is not None:
            line.leave_fresh("belongs to a head of other classes")


def _warnings(lines: Sequence[Line], parameters: set[str]) -> list[str]:
    """Buffers that stay fresh beside weights that came across; lost running statistics are refused elsewhere."""
    came = {line.name.rpartition(".")[0] for line in lines if line.value is not None and line.name in parameters}
    lost = [line.name for line in lines if line.value is None and line.name not in parameters and not line.source_name]
    expected = ("num_batches_tracked", INDEX)
    return [
        f"{name} is fresh beside weights that came across"
        for name in lost
        if name.rpartition(".")[0] in came and name.rpartition(".")[2] not in expected
    ]


def _lost_layers(lines: Sequence[Line], unused: set[str]) -> list[str]:
    """Blocks that came across but for a layer that the network lacks, e.g. a shortcut: what they give is not the same.

    Blocks that lie beside all others, such as a second head, are none of this.
    """
    blocks = {block for line in lines for block in ancestors(line.name)}
    came = {block for line in lines if line.n_came for block in ancestors(line.name)}
    lost: dict[str, int] = {}
    for name in sorted(unused):
        block = next(block for block in ancestors(name) if block in blocks)
        if block and block in came:
            lost[block] = lost.get(block, 0) + 1
    return [f"{block} in the source has {count} tensors that the network lacks" for block, count in lost.items()]


def _check_floor(audit: Audit, lines: Sequence[Line], head: str, floor: float) -> None:
    share = audit.share_body if audit.share_covered is None else audit.share_covered
    if share >= floor and any(line.n_came for line in lines if line.group != head):
        return
    lost = [line for line in lines if line.group != head and line.share < 1.0 and line.n_parameters]
    worst = sorted(lost, key=lambda line: line.n_came - line.n_parameters)[:_SHOWN]
    table = [f"  {line.status:7} {line.n_parameters:>10} {line.name}: {line.detail}" for line in worst]
    unused = [item.name for item in audit.tensors if item.status == "unused"]
    names = f"\n  unused in the source: {', '.join(unused[:_SHOWN])}" if unused else ""
    part = "the body's parameters" if audit.covers is None else f"the parameters of {', '.join(audit.covers)}"
    raise WeightsError(
        f"{share:.1%} of {part} came across from {audit.source or 'the source'}, the floor "
        f"is {floor:.0%} (finetune.min_transferred); check that the card's network and arguments are those of the "
        "weights, and that plan.network, where it is given, is one that can take them over\n" + "\n".join(table) + names
    )


def _check_changes(audit: Audit, faults: Sequence[str]) -> None:
    if faults:
        more = f"\n  and {len(faults) - _SHOWN} more" if len(faults) > _SHOWN else ""
        raise WeightsError(
            f"the normalisation of {audit.source or 'the source'} is another than the network's, and its features "
            f"would change in {len(faults)} places; give the network the norm that the weights were trained with\n"
            + "\n".join(f"  {fault}" for fault in faults[:_SHOWN])
            + more
        )


def _write(lines: Iterable[Line], tensors: Mapping[str, Tensor]) -> None:
    with torch.no_grad():
        for line in lines:
            if line.value is not None:
                tensors[line.name].copy_(line.value)


def _verify(module: nn.Module, lines: Iterable[Line]) -> None:
    """Read the network back: it holds what was decided."""
    now = module.state_dict()
    for line in lines:
        if line.value is not None and not torch.equal(now[line.name].cpu(), line.value.to(now[line.name].dtype)):
            raise WeightsError(
                f"{line.name} does not hold what was loaded; the network copies its weights, so it cannot be used"
            )


def load_source(
    module: nn.Module, network: NetworkConfig, n_channels: int, classes: Sequence[str], source: Source, floor: float
) -> Audit:
    """Start a softmax network for new classes from a source's weights; see ``load_audited``.

    Args:
        module: Built with ``len(classes) + 1`` outputs.
        network: Its configuration.
        n_channels: Its input channels.
        classes: Foreground classes of the target in the order of their values.
        source: Read by ``read_source``.
        floor: Smallest share of the body's parameters.

    Raises:
        WeightsError: The weights are damaged, unsafe, too few came across, or the network that the source itself
            states lacks layers of them.
    """
    card = source.card
    heads = Heads(output_rows(card.classes, card.output), output_rows(classes, "softmax"))
    state = open_weights(source)
    layout = None
    if differences(card.network.config, network):
        trained = sketch_network(card.network.config, card.network.n_channels, card.network.n_outputs)
        layout = layout_of(trained, card.network.arguments)
    return load_audited(
        module,
        network,
        n_channels,
        heads,
        state,
        floor,
        card.name,
        covers=card.covers or None,
        source_layout=layout,
        # another network is the user's wish (plan.network), one that lacks layers of its own weights a false statement
        is_own=layout is None and card.output != "features" and not card.covers,
    )


def load_trained(folder: Path) -> tuple[nn.Module, Source]:
    """Build the network of a source folder with its weights, each tensor in its place.

    Returns:
        The network in eval mode, and its source (card and folder).

    Raises:
        SourceError: The folder, card or network has faults.
        WeightsError: A tensor is missing, left over or of another shape.
    """
    source = read_source(folder)
    card = source.card
    network = card.network.config
    module = build_network(network, card.network.n_channels, card.network.n_outputs, seed=0)
    rows = output_rows(card.classes, card.output)
    state = open_weights(source)
    audit = load_audited(module, network, card.network.n_channels, Heads(rows, rows), state, 0.0, card.name)
    wrong = [item for item in audit.tensors if item.status != "matched"]
    if wrong:
        listed = "\n".join(f"  {item.status:7} {item.name}: {item.detail}" for item in wrong[:_SHOWN])
        raise WeightsError(
            f"{folder}: {len(wrong)} tensors do not fit the card's network exactly; correct the card or the weights\n"
            + listed
        )
    return module.eval(), source
