"""Other people's programs find no error in a DICOM SEG, and read from it what was written."""

from __future__ import annotations

import dataclasses
import shutil
import subprocess
from pathlib import Path

import highdicom
import numpy as np
import pydicom
import pytest
from pydicom.sr._concepts_dict import concepts
from pydicom.sr.codedict import codes
from seg_readers import dcmqi, on_source
from seg_series import AFFINES, ALGORITHM, IDENTITY, SCHEME, make_series, random_labels, write
from seg_sources import geometries_of, write_multiframe
from seg_validation import dciodvfy_lines, table_faults

from monai_tl.dicom.segmentation import read_segmentation, write_segmentation
from monai_tl.labels import ClassSpec, LabelScheme

TURN = np.array([[0.48, -0.8, 0.36], [0.64, 0.6, 0.48], [-0.6, 0.0, 0.8]])
"""Columns are the directions of columns, rows and slices."""
OBLIQUE = np.eye(4)
OBLIQUE[:3, :3], OBLIQUE[:3, 3] = TURN * [0.8, 0.7, 2.5], [11.5, -7.25, 3]
SMALL_TILT = np.array([[0.8, 0, 0, -3], [0, 0.7, 0.21875, 4], [0, 0, 2.5, -10], [0, 0, 0, 1.0]])
"""5 degrees: a third of a row from slice to slice."""
KINDS = {**AFFINES, "oblique": OBLIQUE.tolist(), "tilted a little": SMALL_TILT.tolist()}
SINGLE = LabelScheme(classes=SCHEME.classes[:1])


@pytest.fixture(autouse=True)
def _kinds(monkeypatch):
    monkeypatch.setattr("seg_series.AFFINES", KINDS)


def some(*values: int) -> np.ndarray:
    labels = random_labels()
    return np.where(np.isin(labels, values), labels, 0).astype(np.uint8)


def write_case(folder: Path, case: str, identity: str = "source"):
    """(file, labels, geometry) of one of CASES."""
    if case == "multi-frame":
        write_multiframe(folder / "source/object.dcm")
        geometry = geometries_of(folder / "source")[1]
        labels = np.indices((geometry.n_slices, geometry.rows, geometry.columns)).sum(axis=0).astype(np.uint8) % 4
    else:
        geometry = make_series(folder, case if case in KINDS else "head first")
        chosen = {"single class": (1,), "empty class": (1, 3), "nothing": ()}.get(case, (1, 2, 3))
        labels = some(*chosen)
        if case == "one slice":
            geometry = dataclasses.replace(
                geometry,
                sop_instance_uids=geometry.sop_instance_uids[2:3],
                positions_lps=geometry.positions_lps[2:3],
                paths=geometry.paths[2:3],
            )
            labels = labels[2:3]
    options = {"algorithm": None} if case == "by hand" else {}
    path = write(folder / "seg.dcm", labels, geometry, identity, **options)
    return path, labels, geometry


CASES = [*KINDS, "single class", "empty class", "nothing", "one slice", "by hand", "multi-frame"]


@pytest.mark.parametrize("identity", ["pseudonymous", "source"])
@pytest.mark.parametrize("case", CASES)
def test_the_tables_of_the_standard_find_no_fault(tmp_path, case, identity):
    path, labels, geometry = write_case(tmp_path, case, identity)
    assert table_faults(path) == []
    assert np.array_equal(read_segmentation(path, geometry, SCHEME)[0], labels)


@pytest.mark.parametrize(
    ("spoil", "fault"),
    [
        (lambda d: delattr(d.SegmentSequence[1], "SegmentLabel"), "SegmentSequence.SegmentLabel is of type 1"),
        (lambda d: setattr(d, "ContentLabel", ""), "ContentLabel is of type 1"),
        (lambda d: delattr(d, "StudyID"), "StudyID is of type 2"),
        (lambda d: setattr(d, "KVP", "120"), "KVP is of no module"),
        (lambda d: delattr(d.PerFrameFunctionalGroupsSequence[0], "PlanePositionSequence"), "frame 1: PlanePosition"),
    ],
)
def test_the_tables_find_what_is_wrong(tmp_path, spoil, fault):
    path, _, _ = write_case(tmp_path, "head first")
    dataset = pydicom.dcmread(path)
    spoil(dataset)
    dataset.save_as(path)
    assert any(fault in one for one in table_faults(path))


BLANK = "would be needed to build DICOMDIR"
"""A pseudonymous object has no date, time and identifier of the study."""
PSEUDONYM = "Retired Person Name form"
"""A pseudonym has no ^ between family and given name; a name of one part is a name still."""


