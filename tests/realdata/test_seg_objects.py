"""DICOM SEG objects of dcmqi against their NRRD references: binary, overlapping, sparse labelmaps."""

from __future__ import annotations

import gzip
import os
import re
from pathlib import Path

import numpy as np
import pytest

from monai_tl.dicom.deidentify import Pseudonyms, seeded_key
from monai_tl.dicom.index import index_folder
from monai_tl.dicom.segmentation import Algorithm, read_segmentation, write_segmentation
from monai_tl.dicom.stacking import stack
from monai_tl.labels import ClassSpec, LabelScheme

pytestmark = pytest.mark.realdata

SHARED = Path(os.environ.get("MONAI_TL_SHARED", Path(__file__).parents[3] / "shared"))
ROOT = SHARED / "data/dicom/seg_objects"
HASHER = Pseudonyms(seeded_key(0))


@pytest.fixture(autouse=True)
def _needs_shared() -> None:
    if not ROOT.is_dir():
        pytest.skip(f"real data are absent: set MONAI_TL_SHARED to the folder that holds them ({ROOT} is not there)")


def read_nrrd(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """(K, rows, columns) int16 of a gzip NRRD in LPS, and the position of its first voxel, mm."""
    head, body = path.read_bytes().split(b"\n\n", 1)
    fields = dict(line.split(": ", 1) for line in head.decode().splitlines()[1:] if ": " in line)
    assert fields["encoding"] == "gzip"
    dtype = {"short": "<i2", "unsigned char": "u1", "uint8": "u1", "int16": "<i2", "unsigned short": "<u2"}[
        fields["type"]
    ]
    columns, rows, slices = (int(size) for size in fields["sizes"].split())
    origin = np.array([float(number) for number in re.findall(r"[-\d.e+]+", fields["space origin"])])
    return np.frombuffer(gzip.decompress(body), dtype=dtype).reshape(slices, rows, columns), origin


def geometry_of(folder: Path):
    (series,) = index_folder(folder, HASHER).series
    return stack(series.headers, 1)[1]


def scheme_of(*structures: str) -> LabelScheme:
    return LabelScheme(
        classes=tuple(ClassSpec(name=f"class{k}", structures=(text,)) for k, text in enumerate(structures))
    )


def on_slices(path: Path, geometry) -> np.ndarray:
    """A reference, which may cover fewer slices, on the slices of the image."""
    content, origin = read_nrrd(path)
    full = np.zeros((geometry.n_slices, geometry.rows, geometry.columns), dtype=np.uint8)
    first = int(np.argmin(np.linalg.norm(geometry.positions_lps - origin, axis=1)))
    assert np.linalg.norm(geometry.positions_lps[first] - origin) < 1e-2
    # slices left out hold the padding value in the reference, 5 in one of them
    full[first : first + len(content)] = content == 1
    return full


@pytest.mark.parametrize("name", ["24x38x3", "23x38x3"])
def test_binary_with_frames_that_do_not_fill_bytes(name):
    geometry = geometry_of(ROOT / name / "image")
    found, notes = read_segmentation(ROOT / name / "seg/label.seg", geometry, scheme_of("SRT|T-62000"))
    assert np.array_equal(found, on_slices(ROOT / name / "nrrd/label.nrrd", geometry))
    assert found.any()
    assert notes == ()


def test_binary_on_a_ct():
    geometry = geometry_of(ROOT / "ct-3slice")
    found, _ = read_segmentation(ROOT / "liver.dcm", geometry, scheme_of("liver"))
    assert np.array_equal(found, on_slices(ROOT / "liver_seg.nrrd", geometry))
    assert found.any()


@pytest.mark.parametrize("kind", ["ppv5", "noppv"])
def test_sparse_labelmap(kind):
    geometry = geometry_of(ROOT / "24x38x3/image")
    found, _ = read_segmentation(ROOT / f"sparse-labelmap-{kind}.dcm", geometry, scheme_of("SCT|10200004"))
    assert np.array_equal(found, on_slices(ROOT / f"sparse_labelmap_{kind}_seg.nrrd", geometry))
    assert found.any()


def test_overlapping_segments():
    """dcmqi splits overlapping segments over three references; together they hold each of the five segments."""
    geometry = geometry_of(ROOT / "ct-3slice")
    names = ("GREEN", "ORANGE", "PURPLE", "LIGHT_BLUE", "DARK_BLUE")
    masks = [read_segmentation(ROOT / "partial_overlaps.dcm", geometry, scheme_of(name))[0] > 0 for name in names]
    whole, notes = read_segmentation(ROOT / "partial_overlaps.dcm", geometry, scheme_of(*names))
    expected = np.max([mask * value for value, mask in enumerate(masks, start=1)], axis=0)
    assert np.array_equal(whole, expected)
    overlaps = sum(mask.astype(int) for mask in masks) > 1
    assert overlaps.any()
    assert "overlap" in notes[-1]
    references = []
    for number in (1, 2, 3):
        content, origin = read_nrrd(ROOT / f"partial_overlaps-{number}.nrrd")
        first = int(np.argmin(np.linalg.norm(geometry.positions_lps - origin, axis=1)))
        for value in np.unique(content[content > 0]):
            full = np.zeros(whole.shape, dtype=bool)
            full[first : first + len(content)] = content == value
            references.append(full)
    assert len(references) == len(names)
    for mask in masks:
        assert any(np.array_equal(mask, reference) for reference in references)


def test_round_trip_on_a_real_ct(tmp_path):
    geometry = geometry_of(ROOT / "ct-3slice")
    scheme = LabelScheme(classes=(ClassSpec(name="liver", type="SCT|10200004|Liver"),))
    labels = on_slices(ROOT / "liver_seg.nrrd", geometry)
    write_segmentation(
        tmp_path / "seg.dcm", labels, geometry, scheme, identity="source", pseudonym="", uid_key=HASHER.uid,
        algorithm=Algorithm("test", "1", "0" * 64),
    )  # fmt: skip
    found, _ = read_segmentation(tmp_path / "seg.dcm", geometry, scheme)
    assert np.array_equal(found, labels)
