"""The ingest stage from files to files: cases, rejections, the cache, and that nothing tells who the patient is."""

from __future__ import annotations

import errno
import gzip
import json
import shutil
import zlib
from pathlib import Path

import highdicom
import nibabel
import numpy as np
import pydicom
import pytest
from dicom_files import SERIES, slice_dataset, write_ct, write_rtstruct
from dicom_files import save as save_file

from monai_tl.config import IngestConfig, Params, PlanConfig
from monai_tl.dataset.nifti import read_image, write_image
from monai_tl.dataset.nifti_case import read_case
from monai_tl.dicom.deidentify import Pseudonyms, seeded_key
from monai_tl.dicom.index import index_folder
from monai_tl.dicom.segmentation import write_segmentation
from monai_tl.dicom.volume import labels_to_ras, read_volume, to_ras
from monai_tl.errors import DataError
from monai_tl.labels import ClassSpec
from monai_tl.progress import Progress
from monai_tl.records import UNKNOWN_SITE, CaseRecord, Dataset, RejectionList
from monai_tl.stages import ingest as ingest_stage
from monai_tl.stages import ingest_case
from monai_tl.stages.ingest import ingest, run

KEY = seeded_key(0)
CLASSES = (
    ClassSpec(name="liver", structures=("Liver",)),
    ClassSpec(name="tumour", structures=("GTV",), type="SCT|108369006|Neoplasm"),
)
SHAPE = (6, 12, 14)


@pytest.fixture(autouse=True)
def one_process(monkeypatch):
    monkeypatch.setenv("MONAI_TL_EXECUTOR", "sequential")


def config(**more):
    return IngestConfig(source="in", classes=CLASSES, **more)


def stored(seed):
    return np.random.default_rng(seed).integers(0, 2000, SHAPE).astype(np.uint16)


def add_series(root, number, *, label=None, **tags):
    """A study of one series; label: None, ``RTSTRUCT`` or ``SEG``, a tumour of 3 x 4 pixels in slices 2 and 3."""
    uid = f"1.2.3.{100 + number}"
    tags = {"SeriesInstanceUID": uid, "StudyInstanceUID": f"{uid}.0", "PatientID": f"CANARY-{number}", **tags}
    folder = root / f"CANARY_study_{number}"
    write_ct(folder, stored(number), **tags)
    if label is None:
        return uid
    series = next(one for one in index_folder(folder, Pseudonyms(KEY)).series if one.uid == uid)
    volume = read_volume(series)
    drawn = np.zeros(SHAPE, np.uint8)
    drawn[2:4, 3:6, 4:8] = 2
    if label == "SEG":
        scheme = config().scheme
        named = scheme.model_copy(update={"classes": (CLASSES[0], CLASSES[1].model_copy(update={"name": "GTV"}))})
        write_segmentation(
            folder / "label.dcm", drawn, volume.geometry, named,
            identity="source", pseudonym="x", uid_key=Pseudonyms(KEY).uid, algorithm=None,
        )  # fmt: skip
    else:
        affine = volume.geometry.affine_lps
        outlines = [
            np.array([(affine @ [c, r, k, 1])[:3] for c, r in ((3.5, 2.5), (7.5, 2.5), (7.5, 5.5), (3.5, 5.5))])
            for k in (2, 3)
        ]
        write_rtstruct(folder / "label.dcm", {"GTV": outlines}, series=uid)
    return uid


def dirty_folder(root):
    add_series(root, 1, label="RTSTRUCT")
    add_series(root, 2, label="SEG")
    add_series(root, 3)
    add_series(root, 4, ImageType=["ORIGINAL", "PRIMARY", "LOCALIZER"])
    write_ct(root / "gap", stored(5), leave_out=[3], SeriesInstanceUID="1.2.3.105", PatientID="CANARY-5")
    shutil.copy(next((root / "CANARY_study_3").glob("*.dcm")), root / "copy.dcm")
    (root / "CANARY notes.txt").write_text("CANARY")
    return root


def do(root, out, cache, **more):
    return ingest(root, out, config(**more), KEY, cache, Progress("ingest"))


def tree(folder):
    return {
        path.relative_to(folder).as_posix(): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()
    }


