"""Work over cases: order, errors, and nothing left behind."""

import os
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest

from monai_tl.errors import WorkerLostError
from monai_tl.parallel import map_cases


def square(number: int) -> int:
    return number * number


def process_id(_: int) -> int:
    return os.getpid()


@pytest.mark.parametrize("backend", ["fork", "loky", "sequential"])
def test_results_come_in_order_and_are_the_same_for_each_backend(monkeypatch, backend):
    monkeypatch.setenv("MONAI_TL_EXECUTOR", backend)
    monkeypatch.setenv("MONAI_TL_JOBS", "2")
    assert list(map_cases(square, range(7))) == [0, 1, 4, 9, 16, 25, 36]


@pytest.mark.parametrize("backend", ["fork", "loky"])
def test_work_is_done_in_other_processes(monkeypatch, backend):
    monkeypatch.setenv("MONAI_TL_EXECUTOR", backend)
    monkeypatch.setenv("MONAI_TL_JOBS", "2")
    assert os.getpid() not in set(map_cases(process_id, range(4)))


@pytest.mark.parametrize("backend", ["fork", "loky"])
def test_workers_end_with_their_parent(tmp_path, backend):
    program = (
        "import os, sys, time\n"
        "sys.path.insert(0, sys.argv[1])\n"
        "from monai_tl.parallel import map_cases\n"
        "from sleeper import nap\n"
        "list(map_cases(nap, range(4)))\n"
    )
    (tmp_path / "sleeper.py").write_text(
        "import os, time, pathlib\n"
        "def nap(n):\n"
        "    (pathlib.Path(__file__).parent / f'pid-{os.getpid()}').touch()\n"
        "    time.sleep(60)\n"
    )
    environment = os.environ | {"PYTHONPATH": str(tmp_path), "MONAI_TL_JOBS": "2", "MONAI_TL_EXECUTOR": backend}
    child = subprocess.Popen([sys.executable, "-c", program, str(tmp_path)], env=environment)
    limit = time.monotonic() + 40
    while len(list(tmp_path.glob("pid-*"))) < 2 and time.monotonic() < limit:
        time.sleep(0.05)
    workers = [int(path.name.split("-")[1]) for path in tmp_path.glob("pid-*")]
    assert len(workers) == 2
    child.kill()
    child.wait()
    limit = time.monotonic() + 5
    while any(_alive(pid) for pid in workers) and time.monotonic() < limit:
        time.sleep(0.05)
    assert not [pid for pid in workers if _alive(pid)]


def end_at_five(item: tuple[int, Path]) -> int:
    number, folder = item
    (folder / f"{number}.{os.getpid()}").touch()
    if number == 5:
        os.kill(os.getpid(), signal.SIGKILL)
    return number


def end_once(item: tuple[int, Path]) -> int:
    """A process that the system ends in the middle of item 5, the first time."""
    number, folder = item
    # so long that results are taken as they come, also on a busy machine
    time.sleep(0.03)
    is_first = number == 5 and not list(folder.glob("5.*"))
    (folder / f"{number}.{os.getpid()}").touch()
    if is_first:
        os.kill(os.getpid(), signal.SIGKILL)
    return number * number


@pytest.mark.parametrize("executor", ["fork", "loky"])
def test_what_a_killed_process_was_at_is_done_again_and_the_finished_is_not(monkeypatch, tmp_path, executor):
    monkeypatch.setenv("MONAI_TL_EXECUTOR", executor)
    monkeypatch.setenv("MONAI_TL_JOBS", "2")
    told: list[int] = []
    items = [(number, tmp_path) for number in range(20)]
    results = list(map_cases(end_once, items, finished=lambda item, result: told.append(item[0])))
    assert results == [number * number for number in range(20)]
    assert sorted(told) == list(range(20))
    runs = Counter(int(path.name.split(".")[0]) for path in tmp_path.iterdir())
    assert runs[5] == 2
    # what was on its way, or finished and not yet taken, when the process ended
    assert sum(runs.values()) <= 20 + 10


@pytest.mark.parametrize("executor", ["fork", "loky"])
def test_an_item_that_ends_each_process_is_known_and_the_others_are_done(monkeypatch, tmp_path, executor):
    monkeypatch.setenv("MONAI_TL_EXECUTOR", executor)
    monkeypatch.setenv("MONAI_TL_JOBS", "2")
    items = [(number, tmp_path) for number in range(8)]
    results = list(map_cases(end_at_five, items, lost=lambda item, fault: -item[0]))
    assert results == [0, 1, 2, 3, 4, -5, 6, 7]
    with pytest.raises(WorkerLostError, match="case 6 of 8 was ended by the system"):
        list(map_cases(end_at_five, items))


def wait_if_first(number: int) -> int:
    time.sleep(1.0 if number == 0 else 0.0)
    return number


@pytest.mark.parametrize("executor", ["fork", "loky"])
def test_progress_does_not_wait_for_a_slow_case_and_the_results_do(monkeypatch, executor):
    monkeypatch.setenv("MONAI_TL_EXECUTOR", executor)
    monkeypatch.setenv("MONAI_TL_JOBS", "2")
    told: list[int] = []
    results = list(map_cases(wait_if_first, range(6), finished=lambda item, result: told.append(item)))
    assert results == list(range(6))
    assert told[-1] == 0


LIMITS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")


def thread_limits(_: int) -> list[str | None]:
    return [os.environ.get(name) for name in LIMITS]


def test_a_worker_computes_with_one_thread(monkeypatch):
    for name in LIMITS:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("MONAI_TL_EXECUTOR", "loky")
    # a number of workers that no other test has, so that these are started by this one
    monkeypatch.setenv("MONAI_TL_JOBS", "3")
    assert list(map_cases(thread_limits, range(3))) == [["1", "1", "1"]] * 3


def test_what_keeps_all_cores_busy_stays_in_this_process(monkeypatch):
    monkeypatch.delenv("MONAI_TL_EXECUTOR", raising=False)
    monkeypatch.setenv("MONAI_TL_JOBS", "2")
    assert set(map_cases(process_id, range(4), takes_all_cores=True)) == {os.getpid()}


def test_processes_are_forked_only_where_no_thread_can_hold_a_lock():
    program = (
        "import os, sys, threading\n"
        "from monai_tl import parallel\n"
        "print(parallel._is_fork_safe())\n"
        "stop = threading.Event(); thread = threading.Thread(target=stop.wait); thread.start()\n"
        "print(parallel._is_fork_safe())\n"
        "stop.set(); thread.join()\n"
        "sys.modules['torch'] = object()\n"
        "print(parallel._is_fork_safe())\n"
    )
    told = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout
    assert told.split() == ["True", "False", "False"]


def _alive(pid: int) -> bool:
    try:
        with open(f"/proc/{pid}/stat") as stream:
            return stream.read().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False
