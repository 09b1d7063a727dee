"""Nothing that tells who the patient is comes through ``deidentify``: words planted in every place DICOM has."""

from __future__ import annotations

import contextlib
import io
import json
import logging
import warnings
from datetime import date
from pathlib import Path

import numpy as np
import pydicom
import pytest
from canaries import Canaries, blobs_of
from talking_study import LATER_DATE, PATIENT_NUMBER, SHAPE, STEP, STUDY_DATE, stored_pixels, write_talking_study

from monai_tl.commands import deidentify
from monai_tl.dicom.deidentify import Pseudonyms, create_key, seeded_key
from monai_tl.dicom.index import index_folder
from monai_tl.dicom.volume import read_volume


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    """(folder of the input, of the output, canaries, all that was said meanwhile)."""
    root = tmp_path_factory.mktemp("talking")
    canaries = Canaries()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        write_talking_study(root / "in", canaries)
    (root / "in" / f"{canaries.plant('name of a foreign file')}.txt").write_text(
        canaries.plant("text of a foreign file")
    )
    create_key(root / "key")
    said = io.StringIO()
    handler = logging.StreamHandler(said)
    logging.getLogger().addHandler(handler)
    with (
        contextlib.redirect_stdout(said),
        contextlib.redirect_stderr(said),
        warnings.catch_warnings(record=True) as warned,
    ):
        warnings.simplefilter("always")
        said.write(deidentify.run(root / "in", root / "out", key_file=root / "key"))
    logging.getLogger().removeHandler(handler)
    said.write("\n".join(str(one.message) for one in warned))
    return root / "in", root / "out", canaries, said.getvalue()


def datasets(folder: Path) -> list[pydicom.Dataset]:
    return [pydicom.dcmread(path) for path in sorted(folder.rglob("*.dcm"))]


def of_modality(folder: Path, modality: str) -> pydicom.Dataset:
    return next(one for one in datasets(folder) if one.Modality == modality)


def plain_series(folder: Path) -> list[pydicom.Dataset]:
    """The six single-frame slices, by position."""
    found = [one for one in datasets(folder) if one.Modality == "CT" and "NumberOfFrames" not in one]
    largest = max(
        {one.SeriesInstanceUID for one in found}, key=lambda uid: sum(one.SeriesInstanceUID == uid for one in found)
    )
    return sorted(
        (one for one in found if one.SeriesInstanceUID == largest), key=lambda one: one.ImagePositionPatient[2]
    )


def test_the_search_finds_every_canary_in_the_input(study):
    source, _, canaries, _ = study
    assert len(canaries.texts) >= 90
    assert set(canaries.texts) - canaries.found_in(blobs_of(source)) == set()


def test_no_canary_leaves(study):
    _, out, canaries, said = study
    assert len(list(out.rglob("*.dcm"))) == 10
    assert canaries.found_in(blobs_of(out)) == set()
    assert canaries.found_in(iter([said.encode()])) == set()


def test_the_foreign_file_is_listed_and_not_copied(study):
    _, out, _, _ = study
    rejected = json.loads((out / "rejected.json").read_text())["rejected"]
    assert [(one["code"], one["kind"]) for one in rejected] == [("not_dicom", "file")]
    assert {path.suffix for path in out.rglob("*") if path.is_file()} == {".dcm", ".json"}


def test_every_dataset_says_what_was_done(study):
    for dataset in datasets(study[1]):
        assert dataset.PatientIdentityRemoved == "YES"
        assert dataset.DeidentificationMethod
        methods = dataset.DeidentificationMethodCodeSequence
        assert [(item.CodeValue, item.CodingSchemeDesignator) for item in methods] == [
            ("113100", "DCM"), ("113105", "DCM"), ("113107", "DCM"),
        ]  # fmt: skip
        assert dataset.LongitudinalTemporalInformationModified == "MODIFIED"
        assert dataset.preamble == b"\0" * 128