def test_a_dirty_folder_becomes_cases_and_reasons(tmp_path):
    dirty_folder(tmp_path / "in")
    summary = do(tmp_path / "in", tmp_path / "out" / "cases", tmp_path / "cache")
    dataset = Dataset.read(tmp_path / "out/cases/dataset.json")
    assert dataset == summary.dataset
    assert (dataset.modality, dataset.n_channels, len(dataset.case_ids)) == ("CT", 1, 3)
    rejected = RejectionList.read(tmp_path / "out/cases/rejected.json").rejected
    found = sorted((one.kind, one.code, one.n_files) for one in rejected)
    assert found == [("file", "not_dicom", 1), ("series", "localizer", 6), ("series", "missing_slice", 5)]
    records = [CaseRecord.read(tmp_path / "out/cases" / case_id / "case.json") for case_id in dataset.case_ids]
    assert sorted(record.has_label for record in records) == [False, True, True]
    for record in records:
        folder = tmp_path / "out/cases" / record.case_id
        assert (folder / "label.nii.gz").exists() == record.has_label
        assert sorted(path.name for path in folder.iterdir()) == sorted(
            ["case.json", "image.nii.gz"] + ["label.nii.gz"] * record.has_label
        )
        if record.has_label:
            assert record.class_voxels == {"liver": 0, "tumour": 24}
    duplicates = [record for record in records if any("duplicate" in note for note in record.provenance.notes)]
    assert len(duplicates) == 1


@pytest.mark.parametrize("kind", ["RTSTRUCT", "SEG"])
def test_image_and_label_lie_where_dicom_says(tmp_path, kind):
    """Against nibabel and the standard's equation, not against the package's own reader."""
    add_series(tmp_path / "in", 1, label=kind)
    summary = do(tmp_path / "in", tmp_path / "out", tmp_path / "cache")
    folder = tmp_path / "out" / summary.dataset.case_ids[0]
    image, label = nibabel.load(folder / "image.nii.gz"), nibabel.load(folder / "label.nii.gz")
    assert nibabel.aff2axcodes(image.affine) == ("R", "A", "S")
    assert image.get_data_dtype() == np.int16
    assert label.get_data_dtype() == np.uint8
    assert np.array_equal(image.affine, label.affine)
    array, classes = np.asanyarray(image.dataobj), np.asanyarray(label.dataobj)
    to_voxel = np.linalg.inv(image.affine)
    for k, r, c in [(0, 0, 0), (2, 3, 4), (3, 5, 7), (5, 11, 13), (2, 2, 4)]:
        lps = np.array([-10 + 0.8 * c, -20 + 0.7 * r, 30 + 2.5 * k])
        index = tuple(np.rint(to_voxel @ [*(lps * [-1, -1, 1]), 1])[:3].astype(int))
        assert array[index] == int(stored(1)[k, r, c]) - 1024
        assert classes[index] == (2 if 2 <= k < 4 and 3 <= r < 6 and 4 <= c < 8 else 0)


def test_nothing_tells_who_the_patient_is(tmp_path):
    dirty_folder(tmp_path / "in")
    do(tmp_path / "in", tmp_path / "out", tmp_path / "cache")
    words = [b"CANARY", b"1.2.3.10", SERIES.encode(), b"HOSPITAL", b"STATION"]
    contents = {**tree(tmp_path / "out"), **tree(tmp_path / "cache")}
    assert len(contents) > 10
    for name, content in contents.items():
        plain = gzip.decompress(content) if name.endswith(".gz") else content
        for word in words:
            assert word not in plain, (name, word)
            assert word.decode() not in name


def test_twice_gives_equal_bytes_and_the_second_comes_from_the_cache(tmp_path):
    dirty_folder(tmp_path / "in")
    first = do(tmp_path / "in", tmp_path / "a", tmp_path / "cache")
    second = do(tmp_path / "in", tmp_path / "b", tmp_path / "cache")
    fresh = do(tmp_path / "in", tmp_path / "c", tmp_path / "other cache")
    assert (first.n_from_cache, second.n_from_cache, fresh.n_from_cache) == (0, 3, 0)
    assert tree(tmp_path / "a") == tree(tmp_path / "b") == tree(tmp_path / "c")


def test_several_processes_give_the_bytes_of_one(tmp_path, monkeypatch):
    dirty_folder(tmp_path / "in")
    do(tmp_path / "in", tmp_path / "a", tmp_path / "cache a")
    monkeypatch.setenv("MONAI_TL_EXECUTOR", "loky")
    monkeypatch.setenv("MONAI_TL_JOBS", "2")
    do(tmp_path / "in", tmp_path / "b", tmp_path / "cache b")
    assert tree(tmp_path / "a") == tree(tmp_path / "b")


