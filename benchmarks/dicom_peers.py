"""Converters that are Python packages, as one process: ``python -m benchmarks.dicom_peers NAME SOURCE OUT N_SERIES``.

The last line printed holds the seconds of the conversions alone; the rest of the process is start-up and imports.
``stage SOURCE OUT KEY_FILE`` runs the ingest stage.
"""

from __future__ import annotations

import json
import logging
import sys
import time
import warnings
from collections.abc import Callable
from pathlib import Path

from benchmarks.cohort import series_of

Convert = Callable[[list[Path], Path], None]


def simpleitk() -> Convert:
    import SimpleITK

    def convert(paths: list[Path], target: Path) -> None:
        reader = SimpleITK.ImageSeriesReader()
        reader.SetFileNames(reader.GetGDCMSeriesFileNames(str(paths[0].parent)))
        SimpleITK.WriteImage(reader.Execute(), f"{target}.nii.gz", True)

    return convert


def dicom2nifti() -> Convert:
    from dicom2nifti.convert_dir import convert_directory

    def convert(paths: list[Path], target: Path) -> None:
        target.mkdir()
        convert_directory(str(paths[0].parent), str(target), compression=True, reorient=True)

    return convert


def monai() -> Convert:
    import numpy as np
    from monai.data import PydicomReader
    from monai.transforms import LoadImage, SaveImage

    load = LoadImage(reader=PydicomReader(), image_only=True, dtype=np.int16, ensure_channel_first=True)

    def convert(paths: list[Path], target: Path) -> None:
        target.mkdir()
        save = SaveImage(
            output_dir=target,
            output_ext=".nii.gz",
            output_dtype=np.int16,
            resample=False,
            separate_folder=False,
            print_log=False,
        )
        save(load(str(paths[0].parent)))

    return convert


def stage(source: Path, out: Path, key_file: Path) -> None:
    """The ingest stage on a folder, as the pipeline calls it."""
    from monai_tl.config import IngestConfig
    from monai_tl.dicom.deidentify import load_key
    from monai_tl.labels import ClassSpec
    from monai_tl.progress import Progress
    from monai_tl.stages.ingest import ingest

    config = IngestConfig(source="series", layout="dicom", classes=(ClassSpec(name="liver"),))
    ingest(source, out / "cases", config, load_key(key_file), out / "cache", Progress("ingest"))


_PEERS: dict[str, Callable[[], Convert]] = {"simpleitk": simpleitk, "dicom2nifti": dicom2nifti, "monai": monai}


def main(name: str, source: Path, out: Path, n_series: int) -> None:
    warnings.simplefilter("ignore")
    logging.disable(logging.WARNING)
    convert = _PEERS[name]()
    series = list(series_of(source))[:n_series]
    started = time.perf_counter()
    for number, paths in enumerate(series):
        convert(paths, out / f"{number:05d}")
    print(json.dumps({"work_s": time.perf_counter() - started}))


if __name__ == "__main__":
    name, source, out, last = sys.argv[1:]
    if name == "stage":
        stage(Path(source), Path(out), Path(last))
    else:
        main(name, Path(source), Path(out), int(last))
