"""DICOM SEG out and in: exact, true in its references, silent about the patient, the same bytes every time."""

import hashlib
import subprocess
import sys
from pathlib import Path

import highdicom
import numpy as np
import pydicom
import pytest
from seg_series import AFFINES, ALGORITHM, HASHER, IDENTITY, SCHEME, SHAPE, make_series, random_labels, write

from monai_tl.dicom.deidentify import Pseudonyms, seeded_key
from monai_tl.dicom.segmentation import Algorithm, read_segmentation, write_segmentation
from monai_tl.dicom.write import SeriesInfo, derive_uid, write_series
from monai_tl.errors import DicomError, GeometryError, LabelError

ASCII = {"StudyDescription": "abdomen", "ReferringPhysicianName": "Canary^Doctor"}


@pytest.mark.parametrize("kind", AFFINES)
@pytest.mark.parametrize("identity", ["pseudonymous", "source"])
def test_labels_come_back(tmp_path, kind, identity):
    reference = make_series(tmp_path, kind)
    labels = random_labels()
    path = write(tmp_path / "seg.dcm", labels, reference, identity)
    found, notes = read_segmentation(path, reference, SCHEME)
    assert np.array_equal(found, labels)
    assert notes == ()
    # highdicom's own reader, by source instance
    seg = highdicom.seg.segread(path)
    pixels = seg.get_pixels_by_source_instance(
        list(reference.sop_instance_uids), combine_segments=True, assert_missing_frames_are_empty=True
    )
    assert np.array_equal(pixels, labels)


def test_tilted_frames_lie_where_their_slices_lie(tmp_path):
    reference = make_series(tmp_path, "tilted")
    dataset = pydicom.dcmread(write(tmp_path / "seg.dcm", random_labels(), reference))
    by_uid = dict(zip(reference.sop_instance_uids, reference.positions_lps, strict=True))
    for frame in dataset.PerFrameFunctionalGroupsSequence:
        source = frame.DerivationImageSequence[0].SourceImageSequence[0].ReferencedSOPInstanceUID
        position = [float(value) for value in frame.PlanePositionSequence[0].ImagePositionPatient]
        assert np.allclose(position, by_uid[source], atol=1e-6)


def test_an_empty_label_map_is_a_result(tmp_path):
    reference = make_series(tmp_path)
    path = write(tmp_path / "seg.dcm", np.zeros(SHAPE, dtype=np.uint8), reference)
    found, _ = read_segmentation(path, reference, SCHEME)
    assert not found.any()
    assert [item.SegmentLabel for item in pydicom.dcmread(path).SegmentSequence] == ["liver", "tumour", "vessel"]


def test_pseudonymous_object_says_nothing_about_the_patient(tmp_path):
    reference = make_series(tmp_path)
    path = write(tmp_path / "seg.dcm", random_labels(), reference)
    content = path.read_bytes().lower()
    for canary in (b"canary", b"4711", b"19030405", b"19870607", b"080910", "ämilie".encode()):
        assert canary not in content
    dataset = pydicom.dcmread(path)
    assert dataset.PatientID == dataset.PatientName == "case-0123456789ab"
    assert dataset.PatientIdentityRemoved == "YES"
    for keyword in (
        "PatientBirthDate",
        "PatientSex",
        "AccessionNumber",
        "StudyDate",
        "ReferringPhysicianName",
        "StudyID",
    ):
        assert not dataset.get(keyword)


@pytest.mark.parametrize("charset", ["ISO_IR 192", "ISO_IR 100"])
def test_object_for_the_pacs_keeps_patient_and_study(tmp_path, charset):
    reference = make_series(tmp_path, SpecificCharacterSet=charset)
    dataset = pydicom.dcmread(write(tmp_path / "seg.dcm", random_labels(), reference, "source"))
    for keyword in ("PatientName", "PatientID", "PatientBirthDate", "PatientSex", "AccessionNumber", "StudyDate",
                    "StudyTime", "StudyID", "StudyDescription", "ReferringPhysicianName"):  # fmt: skip
        assert str(dataset[keyword].value) == IDENTITY[keyword]
    assert "PatientIdentityRemoved" not in dataset
    # only what a SEG must say of patient and study; nothing of institution, comments, nested identifiers
    content = (tmp_path / "seg.dcm").read_bytes()
    for canary in (b"Clinic", b"comment", b"OTHER", b"kernel"):
        assert canary not in content


