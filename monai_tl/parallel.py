"""Work over cases: one place that decides how many processes there are and on which machines."""

from __future__ import annotations

import ctypes
import os
import signal
import sys
from collections.abc import Callable, Iterable, Iterator
from typing import Any, TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")

BACKEND_VARIABLE = "MONAI_TL_BACKEND"
"""``loky`` (default), ``sequential`` or ``dask``. An environment variable, so it never changes a hash."""
JOBS_VARIABLE = "MONAI_TL_JOBS"


def n_jobs() -> int:
    """Processes to use: MONAI_TL_JOBS, else the cores this process may run on."""
    text = os.environ.get(JOBS_VARIABLE, "")
    if text.isdigit() and int(text) > 0:
        return int(text)
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def die_with_parent() -> None:
    """Ask the kernel (Linux) to end this process when its parent ends, so a killed run leaves nothing behind."""
    if not sys.platform.startswith("linux"):
        return
    pr_set_pdeathsig = 1
    ctypes.CDLL(None, use_errno=True).prctl(pr_set_pdeathsig, signal.SIGTERM)


def map_cases(function: Callable[[Item], Result], items: Iterable[Item]) -> Iterator[Result]:
    """Yield ``function(item)`` for each item in order, as results arrive.

    The function must be importable (no lambda) and its arguments picklable. It should catch a case's own faults and
    return them: one bad case must not stop the others.
    """
    work = list(items)
    backend = os.environ.get(BACKEND_VARIABLE, "loky")
    if backend == "sequential" or n_jobs() == 1 or len(work) <= 1:
        yield from (function(item) for item in work)
        return
    import joblib

    options: dict[str, Any] = {} if backend == "dask" else {"initializer": die_with_parent}
    with joblib.parallel_config(backend=backend, inner_max_num_threads=None if backend == "dask" else 1, **options):
        run = joblib.Parallel(n_jobs=n_jobs(), return_as="generator", batch_size=1)
        yield from run(joblib.delayed(function)(item) for item in work)
