"""A supervised command and all its descendants end with the caller, with the command, or on a signal."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
import uuid
from pathlib import Path

import psutil
import pytest

from monai_tl.supervise import descendants, supervised

ROOT = Path(__file__).parents[2]
# a grandchild in a session of its own, whose parent is gone: neither the group nor the tree of parents holds it
FAMILY = (
    "import subprocess, time; subprocess.Popen(['sh', '-c', 'setsid sleep {0} & sleep {0} & exit']); time.sleep({1})"
)


def alive(mark: str) -> list[psutil.Process]:
    found = []
    for process in psutil.process_iter():
        try:
            if process.environ().get("SUPERVISE_TEST") == mark and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
        except psutil.Error:
            continue
    return found


def gone(mark: str, seconds: float = 10.0) -> bool:
    deadline = time.monotonic() + seconds
    while alive(mark):
        if time.monotonic() > deadline:
            return False
        time.sleep(0.05)
    return True


@pytest.fixture
def environment() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(ROOT), "SUPERVISE_TEST": uuid.uuid4().hex}


def start(environment: dict[str, str], *command: str) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, "-m", "monai_tl.supervise", "--grace", "0.5", "--", *command],
        env=environment,
        stdin=subprocess.PIPE,
        start_new_session=True,
    )


def wait_for(count: int, mark: str) -> None:
    deadline = time.monotonic() + 10
    while len(alive(mark)) < count:
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_the_status_is_the_commands(environment):
    for code in (0, 3):
        process = start(environment, sys.executable, "-c", f"raise SystemExit({code})")
        assert process.wait(10) == code
        process.stdin.close()
    process = start(environment, "sh", "-c", "kill -9 $$")
    assert process.wait(10) == 128 + signal.SIGKILL
    process.stdin.close()


def test_what_a_command_leaves_behind_ends_with_it(environment):
    process = start(environment, sys.executable, "-c", FAMILY.format(300, 0.5))
    assert process.wait(10) == 0
    process.stdin.close()
    assert alive(environment["SUPERVISE_TEST"]) == []


@pytest.mark.parametrize("how", ["end of file", signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_all_ends_when_told(environment, how):
    mark = environment["SUPERVISE_TEST"]
    process = start(environment, sys.executable, "-c", FAMILY.format(300, 300))
    wait_for(4, mark)
    process.stdin.close() if how == "end of file" else process.send_signal(how)
    process.wait(10)
    process.stdin.close()
    assert gone(mark, 0.5)


def test_a_command_that_ignores_the_request_is_killed(environment):
    code = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); time.sleep(300)"
    process = start(environment, sys.executable, "-c", code)
    wait_for(2, environment["SUPERVISE_TEST"])
    time.sleep(0.3)
    process.stdin.close()
    assert process.wait(10) == 128 + signal.SIGKILL


def test_a_caller_killed_for_certain_takes_all_along(environment):
    mark = environment["SUPERVISE_TEST"]
    code = (
        "import os, subprocess, time\nfrom pathlib import Path\nfrom monai_tl.supervise import supervised\n"
        "with supervised(['sh', '-c', 'sleep 300 & sleep 300'], cwd=Path('/'), env=dict(os.environ), stdout=-3):\n"
        "    time.sleep(300)\n"
    )
    caller = subprocess.Popen([sys.executable, "-c", code], env=environment)
    wait_for(5, mark)
    caller.kill()
    caller.wait()
    assert gone(mark)


def test_leaving_the_block_ends_it(environment, tmp_path):
    mark = environment["SUPERVISE_TEST"]
    with supervised(["sh", "-c", "sleep 300 & sleep 300"], cwd=tmp_path, env=environment, stdout=subprocess.DEVNULL):
        wait_for(4, mark)
    assert alive(mark) == []


def test_descendants_are_those_psutil_finds():
    with subprocess.Popen(["sh", "-c", "sleep 30 & sleep 30"]) as process:
        deadline = time.monotonic() + 10
        while len(psutil.Process(process.pid).children(recursive=True)) < 2:
            assert time.monotonic() < deadline
        # this process may have others, of earlier tests, that come to their end meanwhile
        started = psutil.Process(process.pid)
        assert set(descendants(process.pid)) == {child.pid for child in started.children(recursive=True)}
        assert {process.pid, *descendants(process.pid)} <= set(descendants(os.getpid()))
        for child in psutil.Process(process.pid).children():
            child.kill()