@pytest.mark.parametrize("identity", ["pseudonymous", "source"])
@pytest.mark.parametrize("case", CASES)
def test_dciodvfy_finds_no_error(tmp_path, case, identity):
    path, _, _ = write_case(tmp_path, case, identity)
    lines = dciodvfy_lines(path)
    allowed = (BLANK, PSEUDONYM) if identity == "pseudonymous" else ()
    assert [line for line in lines if not (line.startswith("Warning") and any(one in line for one in allowed))] == []


def test_dciodvfy_sees_what_is_wrong(tmp_path):
    path, _, _ = write_case(tmp_path, "head first")
    dataset = pydicom.dcmread(path)
    del dataset.SegmentSequence[0].SegmentLabel
    dataset.save_as(path)
    assert any(line.startswith("Error") and "SegmentLabel" in line for line in dciodvfy_lines(path))


def test_dcentvfy_finds_the_seg_and_its_source_of_one_patient_and_study(tmp_path):
    """dicom3tools: attributes of patient and study must be the same in all their objects."""
    program = shutil.which("dcentvfy")
    if program is None:
        pytest.skip("dcentvfy is not installed (Debian: apt-get install dicom3tools)")
    geometry = make_series(tmp_path, OtherPatientIDsSequence=[], PatientComments="", SeriesNumber="2")
    path = write(tmp_path / "seg.dcm", random_labels(), geometry, "source")
    files = [str(one) for one in (*geometry.paths, path)]
    done = subprocess.run([program, *files], capture_output=True, text=True, errors="replace", check=False)
    assert [line for line in (done.stdout + done.stderr).splitlines() if "Error" in line] == []
    other = pydicom.dcmread(path)
    other.PatientBirthDate = "19030406"
    other.save_as(path)
    done = subprocess.run([program, *files], capture_output=True, text=True, errors="replace", check=False)
    assert "Error" in done.stdout + done.stderr


@pytest.mark.parametrize("case", [case for case in CASES if case not in ("nothing", "one slice")])
def test_highdicom_reads_the_volume_where_it_lies(tmp_path, case):
    path, labels, geometry = write_case(tmp_path, case)
    seg = highdicom.seg.segread(path)
    assert seg.segmentation_type.value == "BINARY"
    assert seg.number_of_segments == len(SCHEME.classes)
    pixels = seg.get_stored_frames()
    assert pixels.shape[1:] == labels.shape[1:]
    if case.startswith("tilted"):
        # its volumes have no shear; it says so and does not guess
        with pytest.raises(RuntimeError, match=r"regular|volume"):
            seg.get_volume(combine_segments=True, allow_missing_positions=True)
        return
    volume = seg.get_volume(combine_segments=True, allow_missing_positions=True)
    drawn = np.zeros_like(labels)
    axes = np.linalg.inv(geometry.affine_lps)
    for index in np.argwhere(volume.array):
        # (slice, row, column) of its own order → mm → column, row, slice of the source
        world = volume.affine @ [*index, 1.0]
        exact = (axes @ world)[:3]
        column, row, k = np.rint(exact).astype(int)
        assert np.abs(exact - [column, row, k]).max() < 1e-6
        drawn[k, row, column] = volume.array[tuple(index)]
    assert np.array_equal(drawn, labels)


@pytest.mark.parametrize("case", [case for case in CASES if not case.startswith("tilted")])
def test_dcmqi_reads_what_was_written(tmp_path, case):
    path, labels, geometry = write_case(tmp_path, case)
    _, (image,), said = dcmqi(path, tmp_path / "dcmqi")
    assert said == []
    assert np.array_equal(on_source(image, geometry), labels)


def test_dcmqi_reads_the_slices_of_a_tilted_series(tmp_path):
    """It knows no shear: frames go into a straight stack, each slice's pixels right; where none falls out of it."""
    path, labels, geometry = write_case(tmp_path, "tilted a little")
    _, (image,), said = dcmqi(path, tmp_path / "dcmqi")
    assert said == []
    found = np.asarray(image.dataobj).transpose(2, 1, 0)
    used = [k for k in range(geometry.n_slices) if labels[k].any()]
    assert np.array_equal(found, labels[used[0] : used[-1] + 1])
    assert image.header.get_zooms()[2] == pytest.approx(geometry.spacing_between_slices_mm, abs=1e-5)