def test_nothing_private_no_overlay_and_no_curve_is_left(study):
    for dataset in datasets(study[1]):
        groups = {element.tag.group for element in dataset.iterall()}
        assert not any(group % 2 or group & 0xFF00 in (0x5000, 0x6000) or group == 0xFFFC for group in groups)


def test_references_still_resolve(study):
    out = study[1]
    slices = plain_series(out)
    instances = [one.SOPInstanceUID for one in slices]
    (series,), (frame,), (the_study,) = (
        {one[keyword].value for one in slices}
        for keyword in ("SeriesInstanceUID", "FrameOfReferenceUID", "StudyInstanceUID")
    )
    structures = of_modality(out, "RTSTRUCT")
    named = structures.ReferencedFrameOfReferenceSequence[0]
    assert named.FrameOfReferenceUID == frame
    assert named.RTReferencedStudySequence[0].RTReferencedSeriesSequence[0].SeriesInstanceUID == series
    assert {roi.ReferencedFrameOfReferenceUID for roi in structures.StructureSetROISequence} == {frame}
    drawn_on = [
        contour.ContourImageSequence[0].ReferencedSOPInstanceUID
        for roi in structures.ROIContourSequence
        for contour in roi.ContourSequence
    ]
    assert drawn_on == instances[:2]
    labels = of_modality(out, "SEG")
    assert (labels.FrameOfReferenceUID, labels.StudyInstanceUID) == (frame, the_study)
    assert labels.ReferencedSeriesSequence[0].SeriesInstanceUID == series
    listed = {item.ReferencedSOPInstanceUID for item in labels.ReferencedSeriesSequence[0].ReferencedInstanceSequence}
    assert listed == set(instances)
    sources = {
        item.ReferencedSOPInstanceUID
        for element in labels.iterall()
        if element.keyword == "SourceImageSequence"
        for item in element.value
    }
    assert sources == set(instances)
    enhanced = next(one for one in datasets(out) if one.Modality == "CT" and "NumberOfFrames" in one)
    assert enhanced.FrameOfReferenceUID == frame


def test_uids_are_of_the_hash_or_of_the_standard(study):
    for dataset in datasets(study[1]):
        for element in [*dataset.iterall(), *dataset.file_meta]:
            if element.VR == "UI":
                for uid in [element.value] if element.VM == 1 else element.value:
                    assert uid.is_valid
                    assert uid.startswith("2.25.") or uid in pydicom.uid.UID_dictionary


def test_meta_and_dataset_agree(study):
    for dataset in datasets(study[1]):
        assert dataset.file_meta.MediaStorageSOPInstanceUID == dataset.SOPInstanceUID
        assert dataset.file_meta.MediaStorageSOPClassUID == dataset.SOPClassUID


def test_dates_move_together_and_intervals_stay(study):
    out = study[1]
    dates = {one.StudyDate for one in datasets(out) if "StudyDate" in one}
    assert len({one.PatientID for one in datasets(out)}) == 1
    first, later = sorted(as_date(text) for text in dates)
    assert (later - first).days == (as_date(LATER_DATE) - as_date(STUDY_DATE)).days
    plain = plain_series(out)[0]
    moved = (as_date(STUDY_DATE) - as_date(plain.StudyDate)).days
    assert moved > 0
    for keyword, before in (("AcquisitionDate", "19340713"), ("SeriesDate", "19340716")):
        assert (as_date(before) - as_date(plain[keyword].value)).days == moved
    # the time stays, its zone goes
    assert plain.AcquisitionDateTime[8:] == "101112"
    assert (as_date("19340714") - as_date(plain.AcquisitionDateTime[:8])).days == moved
    assert plain.StudyTime == "101112"
    assert (as_date(LATER_DATE) - as_date(of_modality(out, "RTSTRUCT").StructureSetDate)).days == moved


def as_date(text: str) -> date:
    return date(int(text[:4]), int(text[4:6]), int(text[6:8]))


