"""Runs ``monai-tl convert`` on a folder and holds what came out against what has to."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
from series_kinds import Expected, Refusal
from world_fields import STEEPEST, field_ras, voxel_centres

from monai_tl.commands import convert
from monai_tl.dicom.deidentify import create_key
from monai_tl.errors import DataError

_NUMBER = re.compile(r"\d+(?:\.\d+)?")


@dataclass(frozen=True)
class Converted:
    """What one run left behind.

    Attributes:
        out: The folder.
        volumes, rejected: Entries of index.json and rejected.json.
        fault: The error it ended with, if any.
    """

    out: Path
    volumes: list[dict[str, Any]]
    rejected: list[dict[str, Any]]
    fault: DataError | None

    def image(self, entry: dict[str, Any]) -> Any:
        return nibabel.load(self.out / entry["file"])

    def values(self, entry: dict[str, Any]) -> np.ndarray:
        return np.asanyarray(self.image(entry).dataobj)

    def label(self, entry: dict[str, Any]) -> np.ndarray:
        return np.asanyarray(nibabel.load(self.out / entry["label_file"]).dataobj)

    @property
    def codes(self) -> list[str]:
        return sorted(one["code"] for one in self.rejected)


def run_convert(source: Path, out: Path, **options: Any) -> Converted:
    """Exit code 3 (DataError) has to mean that nothing was converted, and rejected.json is there either way."""
    key = out.parent / "pseudonym.key"
    if not key.exists():
        create_key(key, seed=0)
    fault = None
    try:
        convert.run(source, out, key_file=key, **options)
    except DataError as error:
        fault = error
    index = json.loads((out / "index.json").read_text()) if (out / "index.json").exists() else {"volumes": []}
    rejected = json.loads((out / "rejected.json").read_text())
    result = Converted(out, index["volumes"], rejected["rejected"], fault)
    assert (fault is None) == bool(result.volumes)
    assert fault is None or fault.exit_code == 3
    named = {entry[key] for entry in result.volumes for key in ("file", "label_file") if entry[key]}
    assert {path.name for path in out.glob("*.nii*")} == named
    assert "CANARY" not in json.dumps([index, rejected]) + str(fault)
    assert "1.2.3." not in json.dumps([index, rejected]) + str(fault)
    return result


def check_outcome(result: Converted, volumes: Sequence[Expected], refusals: Sequence[Refusal]) -> None:
    """Each expected volume and refusal is there once; what is left over is an error."""
    check_volumes(result, volumes, is_whole=not refusals)
    _check_refusals(result.rejected, refusals)
    assert result.volumes or result.rejected, "nothing may vanish"


def check_volumes(result: Converted, volumes: Sequence[Expected], *, is_whole: bool) -> None:
    """Each expected volume is there once, and no other; ``is_whole``: no other part of its series was refused."""
    told = [f"{one['code']}: {one['reason']}" for one in result.rejected]
    left = list(result.volumes)
    found = []
    for expected in volumes:
        fitting = [entry for entry in left if _misfit(result, entry, expected) is None]
        if expected.optional and not fitting:
            continue
        assert len(fitting) == 1, (expected, [_misfit(result, entry, expected) for entry in left], told)
        left.remove(fitting[0])
        found.append(fitting[0])
        check_volume(result, fitting[0], expected)
    assert not left, ([_misfit(result, entry, one) for entry in left for one in volumes], told)
    parts = [json.dumps(entry["part"], sort_keys=True) for entry in found]
    if len(volumes) == 1 and is_whole:
        assert parts == ["{}"]
    else:
        assert len(set(parts)) == len(parts), "what tells the volumes apart has to be said"


def _misfit(result: Converted, entry: dict[str, Any], expected: Expected) -> str | None:
    """Why a file does not hold the voxels of the expected volume, each at its place in the world."""
    image = result.image(entry)
    values = np.asanyarray(image.dataobj)
    if values.size != np.prod(expected.grid.shape):
        return f"{values.shape} voxels for {expected.grid.shape}"
    wanted = field_ras(voxel_centres(image.affine, values.shape), expected.part)
    off = float(np.abs(values - wanted).max())
    tolerance = 0.5 + STEEPEST * expected.tolerance_mm
    return None if off <= tolerance else f"values off by {off:.2f} for {tolerance:.2f}"


def check_volume(result: Converted, entry: dict[str, Any], expected: Expected) -> None:
    """Geometry and index of one orthogonal volume whose values were found right."""
    image, grid = result.image(entry), expected.grid
    affine, shape = image.affine, image.shape
    assert image.get_data_dtype() in (np.dtype(np.int16), np.dtype(np.float32))
    assert np.linalg.det(affine[:3, :3]) > 0
    assert nibabel.aff2axcodes(affine) == ("R", "A", "S")
    ends = np.array([[i, j, k] for i in (0, shape[0] - 1) for j in (0, shape[1] - 1) for k in (0, shape[2] - 1)])
    check_same_points(ends @ affine[:3, :3].T + affine[:3, 3], grid.corners_ras(), expected.tolerance_mm)
    check_forms(image)
    assert np.allclose(entry["affine"], affine, atol=1e-4)
    assert np.allclose(entry["spacing_mm"], np.linalg.norm(affine[:3, :3], axis=0), atol=1e-4)
    assert tuple(entry["spatial_shape"]) == shape
    native = np.asarray(entry["native_affine"], float)
    assert np.abs((native - grid.native_affine_ras)[:3, 3]).max() < expected.tolerance_mm
    assert np.abs((native - grid.native_affine_ras)[:3, :3] * [*reversed(grid.shape)]).max() < 2 * expected.tolerance_mm
    assert entry["n_slices"] == grid.shape[0]
    assert entry["n_files"] >= grid.shape[0]
    # orientations that are rounded differently leave a trace
    assert abs(entry["tilt_deg"]) < 0.01
    assert entry["modality"] in ("CT", "MR")
    assert entry["label_file"] is None
    if expected.note:
        assert any(expected.note in note for note in entry["notes"])
    if expected.tells is not None:
        key, text = expected.tells
        assert any(text in str(value) and key in (name, "") for name, value in entry["part"].items()), entry["part"]


def check_forms(image: Any) -> None:
    """Readers differ in which of NIfTI's two affines they take: both are there, and agree to a tenth of a mm.

    ITK and all that is built on it opens no file without a qform unless its sform is orthonormal to 1e-5 or so.
    """
    sform, code = image.get_sform(coded=True)
    assert code > 0
    qform, code = image.get_qform(coded=True)
    assert code > 0
    far = np.asarray(image.shape[:3]) - 1
    worst = np.abs((qform - sform)[:3, :3]) @ far + np.abs((qform - sform)[:3, 3])
    assert worst.max() < 0.1


def check_same_points(found: np.ndarray, wanted: np.ndarray, tolerance_mm: float) -> None:
    distance = np.linalg.norm(found[:, None] - wanted[None], axis=-1)
    assert distance.min(axis=0).max() < tolerance_mm
    assert distance.min(axis=1).max() < tolerance_mm


def _check_refusals(rejected: Sequence[dict[str, Any]], refusals: Sequence[Refusal]) -> None:
    left = list(rejected)
    for wanted in refusals:
        fitting = [one for one in left if one["code"] in wanted.codes and _says(one["reason"], wanted)]
        if wanted.optional and not fitting:
            continue
        assert fitting, (wanted, [(one["code"], one["reason"]) for one in left])
        left.remove(fitting[0])
    assert not left, [(one["code"], one["reason"]) for one in left]


def _says(reason: str, wanted: Refusal) -> bool:
    given = [float(text) for text in _NUMBER.findall(reason)]
    for number in wanted.numbers:
        choices = number if isinstance(number, tuple) else (number,)
        if not any(abs(one - choice) < 0.0051 for one in given for choice in choices):
            return False
    return wanted.word.casefold() in reason.casefold()
