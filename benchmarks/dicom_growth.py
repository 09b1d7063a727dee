"""Whether a series costs the same among few and among many."""

from __future__ import annotations

import shutil
import statistics
from collections.abc import Sequence
from importlib.util import find_spec

from benchmarks.cohort import make_cohorts
from benchmarks.common import Contestant, Times, number, take_turns
from benchmarks.dicom_contestants import ONE, OURS, Place, do_once, line_of_dcm2niix
from benchmarks.processes import Command

_N_SLICES, _SIZE = 8, 64
_FLAT = 1.25


def measure_growth(place: Place, counts: Sequence[int], n_rounds: int, budget_s: float) -> list[str]:
    """Tiny series, so that what is measured is everything but the voxels.

    Args:
        place: Where.
        counts: Four numbers of series or more, rising; the first is 1, whose command is taken for start-up.
        n_rounds: At most.
        budget_s: No round begins after it.
    """
    names = (OURS, ONE) if find_spec("dcm2niix") else (OURS,)
    commands: dict[str, Command] = {}
    sources = {n_series: place.root / f"growth-{n_series}" for n_series in counts}
    do_once(make_cohorts, sources, _N_SLICES, _SIZE)
    for n_series, source in sources.items():
        for name in names:
            commands[f"{name} {n_series}"] = Command(
                place.line_of_ours if name == OURS else line_of_dcm2niix, source,
                place.outputs / f"{name}-{n_series}", n_done=1, n_all=1, volume_bytes=2 * _N_SLICES * _SIZE**2,
                environment=place.environment,
            )  # fmt: skip
    contestants = [Contestant(name, "other", command.turn) for name, command in commands.items()]
    times = take_turns(contestants, n_rounds, budget_s)
    blocks = _tell(names, counts, commands, times)
    for source in sources.values():
        shutil.rmtree(source)
    shutil.rmtree(place.outputs)
    return blocks


def _tell(names: Sequence[str], counts: Sequence[int], commands: dict[str, Command], times: Times) -> list[str]:
    lines = [
        "| | series | whole command, s | ms a series | start-up taken off | ms for each further series "
        "| largest process, MB | files out |",
        "|---|---:|---:|---:|---:|---:|---:|---:|",
    ]
    says = []
    few, many = counts[1], counts[-1]
    for name in names:
        whole = {n: statistics.median(times[f"{name} {n}"]) for n in counts}
        each = {n: (whole[n] - whole[1]) / (n - 1) for n in counts[1:]}
        for before, n in zip((None, *counts), counts, strict=False):
            command = commands[f"{name} {n}"]
            cells = [
                name,
                str(n),
                number(whole[n]),
                number(1000 * whole[n] / n),
                number(1000 * each[n]) if n in each else "",
                "" if before is None else number(1000 * (whole[n] - whole[before]) / (n - before)),
                f"{command.peak / 1e6:.0f}",
                str(len(list(command.out.rglob("*.nii.gz")))),
            ]
            lines.append(f"| {' | '.join(cells)} |")
        before = counts[-2]
        early = (whole[before] - whole[few]) / (before - few)
        late = (whole[many] - whole[before]) / (many - before)
        if early <= 0 or late <= 0 or each[few] <= 0:
            says.append(f"- {name}: too little was measured to tell.")
            continue
        is_flat = late <= _FLAT * early and whole[many] / many <= _FLAT * whole[few] / few
        says.append(
            f"- {name}: {'flat' if is_flat else '**not flat**'}; among {many} a series costs "
            f"{whole[many] * few / whole[few] / many:.2f} times as much as among {few}, start-up in it, and "
            f"{each[many] / each[few]:.2f} times without; each further one from {before} to {many} "
            f"{late / early:.2f} times as much as from {few} to {before}."
        )
    n_rounds = len(times[f"{names[0]} {few}"])
    return [
        "### Growth: from few series to many",
        f"Series of {_N_SLICES} slices of {_SIZE} × {_SIZE}; medians of {n_rounds} rounds. Start-up is the same "
        f"command on one series. Flat: neither a series, start-up in it, nor each further one grows beyond {_FLAT} "
        "times.",
        "\n".join(lines),
        "\n".join(says),
    ]
