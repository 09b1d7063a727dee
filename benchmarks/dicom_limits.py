"""What no converter can do without: the limits of benchmarks/dicom.py, as turns of a worker."""

from __future__ import annotations

import mmap
import multiprocessing
import os
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from benchmarks.cohort import series_of

Turn = Callable[[], tuple[float, str]]
_BUFFER = 1 << 22
# what forked workers inherit
_streams: list[bytes] = []
_decode: list[Callable[[int], None]] = []


def prepare_bytes(source: Path, out: Path, pixel_bytes: int) -> Turn:
    """Read each byte of the files, write as many as the deflated volumes have; on all cores. No deflating."""
    series = list(series_of(source))
    packed = _deflate(series[0], pixel_bytes)

    def work(paths: list[Path], target: Path) -> None:
        buffer = bytearray(_BUFFER)
        for path in paths:
            _read_into(path, buffer)
        target.write_bytes(packed)

    return _over_series(work, series, out)


def prepare_deflated(source: Path, out: Path, pixel_bytes: int) -> Turn:
    """The same, and the pixels are deflated as they come; no header is looked at, no value changed."""
    from isal import isal_zlib

    series = list(series_of(source))

    def work(paths: list[Path], target: Path) -> None:
        buffer = bytearray(_BUFFER)
        view = memoryview(buffer)
        packer = isal_zlib.compressobj(level=1, wbits=31)
        with target.open("wb", buffering=0) as stream:
            for path in paths:
                n_read = _read_into(path, buffer)
                stream.write(packer.compress(view[n_read - pixel_bytes : n_read]))
            stream.write(packer.flush())

    return _over_series(work, series, out)


def prepare_decoded(source: Path, out: Path) -> Turn:
    """One compressed series: read, decode each slice with openjpeg on all cores, deflate in order, write."""
    import numpy as np
    import openjpeg
    from isal import isal_zlib

    paths = next(series_of(source))
    out.mkdir(parents=True, exist_ok=True)
    _streams[:] = _codestreams(paths)
    first = openjpeg.decode(_streams[0], 0)
    # anonymous, so forked workers share it and nothing is left behind
    memory = mmap.mmap(-1, first.nbytes * len(paths))
    volume: Any = np.frombuffer(memory, first.dtype).reshape(len(paths), *first.shape)

    def decode(index: int) -> None:
        volume[index] = openjpeg.decode(_streams[index], 0)

    _decode.append(decode)
    pool = multiprocessing.get_context("fork").Pool()

    def turn() -> tuple[float, str]:
        started = time.perf_counter()
        buffer = bytearray(_BUFFER)
        for path in paths:
            _read_into(path, buffer)
        packer = isal_zlib.compressobj(level=1, wbits=31)
        with (out / "limit.bin").open("wb", buffering=0) as stream:
            for index in pool.imap(_decode_one, range(len(paths))):
                stream.write(packer.compress(volume[index].reshape(-1).view(np.uint8)))
            stream.write(packer.flush())
        return time.perf_counter() - started, ""

    return turn


def _decode_one(index: int) -> int:
    _decode[0](index)
    return index


def _codestreams(paths: list[Path]) -> list[bytes]:
    from pydicom import dcmread
    from pydicom.encaps import generate_frames

    return [next(generate_frames(dcmread(path).PixelData, number_of_frames=1)) for path in paths]


def _deflate(paths: list[Path], pixel_bytes: int) -> bytes:
    from isal import isal_zlib

    packer = isal_zlib.compressobj(level=1, wbits=31)
    return b"".join([*(packer.compress(path.read_bytes()[-pixel_bytes:]) for path in paths), packer.flush()])


def _read_into(path: Path, buffer: bytearray) -> int:
    handle = os.open(path, os.O_RDONLY)
    try:
        return os.readv(handle, [buffer])
    finally:
        os.close(handle)


def _over_series(work: Callable[[list[Path], Path], None], series: list[list[Path]], out: Path) -> Turn:
    """Seconds a series. Threads: reading, writing and isal let go of the interpreter's lock."""
    out.mkdir(parents=True, exist_ok=True)

    def turn() -> tuple[float, str]:
        targets = [out / f"limit-{number}.bin" for number in range(len(series))]
        for target in targets:
            target.unlink(missing_ok=True)
        started = time.perf_counter()
        with ThreadPoolExecutor(len(os.sched_getaffinity(0))) as pool:
            list(pool.map(work, series, targets))
        seconds = (time.perf_counter() - started) / len(series)
        return seconds, f"{sum(target.stat().st_size for target in targets) / 1e6 / len(series):.1f} MB out a series"

    return turn