def test_a_name_in_several_scripts_is_kept(tmp_path):
    """The source has escape sequences, the SEG is UTF-8."""
    name = "Yamada^Tarou=山田^太郎=やまだ^たろう"
    reference = make_series(tmp_path, SpecificCharacterSet=["", "ISO 2022 IR 87"], PatientName=name, **ASCII)
    assert name.encode() not in reference.paths[0].read_bytes()
    path = write(tmp_path / "seg.dcm", random_labels(), reference, "source")
    assert str(pydicom.dcmread(path).PatientName) == name
    assert name.encode() in path.read_bytes()


def test_references_and_codes(tmp_path):
    reference = make_series(tmp_path)
    dataset = pydicom.dcmread(write(tmp_path / "seg.dcm", random_labels(), reference))
    assert dataset.StudyInstanceUID == reference.study_instance_uid
    assert dataset.FrameOfReferenceUID == reference.frame_of_reference_uid
    (series,) = dataset.ReferencedSeriesSequence
    assert series.SeriesInstanceUID == reference.series_instance_uid
    named = [item.ReferencedSOPInstanceUID for item in series.ReferencedInstanceSequence]
    assert named == list(reference.sop_instance_uids)
    tumour = dataset.SegmentSequence[1]
    assert tumour.SegmentedPropertyTypeCodeSequence[0].CodeValue == "108369006"
    assert tumour.SegmentedPropertyCategoryCodeSequence[0].CodeValue == "49755003"
    assert tumour.AnatomicRegionSequence[0].CodeValue == "10200004"
    assert tumour.SegmentAlgorithmType == "AUTOMATIC"
    algorithm = tumour.SegmentationAlgorithmIdentificationSequence[0]
    assert algorithm.AlgorithmVersion == "1.2"
    assert ALGORITHM.model_sha256 in str(algorithm.AlgorithmParameters)


def test_uids_depend_on_key_series_model_and_content(tmp_path):
    reference, other = make_series(tmp_path), make_series(tmp_path, name="other")
    base = pydicom.dcmread(write(tmp_path / "a.dcm", random_labels(), reference))
    changed = {
        "content": write(tmp_path / "b.dcm", random_labels(seed=1), reference),
        "series": write(tmp_path / "c.dcm", random_labels(), other),
        "model": write(
            tmp_path / "d.dcm", random_labels(), reference, algorithm=Algorithm("a network", "1.2", "cd" * 32)
        ),
        "key": write(tmp_path / "e.dcm", random_labels(), reference, uid_key=Pseudonyms(seeded_key(1)).uid),
    }
    for what, path in changed.items():
        dataset = pydicom.dcmread(path)
        assert dataset.SOPInstanceUID != base.SOPInstanceUID
        assert (dataset.SeriesInstanceUID == base.SeriesInstanceUID) == (what == "content")


def test_objects_that_say_something_else_of_the_patient_or_themselves_have_their_own_uids(tmp_path):
    """A PACS keeps the first of two objects of one SOPInstanceUID, whichever patient it names."""
    reference = make_series(tmp_path)
    written = {
        "pseudonymous": {},
        "another pseudonym": {"pseudonym": "case-ba9876543210"},
        "source": {"identity": "source"},
        "description": {"series_description": "second reading"},
        "number": {"series_number": 77},
        "by hand": {"algorithm": None},
    }
    found = []
    for name, options in written.items():
        dataset = pydicom.dcmread(write(tmp_path / f"{name}.dcm", random_labels(), reference, **options))
        found.append(
            (
                dataset.SOPInstanceUID,
                dataset.SeriesInstanceUID,
                dataset.DimensionOrganizationSequence[0]["DimensionOrganizationUID"].value,
            )
        )
    for column in zip(*found, strict=True):
        assert len(set(column)) == len(written)


INVALID = {
    "PatientBirthDate": "KanariBirth-12",
    "StudyDate": "19870230",
    "StudyTime": "25:61",
    "PatientSex": "female, Kanari",
    "PatientID": "Kanari" * 12,
    "AccessionNumber": "Kanari-12345678901",
    "PatientName": "Kanari" * 12,
    "StudyID": ["Kanari", "Otto"],
}


def spoil(reference, keyword, value):
    """A value that no writer lets through, put into the first slice as bytes."""
    dataset = pydicom.dcmread(reference.paths[0])
    text = "\\".join(value) if isinstance(value, list) else value
    with pydicom.config.disable_value_validation():
        dataset[keyword] = pydicom.dataelem.DataElement(keyword, dataset[keyword].VR, value)
        dataset.save_as(reference.paths[0])
    assert text.encode() in reference.paths[0].read_bytes()


