"""Over how many cases a mean is, in words."""

from __future__ import annotations

from collections.abc import Mapping

from monai_tl.metrics.summary import MetricSummary


def counts(summary: MetricSummary) -> str:
    """What a mean is over: ``40 cases, 2 empty, 1 failed``."""
    found = [f"{summary.n} case{'' if summary.n == 1 else 's'}"]
    found += [f"{summary.n_empty} empty"] if summary.n_empty else []
    found += [f"{summary.n_failed} failed"] if summary.n_failed else []
    return ", ".join(found)


def counts_of(summaries: Mapping[str, MetricSummary]) -> str:
    """The same of several means, by their headings; said once where all are over the same."""
    found = {name: counts(summary) for name, summary in summaries.items()}
    if len(set(found.values())) == 1:
        return next(iter(found.values()))
    return "; ".join(f"{name}: {text}" for name, text in found.items())
