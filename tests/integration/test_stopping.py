"""A stage that is stopped leaves no image of a patient half-written; what a kill leaves goes with the next run."""

from __future__ import annotations

import fcntl
import multiprocessing
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from types import FrameType
from typing import Any

import psutil
import pytest
import yaml
from small_cohort import write_cohort_and_key

from monai_tl.cache import CaseCache, tidy_cache
from monai_tl.files import sweep_abandoned, temporary_folder, whole_folder
from monai_tl.parallel import do_numbered
from monai_tl.unfinished import clear_unfinished, made_as

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def origin(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("stopping")
    write_cohort_and_key(folder)
    return folder


@pytest.fixture
def workspace(origin: Path, tmp_path: Path) -> Path:
    (tmp_path / "work").mkdir()
    shutil.copytree(origin / "data/hospital_b", tmp_path / "work/data")
    params = {
        "ingest": {
            "source": "data",
            "key_file": str(origin / "key"),
            "classes": [{"name": "liver", "structures": ["Liver"]}],
        },
        "plan": {"source": "sources/any"},
    }
    (tmp_path / "work/params.yaml").write_text(yaml.safe_dump(params))
    return tmp_path / "work"


def parts(workspace: Path) -> list[Path]:
    # os.walk passes over what goes while one looks
    return [Path(root) / name for root, names, _ in os.walk(workspace) for name in names if name.endswith(".part")]


def images_in_parts(workspace: Path) -> list[Path]:
    return [Path(root) / name for part in parts(workspace) for root, _, names in os.walk(part) for name in names]


def start(workspace: Path, *, jobs: int) -> subprocess.Popen[bytes]:
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "MONAI_TL_JOBS": str(jobs), "MONAI_TL_EXECUTOR": "loky"}
    command = [sys.executable, "-m", "monai_tl", "stage", "ingest", "-w", str(workspace)]
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)


def start_and_wait_for_an_image(workspace: Path, *, jobs: int) -> subprocess.Popen[bytes]:
    process = start(workspace, jobs=jobs)
    limit = time.monotonic() + 60
    while not images_in_parts(workspace):
        assert process.poll() is None, process.stdout.read()  # type: ignore[union-attr]
        assert time.monotonic() < limit
    return process


@pytest.mark.parametrize("jobs", [1, 2])
def test_asked_to_stop_a_stage_leaves_nothing_half_made(workspace: Path, jobs: int) -> None:
    process = start_and_wait_for_an_image(workspace, jobs=jobs)
    process.terminate()
    # twice, as when the parent ends and the supervisor asks as well
    time.sleep(0.02)
    process.terminate()
    output, _ = process.communicate(timeout=30)
    assert process.returncode == 128 + signal.SIGTERM, output
    assert b"Traceback" not in output
    assert parts(workspace) == []
    assert not (workspace / "artifacts/cases").exists()


class Asked(BaseException):
    """What the handler of a signal raises, between any two steps."""


def stopped_at(step: int, work: Callable[[], None]) -> Asked | None:
    """Do work that is asked to stop at one of its steps; None where it has fewer.

    What is returned holds on to all that was under way, as it does where a process ends with it.
    """
    left = step

    def look(frame: FrameType, event: str, _: object) -> Callable[..., Any] | None:
        nonlocal left
        name = frame.f_code.co_filename.rpartition("/")[2]
        if name not in ("files.py", "unfinished.py", "cache.py", "contextlib.py"):
            return None
        # where names are given each instruction is a step, elsewhere each line
        frame.f_trace_opcodes = name == "unfinished.py"
        if event == ("opcode" if frame.f_trace_opcodes else "line"):
            left -= 1
            if left == 0:
                sys.settrace(None)
                raise Asked
        return look

    before = sys.gettrace()
    sys.settrace(look)
    try:
        work()
    except Asked as asked:
        return asked
    finally:
        sys.settrace(before)
    assert left > 0, "it was asked, and did not stop"
    return None


def one_case(root: Path) -> None:
    def build(folder: Path) -> None:
        (folder / "image").write_text("a patient")

    with tidy_cache(root / "cache"), whole_folder(root / "out") as folder:
        CaseCache(root / "cache").fetch("k" * 64, folder / "one", build)


def test_asked_to_stop_at_any_step_nothing_half_made_is_left(tmp_path: Path) -> None:
    step = 1
    while asked := stopped_at(step, partial(one_case, tmp_path / str(step))):
        # what the end of a process that was asked to stop does, see cli.main and parallel.do_numbered
        clear_unfinished()
        left = [path for path in (tmp_path / str(step)).rglob("*") if path.name.endswith(".part")]
        assert left == [], (step, asked)
        step += 1
    assert step > 300
    assert (tmp_path / str(step) / "out/one/image").read_text() == "a patient"


ENDING = """
import os, sys
from pathlib import Path
from monai_tl.unfinished import made_as
under_way = made_as(Path(sys.argv[1]), "out")
path = under_way.__enter__()
(path / "deep").mkdir(parents=True)
if sys.argv[2] == "at once":
    from monai_tl import cli
    cli._leave_at_once(143)
sys.exit(143)
"""


