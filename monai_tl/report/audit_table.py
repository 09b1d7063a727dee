"""The audit of weight loading as rows of text, layer group by layer group."""

from __future__ import annotations

from dataclasses import dataclass

from monai_tl.records import Audit
from monai_tl.report.tables import thousands


@dataclass(frozen=True)
class GroupRow:
    """One layer group: its size, its tensors by what became of them, and its parameters in percent.

    Attributes:
        size: In memory, buffers included.
        matched: Percent taken over as they were.
        adapted: Percent that surgery made from the source's.
        fresh: Percent that does not come from the source.
        counts: Tensors, e.g. ``4 matched, 1 fresh``.
    """

    name: str
    n_parameters: str
    size: str
    matched: float
    adapted: float
    fresh: float
    counts: str


def group_rows(audit: Audit) -> list[GroupRow]:
    """Layer groups from input to output, and the whole network in the last row.

    A head of which some class rows were reused counts these as adapted and the others as fresh.
    """
    groups = [_row(audit, name, (name,)) for name in audit.groups]
    return [*groups, _row(audit, "all", tuple(audit.groups))] if groups else []


def _row(audit: Audit, title: str, names: tuple[str, ...]) -> GroupRow:
    tensors = [tensor for tensor in audit.tensors if tensor.status != "unused" and tensor.group in names]
    total = sum(tensor.n_parameters for tensor in tensors)
    matched = sum(tensor.n_parameters for tensor in tensors if tensor.status == "matched")
    came = audit.groups[title] if names == (title,) else audit.share_all
    share_matched = matched / total if total else 0.0
    counts = {status: sum(tensor.status == status for tensor in tensors) for status in ("matched", "adapted", "fresh")}
    return GroupRow(
        title,
        thousands(total),
        size_in_words(sum(tensor.n_bytes for tensor in tensors)),
        round(100 * share_matched, 2),
        round(max(0.0, 100 * (came - share_matched)), 2),
        round(100 * (1 - came), 2) if total else 0.0,
        ", ".join(f"{count} {status}" for status, count in counts.items() if count),
    )


def size_in_words(n_bytes: int) -> str:
    """Bytes with a unit; multiples of 1000."""
    size, unit = float(n_bytes), "B"
    for unit in ("B", "kB", "MB", "GB"):
        if size < 1000 or unit == "GB":
            break
        size /= 1000
    return f"{size:.0f} {unit}" if unit == "B" else f"{size:.1f} {unit}"