def test_the_cache_sees_changes_of_bytes_parameters_and_key(tmp_path):
    add_series(tmp_path / "in", 1, label="RTSTRUCT")
    add_series(tmp_path / "in", 2)
    cache = tmp_path / "cache"
    do(tmp_path / "in", tmp_path / "out", cache)
    assert do(tmp_path / "in", tmp_path / "out", cache, min_slices=4).n_from_cache == 0
    assert ingest(tmp_path / "in", tmp_path / "out", config(), seeded_key(1), cache, Progress("x")).n_from_cache == 0
    write_rtstruct(tmp_path / "in/CANARY_study_1/label.dcm", {"GTV": []}, series="1.2.3.101")
    summary = do(tmp_path / "in", tmp_path / "out", cache)
    assert summary.n_from_cache == 1


def test_a_damaged_cache_entry_is_made_again(tmp_path):
    add_series(tmp_path / "in", 1)
    do(tmp_path / "in", tmp_path / "a", tmp_path / "cache")
    (entry,) = (tmp_path / "cache").rglob("image.nii.gz")
    content = bytearray(entry.read_bytes())
    content[50] ^= 1
    entry.write_bytes(content)
    assert do(tmp_path / "in", tmp_path / "b", tmp_path / "cache").n_from_cache == 0
    assert tree(tmp_path / "a") == tree(tmp_path / "b")


def test_case_ids_follow_the_key_and_the_series_only(tmp_path):
    add_series(tmp_path / "in", 1)
    (case_id,) = do(tmp_path / "in", tmp_path / "a", tmp_path / "cache").dataset.case_ids
    assert case_id == Pseudonyms(KEY).case_id("1.2.3.101.0", "1.2.3.101")
    add_series(tmp_path / "moved" / "elsewhere", 1)
    assert do(tmp_path / "moved", tmp_path / "b", tmp_path / "cache").dataset.case_ids == (case_id,)


def test_one_patient_keeps_one_key_over_studies_and_sites_are_told_apart(tmp_path):
    add_series(tmp_path / "in", 1, PatientID="CANARY-7")
    add_series(tmp_path / "in", 2, PatientID="CANARY-7 ", InstitutionName="CANARY OTHER")
    ids = do(tmp_path / "in", tmp_path / "out", tmp_path / "cache").dataset.case_ids
    records = [CaseRecord.read(tmp_path / "out" / case_id / "case.json") for case_id in ids]
    assert len({record.patient_key for record in records}) == 1
    assert len({record.site for record in records}) == 2


def test_a_site_is_an_institution_whatever_scanners_it_has(tmp_path):
    add_series(tmp_path / "in", 1, InstitutionName="CANARY HOSPITAL", Manufacturer="ACME")
    add_series(tmp_path / "in", 2, InstitutionName=" Canary  Hospital", Manufacturer="OTHER", ManufacturerModelName="M")
    add_series(tmp_path / "in", 3, InstitutionName="")
    ids = do(tmp_path / "in", tmp_path / "out", tmp_path / "cache").dataset.case_ids
    sites = [CaseRecord.read(tmp_path / "out" / case_id / "case.json").site for case_id in ids]
    assert len(ids) == 3
    assert sorted(sites) == sorted([Pseudonyms(KEY).site("canary hospital")] * 2 + [UNKNOWN_SITE])


def test_scanner_facts_pass_by_allow_list_only(tmp_path):
    long = "CANARY HOSPITAL, ROOM 5; ask for Dr X"
    add_series(tmp_path / "in", 1, ManufacturerModelName=long, KVP=120, DeviceSerialNumber="CANARY")
    (case_id,) = do(tmp_path / "in", tmp_path / "out", tmp_path / "cache").dataset.case_ids
    scanner = CaseRecord.read(tmp_path / "out" / case_id / "case.json").provenance.scanner
    assert scanner == {"Manufacturer": "ACME", "ConvolutionKernel": "B30f", "KVP": "120", "SliceThickness": "2.5"}


def scanner_of(tmp_path, **tags):
    add_series(tmp_path / "in", 1, **tags)
    (case_id,) = do(tmp_path / "in", tmp_path / "out", tmp_path / "cache").dataset.case_ids
    found = CaseRecord.read(tmp_path / "out" / case_id / "case.json").provenance
    return found.scanner, "".join(found.notes)


def test_a_number_that_no_device_has_is_no_fact(tmp_path):
    """Rounded to six digits the patient's number repeats no word of the patient's, and yet it is known by them."""
    scanner, _ = scanner_of(tmp_path, PatientID="7340918265", KVP="7340918265", EchoTime="-5", SliceThickness="2.5")
    assert scanner["SliceThickness"] == "2.5"
    assert set(scanner).isdisjoint({"KVP", "EchoTime"})


