"""``monai-tl convert`` against the converters that people use and the physical limit: cohorts, JPEG 2000, growth."""

from __future__ import annotations

import os
import shutil
import statistics
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from benchmarks import dicom_limits
from benchmarks.common import (
    HINT,
    SHARED,
    Contestant,
    Role,
    Worker,
    contestant,
    number,
    ratio,
    table,
    take_turns,
    verdict,
)
from benchmarks.dicom_outputs import compare
from benchmarks.processes import Command, CommandLine, LinesOf, hide, python_environment, python_line, watch

TITLE = "DICOM to .nii.gz: monai-tl convert and the converters"
PACKAGES = (
    "pydicom", "numpy", "isal", "pylibjpeg-openjpeg", "dcm2niix", "SimpleITK", "dicom2nifti", "monai", "python-gdcm",
)  # fmt: skip
OURS, ONE, EACH = "monai_tl", "dcm2niix", "dcm2niix, a process a core"
_PYTHON_PEERS = (
    ("dicom2nifti", "dicom2nifti", "dicom2nifti"),
    ("SimpleITK", "simpleitk", "SimpleITK"),
    ("MONAI PydicomReader", "monai", "monai"),
)
_INTRO = """\
Each contestant is a command: a fresh process each turn, wall time of all of it, interpreter, imports and search for
series included. Files are in the page cache; each writes one gzipped NIfTI a series, int16. Ours: `monai-tl convert`
(groups, orders and checks the slices, turns them to RAS+, writes index and list of the refused). dcm2niix: `-z y -1`,
one process for the folder, as its users run it; and once more as a process a core, each on its share of the
series, which is more than it does by itself. pigz, which it would use: {pigz}. dicom2nifti: `convert_directory`,
SimpleITK: `ImageSeriesReader` with its series finder, MONAI: `LoadImage` with `PydicomReader`, `SaveImage`; each
one process, series after series, with the compression it has by default.
Limit: read every byte of the files and write as many as the deflated volumes have, on all cores, start-up left out.
Memory is the greatest resident size of the largest process of the command, in MB and in volumes (int16); "without
imports" is less what the same command takes for two series of 8 slices of 64 × 64; its start-up is the time for those.
MONAI_TL_JOBS is not set."""


@dataclass(frozen=True)
class _Size:
    """How much is measured: the real thing, or enough to see that everything works."""

    n_series: int = 20
    n_slices: int = 150
    size: int = 512
    n_templates: int = 2
    n_of_slow: int = 3
    n_rounds: int = 5
    budget_s: float = 240.0
    n_packed: int = 150
    packed_rounds: int = 4
    packed_budget_s: float = 75.0
    growth: tuple[int, ...] = (1, 20, 200, 1000)
    growth_rounds: int = 5
    growth_budget_s: float = 90.0


_QUICK = _Size(3, 24, 128, 2, 2, 2, 15.0, 12, 2, 10.0, (1, 5, 20), 2, 10.0)


@dataclass
class _Bench:
    root: Path
    size: _Size
    n_cores: int
    key: Path
    tiny: Path
    environment: Mapping[str, str]
    commands: dict[str, Command] = field(default_factory=dict)

    def line_of_ours(self, source: Path, out: Path) -> list[CommandLine]:
        return [python_line("monai_tl", "convert", source, out, "--key-file", self.key)]


def run(quick: bool) -> list[str]:
    size = _QUICK if quick else _Size()
    # cohort, copies of it by each contestant that converts it all, and the small ones
    needed = size.n_series * 2 * size.n_slices * size.size**2 * 6
    with tempfile.TemporaryDirectory(prefix="monai_tl_bench_") as name:
        if shutil.disk_usage(name).free < needed + (1 << 30):
            raise RuntimeError(f"{needed >> 30} GiB and 1 more are needed below {name}; set TMPDIR to a roomier place")
        bench = _prepare(Path(name), size)
        pigz = "present" if shutil.which("pigz") else "absent, so its own zlib"
        return [
            _INTRO.format(pigz=pigz),
            *_measure_cohort(bench),
            *_measure_packed(bench),
            *_measure_growth(bench),
        ]


def _prepare(root: Path, size: _Size) -> _Bench:
    # python-gdcm comes with a peer, and pydicom would decode with it in place of the decoders this project installs
    environment = python_environment(hide("gdcm", root / "hidden"))
    key = root / "key" / "pseudonym.key"
    key.parent.mkdir(mode=0o700)
    watch([python_line("monai_tl", "key", key)], environment)
    cores = len(os.sched_getaffinity(0))
    bench = _Bench(root, size, cores, key, root / "tiny", environment)
    _make(bench.tiny, 2, 8, 64, 1, 1)
    return bench


