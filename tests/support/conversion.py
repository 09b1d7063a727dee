"""The convert command run on a folder, and its files compared with what was written, in world space."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

import nibabel
import numpy as np
from transfer_syntaxes import Place

from monai_tl.commands import convert, key
from monai_tl.errors import DataError


@dataclass(frozen=True)
class Conversion:
    """What came out.

    Attributes:
        volumes: Entries of index.json; empty when nothing was converted.
        rejected: Entries of rejected.json.
    """

    out: Path
    volumes: list[dict[str, Any]]
    rejected: list[dict[str, Any]]

    @property
    def volume(self) -> dict[str, Any]:
        """The only one; nothing was refused."""
        assert self.rejected == []
        (only,) = self.volumes
        return only

    @property
    def refusal(self) -> dict[str, Any]:
        """The only one, where nothing was converted."""
        assert self.volumes == []
        (only,) = self.rejected
        return only

    def image(self, entry: dict[str, Any] | None = None) -> nibabel.Nifti1Image:
        return nibabel.load(self.out / (entry or self.volume)["file"])

    def label(self, entry: dict[str, Any] | None = None) -> nibabel.Nifti1Image:
        return nibabel.load(self.out / (entry or self.volume)["label_file"])


def convert_folder(source: Path, tmp_path: Path, **options: Any) -> Conversion:
    """Run the command; no worker processes, as they take longer to start than a tiny series takes."""
    key_file = tmp_path / "pseudonym.key"
    key.run(key_file, seed=0)
    out = tmp_path / "converted"
    with mock.patch.dict(os.environ, {"MONAI_TL_JOBS": "1"}):
        try:
            convert.run(source, out, key_file=key_file, **options)
            converted = True
        except DataError:
            converted = False
    rejected = json.loads((out / "rejected.json").read_text())["rejected"]
    index = out / "index.json"
    volumes = json.loads(index.read_text())["volumes"] if index.exists() else []
    assert converted == bool(volumes)
    written = sorted(path.name for path in out.glob("*.nii.gz"))
    assert written == sorted(entry[name] for entry in volumes for name in ("file", "label_file") if entry[name])
    return Conversion(out, volumes, rejected)


def write_map(path: Path, *names: str, **structures: list[str]) -> Path:
    """A file for ``--labels``: classes that are called as their structure, and those that have other structures."""
    classes: list[dict[str, Any]] = [{"name": name} for name in names]
    classes += [{"name": name, "structures": listed} for name, listed in structures.items()]
    path.write_text(json.dumps({"classes": classes}))
    return path


def world_values(image: nibabel.Nifti1Image, place: Place, rows: int, columns: int) -> np.ndarray:
    """(K, rows, columns) values found where the slices' pixels lie; the image holds nothing else.

    Raises:
        AssertionError: A pixel lies off the grid, or the grid has other voxels too.
    """
    content = np.asanyarray(image.dataobj)
    assert image.dataobj.slope == 1.0
    assert image.dataobj.inter == 0.0
    centres = place.centres_ras(rows, columns)
    exact = nibabel.affines.apply_affine(np.linalg.inv(image.affine), centres)
    index = np.rint(exact).astype(int)
    assert np.abs(exact - index).max() < 0.01
    assert index.min() >= 0
    assert (index.reshape(-1, 3).max(axis=0) < content.shape).all()
    assert content.size == np.prod(centres.shape[:-1])
    return content[tuple(np.moveaxis(index, -1, 0))]


def assert_holds(
    image: nibabel.Nifti1Image, place: Place, expected: np.ndarray, tolerance: float = 0.0, relative: float = 0.0
) -> None:
    """Each pixel written is found at its place in the world with its value."""
    assert image.get_data_dtype() in (np.int16, np.float32)
    found = world_values(image, place, *expected.shape[1:])
    np.testing.assert_allclose(found.astype(np.float64), expected, atol=tolerance, rtol=relative)


def holds(image: nibabel.Nifti1Image, place: Place, expected: np.ndarray, relative: float = 0.0) -> bool:
    """Whether ``assert_holds`` passes."""
    try:
        assert_holds(image, place, expected, relative=relative)
    except AssertionError:
        return False
    return True


def assert_volumes(found: Conversion, expected: list[tuple[Place, np.ndarray]], relative: float = 0.0) -> list[int]:
    """The files are the expected volumes, each once, and what tells them apart differs.

    Returns:
        For each entry of the index the number of the volume it is.
    """
    assert found.rejected == []
    assert len(found.volumes) == len(expected)
    images = [found.image(entry) for entry in found.volumes]
    numbers = []
    for image in images:
        hits = [n for n, (place, values) in enumerate(expected) if holds(image, place, values, relative)]
        assert len(hits) == 1, f"a file is {len(hits)} of the {len(expected)} volumes written"
        numbers += hits
    assert sorted(numbers) == list(range(len(expected)))
    for name in ("case_id", "file"):
        assert len({entry[name] for entry in found.volumes}) == len(expected)
    return numbers