@pytest.mark.parametrize(
    ("text", "tags"),
    [
        ("KANARI-ID-01B", {"PatientID": "KANARI-ID-01B"}),
        ("Kanari O 190305", {"PatientName": "Kanari^Otto", "PatientID": "7"}),
        ("room 190305", {"PatientBirthDate": "19030519", "PatientID": "7"}),
        ("b. 19051903", {"PatientBirthDate": "19030519", "PatientID": "7"}),
        ("for KanariOtto", {"PatientName": "KANARI^OTTO", "PatientID": "7"}),
        ("Anne", {"PatientName": "Kanari^Änne", "PatientID": "7", "SpecificCharacterSet": "ISO_IR 192"}),
        ("CT4711", {"PatientID": "x", "OtherPatientIDs": ["A-1", "H 4711"]}),
        ("acc 99887766", {"AccessionNumber": "99887766", "PatientID": "7"}),
        ("Dr Weiss", {"ReferringPhysicianName": "Weiss^Eva", "PatientID": "7"}),
        ("St Kanarius", {"InstitutionName": "Hospital St. Kanarius", "PatientID": "7"}),
    ],
)
def test_a_scanner_fact_that_repeats_an_identifier_is_dropped_and_noted(tmp_path, text, tags):
    scanner, notes = scanner_of(tmp_path, ManufacturerModelName=text, **tags)
    assert scanner == {"Manufacturer": "ACME", "ConvolutionKernel": "B30f", "SliceThickness": "2.5"}
    assert "ManufacturerModelName left out" in notes
    assert text not in notes


def test_an_identifier_in_one_slice_alone_guards_the_series(tmp_path):
    add_series(tmp_path / "in", 1, ManufacturerModelName="Kanari 7", PatientName="")
    path = tmp_path / "in/CANARY_study_1/003.dcm"
    dataset = pydicom.dcmread(path)
    dataset.PatientName = "Kanari^Otto"
    dataset.save_as(path)
    (case_id,) = do(tmp_path / "in", tmp_path / "out", tmp_path / "cache").dataset.case_ids
    record = CaseRecord.read(tmp_path / "out" / case_id / "case.json")
    assert "ManufacturerModelName" not in record.provenance.scanner


def test_scanner_facts_that_only_look_alike_stay(tmp_path):
    scanner, notes = scanner_of(
        tmp_path, Manufacturer="SIEMENS", ManufacturerModelName="Somatom Force", ConvolutionKernel="Br40d",
        PatientName="Men^Tom", InstitutionName="General Medical Centre",
    )  # fmt: skip
    assert scanner["Manufacturer"] == "SIEMENS"
    assert scanner["ManufacturerModelName"] == "Somatom Force"
    assert "left out" not in notes


def test_a_bad_label_costs_the_label_and_not_the_image(tmp_path):
    add_series(tmp_path / "in", 1, label="RTSTRUCT")
    outline = np.array([[0, 0, 0], [1, 0, 0], [1, 1, 0]], dtype=float)
    write_rtstruct(tmp_path / "in/CANARY_study_1/label.dcm", {"spine": [outline]}, series="1.2.3.101")
    summary = do(tmp_path / "in", tmp_path / "out", tmp_path / "cache")
    assert [(one.kind, one.code) for one in summary.rejected] == [("label", "no_class")]
    again = do(tmp_path / "in", tmp_path / "out", tmp_path / "cache")
    assert again.rejected == summary.rejected
    assert again.n_from_cache == 1
    record = CaseRecord.read(tmp_path / "out" / again.dataset.case_ids[0] / "case.json")
    assert not record.has_label


def test_an_unfinished_rtstruct_is_no_labelled_background(tmp_path):
    uid = add_series(tmp_path / "in", 1, label="RTSTRUCT")
    write_rtstruct(tmp_path / "in/CANARY_study_1/label.dcm", {"GTV": [], "Liver": []}, series=uid)
    summary = do(tmp_path / "in", tmp_path / "out", tmp_path / "cache")
    assert [(one.kind, one.code) for one in summary.rejected] == [("label", "no_outline")]
    record = CaseRecord.read(tmp_path / "out" / summary.dataset.case_ids[0] / "case.json")
    assert (record.has_label, record.class_voxels) == (False, {})


def test_labels_of_a_refused_series_are_named(tmp_path):
    add_series(tmp_path / "in", 1, label="RTSTRUCT")
    add_series(tmp_path / "in", 2)
    (tmp_path / "in/CANARY_study_1/003.dcm").unlink()
    summary = do(tmp_path / "in", tmp_path / "out", tmp_path / "cache")
    assert sorted(one.code for one in summary.rejected) == ["missing_slice", "series_refused"]


