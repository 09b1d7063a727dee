"""``python -m benchmarks [NAME …]``: run all benchmarks or those named, and put their tables into RESULTS.md."""

from __future__ import annotations

import argparse
import importlib
import os
import time
from pathlib import Path

from benchmarks.common import PARTS_VARIABLE, section, write_section

NAMES = ("dicom", "step", "engine", "predict", "metrics", "pipeline")
HOURS = ("engine_gpu", "transfer", "ladder", "harm", "precision", "fast_real", "scale", "privacy")
"""Where there is a GPU, trainings on real images, and ten thousand cases; run only when named."""


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument(
        "names",
        nargs="*",
        metavar="NAME",
        help=f"of {', '.join(NAMES)} (all of these when none is given), {', '.join(HOURS)}",
    )
    parser.add_argument("--quick", action="store_true", help="small inputs, few rounds; RESULTS.md stays as it is")
    parser.add_argument("--keep", type=Path, help="of scale: a folder where finished steps lie, and are not done again")
    given = parser.parse_args()
    unknown = sorted(set(given.names) - {*NAMES, *HOURS})
    if unknown:
        parser.error(f"no benchmark is called {', '.join(unknown)}; there are {', '.join((*NAMES, *HOURS))}")
    for name in given.names or NAMES:
        module = importlib.import_module(f"benchmarks.{name}")
        started = time.monotonic()
        blocks = module.run(given.quick, given.keep) if name == "scale" else module.run(given.quick)
        print(section(name, module.TITLE, blocks, module.PACKAGES), flush=True)
        # a part would stand where the whole section did
        if not given.quick and not (name == "engine" and os.environ.get(PARTS_VARIABLE)):
            write_section(name, module.TITLE, blocks, module.PACKAGES)
        print(f"\n({name}: {time.monotonic() - started:.0f} s)\n", flush=True)


if __name__ == "__main__":
    main()