def _make(folder: Path, *arguments: int) -> None:
    from benchmarks.cohort import make_cohort

    _do(make_cohort, folder, *arguments)


def _do(prepare: Any, *arguments: Any) -> None:
    """Once, in a process of its own: its memory goes with it."""
    worker = Worker(prepare, *arguments)
    worker.turn()
    worker.close()


def _measure_cohort(bench: _Bench) -> list[str]:
    size = bench.size
    cohort, outputs = bench.root / "cohort", bench.root / "out"
    n_parts = min(bench.n_cores, size.n_series)
    _make(cohort, size.n_series, size.n_slices, size.size, n_parts, size.n_templates)
    pixel_bytes = 2 * size.size**2
    volume_bytes = size.n_slices * pixel_bytes
    limits = [
        contestant("limit", "limit", dicom_limits.prepare_bytes, cohort, outputs / "limit", pixel_bytes),
        contestant(
            "limit with deflate, isal 1", "other", dicom_limits.prepare_deflated, cohort, outputs / "deflate",
            pixel_bytes, note="no header read, nothing turned",
        ),
    ]  # fmt: skip
    contestants = [
        *limits,
        *_converters(bench, cohort, outputs, size.n_series, size.n_of_slow, volume_bytes, n_parts=n_parts),
    ]
    times = take_turns(contestants, size.n_rounds, size.budget_s)
    blocks = [
        f"### {size.n_series} CT phantoms of {size.n_slices} slices of {size.size} × {size.size}, 16 bits, raw",
        table(contestants, times, unit="s a series"),
        verdict(contestants, times),
        _targets(bench.commands, contestants, times),
        _compare(bench.commands, whole={OURS, ONE, EACH}),
    ]
    shutil.rmtree(cohort)
    shutil.rmtree(outputs)
    return blocks


def _converters(
    bench: _Bench, source: Path, outputs: Path, n_series: int, n_of_slow: int, volume_bytes: int, n_parts: int = 1
) -> list[Contestant]:
    """Ours, dcm2niix and the Python peers, on a folder of series in ``n_parts`` folders when there are several."""
    bench.commands.clear()

    def enter(name: str, role: Role, lines_of: LinesOf, n_done: int, environment: Mapping[str, str]) -> Contestant:
        command = Command(
            lines_of, source, outputs / name.replace(" ", "_"), n_done=n_done, n_all=n_series, tiny=bench.tiny,
            volume_bytes=volume_bytes, environment=environment,
        )  # fmt: skip
        bench.commands[name] = command
        return Contestant(name, role, command.turn, worker=command)

    found = [enter(OURS, "ours", bench.line_of_ours, n_series, bench.environment)]
    plain = python_environment()
    if find_spec("dcm2niix") is None:
        found.append(Contestant(ONE, "peer", None))
    else:
        found.append(enter(ONE, "peer", line_of_dcm2niix, n_series, plain))
        if n_parts > 1:
            found.append(enter(EACH, "peer", lines_of_dcm2niix, n_series, plain))
    for name, word, package in _PYTHON_PEERS:
        if find_spec(package) is None:
            found.append(Contestant(name, "peer", None, note=HINT))
            continue
        n_done = min(n_of_slow, n_series)

        def lines_of(source: Path, out: Path, word: str = word, n_done: int = n_done) -> list[CommandLine]:
            return [python_line("benchmarks.dicom_peers", word, source, out, n_done)]

        found.append(enter(name, "peer", lines_of, n_done, plain))
    return found


def line_of_dcm2niix(source: Path, out: Path) -> list[CommandLine]:
    import dcm2niix

    return [[str(dcm2niix.bin), "-z", "y", "-1", "-f", "%j", "-o", str(out), str(source)]]


def lines_of_dcm2niix(source: Path, out: Path) -> list[CommandLine]:
    parts = sorted(path for path in source.iterdir() if path.is_dir())
    lines = []
    for part in parts:
        (out / part.name).mkdir(parents=True)
        lines += line_of_dcm2niix(part, out / part.name)
    return lines


def _targets(commands: Mapping[str, Command], contestants: list[Contestant], times: Any) -> str:
    """What was asked for, and whether it was met."""

    def line(what: str, value: float, is_met: bool, target: str) -> str:
        return f"- {'Met' if is_met else '**Not met**'}: {what} {value:.2f} ({target})."

    lines = []
    for name, least in ((ONE, 2.0), (EACH, 2.0), ("dicom2nifti", 5.0)):
        if name in times:
            gain = ratio(times, name, OURS)
            lines.append(line(f"throughput over {name},", gain, gain >= least, f"at least {least:g} times"))
    ours = commands[OURS]
    text = f"under 2.5 volumes; {ours.volumes_without_imports:.2f} without interpreter and imports"
    lines.append(line("peak memory of the largest process, in volumes,", ours.volumes, ours.volumes < 2.5, text))
    return "\n".join(lines)