def test_two_readers_who_disagree_are_not_guessed_between(tmp_path):
    uid = add_series(tmp_path / "in", 1, label="SEG")
    path = tmp_path / "in/CANARY_study_1/second.dcm"
    outline = np.array([[-8, -18, 35], [-4, -18, 35], [-4, -15, 35], [-8, -15, 35]], dtype=float)
    write_rtstruct(path, {"GTV": [outline]}, series=uid)
    summary = do(tmp_path / "in", tmp_path / "out", tmp_path / "cache")
    assert [one.code for one in summary.rejected] == ["contested_class"] * 2
    write_rtstruct(path, {"Liver": [outline]}, series=uid)
    summary = do(tmp_path / "in", tmp_path / "out", tmp_path / "cache")
    assert summary.rejected == ()
    record = CaseRecord.read(tmp_path / "out" / summary.dataset.case_ids[0] / "case.json")
    assert record.class_voxels["tumour"] == 24
    assert record.class_voxels["liver"] > 0


def seg_of(tmp_path, name, *masks):
    """A SEG by highdicom with overlapping segments, the classes in order; None leaves a class out."""
    paths = sorted((tmp_path / "in/CANARY_study_1").glob("0*.dcm"), reverse=True)
    given = [(spec, mask) for spec, mask in zip(CLASSES, masks, strict=True) if mask is not None]
    descriptions = [
        highdicom.seg.SegmentDescription(
            number, spec.structures[0], highdicom.sr.CodedConcept("123037004", "SCT", "Anatomical Structure"),
            highdicom.sr.CodedConcept("85756007", "SCT", "Tissue"), "MANUAL",
        )
        for number, (spec, _) in enumerate(given, start=1)
    ]  # fmt: skip
    highdicom.seg.Segmentation(
        [pydicom.dcmread(path) for path in paths], np.stack([mask for _, mask in given], axis=-1).astype(np.uint8),
        "BINARY", descriptions, highdicom.UID(), 1, highdicom.UID(), 1, "else", "else", "1", "1",
    ).save_as(tmp_path / f"in/CANARY_study_1/{name}.dcm")  # fmt: skip


@pytest.mark.parametrize("first", ["liver holds the tumour", "liver leaves the tumour out"])
def test_readers_who_agree_but_for_what_lies_under_a_later_class_are_joined(tmp_path, first):
    write_ct(tmp_path / "in/CANARY_study_1", stored(1), PatientName="CANARY^N", StudyDate="", StudyTime="",
             AccessionNumber="", StudyID="", PatientSex="", PatientBirthDate="", ReferringPhysicianName="")  # fmt: skip
    liver, tumour = np.zeros(SHAPE, bool), np.zeros(SHAPE, bool)
    liver[1:5, 2:9, 2:10] = True
    tumour[2:4, 4:10, 4:7] = True
    seg_of(tmp_path, "a", liver | tumour if first == "liver holds the tumour" else liver & ~tumour, tumour)
    seg_of(tmp_path, "b", liver | tumour, None)
    summary = do(tmp_path / "in", tmp_path / "out", tmp_path / "cache")
    assert summary.rejected == ()
    record = CaseRecord.read(tmp_path / "out" / summary.dataset.case_ids[0] / "case.json")
    assert record.class_voxels == {"liver": int((liver & ~tumour).sum()), "tumour": int(tumour.sum())}
    # one pixel of liver outside the tumour is a difference again
    liver[4, 11, 13] = True
    seg_of(tmp_path, "b", liver | tumour, None)
    summary = do(tmp_path / "in", tmp_path / "out", tmp_path / "cache")
    assert [one.code for one in summary.rejected] == ["contested_class"] * 2
    assert "draw liver differently" in summary.rejected[0].reason


def test_mixed_modalities_keep_the_majority(tmp_path):
    for number in (1, 2):
        add_series(tmp_path / "in", number)
    add_series(tmp_path / "in", 3, Modality="MR", SOPClassUID="1.2.840.10008.5.1.4.1.1.4")
    summary = do(tmp_path / "in", tmp_path / "out", tmp_path / "cache", max_rejected_fraction=0.0)
    assert summary.dataset.modality == "CT"
    assert [one.code for one in summary.rejected] == ["other_modality"]
    assert len(list((tmp_path / "out").glob("case-*"))) == 2


