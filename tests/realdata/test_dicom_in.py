"""Real DICOM: volumes, outlines, transfer syntaxes and geometry against references made by others."""

from __future__ import annotations

import os
from pathlib import Path

import nibabel
import numpy as np
import pydicom
import pytest

from monai_tl.config import IngestConfig
from monai_tl.dicom.deidentify import Pseudonyms, seeded_key
from monai_tl.dicom.header import read_header
from monai_tl.dicom.index import index_folder
from monai_tl.dicom.pixels import read_pixels
from monai_tl.dicom.rtstruct import read_rtstruct
from monai_tl.dicom.volume import labels_to_ras, labels_to_source, read_volume, to_ras
from monai_tl.errors import LabelError
from monai_tl.geometry import same_grid
from monai_tl.labels import ClassSpec, LabelScheme
from monai_tl.progress import Progress
from monai_tl.records import CaseRecord
from monai_tl.stages.ingest import ingest

SHARED = Path(os.environ.get("MONAI_TL_SHARED") or Path(__file__).parents[3] / "shared")
DICOM = SHARED / "data" / "dicom"
pytestmark = [
    pytest.mark.realdata,
    pytest.mark.skipif(not DICOM.is_dir(), reason="real data not found; set MONAI_TL_SHARED to the shared folder"),
]
HASHER = Pseudonyms(bytes(32))
TUMOUR = (ClassSpec(name="tumour", structures=("GTV-1", "ROI-1")),)


def series_of(name):
    return index_folder(DICOM / name, HASHER).series


def test_tumour_volumes_of_the_thorax(tmp_path):
    config = IngestConfig(source=".", classes=TUMOUR)
    summary = ingest(
        DICOM / "thorax_ct_rtstruct", tmp_path / "out", config, seeded_key(0), tmp_path / "cache", Progress("ingest")
    )
    records = [CaseRecord.read(tmp_path / "out" / case_id / "case.json") for case_id in summary.dataset.case_ids]
    volumes = sorted(record.class_voxels["tumour"] * np.prod(record.spacing_mm) / 1000 for record in records)
    assert volumes == pytest.approx([11.6, 358.7], rel=0.02)
    assert [one.code for one in summary.rejected] == ["not_dicom"]


def test_jpeg2000_ct_with_blank_identifiers_lies_under_its_labels():
    (series,) = series_of("abdomen_ct_j2k")
    array, affine = to_ras(read_volume(series, 5))
    labels = nibabel.as_closest_canonical(nibabel.load(DICOM / "abdomen_ct_j2k_labels.nii.gz"))
    assert same_grid(affine, array.shape, labels.affine, labels.shape, tolerance_mm=1e-3)
    organs = np.asanyarray(labels.dataobj)
    under = float(np.median(array[organs > 0]))
    flipped = float(np.median(array[:, ::-1][organs > 0]))
    assert 0 < under < 300
    assert flipped != pytest.approx(under, abs=10)


def test_oblique_mr_lies_where_its_headers_say():
    """Each slice's corner pixels by the standard's equation, from the raw files."""
    (series,) = series_of("brain_mr")
    volume = read_volume(series, 5)
    array, affine = to_ras(volume)
    to_voxel = np.linalg.inv(affine)
    rng = np.random.default_rng(0)
    for path in (DICOM / "brain_mr" / "t2_5mm").iterdir():
        ds = pydicom.dcmread(path)
        row, column = np.array(ds.ImageOrientationPatient[:3], float), np.array(ds.ImageOrientationPatient[3:], float)
        origin = np.array(ds.ImagePositionPatient, float)
        for r, c in [(0, 0), (511, 511), *rng.integers(0, 512, (20, 2))]:
            lps = origin + row * ds.PixelSpacing[1] * c + column * ds.PixelSpacing[0] * r
            exact = (to_voxel @ [*(lps * [-1, -1, 1]), 1])[:3]
            index = np.rint(exact).astype(int)
            assert np.abs(exact - index).max() < 0.02
            assert array[tuple(index)] == ds.pixel_array[r, c]


@pytest.mark.parametrize("number", range(1, 10))
def test_nine_transfer_syntaxes_give_the_decoded_reference(number):
    reference = np.asanyarray(nibabel.load(DICOM / "encodings_mr" / "reference_1.nii").dataobj)
    ((_, mosaic),) = read_pixels([read_header(DICOM / "encodings_mr" / f"{number}.dcm")])
    tiles = mosaic.reshape(6, 64, 6, 64).transpose(0, 2, 1, 3).reshape(36, 64, 64)[:35]
    assert np.array_equal(tiles.transpose(2, 1, 0)[:, ::-1], reference)


def test_hippocampus_series_read_whole():
    shapes = sorted(read_volume(one, 5).array.shape for one in series_of("hippocampus_mr"))
    assert shapes == [(35, 51, 32), (36, 48, 35)]


def test_structure_sets_of_other_images_are_refused():
    (series,) = series_of("rtstruct_small")
    geometry = read_volume(series, 2).geometry
    scheme = LabelScheme(classes=TUMOUR)
    label, notes = read_rtstruct(DICOM / "rtstruct_small" / "rt.dcm", geometry, scheme)
    assert label.any()
    assert any("instances were followed" in note for note in notes)
    for name in ("invalid_reference_rt.dcm", "non_existent_reference_rt.dcm"):
        with pytest.raises(LabelError) as caught:
            read_rtstruct(DICOM / "rtstruct_small" / name, geometry, scheme)
        assert caught.value.code == "missing_instance"


@pytest.mark.parametrize("name", ["hippocampus_mr", "brain_mr", "thorax_ct_rtstruct", "abdomen_ct_j2k"])
def test_label_maps_go_back_to_the_source_slices(name):
    for series in series_of(name):
        volume = read_volume(series, 5)
        geometry = volume.geometry
        shape = (geometry.n_slices, geometry.rows, geometry.columns)
        labels = np.random.default_rng(0).integers(0, 4, shape).astype(np.uint8)
        assert np.array_equal(labels_to_source(labels_to_ras(labels, volume), volume), labels)
