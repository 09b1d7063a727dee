"""What stands around the work on many cases: DVC, Prefect and its database, the report, the inbox's ledger."""

from __future__ import annotations

import argparse
import json
import os
import resource
import sqlite3
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

from benchmarks.common import ROOT
from benchmarks.processes import run_alone
from benchmarks.scale_cohort import n_studies, write_studies

STAGES = ("ingest", "split", "plan", "preprocess", "finetune@scratch-0-0", "predict", "evaluate")
"""Run by DVC alone; what is left by the flow."""
_NEW = 10
_MEASURED = ".monai_tl/measured"
OUTPUTS = (
    "artifacts/cases/dataset.json", "artifacts/split/split.json", "artifacts/predictions/certainty.json",
    "reports/html/report.html", "reports/html/summary.md", "reports/metrics.json", "reports/plots/cases.csv",
    "artifacts/export/index.json", "test_looks.json", "dvc.lock",
)  # fmt: skip
"""Files of which there is one, whatever the number of cases."""


def of_place(place: Any, *module: str) -> dict[str, float]:
    """``python -m MODULE …`` in a workspace."""
    environment = {**place.environment, "MONAI_TL_JOBS": "2", "OMP_NUM_THREADS": "1"}
    return run_alone([sys.executable, "-m", *module], place.folder, environment)


def add_data(place: Any) -> dict[str, float]:
    """``dvc add data``: each file of the studies is hashed and copied into the cache."""
    return of_place(place, "dvc", "add", "-q", "data")


def do_stage(place: Any, address: str) -> dict[str, float]:
    """DVC's run of a stage: what the stage took, and how much longer DVC took (``around``)."""
    name = address.partition("@")[0]
    (place.folder / _MEASURED / f"{name}.json").unlink(missing_ok=True)
    whole = of_place(place, "dvc", "repro", "-q", "--single-item", address)
    found = measured(place, name)
    return {**found, "whole": whole["wall"], "around": whole["wall"] - found["wall"]}


def status(place: Any) -> dict[str, float]:
    """``dvc status`` of the data and of all stages but export, all of them fresh; and what lies in DVC's cache."""
    found = of_place(place, "dvc", "status", "-q", "data.dvc", *STAGES)
    files = [path for path in (place.folder / ".dvc/cache").rglob("*") if path.is_file()]
    return {**found, "objects": len(files), "bytes": sum(path.stat().st_size for path in files)}


def run_flow(place: Any) -> dict[str, float]:
    """``monai-tl run``, with a server of its own: seconds beside the stages that ran, and the database after it."""
    before = set(_measured(place))
    for name in before:
        (place.folder / _MEASURED / f"{name}.json").rename(place.folder / _MEASURED / f"{name}.before")
    whole = of_place(place, "monai_tl", "run", "--plain")
    ran = {name: found["wall"] for name, found in _measured(place).items()}
    for name in before - ran.keys():
        (place.folder / _MEASURED / f"{name}.before").rename(place.folder / _MEASURED / f"{name}.json")
    return {**whole, "stages": len(ran), "around": whole["wall"] - sum(ran.values()), **database(place)}


def measured(place: Any, name: str) -> dict[str, float]:
    """What a stage took when it ran last."""
    return _measured(place)[name]


def _measured(place: Any) -> dict[str, dict[str, float]]:
    return {path.stem: json.loads(path.read_text()) for path in (place.folder / _MEASURED).glob("*.json")}


def database(place: Any) -> dict[str, float]:
    """Rows by table and bytes of Prefect's database."""
    path = place.folder / ".monai_tl/prefect/prefect.db"
    with closing(sqlite3.connect(path)) as base:
        base.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        tables = [row[0] for row in base.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
        rows = {name: base.execute(f"SELECT count(*) FROM {name}").fetchone()[0] for name in tables}
    kept = {f"rows {name}": count for name, count in rows.items() if name in _TABLES}
    return {"database": path.stat().st_size, "rows": sum(rows.values()), **kept}


_TABLES = ("flow_run", "task_run", "log", "artifact", "events")


def sizes(place: Any) -> dict[str, float]:
    """Bytes of the files of which there is one."""
    return {name: (place.folder / name).stat().st_size for name in OUTPUTS if (place.folder / name).is_file()}


def inbox(place: Any, n_cases: int) -> dict[str, float]:
    """The inbox over all studies, in a process of its own; see ``_inbox``."""
    result = place.folder.parent / "inbox.json"
    command = [sys.executable, "-m", "benchmarks.scale_around", str(place.folder.parent), str(n_cases), str(result)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    run_alone(command, ROOT, environment)
    found: dict[str, float] = json.loads(result.read_text())
    return found


def _inbox(root: Path, n_cases: int) -> dict[str, float]:
    """Look at all studies, take and finish each, look again, and once more when ten are new."""
    from monai_tl.dicom.deidentify import Pseudonyms, load_key
    from monai_tl.inbox.arrivals import look
    from monai_tl.inbox.ledger import Ledger

    hasher = Pseudonyms(load_key(root / "pseudonym.key"))
    took: dict[str, float] = {}

    def timed(name: str, work: Callable[[], Any]) -> Any:
        started, spent = time.perf_counter(), time.process_time()
        made = work()
        took[f"{name}, wall"] = time.perf_counter() - started
        took[name] = time.process_time() - spent
        return made

    with tempfile.TemporaryDirectory(dir=root) as name:
        folder, path = Path(name) / "inbox", Path(name) / "outbox/ledger.sqlite"
        folder.mkdir()
        (folder / "delivered").symlink_to(root / "workspace/data")
        ledger = Ledger(path, hasher.key_id)
        found = timed("first look", lambda: look(folder, hasher, ledger, 0.0))
        assert found.n_new == n_studies(n_cases), found.n_new

        def take_all() -> int:
            count = 0
            while entry := ledger.claim("here", found.whole.keys()):
                ledger.finish(entry, n_segmented=1, n_refused=0, model="0" * 64, measures="{}")
                count += 1
            return count

        assert timed("take and finish", take_all) == n_studies(n_cases)
        timed("look, nothing new", lambda: look(folder, hasher, ledger, 0.0))
        write_studies(folder / "more", _NEW, first=n_studies(n_cases))
        again = timed("look, ten new", lambda: look(folder, hasher, ledger, 0.0))
        assert again.n_new == _NEW, again.n_new
        ledger.close()
        took["bytes"] = path.stat().st_size
    took["peak"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return took


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    for word in ("root", "n_cases", "result"):
        parser.add_argument(word)
    given = parser.parse_args()
    Path(given.result).write_text(json.dumps(_inbox(Path(given.root), int(given.n_cases))))
