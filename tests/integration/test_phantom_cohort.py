"""The demo cohort as DICOM: the same bytes, labels that read back exactly, the dirt found, canaries everywhere."""

from __future__ import annotations

import gzip
import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pydicom
import pytest
import yaml
from small_cohort import COARSE, N_A, N_B, SEED, tree_digest, write_small_cohort

from monai_tl.commands.phantom import CANARY, ROI_NAMES, canaries, run
from monai_tl.config import IngestConfig
from monai_tl.dataset.anatomy import IntegerDraws
from monai_tl.dataset.cohort import plan_studies
from monai_tl.dataset.manifest import read_manifest
from monai_tl.dataset.nifti import read_image
from monai_tl.dataset.phantom import render
from monai_tl.dicom.deidentify import Pseudonyms, seeded_key
from monai_tl.dicom.index import index_folder
from monai_tl.dicom.labelled_series import read_labelled_series
from monai_tl.dicom.rtstruct import read_rtstruct
from monai_tl.dicom.segmentation import read_segmentation
from monai_tl.dicom.stacking import stack
from monai_tl.errors import ConfigError
from monai_tl.geometry import spacing_of
from monai_tl.labels import ClassSpec, LabelScheme
from monai_tl.progress import Progress
from monai_tl.records import RejectionList
from monai_tl.stages.ingest import ingest

HASHER = Pseudonyms(seeded_key(0))
CLASSES = (
    ClassSpec(name="liver", structures=("Liver",)),
    ClassSpec(name="tumour", structures=("GTV", "SCT|108369006")),
)


def content_of(path: Path) -> bytes:
    content = path.read_bytes()
    return gzip.decompress(content) if path.suffix == ".gz" else content


@pytest.fixture(scope="module")
def cohort(tmp_path_factory):
    root = tmp_path_factory.mktemp("cohort")
    counts = write_small_cohort(root)
    assert counts == {"a": {"studies": 3, "seg": 2, "rtstruct": 1}, "b": {"studies": 5, "seg": 3, "rtstruct": 1}}
    return root


def test_same_bytes_in_another_process(cohort, tmp_path):
    root = Path(__file__).parents[2]
    environment = {
        **os.environ, "PYTHONPATH": str(root), "PYTHONHASHSEED": "11", "TZ": "Asia/Tokyo", "LC_ALL": "C",
        "MONAI_TL_JOBS": "1",
    }  # fmt: skip
    program = str(root / "tests/support/small_cohort.py")
    subprocess.run([sys.executable, program, str(tmp_path / "again")], check=True, env=environment, capture_output=True)
    assert tree_digest(tmp_path / "again") == tree_digest(cohort)


def test_another_seed_gives_other_bytes_and_an_old_cohort_is_replaced(tmp_path, capsys):
    text = run(tmp_path, seed=1, n_a=1, n_b=1, coarse=4)
    assert "hospital A: 1 studies, 1 with DICOM SEG, 0 with RTSTRUCT" in text
    assert "hospital B: 2 studies, 1 with DICOM SEG, 1 with RTSTRUCT" in text
    first = tree_digest(tmp_path)
    run(tmp_path, seed=2, n_a=1, n_b=1, coarse=4)
    assert tree_digest(tmp_path) != first
    run(tmp_path, seed=1, n_a=1, n_b=1, coarse=4)
    assert tree_digest(tmp_path) == first
    assert "Kanari" not in capsys.readouterr().out


def test_impossible_sizes_are_refused(tmp_path):
    with pytest.raises(ConfigError, match="at least 1"):
        run(tmp_path, n_a=0)


@pytest.mark.parametrize("name", ["a", "b"])
def test_labels_and_images_read_back_exactly(cohort, name):
    names = ROI_NAMES[name]
    scheme = LabelScheme(
        classes=tuple(
            ClassSpec(name=roi, structures=(roi, *(("SCT|108369006",) if roi == "GTV" else ()))) for roi in names
        )
    )
    found = {
        one.study_uid: one for one in index_folder(cohort / f"hospital_{name}", HASHER).series if len(one.headers) > 1
    }
    plans = [plan for plan in plan_studies(name, SEED, N_A if name == "a" else N_B, COARSE) if "gap" not in plan.dirt]
    checked = set()
    for plan in plans:
        draws = IntegerDraws(SEED, plan.hospital.number, 3, plan.index)
        image, masks = render(plan.anatomy, plan.scan, draws, tuple(names.values()))
        expected = np.zeros(image.shape, dtype=np.uint8)
        for value, part in enumerate(names.values(), start=1):
            expected[masks[part]] = value
        series = next(one for one in found.values() if f"study_{plan.index:02d}" in str(one.headers[0].path))
        _, geometry = stack(series.headers, 1)
        assert np.allclose(geometry.affine_lps, plan.scan.affine_lps, atol=1e-6)
        pixels = [pydicom.dcmread(path) for path in geometry.paths]
        values = np.stack(
            [one.pixel_array.astype(int) * int(one.RescaleSlope) + int(one.RescaleIntercept) for one in pixels]
        )
        assert np.array_equal(values, image)
        assert pixels[0].PatientPosition == plan.position
        if plan.label is None:
            assert series.labels == ()
            continue
        reader = {"rtstruct": read_rtstruct, "seg": read_segmentation}[plan.label]
        (label,) = series.labels
        slices, _ = reader(label.path, geometry, scheme)
        assert np.array_equal(slices, expected)
        checked.add((plan.label, plan.is_tilted))
    assert {kind for kind, _ in checked} == {"rtstruct", "seg"}
    assert True in {tilted for _, tilted in checked}


