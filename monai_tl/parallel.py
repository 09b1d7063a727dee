"""Work over cases: one place that decides in which processes it is done, here or on a cluster."""

from __future__ import annotations

import ctypes
import multiprocessing
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import BrokenExecutor, ProcessPoolExecutor, as_completed
from contextlib import suppress
from typing import Any, TypeVar

from monai_tl.errors import ConfigError, WorkerLostError
from monai_tl.stopping import stop_if_asked
from monai_tl.unfinished import clear_unfinished

Item = TypeVar("Item")
Result = TypeVar("Result")
Numbered = Iterator[tuple[int, Result]]

EXECUTOR_VARIABLE = "MONAI_TL_EXECUTOR"
"""``loky`` (as when unset), ``fork``, ``sequential`` or ``dask://HOST:PORT``. No result or hash depends on it."""
JOBS_VARIABLE = "MONAI_TL_JOBS"
CLUSTER = "dask://"
_HERE = ("fork", "loky", "sequential")
_STOPPED = 128 + signal.SIGTERM
_STOPPING_S = 5.0
"""What a worker that is asked to stop may take to clear away what it has half made."""


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


def map_cases(
    function: Callable[[Item], Result],
    items: Iterable[Item],
    *,
    brief: bool = False,
    takes_all_cores: bool = False,
    finished: Callable[[Item, Result], None] | None = None,
    lost: Callable[[Item, WorkerLostError], Result] | None = None,
) -> Iterator[Result]:
    """Yield ``function(item)`` for each item in order, as results arrive.

    A process that the system ends takes down at most the items it and the others were at. These are done again one by
    one, each alone on this machine, and the rest by half as many processes: so what was too much at once is done, and
    an item that is too much by itself is known.

    Args:
        function: Importable (no lambda). It should catch a case's own faults and return them: one bad case must not
            stop the others. An item may be done twice (never at the same time on this machine), and what it writes
            must come out the same.
        items: Picklable, each with all that it needs and no more: it is sent for itself.
        brief: Seconds in all: processes are forked where that is safe, and no cluster is asked.
        takes_all_cores: The function itself does; on this machine one item goes after another, in this process.
        finished: Told of each item in the order in which they end, which shows progress earlier.
        lost: Gives the result of an item that ends its process even when it is done alone; without it that is an error.

    Raises:
        ConfigError: MONAI_TL_EXECUTOR names no executor, or the cluster does not answer.
        WorkerLostError: See ``lost``; or the cluster was lost.
    """
    work = list(items)
    done: dict[int, Result] = {}
    position = 0
    for number, result in _run(function, work, _executor(brief, takes_all_cores), lost):
        stop_if_asked()
        if finished is not None:
            finished(work[number], result)
        done[number] = result
        while position in done:
            yield done.pop(position)
            position += 1


def _executor(brief: bool, takes_all_cores: bool) -> str:
    chosen = os.environ.get(EXECUTOR_VARIABLE) or ("fork" if brief and _is_fork_safe() else "loky")
    if chosen not in _HERE and not (chosen.startswith(CLUSTER) and chosen != CLUSTER):
        raise ConfigError(
            f"{EXECUTOR_VARIABLE}: {chosen!r} is none of {', '.join(_HERE)}, {CLUSTER}HOST:PORT; unset it",
            "environment",
        )
    if chosen.startswith(CLUSTER) and not brief:
        return chosen
    if takes_all_cores:
        return "sequential"
    return ("fork" if _is_fork_safe() else "loky") if chosen.startswith(CLUSTER) else chosen


def _is_fork_safe() -> bool:
    """A forked worker starts with all that is loaded, a loky worker loads it again, for as long as a volume takes.

    But a fork copies one thread alone: locks that others hold, as those of torch do, would stay locked for ever.
    """
    return sys.platform.startswith("linux") and threading.active_count() == 1 and "torch" not in sys.modules


def _run(
    function: Callable[[Item], Result],
    work: list[Item],
    executor: str,
    lost: Callable[[Item, WorkerLostError], Result] | None,
) -> Numbered[Result]:
    if executor.startswith(CLUSTER) and work:
        from monai_tl.cluster import run_on_cluster

        return run_on_cluster(executor.removeprefix(CLUSTER), function, work)
    if executor == "sequential" or n_jobs() == 1 or len(work) <= 1:
        return ((number, function(item)) for number, item in enumerate(work))
    return _run_here(function, work, _run_forked if executor == "fork" else _run_loky, lost)


