"""``python measured.py STAGE …`` in a workspace: ``monai-tl stage STAGE …``, and what it took, in ``measured/``."""

from __future__ import annotations

import json
import resource
import runpy
import sys
import time
from pathlib import Path

started = time.perf_counter()


def finish(place: Path) -> None:
    """Write down seconds and MiB of this process and of its workers, who are waited for so that they count."""
    wall = time.perf_counter() - started
    if "joblib.externals.loky" in sys.modules:
        from joblib.externals.loky import get_reusable_executor

        get_reusable_executor().shutdown(wait=True)
    own, workers = resource.getrusage(resource.RUSAGE_SELF), resource.getrusage(resource.RUSAGE_CHILDREN)
    processor = own.ru_utime + own.ru_stime + workers.ru_utime + workers.ru_stime
    found = {"wall": wall, "processor": processor, "peak": own.ru_maxrss / 1024, "worker": workers.ru_maxrss / 1024}
    place.parent.mkdir(parents=True, exist_ok=True)
    place.write_text(json.dumps(found))


if __name__ == "__main__":
    stage = sys.argv[1]
    sys.argv = ["monai-tl", "stage", *sys.argv[1:]]
    try:
        runpy.run_module("monai_tl", run_name="__main__")
    except SystemExit as end:
        if end.code:
            raise
    finish(Path(".monai_tl/measured") / f"{stage}.json")