def test_too_many_refusals_fail_and_leave_nothing(tmp_path):
    add_series(tmp_path / "in", 1)
    for number in (2, 3):
        write_ct(tmp_path / f"in/{number}", stored(number), leave_out=[3], SeriesInstanceUID=f"1.2.3.{number}")
    state = tmp_path / "state"
    with pytest.raises(DataError, match=r"2 of 3 image series are refused \(missing_slice 2\)") as caught:
        do(tmp_path / "in", tmp_path / "out", state / "cache")
    assert not (tmp_path / "out").exists()
    assert str(state / "rejected.json") in str(caught.value)
    assert "whois" in str(caught.value)
    reasons = RejectionList.read(state / "rejected.json").rejected
    assert [one.code for one in reasons] == ["missing_slice"] * 2
    assert all("gap of 5.00 mm" in one.reason for one in reasons)
    assert do(tmp_path / "in", tmp_path / "out", state / "cache", max_rejected_fraction=0.7).rejected == reasons
    # the reasons lie in the output now
    assert not (state / "rejected.json").exists()


@pytest.mark.parametrize("backend", ["sequential", "loky"])
def test_an_unexpected_fault_of_one_series_costs_that_series_alone(tmp_path, monkeypatch, backend):
    monkeypatch.setenv("MONAI_TL_EXECUTOR", backend)
    monkeypatch.setenv("MONAI_TL_JOBS", "2")
    for number in (1, 2, 3):
        add_series(tmp_path / "in", number)
    monkeypatch.setattr(ingest_stage, "ingest_series", fail_on_second)
    summary = do(tmp_path / "in", tmp_path / "out", tmp_path / "cache")
    (refused,) = summary.rejected
    assert (refused.kind, refused.code, refused.n_files) == ("series", "failed", SHAPE[0])
    assert "KeyError at " in refused.reason
    assert "CANARY" not in refused.reason
    assert len(summary.dataset.case_ids) == 2


def fail_on_second(task):
    """The stage's work, with a fault in it whose text names a patient."""

    def choke(volume):
        if volume.patient_id == "CANARY-2":
            raise KeyError("CANARY-2")
        return to_ras(volume)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ingest_case, "to_ras", choke)
        return ingest_case.ingest_series(task)


def test_a_disk_that_takes_no_more_ends_the_stage(tmp_path, monkeypatch):
    """No fault of the series: listed as refused, good ones would be lost in silence."""
    add_series(tmp_path / "in", 1)

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(ingest_case, "write_image", full)
    with pytest.raises(OSError, match="No space"):
        do(tmp_path / "in", tmp_path / "out", tmp_path / "cache", max_rejected_fraction=1.0)


def test_no_case_left_is_an_error(tmp_path):
    add_series(tmp_path / "in", 1, ImageType=["ORIGINAL", "PRIMARY", "LOCALIZER"])
    with pytest.raises(DataError, match=r"no case is left of in.*localizer 1"):
        do(tmp_path / "in", tmp_path / "out", tmp_path / "cache", max_rejected_fraction=1.0)
    (refused,) = RejectionList.read(tmp_path / "rejected.json").rejected
    assert "nothing is to be done" in refused.reason


def test_an_empty_folder_says_where_the_setting_points(tmp_path):
    (tmp_path / "in").mkdir()
    with pytest.raises(DataError, match=r"no DICOM file was found in in, where ingest\.source of params\.yaml points"):
        do(tmp_path / "in", tmp_path / "out", tmp_path / "cache")
    assert not (tmp_path / "rejected.json").exists()


def test_a_missing_source_is_an_error(tmp_path):
    with pytest.raises(DataError, match=r"ingest\.source"):
        do(tmp_path / "absent", tmp_path / "out", tmp_path / "cache")


def test_a_tilted_case_keeps_its_label_on_the_image(tmp_path):
    """Label and image are straightened alike: a bright box stays under its label."""
    values = np.zeros((10, 20, 20), np.uint16)
    drawn = np.zeros((10, 20, 20), np.uint8)
    values[3:7, 8:13, 6:12], drawn[3:7, 8:13, 6:12] = 2000, 2
    folder = tmp_path / "in"
    write_ct(folder, values, step=(0.0, 0.8, 2.5), RescaleIntercept=0)
    (series,) = index_folder(folder, Pseudonyms(KEY)).series
    volume = read_volume(series)
    affine = volume.geometry.affine_lps
    corners = ((5.5, 7.5), (11.5, 7.5), (11.5, 12.5), (5.5, 12.5))
    outlines = [np.array([(affine @ [c, r, k, 1])[:3] for c, r in corners]) for k in range(3, 7)]
    write_rtstruct(folder / "label.dcm", {"GTV": outlines})
    summary = do(folder, tmp_path / "out", tmp_path / "cache")
    case = tmp_path / "out" / summary.dataset.case_ids[0]
    image, label = read_image(case / "image.nii.gz")[0], read_image(case / "label.nii.gz")[0]
    assert any("gantry tilt" in note for note in CaseRecord.read(case / "case.json").provenance.notes)
    assert np.array_equal(label, labels_to_ras(drawn, volume))
    assert (image[label == 2] > 1000).all()
    assert (image[label == 0] <= 1000).all()


