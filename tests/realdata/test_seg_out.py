"""DICOM SEG on real series: exact places and voxels, and nothing that a validator objects to."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pydicom
import pytest
from seg_readers import dcmqi, on_source
from seg_series import write
from seg_sources import frames_of, geometries_of
from seg_validation import dciodvfy_lines, table_faults

pytestmark = pytest.mark.realdata

ROOT = Path(os.environ.get("MONAI_TL_SHARED", Path(__file__).parents[3] / "shared")) / "data/dicom"
FOLDERS = ("brain_mr", "abdomen_ct_j2k", "thorax_ct_rtstruct", "hippocampus_mr", "seg_objects/ct-3slice")


@pytest.fixture(params=FOLDERS)
def geometry(request):
    if not ROOT.is_dir():
        pytest.skip(f"real data are absent: set MONAI_TL_SHARED to the folder that holds them ({ROOT} is not there)")
    return geometries_of(ROOT / request.param)[0]


@pytest.fixture
def written(tmp_path, geometry):
    k, r, c = np.indices((geometry.n_slices, geometry.rows, geometry.columns), sparse=True)
    labels = ((k + r // 7 + c // 9) % 4).astype(np.uint8)
    labels[geometry.n_slices // 2] = 0
    return write(tmp_path / "seg.dcm", labels, geometry, "source", read_back=True), labels


def test_frames_lie_where_their_slices_lie(geometry, written):
    path, labels = written
    slots = {uid: k for k, uid in enumerate(geometry.sop_instance_uids)}
    drawn = np.zeros_like(labels)
    for frame in frames_of(path):
        k = slots[frame.source[1]]
        drawn[k][frame.mask] = frame.segment
        source = pydicom.dcmread(geometry.paths[k], specific_tags=["SOPInstanceUID", "ImagePositionPatient"])
        # one anonymiser blanked it in the data set alone
        assert (source.SOPInstanceUID or source.file_meta.MediaStorageSOPInstanceUID) == frame.source[1]
        assert [float(text) for text in frame.position] == [float(value) for value in source.ImagePositionPatient]
    assert np.array_equal(drawn, labels)


def test_validators_find_no_error(written):
    assert table_faults(written[0]) == []
    # a name without ^ is the source's own
    lines = [line for line in dciodvfy_lines(written[0]) if "Retired Person Name form" not in line]
    assert [line for line in lines if "would be needed to build DICOMDIR" not in line] == []


def test_dcmqi_reads_the_same(tmp_path, geometry, written):
    path, labels = written
    _, (image,), said = dcmqi(path, tmp_path / "dcmqi")
    assert said == []
    assert np.array_equal(on_source(image, geometry), labels)