def test_dcmqi_reads_codes_and_algorithm(tmp_path):
    path, _, _ = write_case(tmp_path, "head first")
    meta, _, _ = dcmqi(path, tmp_path / "dcmqi")
    segments = [one for group in meta["segmentAttributes"] for one in group]
    assert [one["SegmentLabel"] for one in segments] == list(SCHEME.names)
    for segment, spec in zip(segments, SCHEME.classes, strict=True):
        parts = {"Category": spec.category, "Type": spec.type}
        found = {name: segment[f"SegmentedProperty{name}CodeSequence"] for name in parts}
        if spec.anatomic_region is not None:
            parts["Region"] = spec.anatomic_region
            found["Region"] = segment["AnatomicRegionSequence"]
        for name, text in parts.items():
            code = found[name]
            assert f"{code['CodingSchemeDesignator']}|{code['CodeValue']}|{code['CodeMeaning']}" == text
        assert ("AnatomicRegionSequence" in segment) == (spec.anatomic_region is not None)
        assert segment["SegmentAlgorithmType"] == "AUTOMATIC"
        assert segment["SegmentAlgorithmName"] == ALGORITHM.name
    assert meta["SeriesDescription"] == "monai_tl segmentation"


def test_the_algorithm_is_identified_with_its_weights(tmp_path):
    path, _, _ = write_case(tmp_path, "empty class", "pseudonymous")
    seg = highdicom.seg.segread(path)
    for number in seg.segment_numbers:
        found = seg.get_segment_description(number).algorithm_identification
        assert found.family == codes.DCM.ArtificialIntelligence
        assert (found.name, found.version) == (ALGORITHM.name, ALGORITHM.version)
        assert found.parameters == {"model_sha256": ALGORITHM.model_sha256}


def test_every_code_in_the_object_is_one_of_the_standard(tmp_path):
    """Value and meaning as in pydicom's dictionary of PS3.16."""
    path, _, _ = write_case(tmp_path, "head first")
    found = set()

    def collect(dataset: pydicom.Dataset) -> None:
        if "CodeMeaning" in dataset:
            found.add((dataset.CodingSchemeDesignator, dataset.CodeValue, dataset.CodeMeaning.casefold()))
        for element in dataset:
            if element.VR == "SQ":
                for item in element.value:
                    collect(item)

    collect(pydicom.dcmread(path))
    known = {
        (scheme, code, meaning.casefold())
        for scheme in ("SCT", "DCM")
        for words in concepts[scheme].values()
        for code, (meaning, _) in words.items()
    }
    assert len(found) == 8
    assert found <= known


def test_a_label_by_hand_names_no_algorithm(tmp_path):
    path, _, _ = write_case(tmp_path, "by hand")
    for segment in pydicom.dcmread(path).SegmentSequence:
        assert segment.SegmentAlgorithmType == "MANUAL"
        assert "SegmentAlgorithmName" not in segment
        assert "SegmentationAlgorithmIdentificationSequence" not in segment


def test_a_pacs_finds_patient_study_and_image(tmp_path):
    """A query goes by these; the series is the SEG's own."""
    path, _, geometry = write_case(tmp_path, "oblique")
    dataset, source = pydicom.dcmread(path), pydicom.dcmread(geometry.paths[0])
    for keyword in ("PatientID", "PatientName", "PatientBirthDate", "PatientSex", "StudyInstanceUID", "StudyDate",
                    "StudyTime", "StudyID", "AccessionNumber", "FrameOfReferenceUID"):  # fmt: skip
        assert dataset[keyword].value == source[keyword].value, keyword
    assert dataset.PatientID == IDENTITY["PatientID"]
    assert dataset.SeriesInstanceUID != source.SeriesInstanceUID
    assert dataset.Modality == "SEG"
    assert dataset.file_meta.MediaStorageSOPInstanceUID == dataset.SOPInstanceUID
    (series,) = dataset.ReferencedSeriesSequence
    assert series.SeriesInstanceUID == source.SeriesInstanceUID
    assert len(series.ReferencedInstanceSequence) == geometry.n_slices


def test_a_class_says_where_it_lies_only_when_its_type_does_not(tmp_path):
    path, _, _ = write_case(tmp_path, "head first")
    regions = [segment.get("AnatomicRegionSequence") for segment in pydicom.dcmread(path).SegmentSequence]
    assert [region is not None for region in regions] == [False, True, False]


def test_a_long_code_has_its_own_attribute(tmp_path):
    """SNOMED's extensions have up to 18 digits, CodeValue 16 characters."""
    scheme = LabelScheme(classes=(ClassSpec(name="x", type="SCT|999000011000001104|A long one"),))
    geometry = make_series(tmp_path)
    write_segmentation(
        tmp_path / "seg.dcm", some(1), geometry, scheme,
        identity="source", pseudonym="", uid_key=str, algorithm=None, read_back=True,
    )  # fmt: skip
    code = pydicom.dcmread(tmp_path / "seg.dcm").SegmentSequence[0].SegmentedPropertyTypeCodeSequence[0]
    assert code.LongCodeValue == "999000011000001104"
    assert "CodeValue" not in code
