"""Who takes part in benchmarks/dicom.py: the commands, as their users run them."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from benchmarks.cohort import make_cohort
from benchmarks.common import Contestant, Role, Worker
from benchmarks.processes import (
    Command,
    CommandLine,
    LinesOf,
    Watched,
    convert,
    hide,
    python_environment,
    python_line,
    watch,
)

OURS, STAGE = "monai_tl", "monai_tl, the ingest stage"
ONE, EACH = "dcm2niix", "dcm2niix, a process a core"
_PYTHON_PEERS = {"dicom2nifti": "dicom2nifti", "SimpleITK": "SimpleITK", "MONAI PydicomReader": "monai"}
"""Name → package; its lower-case form names the converter in benchmarks/dicom_peers.py."""


@dataclass
class Place:
    """Where the benchmark works, and what its parts share.

    Attributes:
        root: A temporary folder.
        key: Pseudonym key.
        tiny: Two series that cost next to nothing.
        environment: Of our processes.
        tells_starts: Whether ``starts`` are measured.
        starts: Contestant → what its command takes for ``tiny``, measured once.
    """

    root: Path
    key: Path
    tiny: Path
    environment: Mapping[str, str]
    tells_starts: bool
    starts: dict[str, Watched] = field(default_factory=dict)

    @property
    def outputs(self) -> Path:
        return self.root / "out"

    def line_of_ours(self, source: Path, out: Path) -> list[CommandLine]:
        return [python_line("monai_tl", "convert", source, out, "--key-file", self.key)]

    def line_of_stage(self, source: Path, out: Path) -> list[CommandLine]:
        return [python_line("benchmarks.dicom_peers", "stage", source, out, self.key)]


def make_place(root: Path, tells_starts: bool) -> Place:
    """Make the key and the smallest cohort."""
    # python-gdcm comes with a peer, and pydicom would decode with it in place of the decoders this project installs
    environment = python_environment(hide("gdcm", root / "hidden"))
    place = Place(root, root / "key" / "pseudonym.key", root / "tiny", environment, tells_starts)
    place.key.parent.mkdir(mode=0o700)
    watch([python_line("monai_tl", "key", place.key)], environment)
    do_once(make_cohort, place.tiny, 2, 8, 64, 1, 1)
    return place


def n_cores() -> int:
    """Cores this process and its children may use."""
    return len(os.sched_getaffinity(0))


def do_once(prepare: Any, *arguments: Any) -> None:
    """In a process of its own: its memory goes with it."""
    worker = Worker(prepare, *arguments)
    worker.turn()
    worker.close()


def converters(
    place: Place, source: Path, n_series: int, volume_bytes: int, n_of_slow: int, without: frozenset[str] = frozenset()
) -> dict[str, Contestant]:
    """Contestants by name.

    Args:
        place: Where.
        source: Folder of series; when it has more than one, ``part-P`` folders with equal shares of them.
        n_series: In it.
        volume_bytes: Of one, int16.
        n_of_slow: Series that the Python peers convert.
        without: Who stays away.
    """

    def enter(
        name: str, role: Role, lines_of: LinesOf, n_done: int, environment: Mapping[str, str], part: str = ""
    ) -> None:
        if name in without:
            return
        if place.tells_starts and name not in place.starts:
            place.starts[name] = convert(
                lines_of, place.tiny, place.outputs / f"start-{len(place.starts)}", environment
            )
        command = Command(
            lines_of, source / part, place.outputs / f"{len(found)}", n_done=n_done,
            n_all=n_done if part else n_series, start=place.starts.get(name), volume_bytes=volume_bytes,
            environment=environment,
        )  # fmt: skip
        note = f"on {n_done} of {n_series} series" if part else ""
        found[name] = Contestant(name, role, command.turn, note=note, worker=command)

    found: dict[str, Contestant] = {}
    enter(OURS, "ours", place.line_of_ours, n_series, place.environment)
    plain = python_environment()
    if find_spec("dcm2niix") is None:
        found[ONE] = Contestant(ONE, "peer", None)
    else:
        enter(ONE, "peer", line_of_dcm2niix, n_series, plain)
        if n_series > 1 and n_cores() > 1:
            enter(EACH, "peer", lines_of_dcm2niix, n_series, plain)
    for name, package in _PYTHON_PEERS.items():
        if find_spec(package) is None:
            found[name] = Contestant(name, "peer", None)
            continue
        n_done = min(n_of_slow, n_series)

        def lines_of(source: Path, out: Path, package: str = package, n_done: int = n_done) -> list[CommandLine]:
            return [python_line("benchmarks.dicom_peers", package.lower(), source, out, n_done)]

        enter(name, "peer", lines_of, n_done, plain)
    if n_series > 1:
        n_in_part = len(list((source / "part-0").iterdir()))
        enter(STAGE, "other", place.line_of_stage, n_in_part, place.environment, part="part-0")
    return found


def line_of_dcm2niix(source: Path, out: Path) -> list[CommandLine]:
    import dcm2niix

    return [[str(dcm2niix.bin), "-z", "y", "-1", "-f", "%j", "-o", str(out), str(source)]]


def lines_of_dcm2niix(source: Path, out: Path) -> list[CommandLine]:
    """A process for each ``part-P`` of the source, all at once."""
    lines = []
    for part in sorted(source.iterdir()):
        (out / part.name).mkdir(parents=True)
        lines += line_of_dcm2niix(part, out / part.name)
    return lines
