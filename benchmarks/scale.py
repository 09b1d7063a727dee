"""Whether a case costs the same among a hundred and among ten thousand: each stage, and what stands around it."""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from benchmarks import scale_around, scale_cohort, scale_figure, scale_tables
from benchmarks.processes import run_alone

TITLE = "Scale: what a case costs in a small and in a large cohort"
PACKAGES = ("dvc", "prefect", "torch", "joblib", "numpy", "pydicom")
Found = dict[str, dict[str, float]]
_SMALLEST_SHOWN = 100
"""A trial with fewer leaves the picture as it is."""


def run(quick: bool, keep: Path | None = None) -> list[str]:
    counts = (20, 40) if quick else (100, 1_000, 10_000)
    if keep is not None:
        return measure(counts, keep)
    with tempfile.TemporaryDirectory(prefix="monai_tl_bench_") as name:
        return measure(counts, Path(name))


def measure(counts: Sequence[int], folder: Path, minutes: float | None = None) -> list[str]:
    """Do what is not done yet, and make the tables.

    Args:
        counts: Cases of each cohort.
        folder: A workspace a count lies there, and what was found: finished steps are not done again.
        minutes: After so many no further step is begun, and the tables are of what is there.
    """
    scale_cohort.use_support()
    deadline = None if minutes is None else time.monotonic() + 60 * minutes
    found: dict[int, Found] = {}
    # the flow needs a finished workspace, and nothing needs the flow
    for is_flow in (False, True):
        for count in counts:
            found[count] = _measure_one(count, folder / str(count), is_flow, deadline)
    scale_figure.write_picture({count: steps for count, steps in found.items() if count >= _SMALLEST_SHOWN})
    return scale_tables.blocks(found)


def _measure_one(n_cases: int, root: Path, is_flow: bool, deadline: float | None) -> Found:
    from workspaces import Place

    kept = root.with_suffix(".json")
    found: Found = json.loads(kept.read_text()) if kept.is_file() else {}
    place = Place(root / "workspace", root / "site")
    steps = _flow_steps(place) if is_flow else _steps(n_cases, root, place)
    for name, work in steps.items():
        if name in found:
            continue
        if deadline is not None and time.monotonic() > deadline:
            break
        started = time.perf_counter()
        found[name] = work()
        found[name].setdefault("wall", time.perf_counter() - started)
        root.parent.mkdir(parents=True, exist_ok=True)
        kept.write_text(json.dumps(found, indent=1))
        print(n_cases, name, {key: round(value, 3) for key, value in found[name].items()}, file=sys.stderr, flush=True)
    return found


def _flow_steps(place: Any) -> dict[str, Callable[[], dict[str, float]]]:
    return {
        "run, export": lambda: scale_around.run_flow(place),
        "export": lambda: scale_around.measured(place, "export"),
        "run, unchanged": lambda: scale_around.run_flow(place),
    }


def _steps(n_cases: int, root: Path, place: Any) -> dict[str, Callable[[], dict[str, float]]]:
    def make() -> dict[str, float]:
        scale_cohort.make_workspace(root, n_cases)
        return {"studies": scale_cohort.n_studies(n_cases)}

    def ingest_nifti() -> dict[str, float]:
        folder = root / "nifti"
        scale_cohort.make_nifti_folder(folder, n_cases)
        shutil.copyfile(root / "pseudonym.key", folder / "pseudonym.key")
        (folder / "pseudonym.key").chmod(0o600)
        environment = {**place.environment, "MONAI_TL_JOBS": "2", "OMP_NUM_THREADS": "1"}
        run_alone([sys.executable, scale_cohort.SCALE_STAGE, "ingest"], folder, environment)
        measured: dict[str, float] = json.loads((folder / ".monai_tl/measured/ingest.json").read_text())
        shutil.rmtree(folder)
        return measured

    def stage(address: str) -> Callable[[], dict[str, float]]:
        return lambda: scale_around.do_stage(place, address)

    return {
        "cohort": make,
        "dvc add": lambda: scale_around.add_data(place),
        **{address.partition("@")[0]: stage(address) for address in scale_around.STAGES},
        "dvc status": lambda: scale_around.status(place),
        "sizes": lambda: scale_around.sizes(place),
        "inbox": lambda: scale_around.inbox(place, n_cases),
        "ingest, NIfTI": ingest_nifti,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--keep", type=Path, required=True, help="folder of workspaces and finished steps")
    parser.add_argument("--minutes", type=float, help="begin no step after so many")
    parser.add_argument("counts", nargs="+", type=int, help="numbers of cases")
    given = parser.parse_args()
    print("\n\n".join(measure(given.counts, given.keep, given.minutes)))


if __name__ == "__main__":
    main()
