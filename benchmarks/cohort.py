"""Cohorts of CT series as DICOM: a few rendered phantoms, and cheap variants of them under identifiers of their own."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

# six digits of every UID of a template are overwritten with the number of the variant, so lengths stay as they are
_UID = re.compile(rb"(?<=2\.25\.)[1-9][0-9]{5}(?=[0-9]{20})")
_OFFSET = 3


def make_cohort(
    folder: Path, n_series: int, n_slices: int, size: int, n_parts: int, n_templates: int
) -> Callable[[], float]:
    """Of a ``benchmarks.common.Worker``: write ``folder/part-P/series-N/IM*.dcm``.

    Each series differs from the others in identifiers, in the direction of its rows and columns' content and in a small
    offset of its values; each of ``n_templates`` is a phantom with noise of its own.
    """

    def turn() -> float:
        templates = [folder / f".template-{seed}" for seed in range(n_templates)]
        for seed, template in enumerate(templates):
            write_phantom(template, n_slices, size, seed)
        for number in range(n_series):
            target = folder / f"part-{number % n_parts}" / f"series-{number:05d}"
            write_variant(templates[number % n_templates], target, number, size)
        for template in templates:
            for path in template.iterdir():
                path.unlink()
            template.rmdir()
        return 0.0

    return turn


def make_cohorts(folders: Mapping[int, Path], n_slices: int, size: int) -> Callable[[], float]:
    """Of a worker: cohorts of several numbers of series, each in one part and of one template."""

    def turn() -> float:
        for n_series, folder in folders.items():
            make_cohort(folder, n_series, n_slices, size, 1, 1)()
        return 0.0

    return turn


def write_phantom(folder: Path, n_slices: int, size: int, seed: int) -> None:
    """Write a CT series: rendered at a quarter of the resolution, interpolated, with fresh noise in each voxel."""
    from scipy import ndimage

    from monai_tl.dataset.anatomy import IntegerDraws, build_anatomy
    from monai_tl.dataset.phantom import Scan, render
    from monai_tl.dicom.write import SeriesInfo, derive_uid, write_series

    def affine_of(n: int) -> Any:
        step = np.array([360.0 / n, 360.0 / n, 172.0 / n_slices])
        affine = np.diag([*step, 1.0])
        affine[:3, 3] = -step * (np.array([n, n, n_slices]) - 1) / 2
        return affine

    coarse = size // 4
    scan = Scan(coarse, coarse, n_slices, affine_of(coarse), "soft", 0, 0)
    image, _ = render(build_anatomy(IntegerDraws(0, 1, 1, seed), 1), scan, IntegerDraws(0, 1, 3, seed))
    fine = ndimage.zoom(image.astype(np.float32), (1, 4, 4), order=1)
    fine += np.random.default_rng(seed).normal(0.0, 14.0, fine.shape).astype(np.float32)
    info = SeriesInfo(
        modality="CT",
        study_uid=derive_uid("benchmark", "study", str(seed)),
        series_uid=derive_uid("benchmark", "series", str(seed)),
        frame_of_reference_uid=derive_uid("benchmark", "frame", str(seed)),
        attributes={
            "PatientID": "benchmark-000000",
            "PatientPosition": "HFS",
            "SeriesNumber": "1",
            "KVP": "120",
            "Manufacturer": "phantom",
        },
    )
    write_series(folder, np.clip(np.rint(fine), -1024, 3000), affine_of(size), info, intercept=-1024.0)


def write_variant(template: Path, target: Path, number: int, size: int) -> None:
    """Copy a series as that of another patient."""
    target.mkdir(parents=True)
    digits = str(100_000 + number).encode()
    flips = (slice(None, None, 1 - 2 * (number >> 1 & 1)), slice(None, None, 1 - 2 * (number >> 2 & 1)))
    n_pixel_bytes = 2 * size * size
    for path in sorted(template.iterdir()):
        content = path.read_bytes()
        head = _UID.sub(digits, content[:-n_pixel_bytes]).replace(b"benchmark-000000", b"benchmark-%06d" % number)
        pixels = np.frombuffer(content, dtype="<u2", offset=len(head)).reshape(size, size)[flips]
        (target / path.name).write_bytes(head + (pixels + np.uint16(_OFFSET * (number % 16))).tobytes())


def make_packed(source: Path, folder: Path) -> Callable[[], float]:
    """Of a worker: the first series of a cohort as JPEG 2000 lossless, on all cores."""

    def turn() -> float:
        import multiprocessing

        folder.mkdir(parents=True)
        paths = next(series_of(source))
        with multiprocessing.get_context("fork").Pool() as pool:
            pool.starmap(_pack, [(path, folder / path.name) for path in paths])
        return 0.0

    return turn


def _pack(path: Path, target: Path) -> None:
    from pydicom import dcmread
    from pydicom.uid import JPEG2000Lossless

    dataset = dcmread(path)
    dataset.compress(JPEG2000Lossless, encoding_plugin="pylibjpeg", generate_instance_uid=False)
    dataset.save_as(target)


def series_of(source: Path) -> Iterator[list[Path]]:
    """The files of each folder that holds files, in order of path."""
    folders = sorted({path.parent for path in source.rglob("*") if path.is_file()})
    for folder in folders:
        yield sorted(path for path in folder.iterdir() if path.is_file())