def _compare(commands: Mapping[str, Command], whole: set[str]) -> str:
    return compare({name: command.out for name, command in commands.items()}, whole & set(commands))


def _measure_packed(bench: _Bench) -> list[str]:
    size, source = bench.size, bench.root / "packed" / "phantom"
    from benchmarks.cohort import make_packed

    raw = bench.root / "packed" / "raw"
    _make(raw, 1, size.n_packed, size.size, 1, 1)
    _do(make_packed, raw, source)
    shutil.rmtree(raw)
    blocks = [
        "### One series, JPEG 2000 lossless",
        "Bound by decoding. Limit: read the files, decode each slice with openjpeg on all cores, deflate with isal, "
        "write; start-up left out. All converters have the one series and their start-up.",
        f"**Phantom, {size.n_packed} slices of {size.size} × {size.size}**",
        *_compete_packed(bench, source, size.n_packed * 2 * size.size**2),
    ]
    real = SHARED / "data/dicom/abdomen_ct_j2k"
    n_real = len(list(real.iterdir())) if real.is_dir() else 0
    blocks.append(f"**Real CT of the abdomen, {n_real} slices of 512 × 512**")
    if n_real:
        blocks += _compete_packed(bench, real, n_real * 2 * 512**2)
    else:
        blocks.append("Not measured: the folder of real images (MONAI_TL_SHARED, else ../shared) is absent.")
    return blocks


def _compete_packed(bench: _Bench, source: Path, volume_bytes: int) -> list[str]:
    outputs = bench.root / "out"
    limit = contestant("limit, decoding", "limit", dicom_limits.prepare_decoded, source, outputs / "limit")
    contestants = [limit, *_converters(bench, source, outputs, 1, 1, volume_bytes)]
    times = take_turns(contestants, bench.size.packed_rounds, bench.size.packed_budget_s)
    blocks = [table(contestants, times), verdict(contestants, times), _compare(bench.commands, set(bench.commands))]
    shutil.rmtree(outputs)
    return blocks


def _measure_growth(bench: _Bench) -> list[str]:
    """Cost of a series as the cohort grows: tiny series, so that what is measured is everything but the voxels."""
    counts = bench.size.growth
    names = (OURS, ONE) if find_spec("dcm2niix") else (OURS,)
    commands: dict[tuple[str, int], Command] = {}
    for n_series in counts:
        source = bench.root / f"growth-{n_series}"
        _make(source, n_series, 8, 64, 1, 1)
        for name in names:
            lines_of = bench.line_of_ours if name == OURS else line_of_dcm2niix
            commands[name, n_series] = Command(
                lines_of, source, bench.root / "out" / f"{name}-{n_series}", n_done=1, n_all=1,
                volume_bytes=8 * 64 * 64 * 2, environment=bench.environment,
            )  # fmt: skip
    contestants = [Contestant(f"{name} {n}", "other", one.turn) for (name, n), one in commands.items()]
    times = take_turns(contestants, bench.size.growth_rounds, bench.size.growth_budget_s)
    lines = [
        "| | series | whole command, s | ms a series | ms a series, start-up taken off | ms for each further series "
        "| largest process, MB | files out |",
        "|---|---:|---:|---:|---:|---:|---:|---:|",
    ]
    says = []
    for name in names:
        whole = {n: statistics.median(times[f"{name} {n}"]) for n in counts}
        each = {n: (whole[n] - whole[1]) / (n - 1) for n in counts[1:]}
        for before, n in zip((None, *counts), counts, strict=False):
            further = "" if before is None else number(1000 * (whole[n] - whole[before]) / (n - before))
            one = commands[name, n]
            n_out = len(list(one.out.rglob("*.nii.gz")))
            lines.append(
                f"| {name} | {n} | {number(whole[n])} | {number(1000 * whole[n] / n)} "
                f"| {number(1000 * each[n]) if n in each else ''} | {further} | {one.peak / 1e6:.0f} | {n_out} |"
            )
        few, many = counts[1], counts[-1]
        share = each[many] / each[few]
        word = "flat" if share <= 1.25 else "**not flat**"
        says.append(
            f"- {name}: a series costs {share:.2f} times as much among {many} as among {few}, start-up taken off "
            f"({whole[many] / many / (whole[few] / few):.2f} with it): {word}."
        )
    n_rounds = len(times[f"{OURS} {counts[0]}"])
    intro = f"Medians of {n_rounds} rounds; start-up is the command on 1 series; series of 8 slices of 64 × 64."
    return ["### Growth: from few series to many", intro, "\n".join(lines), "\n".join(says)]
