"""The tables of the benchmark of scale: each stage, what stands around it, and what grows with the cases."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from benchmarks.common import number
from benchmarks.scale_cohort import SHAPE, n_studies

Found = Mapping[str, Mapping[str, float]]
By = Mapping[int, Found]
STEPS = (
    "ingest", "ingest, NIfTI", "split", "plan", "preprocess", "finetune", "predict", "evaluate", "export",
)  # fmt: skip
_OF_STUDIES = frozenset(("ingest", "split", "plan", "preprocess"))
_OF_TRAINING = frozenset(("finetune",))
_FLAT = 1.25
_SAME_MIB = 8.0
"""By so much the peaks of one process differ between runs."""
_MIB = 1 << 20


def blocks(found: By) -> list[str]:
    """All tables of what was found so far.

    Args:
        found: Cases → step → its numbers.
    """
    about = (
        f"DICOM studies of one series of {SHAPE[2]} slices of {SHAPE[0]} × {SHAPE[1]} pixels and an RTSTRUCT, so what "
        "is measured is all but the voxels. The test set has so many cases; one study in fifty more is there to train "
        "the smallest network for two steps. Each stage is run by DVC in a process of its own, with two "
        "workers; processor seconds are of the stage and its workers, start-up included. "
        "A blank cell: that step has not been run."
    )
    every = [
        about, stage_table(found), flatness(found),
        "### Predicted from the two smaller cohorts", prediction_table(found),
        "### What DVC and Prefect take", around_table(found),
        "### Files of which there is one", sizes_table(found),
        "### The inbox", inbox_table(found),
    ]  # fmt: skip
    return [block for block in every if block]


def cases_of(step: str, count: int) -> int:
    """How many cases a step has where so many are tested."""
    if step in _OF_TRAINING:
        return n_studies(count) - count
    return n_studies(count) if step in _OF_STUDIES else count


def stage_table(found: By) -> str:
    """What a case costs, step by step and cohort by cohort."""
    lines = [
        "| step | cases | processor ms a case | wall ms a case | peak of the stage's process, MiB | of a worker, MiB | "
        "DVC around it, s |",
        "|---|---:|---:|---:|---:|---:|---:|",
    ]
    for step in STEPS:
        for count, steps in found.items():
            one = steps.get(step)
            if one is None:
                continue
            n = cases_of(step, count)
            cells = [1000 * one["processor"] / n, 1000 * one["wall"] / n, one["peak"], one["worker"]]
            around = number(one["around"]) if "around" in one else ""
            lines.append(f"| {step} | {n} | {' | '.join(map(number, cells))} | {around} |")
    return "\n".join(lines)


def flatness(found: By) -> str:
    """Whether a further case costs the same time and memory in the large cohorts as in the small ones.

    Start-up does not count; memory is of the stage's process and of a worker.
    """
    if len(found) < 3:
        return ""
    counts = list(found)
    says = []
    for step in STEPS:
        if step in _OF_TRAINING or any(step not in found[count] for count in counts):
            continue
        early, late = (_slope(found, step, "processor", *pair) for pair in (counts[:2], counts[-2:]))
        own, worker = (_grown(found, step, what) for what in ("peak", "worker"))
        says.append(
            f"- {step}: time {_word(late <= _FLAT * early)}, memory {_word(own[0] and worker[0])}; a further case "
            f"costs {number(1000 * early)} ms from {counts[0]} to {counts[1]} and {number(1000 * late)} ms from "
            f"{counts[-2]} to {counts[-1]}; the stage's process grows by {own[1]}, a worker by {worker[1]}."
        )
    return "\n".join(says)


def _word(is_flat: bool) -> str:
    return "flat" if is_flat else "**not flat**"


def _grown(found: By, step: str, what: str) -> tuple[bool, str]:
    """Whether a process grows by no more a case in the large cohorts than in the small ones, and by how much."""
    counts = list(found)
    early, late = (max(_slope(found, step, what, *pair), 0.0) for pair in (counts[:2], counts[-2:]))
    n_more = cases_of(step, counts[-1]) - cases_of(step, counts[-2])
    is_flat = late * n_more <= _FLAT * early * n_more + _SAME_MIB
    return is_flat, f"{number(1024 * early)} and {number(1024 * late)} KiB a case"


def _slope(found: By, step: str, what: str, low: int, high: int) -> float:
    rise = found[high][step][what] - found[low][step][what]
    return rise / (cases_of(step, high) - cases_of(step, low))


def prediction_table(found: By) -> str:
    """The largest cohort by the straight line through the two smaller ones, and what it was."""
    if len(found) < 3:
        return ""
    first, second, last = list(found)[-3:]
    lines = [f"| step, {last} cases | processor s, predicted | measured | ratio | peak MiB, predicted | measured |"]
    lines.append("|---|---:|---:|---:|---:|---:|")
    for step in STEPS:
        if step in _OF_TRAINING or any(step not in found[count] for count in (first, second)):
            continue
        expected = [
            found[second][step][what]
            + _slope(found, step, what, first, second) * (cases_of(step, last) - cases_of(step, second))
            for what in ("processor", "peak")
        ]
        real = found[last].get(step)
        cells = ["", "", ""] if real is None else [
            number(real["processor"]), f"{real['processor'] / expected[0]:.2f}", number(real["peak"])
        ]  # fmt: skip
        lines.append(
            f"| {step} | {number(expected[0])} | {cells[0]} | {cells[1]} | {number(expected[1])} | {cells[2]} |"
        )
    return "\n".join(lines)


def around_table(found: By) -> str:
    """DVC's own commands, the flow, and Prefect's database."""
    rows: list[tuple[str, str, str, float]] = [
        ("`dvc add data`, s", "dvc add", "wall", 1),
        ("its largest process, MiB", "dvc add", "peak", 1),
        ("`dvc status`, nothing changed, s", "dvc status", "wall", 1),
        ("its largest process, MiB", "dvc status", "peak", 1),
        ("objects in DVC's cache", "dvc status", "objects", 1),
        ("the cache, MiB", "dvc status", "bytes", _MIB),
        ("`monai-tl run`, export to do, s", "run, export", "wall", 1),
        ("of these beside the stage, s", "run, export", "around", 1),
        ("`monai-tl run`, nothing changed, s", "run, unchanged", "wall", 1),
        ("Prefect's database after the first run, MiB", "run, export", "database", _MIB),
        ("after the second, MiB", "run, unchanged", "database", _MIB),
        *(
            (f"rows in `{name}` after the first run", "run, export", f"rows {name}", 1.0)
            for name in ("flow_run", "task_run", "log", "artifact", "events")
        ),
    ]
    return _by_count(found, rows)


def sizes_table(found: By) -> str:
    """KiB of each file of which there is one."""
    names = dict.fromkeys(name for steps in found.values() for name in steps.get("sizes", {}) if name != "wall")
    return _by_count(found, [(f"`{name}`, KiB", "sizes", name, 1024.0) for name in names])


def inbox_table(found: By) -> str:
    """Looks at the inbox, and the ledger."""
    rows = [
        (f"{words}, processor s", "inbox", words, 1.0)
        for words in ("first look", "take and finish", "look, nothing new", "look, ten new")
    ]
    rows += [("ledger, MiB", "inbox", "bytes", float(_MIB)), ("peak, MiB", "inbox", "peak", 1.0)]
    return _by_count(found, rows)


def _by_count(found: By, rows: Iterable[tuple[str, str, str, float]]) -> str:
    lines = [f"| | {' | '.join(f'{count} cases' for count in found)} |", "|---" + "|---:" * len(found) + "|"]
    for words, step, what, unit in rows:
        cells: Sequence[str] = [
            _cell(steps[step][what] / unit, unit) if what in steps.get(step, {}) else "" for steps in found.values()
        ]
        if any(cells):
            lines.append(f"| {words} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _cell(value: float, unit: float) -> str:
    return str(int(value)) if unit == 1 and value == int(value) else number(value)
