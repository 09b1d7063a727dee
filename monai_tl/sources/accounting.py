"""The audit's sums: shares of parameters, and the whole in one sentence."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

from monai_tl.records import Audit, TensorAudit

if TYPE_CHECKING:
    from torch import Tensor, nn

    from monai_tl.sources.surgery import Line


def share_of(lines: Iterable[Line]) -> float:
    """Share of parameters that come from the source, 0 to 1; 0 of nothing."""
    chosen = list(lines)
    total = sum(line.n_parameters for line in chosen)
    return sum(line.n_came for line in chosen) / total if total else 0.0


def account(
    lines: Sequence[Line],
    groups: Sequence[str],
    unused: Mapping[str, Tensor],
    covers: Collection[str] | None,
    source_name: str | None,
    sha256: str,
) -> Audit:
    """Sum up decided lines.

    Args:
        lines: All tensors of the network, in its order.
        groups: Layer groups, input to output; the last one is the head.
        unused: The source's tensors that found no place.
        covers: Groups the source holds; None for all.
        source_name: For the record.
        sha256: Of the weights file.
    """
    used = [
        TensorAudit(
            name=line.name,
            group=line.group,
            n_parameters=line.n_parameters,
            n_bytes=line.n_bytes,
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
            n_parameters=tensor.numel(),
            n_bytes=tensor.numel() * tensor.element_size(),
            status="unused",
            detail="no place in the network",
            source_name=name,
        )
        for name, tensor in unused.items()
    ]
    head, body = groups[-1], groups[:-1]
    return Audit(
        source=source_name,
        source_sha256=sha256,
        share_body=share_of(line for line in lines if line.group != head),
        share_all=share_of(lines),
        groups={name: share_of(line for line in lines if line.group == name) for name in groups},
        tensors=(*used, *left),
        covers=None if covers is None else tuple(name for name in groups if name in covers),
        share_covered=None
        if covers is None
        else share_of(line for line in lines if line.group in body and line.group in covers),
    )


def fresh_groups(network: nn.Module, audit: Audit) -> tuple[str, ...]:
    """Groups of the body, input to output, of which a kernel or a table starts from random values.

    Scales, shifts and biases are not counted: fresh ones hardly change what a layer passes on.
    """
    # one is enough: whatever passes through a random kernel is random
    kernels = {name for name, tensor in network.named_parameters() if tensor.ndim > 1}
    fresh = {item.group for item in audit.tensors if item.status == "fresh" and item.name in kernels}
    return tuple(group for group in list(audit.groups)[:-1] if group in fresh)


def describe_audit(audit: Audit) -> str:
    """What came across, in one line; the last of the audit's groups is the head."""
    body = list(audit.groups)[:-1]
    held = body if audit.covers is None else [name for name in body if name in audit.covers]
    share = audit.share_body if audit.share_covered is None else audit.share_covered
    n_parameters = sum(item.n_parameters for item in audit.tensors if item.group in held)
    counts = Counter(item.status for item in audit.tensors)
    words = ", ".join(f"{counts[status]} {status}" for status in ("matched", "adapted", "fresh", "unused"))
    body_part = "the body's" if audit.covers is None else "the covered"
    whole = "" if audit.covers is None else f" ({percent(audit.share_body)} of the body)"
    return f"{percent(share)} of {body_part} {n_parameters:,} parameters{whole} came across: {words}"


def percent(share: float) -> str:
    """A share as percent; only a whole is called 100 %, only nothing 0 %."""
    if share in (0.0, 1.0):
        return f"{share * 100:.0f} %"
    return f"{min(max(share * 100, 0.1), 99.9):.1f} %"
