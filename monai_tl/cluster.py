"""Work over cases past one machine: joblib's Dask backend. The machines share the folders and have the same code."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from functools import cache
from typing import Any, TypeVar

from monai_tl.errors import ConfigError, WorkerLostError
from monai_tl.files import code_digest

Item = TypeVar("Item")
Result = TypeVar("Result")

CONNECT_S = 10
_VARIABLE = "MONAI_TL_EXECUTOR"


def run_on_cluster(address: str, function: Callable[[Item], Result], work: list[Item]) -> Iterator[tuple[int, Result]]:
    """Yield each item's number and result, in order.

    Dask itself gives the work of a lost worker to another one; after the third loss of the same item it gives up.

    Args:
        address: ``host:port`` of the scheduler.
        function: Importable on the workers.
        work: Picklable; paths in it must lead to the same files on all machines.

    Raises:
        ConfigError: Nothing answers there, no worker comes, Dask is not installed here, or a worker runs other code.
        WorkerLostError: The scheduler was lost, or each worker that took an item.
    """
    import joblib

    with _connected(address) as client:
        from distributed import CancelledError
        from distributed.comm.core import CommClosedError
        from distributed.scheduler import KilledWorker

        # all at once to the scheduler: joblib would hand out for as many workers as there are at the start
        run = joblib.Parallel(backend=_backend(client), return_as="generator", batch_size=1, pre_dispatch="all")
        try:
            yield from enumerate(run(joblib.delayed(_do_there)(own_code(), function, item) for item in work))
        except KilledWorker as error:
            raise WorkerLostError(
                f"{_VARIABLE}: four workers of the cluster ended while they worked on one and the same case; mostly "
                "memory runs out (see the workers' logs): start workers with more, then run again, and what is done "
                "comes from the cache"
            ) from error
        except TimeoutError as error:
            raise ConfigError(
                f"{_VARIABLE}: the scheduler has no workers; start one (dask worker {address} --nthreads 1)",
                "environment",
            ) from error
        except (CancelledError, CommClosedError) as error:
            raise WorkerLostError(
                f"{_VARIABLE}: the scheduler was lost; start it again, then run again, and what is done comes from the "
                "cache"
            ) from error


def _backend(client: Any) -> Any:
    from joblib._dask import DaskDistributedBackend

    class Cluster(DaskDistributedBackend):  # type: ignore[misc] # joblib has no types
        """What joblib's own lacks: it does a lone worker's work itself, and waits for ever for what Dask gives up."""

        def effective_n_jobs(self, n_jobs: int) -> int:
            return max(2, int(super().effective_n_jobs(n_jobs)))

        def submit(self, func: Any, callback: Callable[[Any], None]) -> Any:
            def tell(done: Future[Any]) -> None:
                if done.exception() is not None:
                    callback(done.exception())

            future: Future[Any] = super().submit(func, callback)
            future.add_done_callback(tell)
            return future

        def retrieve_result_callback(self, out: Any) -> Any:
            if isinstance(out, BaseException):
                raise out
            return super().retrieve_result_callback(out)

    return Cluster(client=client, wait_for_workers_timeout=CONNECT_S, pure=False)


@contextmanager
def _connected(address: str) -> Iterator[Any]:
    try:
        from distributed import Client
    except ImportError:
        raise ConfigError(
            f"{_VARIABLE}: asks for a Dask cluster, but Dask is not installed; install monai_tl[dask]", "environment"
        ) from None
    try:
        client = Client(f"tcp://{address}", timeout=CONNECT_S, set_as_default=False)
    except (OSError, ValueError) as error:
        raise ConfigError(
            f"{_VARIABLE}: no Dask scheduler answers at {address}; start one (dask scheduler), or unset the variable",
            "environment",
        ) from error
    try:
        yield client
    finally:
        # takes back what is not begun
        client.close()


@cache
def own_code() -> str:
    """Digest of the code that this process runs."""
    return code_digest()


def _do_there(code: str, function: Callable[[Item], Result], item: Item) -> Result:
    """One item on a worker, whose code must be that of the run: else cases of one cohort would differ."""
    if own_code() != code:
        raise ConfigError(
            f"{_VARIABLE}: a worker of the cluster runs another version of monai_tl; install the same one everywhere "
            "and start the workers again",
            "environment",
        )
    return function(item)
