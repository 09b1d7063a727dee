"""Whether a case costs the same among a hundred and among ten thousand: ingest, split, plan, preprocess, scoring."""

from __future__ import annotations

import argparse
import gzip
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.common import ROOT, number

TITLE = "Scale: what a case costs in a small and in a large cohort"
PACKAGES = ("joblib", "numpy", "nibabel")
STEPS = ("ingest", "split", "plan", "preprocess", "evaluate")
_SHAPE = (16, 16, 8)
_FLAT = 1.25
_KEY = bytes(range(32))


def run(quick: bool) -> list[str]:
    return measure((20, 40) if quick else (100, 1_000, 10_000))


def measure(counts: Sequence[int]) -> list[str]:
    """Tables of one cohort a count, each step in a process of its own."""
    found: dict[tuple[str, int], dict[str, float]] = {}
    with tempfile.TemporaryDirectory(prefix="monai_tl_bench_") as name:
        for n_cases in counts:
            workspace = Path(name) / str(n_cases)
            write_cohort(workspace / "data", n_cases)
            for step in STEPS:
                found[step, n_cases] = _do(step, workspace)
                print(step, n_cases, found[step, n_cases], file=sys.stderr, flush=True)
    lines = [
        "| step | cases | processor ms a case | wall ms a case | peak of the stage's process, MiB | of a worker, MiB |",
        "|---|---:|---:|---:|---:|---:|",
    ]
    says = []
    for step in STEPS:
        for n_cases in counts:
            one = found[step, n_cases]
            cells = [1000 * one["processor"] / n_cases, 1000 * one["wall"] / n_cases, one["peak"], one["worker"]]
            lines.append(f"| {step} | {n_cases} | {' | '.join(number(cell) for cell in cells)} |")
        if len(counts) > 2:
            # the cost of each further case, so that starting up does not flatter the small cohort's rival
            early, late = (
                (found[step, high]["processor"] - found[step, low]["processor"]) / (high - low)
                for low, high in (counts[:2], counts[-2:])
            )
            memory = (
                1024 * (found[step, counts[-1]]["peak"] - found[step, counts[0]]["peak"]) / (counts[-1] - counts[0])
            )
            is_flat = late <= _FLAT * early
            says.append(
                f"- {step}: {'flat' if is_flat else '**not flat**'}; a further case costs {number(1000 * early)} ms "
                f"from {counts[0]} to {counts[1]} and {number(1000 * late)} ms from {counts[-2]} to {counts[-1]}; the "
                f"stage's process grows by {number(memory)} KiB a case (its record)."
            )
    about = (
        f"Cases of {' x '.join(map(str, _SHAPE))} voxels in the Decathlon's layout, so what is measured is all but "
        "the voxels. Processor seconds are of the step's process and its loky workers, two of them, start-up included."
    )
    return [about, "\n".join(lines), "\n".join(says)]


def write_cohort(folder: Path, n_cases: int) -> None:
    """Tiny NIfTI cases, each of other values, with a box for a label."""
    import nibabel
    import numpy as np

    generator = np.random.default_rng(0)
    pairs: list[dict[str, str]] = []
    for kind in ("imagesTr", "labelsTr"):
        (folder / kind).mkdir(parents=True)
    for case in range(n_cases):
        name = f"case_{case:05d}.nii.gz"
        label = np.zeros(_SHAPE, np.uint8)
        label[3 : 6 + case % 4, 4:9, 2:6] = 1
        image = (generator.normal(40, 20, _SHAPE) + 80 * label).astype(np.int16)
        for kind, values in (("imagesTr", image), ("labelsTr", label)):
            nifti = nibabel.Nifti1Image(values, np.diag([2.0, 2.0, 3.0, 1.0]))
            (folder / kind / name).write_bytes(gzip.compress(nifti.to_bytes(), 1))
        pairs.append({"image": f"imagesTr/{name}", "label": f"labelsTr/{name}"})
    (folder / "dataset.json").write_text(json.dumps({"name": "tiny", "modality": {"0": "CT"}, "training": pairs}))