Runner = Callable[[Callable[[Item], Result], Mapping[int, Item], int], Numbered[Result]]


def _run_here(
    function: Callable[[Item], Result],
    work: list[Item],
    run: Runner[Item, Result],
    lost: Callable[[Item, WorkerLostError], Result] | None,
) -> Numbered[Result]:
    """Run in processes of this machine, again and again what was under way when one was ended by the system."""
    waiting = dict(enumerate(work))
    n_processes = min(n_jobs(), len(work))
    while waiting:
        try:
            for number, result in run(function, dict(waiting), n_processes):
                del waiting[number]
                yield number, result
        except BrokenExecutor:
            # an order to end ends the workers first
            stop_if_asked()
            # joblib hands out in order, and at most this many before one comes back
            for number in list(waiting)[: 2 * n_processes]:
                yield number, _run_alone(function, work, number, run, lost)
                del waiting[number]
            n_processes = max(2, n_processes // 2)


def _run_alone(
    function: Callable[[Item], Result],
    work: list[Item],
    number: int,
    run: Runner[Item, Result],
    lost: Callable[[Item, WorkerLostError], Result] | None,
) -> Result:
    try:
        ((_, result),) = run(function, {number: work[number]}, 2)
        return result
    except BrokenExecutor as error:
        fault = WorkerLostError(
            f"the process that worked on case {number + 1} of {len(work)} was ended by the system, also when it worked "
            "on that case alone; most often memory runs out (the kernel's log tells): use a machine with more, or take "
            "the case away; then run again, and what is done comes from the cache"
        )
        if lost is None:
            raise fault from error
        return lost(work[number], fault)


def _run_loky(function: Callable[[Item], Result], work: Mapping[int, Item], n_processes: int) -> Numbered[Result]:
    import joblib

    backend = _stoppable_loky(inner_max_num_threads=1, initializer=_begin_worker)
    with joblib.parallel_config(backend=backend):
        run = joblib.Parallel(n_jobs=n_processes, return_as="generator_unordered", batch_size=1)
        yield from run(joblib.delayed(do_numbered)(function, number, item) for number, item in work.items())


def _stoppable_loky(**settings: Any) -> Any:
    from joblib._parallel_backends import LokyBackend

    class Stoppable(LokyBackend):  # type: ignore[misc] # joblib has no types
        """joblib ends its workers by SIGKILL where the work is broken off, and they would leave half-made files."""

        def abort_everything(self, ensure_ready: bool = True) -> None:
            processes = [] if self._workers is None else list((self._workers._processes or {}).values())
            for process in processes:
                with suppress(ProcessLookupError):
                    os.kill(process.pid, signal.SIGTERM)
            deadline = time.monotonic() + _STOPPING_S
            for process in processes:
                process.join(max(0.0, deadline - time.monotonic()))
            super().abort_everything(ensure_ready)

    return Stoppable(**settings)


def _run_forked(function: Callable[[Item], Result], work: Mapping[int, Item], n_processes: int) -> Numbered[Result]:
    context = multiprocessing.get_context("fork")
    with ProcessPoolExecutor(min(n_processes, len(work)), context, initializer=_begin_worker) as pool:
        try:
            under_way = [pool.submit(do_numbered, function, number, item) for number, item in work.items()]
            yield from (future.result() for future in as_completed(under_way))
        finally:
            # after an error, or when nobody asks on, the rest is not begun
            pool.shutdown(wait=True, cancel_futures=True)


def _begin_worker() -> None:
    # the parent's handlers are not this process's, and the parent alone answers to the terminal
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    die_with_parent()


def do_numbered(function: Callable[[Item], Result], number: int, item: Item) -> tuple[int, Result]:
    """One item in a worker, which a SIGTERM ends through its context managers: no half-made file stays."""
    try:
        previous = signal.signal(signal.SIGTERM, _exit)
        try:
            return number, function(item)
        finally:
            # once asked, it stays deaf: a second order would break into the tidying up
            if signal.getsignal(signal.SIGTERM) is _exit:
                signal.signal(signal.SIGTERM, previous)
    except SystemExit:
        try:
            clear_unfinished()
        finally:
            # the pool would take it for an error of the item and go on with the next one
            os._exit(_STOPPED)


def _exit(number: int, frame: object) -> None:
    # the order may come twice: from the parent, and from the kernel when the parent ends
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    raise SystemExit(_STOPPED)