def test_ingest_takes_the_good_and_names_the_bad(cohort, tmp_path):
    config = IngestConfig(source=str(cohort), classes=CLASSES, min_slices=5)
    ingest(cohort / "hospital_b", tmp_path / "cases", config, seeded_key(0), tmp_path / "cache", Progress("ingest"))
    manifest = read_manifest(tmp_path / "cases")
    assert len(manifest.cases) == N_B
    assert sorted(case.has_label for case in manifest.cases) == [False, True, True, True]
    for case in manifest.cases:
        if case.has_label:
            voxel_ml = np.prod(spacing_of(np.asarray(case.affine))) / 1000
            assert 500 < case.class_voxels["liver"] * voxel_ml < 2400
            assert case.class_voxels["tumour"] > 0
        image, _ = read_image(manifest.image_path(case.case_id))
        assert image.min() >= -1100
    notes = [note for case in manifest.cases for note in case.provenance.notes]
    assert sum("tilt of 9.53 degrees" in note for note in notes) == 1
    assert sum("duplicate" in note for note in notes) == 1
    codes = [one.code for one in RejectionList.read(tmp_path / "cases/rejected.json").rejected]
    assert {"not_dicom", "missing_slice"} <= set(codes)
    assert len(codes) == len(set(codes)) == 4, codes  # and the localizer, and the label of the broken series
    leaked = [
        (canary, path.name)
        for path in sorted((tmp_path / "cases").rglob("*"))
        if path.is_file()
        for canary in canaries(SEED, N_A, N_B)
        if canary.encode() in content_of(path) or canary in str(path.relative_to(tmp_path))
    ]
    assert leaked == []


def test_canaries_are_everywhere_and_listed(cohort):
    listed = canaries(SEED, N_A, N_B)
    assert len(set(listed)) == len(listed) > 60
    everything = b"".join(path.read_bytes() for path in sorted(cohort.rglob("*")) if path.is_file())
    names = "\n".join(str(path.relative_to(cohort)) for path in cohort.rglob("*")).encode()
    for canary in listed:
        assert canary.encode() in everything + names, canary
    for path in (path for path in cohort.rglob("*.dcm")):
        dataset = pydicom.dcmread(path, stop_before_pixels=True)
        assert CANARY in str(dataset.PatientName)
        if dataset.Modality == "CT":
            # nested, private, and in the path
            assert "Kanari" in dataset.RequestAttributesSequence[0].ScheduledProcedureStepDescription
            assert CANARY in str(dataset.private_block(0x0029, "KANARI PRIVATE")[0x10].value)
            assert CANARY in str(path.relative_to(cohort))
    assert CANARY in next(cohort.rglob("*notes.txt")).read_text(encoding="utf-8")


def test_no_version_or_clock_is_in_the_files(cohort):
    for path in cohort.rglob("*.dcm"):
        dataset = pydicom.dcmread(path, stop_before_pixels=True)
        assert dataset.file_meta.ImplementationVersionName == "MONAI_TL"
        for keyword in ("ContentDate", "InstanceCreationDate", "StructureSetDate"):
            assert dataset.get(keyword, "20000101") == "20000101"
        assert dataset.get("SoftwareVersions", "1") == "1"
        dates = {element.value for element in dataset.iterall() if element.VR == "DA" and element.value}
        assert all(date == "20000101" or date[:4] in ("1903", "1987") for date in dates)


def test_position_only_outlines_exist(cohort, tmp_path):
    kinds = set()
    run(tmp_path, n_a=4, n_b=1, coarse=4)
    for path in (tmp_path / "hospital_a").rglob("RTSTRUCT.dcm"):
        contour = pydicom.dcmread(path).ROIContourSequence[1].ContourSequence[0]
        kinds.add("ContourImageSequence" in contour)
    assert kinds == {True, False}


def test_tilted_study_has_sheared_slices(cohort):
    index = index_folder(cohort / "hospital_b", HASHER)
    tilted = [one for one in index.series if len(one.headers) > 1 and "study_02" in str(one.headers[0].path)]
    scheme = LabelScheme(classes=CLASSES)
    found = read_labelled_series(tilted[0], scheme, 5)
    assert found.volume.shear is not None
    assert found.label is not None
    assert set(np.unique(found.label)) == {0, 1, 2}


@pytest.mark.pipeline
def test_the_committed_pin_is_the_demo_cohort(tmp_path):
    """DVC's hash of a folder, computed a second way: md5 of the sorted list of its files' names and md5s as JSON."""
    run(tmp_path / "data", seed=0)
    entries = [
        {"md5": hashlib.md5(path.read_bytes()).hexdigest(), "relpath": path.relative_to(tmp_path / "data").as_posix()}
        for path in (tmp_path / "data").rglob("*")
        if path.is_file()
    ]
    listed = json.dumps(sorted(entries, key=lambda entry: entry["relpath"]), sort_keys=True)
    (pin,) = yaml.safe_load((Path(__file__).parents[2] / "data.dvc").read_text())["outs"]
    assert pin["path"] == "data"
    assert pin["nfiles"] == len(entries)
    assert pin["size"] == sum(path.stat().st_size for path in (tmp_path / "data").rglob("*") if path.is_file())
    assert pin["md5"] == hashlib.md5(listed.encode()).hexdigest() + ".dir"
