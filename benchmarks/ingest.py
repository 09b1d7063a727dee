"""A DICOM series to a volume in a .nii.gz: the ingest stage's reading path against converters and the limit."""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.common import SHARED, Contestant, Worker, contestant, table, take_turns, verdict

TITLE = "Ingest: a DICOM series to .nii.gz"
PACKAGES = ("pydicom", "numpy", "isal", "pylibjpeg-openjpeg", "dcm2niix", "SimpleITK", "dicom2nifti", "python-gdcm")
_KEY = b"key of the benchmark, no secret." * 2
Turn = Callable[[], tuple[float, str]]


def run(quick: bool) -> list[str]:
    # not above: its imports would count in the memory of every contestant
    from benchmarks.cases import make_series

    blocks = [
        "One series, its files in the page cache, to one gzipped NIfTI. Limit: read every byte of the files, decode "
        "each slice of a compressed series with the library we use, deflate the volume with isal at level 1 as we do, "
        "write the file. The first row of ours is what the converters do as well: sort the files, check that they are "
        "one volume, read, turn to RAS+, write. The second is the whole stage for the same series: hashes of the "
        "input, pseudonyms, case cache (a second copy of the output), record. Ours alone wait for the disk (fsync). "
        "Peak memory includes the interpreter and imports."
    ]
    with tempfile.TemporaryDirectory(prefix="monai_tl_bench_") as name:
        root = Path(name)
        n_slices, size = (32, 256) if quick else (128, 512)
        maker = Worker(make_series, root / "ct", n_slices, size)
        maker.turn()
        maker.close()
        blocks.append(f"### CT phantom, {n_slices} slices of {size} × {size}, 16 bits, uncompressed")
        blocks += compete(root / "ct", root / "raw", 2 if quick else 7, is_packed=False)
        packed = SHARED / "data/dicom/abdomen_ct_j2k"
        n_packed = len(list(packed.iterdir())) if packed.is_dir() else 0
        blocks.append(f"### CT, JPEG 2000 lossless, {n_packed} slices of 512 × 512")
        if n_packed:
            blocks += compete(packed, root / "packed", 2 if quick else 7, is_packed=True)
        else:
            blocks.append("Not measured: the folder of real images (MONAI_TL_SHARED, else ../shared) is absent.")
    return blocks


def compete(series: Path, root: Path, n_rounds: int, is_packed: bool) -> list[str]:
    def enter(name: str, role: Any, prepare: Any, *more: Any, needs: str = "") -> Contestant:
        out = root / f"{len(contestants)}"
        out.mkdir(parents=True)
        return contestant(name, role, prepare, series, out, *more, needs=needs)

    contestants: list[Contestant] = []
    contestants.append(enter("limit", "limit", prepare_limit, is_packed))
    contestants.append(enter("monai_tl", "ours", prepare_ours))
    contestants.append(enter("monai_tl, the whole stage", "other", prepare_stage))
    contestants.append(enter("dcm2niix, gzip 1", "peer", prepare_dcm2niix, 1, needs="dcm2niix"))
    contestants.append(enter("dcm2niix, gzip 6 (its default)", "peer", prepare_dcm2niix, 6, needs="dcm2niix"))
    contestants.append(enter("SimpleITK", "peer", prepare_simpleitk, needs="SimpleITK"))
    contestants.append(enter("dicom2nifti", "peer", prepare_dicom2nifti, needs="dicom2nifti"))
    times = take_turns(contestants, n_rounds, budget_s=30.0 if is_packed else 90.0)
    return [table(contestants, times), verdict(contestants, times), compare(root)]


def compare(root: Path) -> str:
    """Whether all wrote the same image: the mean of its values and its number of voxels."""
    import nibabel
    import numpy as np

    found = {}
    for path in sorted(root.rglob("*.nii.gz")):
        image = nibabel.load(path)
        found[path] = (int(np.prod(image.shape)), float(np.asarray(image.dataobj, dtype=np.float64).mean()))
    n_kinds = len({(n_voxels, round(mean, 2)) for n_voxels, mean in found.values()})
    same = "the same number of voxels and mean value in all" if n_kinds == 1 else f"**they differ**: {found.values()}"
    return f"Files written: {len(found)}; {same}."


