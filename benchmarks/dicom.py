"""``monai-tl convert`` against the converters that people use and the physical limit: cohorts, JPEG 2000, growth."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from benchmarks import dicom_limits
from benchmarks.cohort import make_cohort, make_packed
from benchmarks.common import SHARED, Contestant, Times, contestant, judged, ratio, table, take_turns, verdict
from benchmarks.dicom_contestants import EACH, ONE, OURS, STAGE, Place, converters, do_once, make_place, n_cores
from benchmarks.dicom_growth import measure_growth
from benchmarks.dicom_outputs import compare
from benchmarks.processes import Command

TITLE = "DICOM to .nii.gz: monai-tl convert and the converters"
PACKAGES = (
    "pydicom", "numpy", "isal", "pylibjpeg-openjpeg", "dcm2niix", "SimpleITK", "dicom2nifti", "monai", "python-gdcm",
)  # fmt: skip
_INTRO = """\
Each contestant is a command: a fresh process each turn, wall time of all of it with interpreter, imports and the search
for series. Files are in the page cache; each writes one gzipped NIfTI a series, int16. Ours: `monai-tl convert` groups,
orders and checks the slices, turns them to RAS+, and writes an index and a list of the refused. dcm2niix: `-z y -1`,
one process for the folder, as its users run it, and once more a process a core, each on its share of the series, which
it does not do by itself. pigz, which it would use, is {pigz}. dicom2nifti: `convert_directory`; SimpleITK:
`ImageSeriesReader` with its series finder; MONAI: `LoadImage` with `PydicomReader` and `SaveImage`; each one process,
series after series, with the compression it has by default; where they convert a part of the cohort the last column
says so. The ingest stage does what the command does and more: hashes of the input, case cache (a second copy), record.
Ours alone wait until the disk has each file (fsync).
Limit: read every byte of the files and write as many as the deflated volumes have, on all cores, start-up left out.
Memory is the greatest resident size of the largest process of the command, in MB and in volumes (int16); without
imports: less what the command takes for two series of 8 slices of 64 × 64; start-up is the time for those."""


@dataclass(frozen=True)
class _Size:
    """How much is measured: the real thing, or enough to see that everything works.

    Attributes:
        n_templates: Phantoms that are rendered; the other series are variants of them.
        n_of_slow: Series that the Python peers convert.
        slow: Who stays away from all but the cohort.
        growth: Numbers of series.
    """

    n_series: int = 20
    n_slices: int = 150
    size: int = 512
    n_templates: int = 2
    n_of_slow: int = 2
    n_rounds: int = 5
    budget_s: float = 240.0
    n_packed: int = 150
    packed_rounds: int = 5
    packed_budget_s: float = 45.0
    slow: frozenset[str] = frozenset()
    growth: tuple[int, ...] = (1, 20, 200, 1000)
    growth_rounds: int = 7
    growth_budget_s: float = 75.0


_QUICK = _Size(
    n_series=3, n_slices=24, size=128, n_of_slow=1, n_rounds=1, n_packed=12, packed_rounds=1,
    slow=frozenset(("MONAI PydicomReader", "dicom2nifti")), growth=(1, 3, 8, 20), growth_rounds=1,
)  # fmt: skip


def run(quick: bool) -> list[str]:
    size = _QUICK if quick else _Size()
    # the cohort, what the three that convert all of it write, and the smaller ones
    needed = (1 << 30) + 5 * size.n_series * 2 * size.n_slices * size.size**2
    with tempfile.TemporaryDirectory(prefix="monai_tl_bench_") as name:
        if shutil.disk_usage(name).free < needed:
            raise RuntimeError(f"{needed >> 20} MiB are needed below {name}; set TMPDIR to a roomier place")
        place = make_place(Path(name), tells_starts=not quick)
        pigz = "present" if shutil.which("pigz") else "absent: it uses its own zlib"
        return [
            *(["**A quick run: its inputs are too small for the numbers to mean anything.**"] if quick else []),
            _INTRO.format(pigz=pigz),
            *_measure_cohort(place, size),
            *_measure_packed(place, size),
            *measure_growth(place, size.growth, size.growth_rounds, size.growth_budget_s),
        ]


def _measure_cohort(place: Place, size: _Size) -> list[str]:
    cohort = place.root / "cohort"
    n_parts = min(n_cores(), size.n_series)
    do_once(make_cohort, cohort, size.n_series, size.n_slices, size.size, n_parts, size.n_templates)
    pixel_bytes = 2 * size.size**2
    limits = [
        contestant("limit", "limit", dicom_limits.prepare_bytes, cohort, place.outputs / "limit", pixel_bytes),
        contestant(
            "limit with deflate", "other", dicom_limits.prepare_deflated, cohort, place.outputs / "deflate",
            pixel_bytes, note="isal level 1 on all cores; no header read, nothing turned",
        ),
    ]  # fmt: skip
    found = converters(place, cohort, size.n_series, size.n_slices * pixel_bytes, size.n_of_slow)
    contestants = [*limits, *found.values()]
    times = take_turns(contestants, size.n_rounds, size.budget_s)
    blocks = [
        f"### {size.n_series} CT phantoms of {size.n_slices} slices of {size.size} × {size.size}, 16 bits, raw",
        table(contestants, times, unit="s a series"),
        verdict(contestants, times),
        _targets(found, times),
        _compare(found, whole={OURS, ONE, EACH}),
    ]
    shutil.rmtree(cohort)
    shutil.rmtree(place.outputs)
    return blocks


def _targets(found: Mapping[str, Contestant], times: Times) -> str:
    """What was set as a goal, and whether it is reached."""

    def line(what: str, value: float, is_met: bool, goal: str) -> str:
        return judged(is_met, f"{what} {value:.2f} ({goal})")

    lines = []
    for name, least in ((ONE, 2.0), (EACH, 2.0), ("dicom2nifti", 5.0)):
        if name in times:
            gain = ratio(times, name, OURS)
            lines.append(line(f"throughput by that of {name}:", gain, gain >= least, f"goal: at least {least:g}"))
    ours = found[OURS].worker
    assert isinstance(ours, Command)
    goal = f"goal: under 2.5; less interpreter and imports {ours.volumes_without_imports:.2f}"
    lines.append(line("peak memory of the largest process, in volumes:", ours.volumes, ours.volumes < 2.5, goal))
    return "\n".join(lines)


def _compare(found: Mapping[str, Contestant], whole: set[str]) -> str:
    outputs = {name: one.worker.out for name, one in found.items() if isinstance(one.worker, Command) and name != STAGE}
    return compare(outputs, whole & set(outputs))


def _measure_packed(place: Place, size: _Size) -> list[str]:
    raw, source = place.root / "packed" / "raw", place.root / "packed" / "phantom"
    do_once(make_cohort, raw, 1, size.n_packed, size.size, 1, 1)
    do_once(make_packed, raw, source)
    shutil.rmtree(raw)
    blocks = [
        "### One series in JPEG 2000, lossless",
        "Bound by decoding, and by start-up where slices are few. Limit: read the files, decode each slice with "
        "openjpeg on all cores, deflate with isal, write; start-up left out.",
        f"**Phantom, {size.n_packed} slices of {size.size} × {size.size}**",
        *_compete_packed(place, source, size, size.n_packed * 2 * size.size**2),
    ]
    real = SHARED / "data/dicom/abdomen_ct_j2k"
    if real.is_dir():
        n_slices = len(list(real.iterdir()))
        blocks.append(f"**Real CT of the abdomen, {n_slices} slices of 512 × 512**")
        blocks += _compete_packed(place, real, size, n_slices * 2 * 512**2)
    else:
        blocks.append("Real CT: not measured, its folder (MONAI_TL_SHARED, else ../shared) is absent.")
    return blocks


def _compete_packed(place: Place, source: Path, size: _Size, volume_bytes: int) -> list[str]:
    limit = contestant("limit", "limit", dicom_limits.prepare_decoded, source, place.outputs / "limit")
    found = converters(place, source, 1, volume_bytes, 1, without=size.slow)
    contestants = [limit, *found.values()]
    times = take_turns(contestants, size.packed_rounds, size.packed_budget_s)
    blocks = [table(contestants, times), verdict(contestants, times), _compare(found, set(found))]
    shutil.rmtree(place.outputs)
    return blocks