@pytest.mark.parametrize("way", ["at once", "by its end"])
def test_a_process_that_ends_clears_what_it_was_making(tmp_path: Path, way: str) -> None:
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-c", ENDING, tmp_path, way], env=environment, check=False)
    assert done.returncode == 143
    assert list(tmp_path.iterdir()) == []


def make_much_and_be_asked(folder: Path) -> None:
    """Half-made where no context manager will end it, and so much that a second order comes while it is cleared."""
    making.append(made_as(folder, "out"))
    path = making[-1].__enter__()
    path.mkdir()
    for k in range(3000):
        (path / str(k)).touch()
    os.fork() or (time.sleep(0.02), os.kill(os.getppid(), signal.SIGTERM), os._exit(0))
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(60)


making: list[Any] = []


def test_a_worker_asked_twice_clears_what_it_was_making(tmp_path: Path) -> None:
    process = multiprocessing.get_context("fork").Process(
        target=do_numbered, args=(make_much_and_be_asked, 0, tmp_path)
    )
    process.start()
    process.join(30)
    assert process.exitcode == 128 + signal.SIGTERM
    assert list(tmp_path.iterdir()) == []


def test_a_forked_process_leaves_alone_what_its_parent_is_making(tmp_path: Path) -> None:
    with made_as(tmp_path, "out") as path:
        path.write_text("the parent's")
        process = multiprocessing.get_context("fork").Process(target=clear_unfinished)
        process.start()
        process.join(30)
        assert process.exitcode == 0
        assert path.read_text() == "the parent's"
    assert list(tmp_path.iterdir()) == []


def test_what_a_worker_left_that_was_ended_by_force_goes_with_the_work(tmp_path: Path) -> None:
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLDER, tmp_path], env=environment, stdout=subprocess.PIPE, text=True
    )
    assert holder.stdout is not None
    folder = Path(holder.stdout.readline().strip())

    def work() -> None:
        with tidy_cache(tmp_path):
            assert folder.is_dir()
            holder.kill()
            holder.wait()
            raise SystemExit(143)

    with pytest.raises(SystemExit):
        work()
    holder.stdout.close()
    assert list(tmp_path.iterdir()) == []


def test_a_name_that_is_anothers_by_now_is_not_swept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A sweeper opens a folder, another one removes it, and its maker makes it anew before the first has the lock."""
    left = tmp_path / ".out.abcdefgh.part"
    left.mkdir()
    real, anew = fcntl.flock, []

    def make_anew(handle: int, kind: int) -> None:
        if not anew:
            left.rename(tmp_path / "removed")
            left.mkdir()
            (left / "image").write_text("mine")
            anew.append(handle)
        real(handle, kind)

    monkeypatch.setattr(fcntl, "flock", make_anew)
    sweep_abandoned(tmp_path, "out")
    assert anew
    assert (left / "image").read_text() == "mine"


SWALLOWED = """
import os, signal, sys
from monai_tl import cli

def work():
    try:
        os.kill(os.getpid(), getattr(signal, sys.argv[1]))
        signal.sigtimedwait([], 5)
    except BaseException:
        raise ValueError("a library's own") from None

cli.app = work
cli.main()
"""


@pytest.mark.parametrize(("number", "status", "words"), [("SIGTERM", 143, ""), ("SIGINT", 130, "Stopped. ")])
def test_an_order_to_end_that_a_library_makes_an_error_of_is_no_fault(number: str, status: int, words: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", SWALLOWED, number], capture_output=True, text=True, check=False, cwd=ROOT
    )
    assert done.returncode == status
    assert done.stderr.startswith(words)
    assert "fault" not in done.stderr


LOST = """
import os, signal, sys, time
from monai_tl import cli
from monai_tl.parallel import map_cases

number = getattr(signal, sys.argv[2])

def order():
    os.kill(os.getpid(), number)
    time.sleep(5)

class Finalised:
    def __del__(self):
        order()

def in_a_finaliser():
    Finalised()
    time.sleep(5)

def in_a_library(_):
    try:
        order()
    except BaseException:
        pass
    return "goes on"

def in_work_over_cases():
    for result in map_cases(in_a_library, range(3)):
        print(result)

cli.app = globals()[sys.argv[1]]
cli.main()
"""


@pytest.mark.parametrize("place", ["in_a_finaliser", "in_work_over_cases"])
@pytest.mark.parametrize(("number", "status"), [("SIGTERM", 143), ("SIGINT", 130)])
def test_an_order_to_end_that_python_or_a_library_swallows_ends_the_command(
    number: str, status: int, place: str
) -> None:
    done = subprocess.run(
        [sys.executable, "-c", LOST, place, number],
        env={**os.environ, "MONAI_TL_JOBS": "1"},
        capture_output=True,
        text=True,
        check=False,
        cwd=ROOT,
    )
    assert done.returncode == status, done.stderr
    assert done.stdout == ""
    assert "Exception ignored" not in done.stderr


BROKEN = """
import os, sys, time
from monai_tl import stopping
from monai_tl.parallel import map_cases

