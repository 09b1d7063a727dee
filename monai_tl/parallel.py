"""Work over cases: one place that decides how many processes there are."""

from __future__ import annotations

import ctypes
import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from typing import TypeVar

from monai_tl.errors import ConfigError

Item = TypeVar("Item")
Result = TypeVar("Result")

BACKEND_VARIABLE = "MONAI_TL_BACKEND"
"""``fork``, ``loky`` or ``sequential``; unset: fork where it is safe, else loky. No result or hash depends on it."""
JOBS_VARIABLE = "MONAI_TL_JOBS"
_BACKENDS = ("fork", "loky", "sequential")
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
    backend = os.environ.get(BACKEND_VARIABLE) or ("fork" if _is_fork_safe() else "loky")
    if backend not in _BACKENDS:
        raise ConfigError(f"{BACKEND_VARIABLE}: {backend!r} is none of {', '.join(_BACKENDS)}; unset it", "environment")
    if backend == "sequential" or n_jobs() == 1 or len(work) <= 1:
        yield from (function(item) for item in work)
        return
    if backend == "fork":
        yield from _map_forked(function, work)
        return
    import joblib

    with joblib.parallel_config(backend=backend, inner_max_num_threads=1, initializer=die_with_parent):
        run = joblib.Parallel(n_jobs=n_jobs(), return_as="generator", batch_size=1)
        yield from run(joblib.delayed(_work)(function, item) for item in work)


def _is_fork_safe() -> bool:
    """A forked worker starts with all that is loaded, a loky worker loads it again, for as long as a volume takes.

    But a fork copies one thread alone: locks that others hold, as those of torch do, would stay locked for ever.
    """
    return sys.platform.startswith("linux") and threading.active_count() == 1 and "torch" not in sys.modules


def _map_forked(function: Callable[[Item], Result], work: list[Item]) -> Iterator[Result]:
    context = multiprocessing.get_context("fork")
    with ProcessPoolExecutor(min(n_jobs(), len(work)), context, initializer=_begin_forked) as pool:
        try:
            yield from pool.map(partial(_work, function), work)
        finally:
            # after an error, or when nobody asks on, the rest is not begun
            pool.shutdown(wait=True, cancel_futures=True)


def _begin_forked() -> None:
    # the parent's handlers are not this process's, and the parent alone answers to the terminal
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    die_with_parent()


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
