"""Work over cases: order, errors, and nothing left behind."""

import os
import subprocess
import sys
import time
from concurrent.futures import BrokenExecutor

import pytest

from monai_tl.parallel import map_cases


def square(number: int) -> int:
    return number * number


def process_id(_: int) -> int:
    return os.getpid()


@pytest.mark.parametrize("backend", ["fork", "loky", "sequential"])
def test_results_come_in_order_and_are_the_same_for_each_backend(monkeypatch, backend):
    monkeypatch.setenv("MONAI_TL_BACKEND", backend)
    monkeypatch.setenv("MONAI_TL_JOBS", "2")
    assert list(map_cases(square, range(7))) == [0, 1, 4, 9, 16, 25, 36]


@pytest.mark.parametrize("backend", ["fork", "loky"])
def test_work_is_done_in_other_processes(monkeypatch, backend):
    monkeypatch.setenv("MONAI_TL_BACKEND", backend)
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
    environment = os.environ | {"PYTHONPATH": str(tmp_path), "MONAI_TL_JOBS": "2", "MONAI_TL_BACKEND": backend}
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


def _end_itself(_: int) -> None:
    os._exit(9)


@pytest.mark.parametrize("backend", ["fork", "loky"])
def test_a_worker_that_is_killed_is_an_error_and_not_a_wait_for_ever(monkeypatch, backend):
    monkeypatch.setenv("MONAI_TL_BACKEND", backend)
    monkeypatch.setenv("MONAI_TL_JOBS", "2")
    with pytest.raises(BrokenExecutor):
        list(map_cases(_end_itself, range(4)))


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