@pytest.mark.parametrize("keyword", INVALID)
def test_an_invalid_attribute_is_left_blank_and_costs_nothing_else(tmp_path, keyword, capfd, recwarn):
    reference = make_series(tmp_path)
    spoil(reference, keyword, INVALID[keyword])
    labels = random_labels()
    settings = {"pseudonym": "x", "uid_key": HASHER.uid, "algorithm": ALGORITHM}
    path = tmp_path / "seg.dcm"
    assert write_segmentation(path, labels, reference, SCHEME, identity="source", **settings) == (keyword,)
    dataset = pydicom.dcmread(path)
    assert not dataset[keyword].value
    for other in ("PatientID", "PatientName", "PatientBirthDate", "AccessionNumber"):
        assert other == keyword or str(dataset[other].value) == IDENTITY[other]
    assert np.array_equal(read_segmentation(path, reference, SCHEME)[0], labels)
    captured = capfd.readouterr()
    assert "Kanari" not in captured.out + captured.err + "".join(str(one.message) for one in recwarn)


def test_what_no_object_can_be_made_of_is_a_clear_error_without_the_value(tmp_path, monkeypatch):
    reference = make_series(tmp_path)

    def choke(*_):
        raise ValueError("Unable to convert 'Kanari' to 'DA' object")

    monkeypatch.setattr("monai_tl.dicom.segmentation.fill", choke)
    with pytest.raises(DicomError, match="no SEG can be made of the source's attributes") as caught:
        write(tmp_path / "seg.dcm", random_labels(), reference, "source")
    assert "Kanari" not in str(caught.value)
    assert caught.value.__cause__ is None
    assert not (tmp_path / "seg.dcm").exists()


def test_same_bytes_in_another_process_at_another_time(tmp_path):
    reference = make_series(tmp_path)
    path = write(tmp_path / "seg.dcm", random_labels(), reference)
    again = write(tmp_path / "again.dcm", random_labels(), reference)
    assert path.read_bytes() == again.read_bytes()
    root = Path(__file__).parents[2]
    environment = {"PYTHONPATH": str(root), "PYTHONHASHSEED": "7", "TZ": "Asia/Tokyo", "PATH": ""}
    subprocess.run(
        [sys.executable, str(root / "tests/support/seg_series.py"), str(tmp_path)], check=True, env=environment
    )
    digests = {hashlib.sha256(one.read_bytes()).hexdigest() for one in (path, tmp_path / "far.dcm")}
    assert len(digests) == 1


def test_labels_that_do_not_fit_are_refused(tmp_path):
    reference = make_series(tmp_path)
    with pytest.raises(LabelError, match="do not lie on a series"):
        write(tmp_path / "seg.dcm", np.zeros((5, 7, 9), dtype=np.uint8), reference)
    with pytest.raises(LabelError, match="value 4"):
        write(tmp_path / "seg.dcm", np.full(SHAPE, 4, dtype=np.uint8), reference)
    assert not (tmp_path / "seg.dcm").exists()


def test_series_that_dicom_cannot_hold_are_refused(tmp_path):
    info = SeriesInfo("CT", derive_uid("study"), derive_uid("x"), derive_uid("frame"))
    image = np.zeros(SHAPE, dtype=np.int32)
    with pytest.raises(GeometryError, match="against the normal"):
        write_series(tmp_path, image, np.diag([1.0, 1.0, -1.0, 1.0]), info)
    skewed = np.eye(4)
    skewed[0, 1] = 0.5
    with pytest.raises(GeometryError, match="right angles"):
        write_series(tmp_path, image, skewed, info)
    with pytest.raises(GeometryError, match="larger slope"):
        write_series(tmp_path, image + 70_000, np.eye(4), info)


def test_rescaled_values_come_back(tmp_path):
    info = SeriesInfo("MR", derive_uid("study"), derive_uid("mr"), derive_uid("frame"))
    image = np.linspace(0, 1e6, int(np.prod(SHAPE))).reshape(SHAPE)
    geometry = write_series(tmp_path, image, np.eye(4), info, slope=16.0)
    dataset = pydicom.dcmread(geometry.paths[5])
    assert dataset.SOPClassUID.name == "MR Image Storage"
    values = dataset.pixel_array * float(dataset.RescaleSlope) + float(dataset.RescaleIntercept)
    assert np.abs(values - image[5]).max() <= 8.0