def test_truncated_pixels_of_one_series_do_not_stop_the_others(tmp_path):
    add_series(tmp_path / "in", 1)
    add_series(tmp_path / "in", 2)
    short = slice_dataset(
        stored(2)[5], (-10, -20, 42.5), 1, SeriesInstanceUID="1.2.3.102", StudyInstanceUID="1.2.3.102.0",
        PatientID="CANARY-2", PixelData=b"\0" * 100,
    )  # fmt: skip
    save_file(short, tmp_path / "in/CANARY_study_2/001.dcm")
    summary = do(tmp_path / "in", tmp_path / "out", tmp_path / "cache")
    assert [one.code for one in summary.rejected] == ["truncated_pixels"]
    assert len(summary.dataset.case_ids) == 1


def decathlon(root: Path) -> Path:
    entries = []
    for number in range(3):
        image = np.random.default_rng(number).integers(0, 100, (6, 7, 8)).astype(np.int16)
        label = (image > 50).astype(np.uint8) * (number % 3)
        write_image(root / f"imagesTr/CANARY_{number}.nii.gz", image, np.diag([1, 1, 2.0, 1]))
        write_image(root / f"labelsTr/CANARY_{number}.nii.gz", label, np.diag([1, 1, 2.0, 1]))
        entries.append({"image": f"./imagesTr/CANARY_{number}.nii.gz", "label": f"./labelsTr/CANARY_{number}.nii.gz"})
    described = {"name": "demo", "modality": {"0": "MRI"}, "training": entries, "test": ["./imagesTs/CANARY_9.nii.gz"]}
    (root / "dataset.json").write_text(json.dumps(described))
    (root / "patients.json").write_text('{"CANARY_0": "CANARY p", "CANARY_1": "CANARY p"}')
    return root


def test_a_decathlon_folder_becomes_cases(tmp_path):
    decathlon(tmp_path / "in")
    content = bytearray((tmp_path / "in/imagesTr/CANARY_2.nii.gz").read_bytes())
    content[-6] ^= 1
    (tmp_path / "in/imagesTr/CANARY_2.nii.gz").write_bytes(content)
    summary = do(tmp_path / "in", tmp_path / "out", tmp_path / "cache")
    assert (summary.dataset.modality, len(summary.dataset.case_ids)) == ("MR", 2)
    assert summary.dataset.channels == ("MRI",)
    assert sorted((one.kind, one.code) for one in summary.rejected) == [("case", "damaged"), ("case", "damaged")]
    records = [CaseRecord.read(tmp_path / "out" / case_id / "case.json") for case_id in summary.dataset.case_ids]
    assert len({record.patient_key for record in records}) == 1
    assert {record.provenance.kind for record in records} == {"nifti"}
    # a NIfTI file does not say where it was made
    assert {record.site for record in records} == {UNKNOWN_SITE}
    assert records[0].spacing_mm == (1.0, 1.0, 2.0)
    for name, packed in tree(tmp_path / "out").items():
        assert b"CANARY" not in (zlib.decompress(packed, 31) if name.endswith(".gz") else packed)


def test_no_folder_or_file_of_the_input_is_named(tmp_path):
    """The Decathlon's description may list files in folders of any name, a patient's too."""
    root = decathlon(tmp_path / "in")
    described = json.loads((root / "dataset.json").read_text())
    for part in ("image", "label"):
        old = root / described["training"][0][part]
        new = old.parent / "KANARI_Otto_2" / old.name
        new.parent.mkdir()
        old.rename(new)
        described["training"][0][part] = f"./{new.relative_to(root).as_posix()}"
    (root / "dataset.json").write_text(json.dumps(described))
    for part in ("image", "label"):
        path = root / described["training"][0][part]
        whole = path.read_bytes()
        path.write_bytes(whole[:-4])
        do(root, tmp_path / "out", tmp_path / "cache")
        text = (tmp_path / "out/rejected.json").read_text()
        assert "KANARI" not in text
        assert "imagesTr" not in text
        assert f"the {part} file is damaged" in text
        path.write_bytes(whole)