def test_the_images_are_what_they_were(study):
    source, out = study[0], study[1]
    for one in plain_series(out):
        k = round((float(one.ImagePositionPatient[2]) - 30.0) / STEP)
        np.testing.assert_array_equal(one.pixel_array, stored_pixels()[k])
    hasher = Pseudonyms(seeded_key(1))
    before, after = (
        next(one for one in index_folder(folder, hasher).series if len(one.headers) == SHAPE[0])
        for folder in (source, out)
    )
    one, other = read_volume(before), read_volume(after)
    np.testing.assert_array_equal(one.array, other.array)
    np.testing.assert_array_equal(one.affine_lps, other.affine_lps)
    assert one.scaling == other.scaling
    assert len(after.labels) == len(before.labels) == 2


def test_compressed_frames_stay_in_their_syntax(study):
    syntaxes = [one.file_meta.TransferSyntaxUID.name for one in plain_series(study[1])]
    assert syntaxes[4:] == ["RLE Lossless", "JPEG 2000 Image Compression (Lossless Only)"]
    assert set(syntaxes[:4]) == {"Explicit VR Little Endian"}


def test_the_label_map_is_what_it_was(study):
    before, after = (of_modality(folder, "SEG") for folder in (study[0], study[1]))
    np.testing.assert_array_equal(before.pixel_array, after.pixel_array)
    assert [item.SegmentNumber for item in after.SegmentSequence] == [1, 2]


def test_names_of_structures_stay_where_they_are_words_of_anatomy(study):
    structures, labels = of_modality(study[1], "RTSTRUCT"), of_modality(study[1], "SEG")
    names = [roi.ROIName for roi in structures.StructureSetROISequence]
    assert names[0] == "GTV-1"
    assert names[1].startswith("X")
    shown = [item.SegmentLabel for item in labels.SegmentSequence]
    assert shown[0] == "Liver"
    assert shown[1].startswith("X")
    kinds = [item.SegmentedPropertyTypeCodeSequence[0] for item in labels.SegmentSequence]
    assert [(kind.CodeValue, kind.CodeMeaning) for kind in kinds] == [("10200004", "Liver"), ("64033007", "Kidney")]


def test_contours_are_what_they_were(study):
    before, after = (of_modality(folder, "RTSTRUCT") for folder in (study[0], study[1]))
    assert [[contour.ContourData for contour in roi.ContourSequence] for roi in after.ROIContourSequence] == [
        [contour.ContourData for contour in roi.ContourSequence] for roi in before.ROIContourSequence
    ]


def test_a_second_run_gives_the_same_bytes_and_another_key_other_names(study, tmp_path, monkeypatch):
    source, out = study[0], study[1]
    monkeypatch.setenv("MONAI_TL_EXECUTOR", "sequential")
    deidentify.run(source, tmp_path / "again", key_file=source.parent / "key")
    assert contents(tmp_path / "again") == contents(out)
    create_key(tmp_path / "other")
    deidentify.run(source, tmp_path / "else", key_file=tmp_path / "other")
    one, other = contents(out), contents(tmp_path / "else")
    assert set(one) & set(other) == {"rejected.json"}
    uids = [
        {
            element.value
            for dataset in datasets(folder)
            for element in dataset.iterall()
            if element.keyword == "SOPInstanceUID"
        }
        for folder in (out, tmp_path / "else")
    ]
    assert uids[0].isdisjoint(uids[1])
    shifts = {as_date(plain_series(folder)[0].StudyDate) for folder in (out, tmp_path / "else")}
    assert len(shifts) == 2


def contents(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()
    }


def test_the_record_number_is_in_no_file_name(study):
    out = study[1]
    names = [part for path in out.rglob("*") for part in path.relative_to(out).parts]
    hashes = {part.removeprefix("patient-").removesuffix(".dcm") for part in names} - {"rejected.json"}
    assert all(set(name) <= set("0123456789abcdef") for name in hashes)
    assert not any(PATIENT_NUMBER in name for name in names)
