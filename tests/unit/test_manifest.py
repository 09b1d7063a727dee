"""The manifest refuses cases that are not of one piece, and lists every fault."""

from __future__ import annotations

import shutil

import pytest
from ingested import write_cases

from monai_tl.dataset.manifest import read_manifest
from monai_tl.errors import DataError
from monai_tl.records import CaseRecord


def test_cases_are_read_in_order(tmp_path):
    ids = write_cases(tmp_path, 3, unlabelled=(1,))
    manifest = read_manifest(tmp_path / "artifacts/cases")
    assert [case.case_id for case in manifest.cases] == ids
    assert [case.has_label for case in manifest.cases] == [True, False, True]
    assert manifest.select((ids[2], ids[0]))[0].case_id == ids[2]
    with pytest.raises(DataError, match="not among the 3"):
        manifest.case("case-none")


def test_every_fault_is_listed(tmp_path):
    ids = write_cases(tmp_path, 5)
    folder = tmp_path / "artifacts/cases"
    shutil.rmtree(folder / ids[0])
    (folder / ids[1] / "image.nii.gz").unlink()
    (folder / ids[2] / "label.nii.gz").unlink()
    record = CaseRecord.read(folder / ids[3] / "case.json")
    record.model_copy(update={"modality": "MR", "class_voxels": {"spleen": 1}}).write(folder / ids[3] / "case.json")
    (folder / "case-stray").mkdir()
    with pytest.raises(DataError) as caught:
        read_manifest(folder)
    message = str(caught.value)
    for expected in (
        "listed, but has no folder",
        "image.nii.gz is missing",
        "disagree",
        "is MR",
        "spleen",
        "case-stray",
    ):
        assert expected in message
    assert ids[4] not in message


def test_a_missing_data_set_names_the_stage_to_run(tmp_path):
    with pytest.raises(DataError, match="run the stage"):
        read_manifest(tmp_path)