def prepare_limit(series: Path, out: Path, is_packed: bool) -> Turn:
    from isal import isal_zlib

    image, _ = _read(series)
    content = image.tobytes(order="F")
    paths = sorted(series.iterdir())
    streams = _streams(paths) if is_packed else []

    def turn() -> tuple[float, str]:
        started = time.perf_counter()
        for path in paths:
            path.read_bytes()
        if streams:
            import openjpeg

            for stream in streams:
                openjpeg.decode(stream, 0)
        packer = isal_zlib.compressobj(level=1, wbits=31)
        (out / "image.nii.gz").write_bytes(packer.compress(content) + packer.flush())
        return time.perf_counter() - started, _size_out(out)

    def turn_and_remove() -> tuple[float, str]:
        answer = turn()
        (out / "image.nii.gz").unlink()  # no header, so no image to compare
        return answer

    return turn_and_remove


def _streams(paths: list[Path]) -> list[bytes]:
    from pydicom import dcmread
    from pydicom.encaps import generate_frames

    return [next(generate_frames(dcmread(path).PixelData, number_of_frames=1)) for path in paths]


def _hide_gdcm() -> None:
    # it comes with a peer, and pydicom would decode with it in place of the decoders this project installs
    sys.modules["gdcm"] = None  # type: ignore[assignment]


def _read(series: Path) -> tuple[Any, Any]:
    _hide_gdcm()
    from monai_tl.dicom.deidentify import Pseudonyms
    from monai_tl.dicom.index import index_folder
    from monai_tl.dicom.volume import read_volume, to_ras

    index = index_folder(series, Pseudonyms(_KEY))
    return to_ras(read_volume(index.series[0]))


def prepare_ours(series: Path, out: Path) -> Turn:
    from monai_tl.dataset.nifti import write_image

    def work() -> None:
        write_image(out / "image.nii.gz", *_read(series))

    return _timed(work, out)


def prepare_stage(series: Path, out: Path) -> Turn:
    _hide_gdcm()
    from monai_tl.config import IngestConfig
    from monai_tl.labels import ClassSpec
    from monai_tl.progress import Progress
    from monai_tl.stages.ingest import ingest

    class Silent(Progress):
        def show(self, note: str = "") -> None:
            return

    config = IngestConfig(source="series", layout="dicom", classes=(ClassSpec(name="liver"),))

    def work() -> None:
        ingest(series, out / "cases", config, _KEY, out / "cache", Silent("ingest"))

    return _timed(work, out)


def prepare_dcm2niix(series: Path, out: Path, level: int) -> Turn:
    import dcm2niix

    command = [
        str(dcm2niix.bin),
        f"-{level}",
        "-z",
        "i",
        "-b",
        "n",
        "-v",
        "0",
        "-f",
        "image",
        "-o",
        str(out),
        str(series),
    ]
    peaks = [0]

    def work() -> None:
        _, status, usage = os.wait4(os.posix_spawn(command[0], command, os.environ, file_actions=silence), 0)
        peaks[0] = usage.ru_maxrss
        if status != 0:
            raise RuntimeError(f"dcm2niix ended with {os.waitstatus_to_exitcode(status)}")

    silence = [(os.POSIX_SPAWN_OPEN, 1, os.devnull, os.O_WRONLY, 0)]
    return _timed(work, out, lambda: peaks[0])


def prepare_simpleitk(series: Path, out: Path) -> Turn:
    import SimpleITK

    def work() -> None:
        reader = SimpleITK.ImageSeriesReader()
        reader.SetFileNames(reader.GetGDCMSeriesFileNames(str(series)))
        SimpleITK.WriteImage(reader.Execute(), str(out / "image.nii.gz"), True)

    return _timed(work, out)


def prepare_dicom2nifti(series: Path, out: Path) -> Turn:
    import logging

    from dicom2nifti import convert_dicom

    logging.disable(logging.WARNING)

    def work() -> None:
        convert_dicom.dicom_series_to_nifti(str(series), str(out / "image.nii.gz"), reorient_nifti=True)

    return _timed(work, out)


def _timed(work: Callable[[], None], out: Path, peak_kb: Callable[[], int] | None = None) -> Turn:
    def turn() -> tuple[float, str]:
        shutil.rmtree(out)
        out.mkdir()
        started = time.perf_counter()
        work()
        seconds = time.perf_counter() - started
        peak = (peak_kb or _peak_kb)()
        return seconds, f"{_size_out(out)}, {peak / 1024:.0f} MiB peak"

    return turn


def _size_out(out: Path) -> str:
    return f"{sum(path.stat().st_size for path in out.rglob('*.nii.gz')) / 1e6:.1f} MB out"


def _peak_kb() -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next((int(line.split()[1]) for line in lines if line.startswith("VmHWM")), 0)
