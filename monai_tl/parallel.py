"""Work over cases: one place that decides how many processes there are."""

from __future__ import annotations

import ctypes
import os
import signal
import sys
from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

from monai_tl.errors import ConfigError

Item = TypeVar("Item")
Result = TypeVar("Result")

BACKEND_VARIABLE = "MONAI_TL_BACKEND"
"""``loky`` (default) or ``sequential``. An environment variable, so it never changes a hash."""
JOBS_VARIABLE = "MONAI_TL_JOBS"
_BACKENDS = ("loky", "sequential")
_STOPPED = 128 + signal.SIGTERM


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

    Raises:
        ConfigError: MONAI_TL_BACKEND names no backend.
    """
    work = list(items)
    backend = os.environ.get(BACKEND_VARIABLE, "loky")
    if backend not in _BACKENDS:
        raise ConfigError(f"{BACKEND_VARIABLE}: {backend!r} is none of {', '.join(_BACKENDS)}; unset it", "environment")
    if backend == "sequential" or n_jobs() == 1 or len(work) <= 1:
        yield from (function(item) for item in work)
        return
    import joblib

    with joblib.parallel_config(backend=backend, inner_max_num_threads=1, initializer=die_with_parent):
        run = joblib.Parallel(n_jobs=n_jobs(), return_as="generator", batch_size=1)
        yield from run(joblib.delayed(_work)(function, item) for item in work)


def _work(function: Callable[[Item], Result], item: Item) -> Result:
    """One item in a worker, which a SIGTERM ends through its context managers: no half-made file stays."""
    previous = signal.signal(signal.SIGTERM, _exit)
    try:
        return function(item)
    except SystemExit:
        # the pool would take it for an error of the item and go on with the next one
        os._exit(_STOPPED)
    finally:
        signal.signal(signal.SIGTERM, previous)


def _exit(number: int, frame: object) -> None:
    # the order may come twice: from the parent, and from the kernel when the parent ends
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    raise SystemExit(_STOPPED)