def _do(step: str, workspace: Path) -> dict[str, float]:
    environment = {**os.environ, "MONAI_TL_JOBS": "2", "MONAI_TL_PROGRESS": "", "OMP_NUM_THREADS": "1"}
    environment |= {"PYTHONPATH": str(ROOT)}
    result = workspace / f"{step}.result"
    command = [sys.executable, "-m", "benchmarks.scale", "--step", step, str(workspace), str(result)]
    with (workspace / f"{step}.log").open("wb") as log:
        done = subprocess.run(command, env=environment, cwd=ROOT, stdout=log, stderr=subprocess.STDOUT)
    if done.returncode:
        raise RuntimeError((workspace / f"{step}.log").read_text()[-3000:])
    found: dict[str, float] = json.loads(result.read_text())
    return found


def _params() -> Any:
    from monai_tl.config import Params

    return Params.model_validate({
        "ingest": {"source": "data", "classes": [{"name": "box"}]},
        "split": {"n_folds": 2, "test_fraction": 0.5},
        "plan": {"source": None, "network": {"name": "unet", "arguments": {"channels": [4, 8], "strides": [2]}}},
        "finetune": {"arms": ["scratch"]},
    })  # fmt: skip


def _work(step: str, workspace: Path) -> None:
    """One step in this process, as its stage does it; of evaluate the scoring and the intervals."""
    params = _params()
    if step == "ingest":
        from monai_tl.progress import Progress
        from monai_tl.stages.ingest import ingest

        state = workspace / ".monai_tl/cache"
        ingest(workspace / "data", workspace / "artifacts/cases", params.ingest, _KEY, state, Progress(step))
    elif step == "evaluate":
        _evaluate(workspace, params)
    else:
        import importlib

        importlib.import_module(f"monai_tl.stages.{step}").run(workspace, params)


def _evaluate(workspace: Path, params: Any) -> None:
    from monai_tl.dataset.manifest import read_manifest
    from monai_tl.metrics.cohort import BootstrapRule, summarise_arm
    from monai_tl.progress import Progress
    from monai_tl.scoring import score_arms

    manifest = read_manifest(workspace / "artifacts/cases")
    ids = manifest.dataset.case_ids
    predictions = workspace / "artifacts/predictions"
    scores = score_arms(manifest, predictions, ["scratch"], [0], ids, params.evaluate, Progress("evaluate", len(ids)))
    settings = params.evaluate
    rule = BootstrapRule(settings.n_bootstrap, settings.confidence, settings.seed)
    summarise_arm("scratch", scores["scratch"], ["box"], rule)


def _predict(workspace: Path) -> None:
    """The neighbour's label for each case's prediction."""
    ids = json.loads((workspace / "artifacts/cases/dataset.json").read_text())["case_ids"]
    folder = workspace / "artifacts/predictions/scratch/seed-0"
    folder.mkdir(parents=True)
    for case_id, other in zip(ids, [*ids[1:], ids[0]], strict=True):
        (folder / f"{case_id}.nii.gz").symlink_to(workspace / "artifacts/cases" / other / "label.nii.gz")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--step", choices=STEPS)
    parser.add_argument("rest", nargs="*", help="numbers of cases; with --step: workspace and file of the result")
    given = parser.parse_args()
    if given.step is None:
        print("\n\n".join(measure([int(text) for text in given.rest])))
        return
    workspace, result = (Path(text) for text in given.rest)
    if given.step == "evaluate":
        _predict(workspace)
    started, spent = time.perf_counter(), time.process_time()
    _work(given.step, workspace)
    wall, own = time.perf_counter() - started, time.process_time() - spent
    from joblib.externals.loky import get_reusable_executor

    # waited for, so that their time and memory are known
    get_reusable_executor().shutdown(wait=True)
    workers, here = resource.getrusage(resource.RUSAGE_CHILDREN), resource.getrusage(resource.RUSAGE_SELF)
    found = {"wall": wall, "processor": own + workers.ru_utime + workers.ru_stime}
    result.write_text(json.dumps({**found, "peak": here.ru_maxrss / 1024, "worker": workers.ru_maxrss / 1024}))


if __name__ == "__main__":
    main()