def work(number):
    time.sleep(0.1)
    return number

if __name__ == "__main__":
    import broken
    real = stopping._end_workers

    def end_workers_and_lose_the_order():
        # as where the interrupt comes while Python cannot raise it: all that is left of it are workers that are gone
        real()
        raise RuntimeError

    stopping.stop_tidily()
    for number in map_cases(broken.work, range(40)):
        if number == 1:
            stopping._end_workers = end_workers_and_lose_the_order
            try:
                os.kill(os.getpid(), 2)
                time.sleep(5)
            except RuntimeError:
                pass
        print(number, flush=True)
"""


def test_work_over_cases_is_not_done_again_when_its_workers_were_ended_by_an_order(tmp_path: Path) -> None:
    (tmp_path / "broken.py").write_text(BROKEN)
    environment = {**os.environ, "PYTHONPATH": f"{ROOT}{os.pathsep}{tmp_path}"}
    environment |= {"MONAI_TL_JOBS": "2", "MONAI_TL_EXECUTOR": "loky"}
    done = subprocess.run(
        [sys.executable, tmp_path / "broken.py"], env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 130, done.stderr
    assert done.stdout.split() == ["0", "1"]


STUBBORN = """
import os, signal, sys, time
from monai_tl.parallel import map_cases
from monai_tl.stopping import stop_tidily

def hold(path):
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    with open(path + ".new", "w") as stream:
        stream.write(str(os.getpid()))
    os.rename(path + ".new", path)
    time.sleep(120)

if __name__ == "__main__":
    import stubborn
    stop_tidily()
    list(map_cases(stubborn.hold, sys.argv[1:]))
"""


def test_a_worker_that_does_not_listen_is_ended_all_the_same(tmp_path: Path) -> None:
    (tmp_path / "stubborn.py").write_text(STUBBORN)
    names = [tmp_path / "one", tmp_path / "two"]
    environment = {**os.environ, "PYTHONPATH": f"{ROOT}{os.pathsep}{tmp_path}"}
    environment |= {"MONAI_TL_JOBS": "2", "MONAI_TL_EXECUTOR": "loky"}
    process = subprocess.Popen([sys.executable, tmp_path / "stubborn.py", *names], env=environment)
    limit = time.monotonic() + 60
    while not all(name.exists() for name in names):
        assert process.poll() is None
        assert time.monotonic() < limit
        time.sleep(0.05)
    process.terminate()
    assert process.wait(30) == 128 + signal.SIGTERM
    assert not any(psutil.pid_exists(int(name.read_text())) for name in names)


def test_what_a_kill_leaves_goes_with_the_next_run(workspace: Path) -> None:
    process = start_and_wait_for_an_image(workspace, jobs=1)
    process.kill()
    process.communicate()
    # of a study that does not come again, too
    gone = workspace / ".monai_tl/cache/.0123456789ab.abcdefgh.part"
    gone.mkdir(parents=True)
    (gone / "image.nii.gz").write_bytes(b"a patient")
    assert images_in_parts(workspace)
    again = start(workspace, jobs=1)
    output, _ = again.communicate(timeout=60)
    assert again.returncode == 0, output
    assert parts(workspace) == []


HOLDER = """
import sys, time
from pathlib import Path
from monai_tl.files import temporary_folder
with temporary_folder(Path(sys.argv[1]), "out") as folder:
    (folder / "image").write_text("mine")
    print(folder, flush=True)
    time.sleep(60)
"""


def test_a_folder_of_a_living_process_is_left_alone(tmp_path: Path) -> None:
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", HOLDER, str(tmp_path)]
    holder = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True)
    assert holder.stdout is not None
    folder = Path(holder.stdout.readline().strip())
    (tmp_path / ".out.mine.part").mkdir()  # no name of ours
    (tmp_path / ".other.abcdefgh.part").mkdir()  # for something else
    try:
        with whole_folder(tmp_path / "out") as own:
            assert (folder / "image").read_text() == "mine"
            assert own != folder
    finally:
        holder.kill()
        holder.wait()
        holder.stdout.close()
    assert folder.is_dir()
    with temporary_folder(tmp_path, "out"):
        assert not folder.exists()
    assert {path.name for path in tmp_path.iterdir()} == {"out", ".out.mine.part", ".other.abcdefgh.part"}


def test_without_locks_nothing_is_taken_for_abandoned(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(handle: int, kind: int) -> None:
        raise OSError("no locks on this file system")

    monkeypatch.setattr(fcntl, "flock", refuse)
    with temporary_folder(tmp_path, "out") as one, temporary_folder(tmp_path, "out") as other:
        assert one.is_dir()
        assert other.is_dir()
    assert list(tmp_path.iterdir()) == []


def test_an_error_while_a_case_is_built_leaves_an_empty_cache(tmp_path: Path) -> None:
    def stop(folder: Path) -> None:
        (folder / "image").write_text("x")
        raise SystemExit(143)

    with pytest.raises(SystemExit):
        CaseCache(tmp_path / "cache").fetch("k" * 64, tmp_path / "one", stop)
    assert list((tmp_path / "cache").iterdir()) == []
