"""A DICOM SEG as dcmqi reads it, voxel by voxel on the slices of its source."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest

from monai_tl.dicom.geometry import SliceGeometry


def dcmqi(path: Path, out: Path) -> tuple[dict[str, Any], list[nibabel.Nifti1Image], list[str]]:
    """What segimage2itkimage makes of a SEG: JSON, images (one where no segments overlap), complaints."""
    package = pytest.importorskip("dcmqi")
    program = Path(package.__file__).parent / "bin/segimage2itkimage"
    out.mkdir()
    done = subprocess.run(
        [program, "--inputDICOM", path, "--outputDirectory", out, "-t", "nii", "--mergeSegments"],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    said = [
        line
        for line in (done.stdout + done.stderr).splitlines()
        if line.startswith(("E:", "W:", "F:", "ERROR", "WARNING"))
    ]
    images = [nibabel.load(one) for one in sorted(out.glob("*.nii.gz"))]
    return json.loads((out / "meta.json").read_text()), images, said


def on_source(image: nibabel.Nifti1Image, geometry: SliceGeometry) -> np.ndarray:
    """An image of dcmqi on the slices of the source, each voxel by its place."""
    found = np.asarray(image.dataobj)
    to_source = np.linalg.inv(geometry.affine_lps) @ np.diag([-1.0, -1.0, 1.0, 1.0]) @ image.affine
    indices = np.argwhere(found)
    exact = indices @ to_source[:3, :3].T + to_source[:3, 3]
    column, row, k = np.rint(exact).astype(int).T
    # a NIfTI affine has single precision
    assert np.abs(exact - np.rint(exact)).max(initial=0.0) < 1e-2
    drawn = np.zeros((geometry.n_slices, geometry.rows, geometry.columns), np.uint8)
    drawn[k, row, column] = found[tuple(indices.T)]
    assert int((drawn > 0).sum()) == len(indices)
    return drawn
