"""Conversions in processes of their own, imports paid once: a process forks itself for each job and watches the child.

Each child has no special rights (a closed file is closed to root as well), its own output files, and is killed where
it takes more time or memory than a job may. As a program: one job a line on stdin, as JSON; one answer a line.
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
import io
import json
import os
import select
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from dataclasses import dataclass
from pathlib import Path
from typing import Any

LIMIT_SECONDS = 60.0
KILL_BYTES = 2 << 30
"""The limit that is tested is lower; this one protects the machine."""


@dataclass(frozen=True)
class Finished:
    """How a job ended.

    Attributes:
        exit_code: Negative: the signal that ended it.
        peak_bytes: Largest resident memory, of the fork server's own included.
    """

    exit_code: int
    seconds: float
    peak_bytes: int
    stdout: str
    stderr: str


class ConversionServer:
    """Starts with the first job and ends with ``close``."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[str] | None = None

    def run(self, arguments: list[str], sandbox: Path, call: str = "command") -> Finished:
        """Run ``monai-tl`` with arguments, or a function ``module:name`` of the support code with them.

        Args:
            arguments: All text.
            sandbox: Holds ``cwd``, ``home`` and ``tmp``, which are the child's.
            call: ``command``, or the function.
        """
        if self._process is None:
            path = os.pathsep.join(entry for entry in sys.path if entry)
            environment = {**os.environ, "PYTHONPATH": path, "MONAI_TL_EXECUTOR": "sequential"}
            self._process = subprocess.Popen(
                [sys.executable, __file__], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
            )
        assert self._process.stdin
        assert self._process.stdout
        job = {"arguments": arguments, "sandbox": os.fspath(sandbox), "call": call}
        self._process.stdin.write(json.dumps(job) + "\n")
        self._process.stdin.flush()
        answer = json.loads(self._process.stdout.readline())
        logs = sandbox / "logs"
        texts = [(logs / name).read_text("utf-8", "surrogateescape") for name in ("stdout", "stderr")]
        return Finished(answer["exit_code"], answer["seconds"], answer["peak_bytes"], *texts)

    def close(self) -> None:
        if self._process is not None:
            assert self._process.stdin
            self._process.stdin.close()
            self._process.wait(30)


def _warm_up() -> None:
    """Convert once here, so that no child has to import anything."""
    import ingested_folder  # noqa: F401
    import numpy as np
    from dicom_bytes import file_bytes, new_series, rtstruct, save, write_series

    import monai_tl.cli  # noqa: F401
    from monai_tl.commands import convert
    from monai_tl.dicom.deidentify import create_key

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        series = new_series(np.random.default_rng(0))
        write_series(folder / "in", series.slices)
        save(folder / "in" / "label.dcm", file_bytes(rtstruct(series)))
        create_key(folder / "key", seed=0)
        (folder / "labels.yaml").write_text("classes: [{name: GTV}]")
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            convert.run(folder / "in", folder / "out", labels=folder / "labels.yaml", key_file=folder / "key")


def _serve() -> None:
    _warm_up()
    # else a child's collector touches, and so copies, all pages of what is imported
    gc.collect()
    gc.freeze()
    for line in sys.stdin:
        job = json.loads(line)
        begin = time.monotonic()
        child = os.fork()
        if child == 0:
            _work(job)
        exit_code, peak = _watch(child, begin)
        answer = {"exit_code": exit_code, "seconds": time.monotonic() - begin, "peak_bytes": peak}
        print(json.dumps(answer), flush=True)


def _watch(child: int, begin: float) -> tuple[int, int]:
    handle = os.pidfd_open(child)
    try:
        while not select.select([handle], [], [], 0.02)[0]:
            resident = int(Path(f"/proc/{child}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
            if resident > KILL_BYTES or time.monotonic() - begin > LIMIT_SECONDS + 5:
                os.kill(child, signal.SIGKILL)
    finally:
        os.close(handle)
    _, status, usage = os.wait4(child, 0)
    return os.waitstatus_to_exitcode(status), usage.ru_maxrss * 1024


def _work(job: dict[str, Any]) -> None:
    sandbox = Path(job["sandbox"])
    code = 70
    try:
        for number, name in ((1, "stdout"), (2, "stderr")):
            os.dup2(os.open(sandbox / "logs" / name, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), number)
        os.dup2(os.open("/dev/null", os.O_RDONLY), 0)
        os.chdir(sandbox / "cwd")
        os.environ.update(HOME=str(sandbox / "home"), TMPDIR=str(sandbox / "tmp"))
        _drop_rights()
        code = _call(job["call"], job["arguments"])
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def _call(call: str, arguments: list[str]) -> int:
    if call != "command":
        import importlib

        module, _, name = call.partition(":")
        getattr(importlib.import_module(module), name)(*arguments)
        return 0
    from monai_tl import cli

    sys.argv = ["monai-tl", *arguments]
    try:
        cli.main()
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else int(end.code is not None)
    return 0


def _drop_rights() -> None:
    """Give up all capabilities: root opens closed files by one of them (CAP_DAC_OVERRIDE)."""
    header = (ctypes.c_uint32 * 2)(0x20080522, 0)
    if ctypes.CDLL(None, use_errno=True).capset(header, (ctypes.c_uint32 * 6)()) != 0:
        raise OSError(ctypes.get_errno(), "capset")


if __name__ == "__main__":
    _serve()