@pytest.mark.parametrize("change", [{123: 7}, {108: 0, 109: 0, 110: 192, 111: 127}])
def test_one_bad_header_does_not_stop_the_others(tmp_path, change):
    """A unit that does not exist; a place of the voxels that is no number."""
    root = decathlon(tmp_path / "in")
    path = root / "imagesTr/CANARY_2.nii.gz"
    content = bytearray(gzip.decompress(path.read_bytes()))
    for position, value in change.items():
        content[position] = value
    path.write_bytes(gzip.compress(content))
    summary = do(root, tmp_path / "out", tmp_path / "cache")
    assert len(summary.dataset.case_ids) == 2
    assert len(summary.rejected) == 2  # and the case whose file is missing


def test_what_nobody_expected_costs_one_case_and_quotes_nothing(tmp_path, monkeypatch):
    root = decathlon(tmp_path / "in")

    def explode(case, scheme):
        if case.name == "CANARY_2":
            raise KeyError(f"no such thing in {case.name}")
        return read_case(case, scheme)

    monkeypatch.setattr("monai_tl.stages.ingest_case.read_case", explode)
    summary = do(root, tmp_path / "out", tmp_path / "cache")
    assert len(summary.dataset.case_ids) == 2
    (failed,) = [one for one in summary.rejected if one.code == "failed"]
    assert "KeyError" in failed.reason
    assert "CANARY" not in failed.reason


def test_a_full_disk_is_no_fault_of_the_case(tmp_path, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("monai_tl.stages.ingest_case.write_image", full)
    with pytest.raises(OSError, match="No space"):
        do(decathlon(tmp_path / "in"), tmp_path / "out", tmp_path / "cache")


def nnunet(root: Path) -> Path:
    for number in range(3):
        image = np.random.default_rng(number).integers(0, 100, (6, 7, 8)).astype(np.int16)
        write_image(root / f"imagesTr/CANARY{number}_0000.nii.gz", image, np.diag([1, 1, 2.0, 1]))
        label = (image > 50).astype(np.uint8) * (1 + number % 2)
        write_image(root / f"labelsTr/CANARY{number}.nii.gz", label, np.diag([1, 1, 2.0, 1]))
    (root / "dataset.json").write_text(json.dumps({"channel_names": {"0": "CT"}, "labels": {"background": 0}}))
    return root


def image_hashes(out):
    return [CaseRecord.read(path).provenance.image_sha256 for path in sorted(out.glob("case-*/case.json"))]


@pytest.mark.parametrize("layout", [decathlon, nnunet])
def test_an_image_under_two_names_is_known_whatever_its_label(tmp_path, layout):
    """One copy is byte for byte the same, one is packed and stored otherwise; both have another label."""
    root = layout(tmp_path / "in")
    images = sorted((root / "imagesTr").iterdir())
    image = nibabel.load(images[0])
    nibabel.save(nibabel.Nifti1Image(np.asanyarray(image.dataobj).astype(np.float64), image.affine), images[1])
    images[2].write_bytes(images[0].read_bytes())
    do(root, tmp_path / "out", tmp_path / "cache")
    assert len(image_hashes(tmp_path / "out")) == 3
    assert len(set(image_hashes(tmp_path / "out"))) == 1
    write_image(images[2], np.asanyarray(image.dataobj) + np.int16(1), image.affine)
    do(root, tmp_path / "out", tmp_path / "cache")
    assert len(set(image_hashes(tmp_path / "out"))) == 2


def test_a_dicom_image_under_two_names_is_known(tmp_path):
    add_series(tmp_path / "in", 1, label="SEG")
    add_series(tmp_path / "in", 2)
    for number in (1, 3):
        write_ct(
            tmp_path / f"in/{number}", stored(1), SeriesInstanceUID=f"1.2.3.9{number}", PatientID=f"CANARY-9{number}"
        )
    do(tmp_path / "in", tmp_path / "out", tmp_path / "cache")
    hashes = image_hashes(tmp_path / "out")
    assert sorted(hashes.count(one) for one in set(hashes)) == [1, 3]


def test_the_stage_runs_in_a_workspace(tmp_path):
    add_series(tmp_path / "workspace/data", 1, label="SEG")
    (tmp_path / "key").write_bytes(KEY)
    (tmp_path / "key").chmod(0o600)
    section = IngestConfig(source="data", classes=CLASSES, key_file=str(tmp_path / "key"))
    plan = PlanConfig(source=None, network={"name": "unet"})
    run(tmp_path / "workspace", Params(ingest=section, plan=plan, finetune={"arms": ["scratch"]}))
    dataset = Dataset.read(tmp_path / "workspace/artifacts/cases/dataset.json")
    assert dataset.key_id == Pseudonyms(KEY).key_id
    assert (tmp_path / "workspace/.monai_tl/cache").is_dir()
