"""How long each stage took when it last ran, and the energy where the machine counts it.

Kept in the run state of a workspace, which neither git nor DVC tracks: were it in a report, the same run would not give
the same bytes twice (docs/decisions/0013-effort.md).
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from pydantic import Field, ValidationError

from monai_tl.errors import DataError
from monai_tl.files import held
from monai_tl.records import Record

EFFORT_FILE = "effort.json"
"""In the state folder of a workspace."""
COUNTERS = Path("/sys/class/powercap")
"""Where Linux gives the energy counters of the processors (RAPL)."""


class StageEffort(Record):
    """Of one run of a stage; a training that was resumed counts from there.

    Attributes:
        seconds: From its start to its end.
        energy_kj: Of all processors of the machine in that time, whoever used them, without graphics cards; None where
            no counter can be read.
    """

    seconds: float
    energy_kj: float | None = None


class Effort(Record):
    """``effort.json``: name of the stage, with its arm, fold and seed where it has them → its last run."""

    stages: dict[str, StageEffort] = Field(default_factory=dict)


@contextmanager
def measured(state: Path, stage: str, options: Mapping[str, str], counters: Path = COUNTERS) -> Iterator[None]:
    """Record what happens within this block, once it ends without an error.

    Args:
        state: State folder of the workspace; made if it is not there.
        stage: Name of the stage.
        options: Arm, fold and seed of the run, where it has them.
        counters: Folder of the energy counters.
    """
    before, started = _read_counters(counters), time.monotonic()
    yield
    seconds = time.monotonic() - started
    found = StageEffort(seconds=round(seconds, 3), energy_kj=_used_kj(before, _read_counters(counters), counters))
    state.mkdir(exist_ok=True)
    with held(state):
        stages = {**read_effort(state).stages, "-".join([stage, *options.values()]): found}
        Effort(stages=stages).write(state / EFFORT_FILE)


def read_effort(state: Path) -> Effort:
    """What was recorded; nothing where there is no file or it is damaged: it is only told, nothing rests on it."""
    try:
        return Effort.read(state / EFFORT_FILE)
    except (DataError, ValidationError, OSError):
        return Effort()


def describe_effort(effort: Effort) -> str:
    """For a terminal: all stages together, then those that took longest; empty where nothing is known."""
    if not effort.stages:
        return ""
    ordered = sorted(effort.stages.items(), key=lambda pair: -pair[1].seconds)
    longest = ", ".join(f"{name} {_in_words(one.seconds)}" for name, one in ordered[:3])
    text = f"{_in_words(sum(one.seconds for one in effort.stages.values()))} in all ({longest})"
    energies = [one.energy_kj for one in effort.stages.values()]
    known = [energy for energy in energies if energy is not None]
    if len(known) < len(energies):
        return f"{text}; energy not known"
    return f"{text}; energy of the machine's processors {sum(known) / 3600.0:.3g} kWh"


def _in_words(seconds: float) -> str:
    if seconds < 60.0:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60.0)
    return f"{minutes} min" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"


def _read_counters(counters: Path) -> dict[str, int]:
    """Microjoule of each processor package; empty where none may be read."""
    found = {}
    try:
        for zone in sorted(counters.glob("intel-rapl:*")):
            if (zone / "name").read_text(encoding="ascii").startswith("package"):
                found[zone.name] = int((zone / "energy_uj").read_text(encoding="ascii"))
    except (OSError, ValueError):
        return {}
    return found


def _used_kj(before: Mapping[str, int], after: Mapping[str, int], counters: Path) -> float | None:
    if not before or set(before) != set(after):
        return None
    used = 0
    for zone, start in before.items():
        used += after[zone] - start
        if after[zone] < start:
            # the counter began anew
            try:
                used += int((counters / zone / "max_energy_range_uj").read_text(encoding="ascii"))
            except (OSError, ValueError):
                return None
    return round(used / 1e9, 6)
