"""Weight loading that says what came across, and fails when too little did."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from monai_tl.config import NetworkConfig
from monai_tl.errors import WeightsError
from monai_tl.networks.builders import build_network, groups_of
from monai_tl.networks.groups import aliases, assign_groups, named_tensors
from monai_tl.networks.heads import find_axes, output_rows
from monai_tl.records import Audit, TensorAudit
from monai_tl.sources.card import Source, read_source
from monai_tl.sources.names import match_names
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
) -> Audit:
    """Bring weights into a network, tensor by tensor, and account for each.

    Nothing is written unless the floor is reached; what was written is read back and compared.

    Args:
        module: Built by :func:`build_network` with this configuration; fresh values stay where nothing comes across.
        network: Its configuration.
        n_channels: Its input channels.
        heads: Classes of both; where they differ, rows with the same name are reused and the rest of the head is fresh.
        state: The source's weights.
        floor: Smallest share of the body's parameters, 0 to 1. A load that brings nothing fails in any case.
        source_name: For the record.

    Returns:
        The audit: tensors of the network in order, then those of the source that found no place.

    Raises:
        WeightsError: Less than the floor came across; the message lists the largest tensors that did not.
    """
    groups = groups_of(network, module)
    assigned = assign_groups(module, groups)
    tensors = named_tensors(module)
    match = match_names(state.tensors, {name: tuple(tensor.shape) for name, tensor in tensors.items()}, aliases(module))
    parameters = {name for name, _ in module.named_parameters()}
    channel_axes, class_axes = find_axes(network, n_channels, len(heads.target))
    surgery = Surgery(state.tensors, channel_axes, class_axes, groups[-1].name, heads)
    lines = []
    for name, tensor in tensors.items():
        line = Line(name, assigned[name], tensor.numel() if name in parameters else 0)
        if name in match.found:
            line.source_name = match.found[name]
            surgery.decide(line, tensor.detach().cpu())
        lines.append(line)
    if not heads.agree and not surgery.reused:
        _leave_head_fresh(lines, surgery.head)
    audit = _summarise(lines, surgery.head, [group.name for group in groups], state, match.unused, source_name)
    audit = audit.model_copy(update={"notes": (*state.notes, *match.notes, *_warnings(lines, parameters))})
    _check_floor(audit, lines, surgery.head, floor)
    _write(lines, tensors)
    _verify(module, lines, state)
    return audit


def _leave_head_fresh(lines: Iterable[Line], head: str) -> None:
    for line in lines:
        if line.group == head and line.value is not None:
            line.status, line.value, line.share = "fresh", None, 0.0
            line.detail = "belongs to a head of other classes"


def _share(lines: Iterable[Line]) -> float:
    chosen = list(lines)
    total = sum(line.n_parameters for line in chosen)
    return sum(line.n_came for line in chosen) / total if total else 0.0


def _summarise(
    lines: Sequence[Line],
    head: str,
    groups: Sequence[str],
    state: State,
    unused: Sequence[str],
    source_name: str | None,
) -> Audit:
    used = [
        TensorAudit(
            name=line.name,
            group=line.group,
            n_parameters=line.n_parameters,
            status=line.status,
            detail=line.detail,
            source_name=line.source_name,
        )
        for line in lines
    ]
    left = [
        TensorAudit(
            name=name,
            group="",
            n_parameters=state.tensors[name].numel(),
            status="unused",
            detail="no place in the network",
            source_name=name,
        )
        for name in unused
    ]
    return Audit(
        source=source_name,
        source_sha256=state.sha256,
        share_body=_share(line for line in lines if line.group != head),
        share_all=_share(lines),
        groups={name: _share(line for line in lines if line.group == name) for name in groups},
        tensors=(*used, *left),
    )


def _warnings(lines: Sequence[Line], parameters: set[str]) -> list[str]:
    """Running statistics that stay fresh beside weights that came across make the source's features wrong."""
    came = {line.name.rpartition(".")[0] for line in lines if line.value is not None and line.name in parameters}
    lost = [line.name for line in lines if line.value is None and line.name not in parameters]
    return [f"{name} is fresh beside weights that came across" for name in lost if name.rpartition(".")[0] in came]


def _check_floor(audit: Audit, lines: Sequence[Line], head: str, floor: float) -> None:
    if audit.share_body >= floor and any(line.n_came for line in lines if line.group != head):
        return
    lost = [line for line in lines if line.group != head and line.share < 1.0 and line.n_parameters]
    worst = sorted(lost, key=lambda line: line.n_came - line.n_parameters)[:_SHOWN]
    table = [f"  {line.status:7} {line.n_parameters:>10} {line.name}: {line.detail}" for line in worst]
    unused = [item.name for item in audit.tensors if item.status == "unused"]
    names = f"\n  unused in the source: {', '.join(unused[:_SHOWN])}" if unused else ""
    raise WeightsError(
        f"{audit.share_body:.1%} of the body's parameters came across from {audit.source or 'the source'}, the floor "
        f"is {floor:.0%} (finetune.min_transferred); check that the card's network and arguments are those of the "
        "weights\n" + "\n".join(table) + names
    )


def _write(lines: Iterable[Line], tensors: Mapping[str, Tensor]) -> None:
    with torch.no_grad():
        for line in lines:
            if line.value is not None:
                tensors[line.name].copy_(line.value)


def _verify(module: nn.Module, lines: Iterable[Line], state: State) -> None:
    """Read the network back: matched tensors equal the source's, adapted ones what surgery made."""
    now = module.state_dict()
    for line in lines:
        if line.value is None:
            continue
        expected = state.tensors[line.source_name] if line.status == "matched" else line.value
        if not torch.equal(now[line.name].cpu(), expected.to(now[line.name].dtype)):
            raise WeightsError(
                f"{line.name} does not hold what was loaded; the network copies its weights, so it cannot be used"
            )


def load_source(
    module: nn.Module, network: NetworkConfig, n_channels: int, classes: Sequence[str], source: Source, floor: float
) -> Audit:
    """Start a softmax network for new classes from a source's weights; see :func:`load_audited`.

    Args:
        module: Built with ``len(classes) + 1`` outputs.
        network: Its configuration.
        n_channels: Its input channels.
        classes: Foreground classes of the target in the order of their values.
        source: Read by :func:`read_source`.
        floor: Smallest share of the body's parameters.

    Raises:
        WeightsError: The weights are damaged, unsafe, or too few came across.
    """
    card = source.card
    heads = Heads(output_rows(card.classes, card.output), output_rows(classes, "softmax"))
    state = open_weights(source)
    return load_audited(module, network, n_channels, heads, state, floor, card.name)


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
