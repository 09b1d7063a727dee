"""What running costs around the work: starting the command line, and a run in which nothing changed."""

from __future__ import annotations

import os
import shutil
import statistics
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from benchmarks.common import HINT, ROOT, Contestant, Role, number, table, take_turns, verdict
from benchmarks.processes import run_alone

TITLE = "Pipeline: what running costs around the work"
PACKAGES = ("prefect", "dvc", "typer", "rich")
NEEDS = "psutil"


def run(quick: bool) -> list[str]:
    starts = start_contestants()
    times = take_turns(starts, 3 if quick else 15, budget_s=40.0)
    blocks = [
        "### Starting",
        "Processor seconds (user and system) of a fresh process. Limit: `python -c pass`.",
        table(starts, times),
        verdict(starts, times),
        "### A run with nothing changed",
    ]
    if find_spec(NEEDS) is None:
        return [*blocks, f"{NEEDS}: {HINT}"]
    with tempfile.TemporaryDirectory(prefix="monai_tl_bench_") as name:
        blocks += unchanged(Path(name), 2 if quick else 7)
    return blocks


def start_contestants() -> list[Contestant]:
    def enter(name: str, role: Role, *arguments: str) -> Contestant:
        return Contestant(name, role, lambda: run_alone([sys.executable, *arguments], ROOT, os.environ)["processor"])

    return [
        enter("limit", "limit", "-c", "pass"),
        enter("import monai_tl", "other", "-c", "import monai_tl"),
        enter("monai-tl --help", "ours", "-m", "monai_tl", "--help"),
        enter("dvc --help", "peer", "-m", "dvc", "--help"),
        enter("prefect --help", "peer", "-m", "prefect", "--help"),
        enter("import prefect", "other", "-c", "import prefect"),
        enter("import torch", "other", "-c", "import torch"),
        enter("import monai", "other", "-c", "import monai"),
    ]


def unchanged(root: Path, n_rounds: int) -> list[str]:
    sys.path.insert(0, str(ROOT / "tests/support"))
    from workspaces import Place, make_site, make_stand_in

    served = make_stand_in(root / "served", make_site(root / "site"))
    served.run("dvc", "repro")
    n_steps = served.lock.count(b"cmd:")
    alone = Place(root / "alone", served.site)
    shutil.copytree(served.folder, alone.folder)
    cpu: dict[str, list[float]] = {}

    def enter(name: str, role: Role, place: Any, *module: str) -> Contestant:
        def turn() -> float:
            took = run_alone([sys.executable, *module], place.folder, place.environment)
            cpu.setdefault(name, []).append(took["processor"])
            return took["wall"]

        return Contestant(name, role, turn)

    contestants = [
        enter("limit: dvc status", "limit", alone, "-m", "dvc", "status"),
        enter("monai-tl run, with a running server", "ours", served, "-m", "monai_tl", "run", "--plain"),
        enter("monai-tl run, no server", "other", alone, "-m", "monai_tl", "run", "--plain"),
        enter("dvc repro", "peer", alone, "-m", "dvc", "repro"),
        enter("import prefect", "other", alone, "-c", "import prefect"),
    ]
    with serving(served):
        times = take_turns(contestants, n_rounds, budget_s=70.0)
    for one in contestants:
        one.note = f"{number(statistics.median(cpu[one.name][1:]))} s of processor"
    about = (
        f"Wall seconds in a workspace of {n_steps} steps whose stages are stand-ins, all of them fresh. Limit: "
        "`dvc status`, since DVC decides that nothing is to be done. `monai-tl run` is a Prefect flow: it asks "
        "`dvc status` once, records each step as a task and the results as artifacts, and shows the results at the "
        "end; without a running server Prefect starts one for the run. Processor seconds are those of the "
        "command and what it started, a running server's own work excluded."
    )
    return [about, table(contestants, times), verdict(contestants, times)]


@contextmanager
def serving(place: Any) -> Iterator[None]:
    """``monai-tl serve`` on a free port, its first scheduled run a day away."""
    from workspaces import end, free_port, until

    log = place.folder.parent / "serve.log"
    process = place.start("monai_tl", "serve", "--port", str(free_port()), "--interval", "86400", output=log)
    try:
        until(lambda: "Dashboard" in log.read_text() or process.poll() is not None, 120, "the server starts")
        if process.poll() is not None:
            raise RuntimeError(log.read_text())
        yield
    finally:
        if process.poll() is None:
            end(process)
