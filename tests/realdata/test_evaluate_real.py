"""Evaluation of real label files: MR labels against themselves changed in known ways, and SEG of other programs."""

from __future__ import annotations

import csv
import json
import os
from pathlib import Path

import nibabel
import numpy as np
import pytest

from monai_tl.commands.evaluate import run
from monai_tl.dicom.segmentation_alone import is_segmentation

pytestmark = pytest.mark.realdata
SHARED = Path(os.environ.get("MONAI_TL_SHARED", "/nowhere")) / "data"


def dice_of(out: Path) -> dict[tuple[str, str], float]:
    with (out / "cases.csv").open(encoding="utf-8") as stream:
        return {(row["case"], row["class"]): float(row["dice"]) for row in csv.DictReader(stream) if row["dice"]}


def test_hippocampus_with_the_classes_of_one_voxel_in_five_swapped(tmp_path: Path) -> None:
    paths = sorted((SHARED / "hippocampus").glob("labels/*.nii.gz"))[:6]
    if not paths:
        pytest.skip("no hippocampus labels below MONAI_TL_SHARED")
    expected = {}
    for folder in ("r", "p"):
        (tmp_path / folder).mkdir()
    for index, path in enumerate(paths):
        image = nibabel.load(path)
        label = np.asarray(image.dataobj).astype(np.uint8)
        changed = np.where(np.random.default_rng(index).random(label.shape) < 0.2, (3 - label) * (label > 0), label)
        nibabel.save(nibabel.Nifti1Image(label, image.affine, image.header), tmp_path / f"r/{path.name}")
        nibabel.save(
            nibabel.Nifti1Image(changed.astype(np.uint8), image.affine, image.header), tmp_path / f"p/{path.name}"
        )
        for value in (1, 2):
            first, second = label == value, changed == value
            expected[path.name.removesuffix(".nii.gz"), f"value {value}"] = (
                2 * (first & second).sum() / (first.sum() + second.sum())
            )
    run(tmp_path / "p", tmp_path / "r", tmp_path / "out")
    assert dice_of(tmp_path / "out") == pytest.approx(expected, abs=1e-6)
    assert json.loads((tmp_path / "out/metrics.json").read_text(encoding="utf-8"))["n_cases"] == len(paths)


def test_seg_of_another_program_against_itself_is_perfect(tmp_path: Path) -> None:
    found = [path for path in sorted((SHARED / "dicom/seg_objects").rglob("*.dcm")) if is_segmentation(path)]
    if not found:
        pytest.skip("no SEG objects below MONAI_TL_SHARED")
    for index, path in enumerate(found):
        for folder in ("r", "p"):
            (tmp_path / f"{index}/{folder}").mkdir(parents=True)
            (tmp_path / f"{index}/{folder}/seg.dcm").write_bytes(path.read_bytes())
        run(tmp_path / f"{index}/p", tmp_path / f"{index}/r", tmp_path / f"{index}/out")
        scores = dice_of(tmp_path / f"{index}/out")
        assert scores
        assert set(scores.values()) == {1.0}
